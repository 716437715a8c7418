package edit

import "strings"

// slashLocal reports whether a word is a path: ./x, ../x, /x, ~/x.
func slashLocal(w string) bool {
	return strings.HasPrefix(w, "/") || strings.HasPrefix(w, "./") || strings.HasPrefix(w, "../") || strings.HasPrefix(w, "~/") ||
		w == "." || w == ".." || strings.HasPrefix(w, "file:")
}

func localOr(suffixes ...string) func(string) bool {
	return func(w string) bool {
		if isURL(w) {
			return false
		}
		for _, s := range suffixes {
			if strings.HasSuffix(w, s) {
				return true
			}
		}
		return slashLocal(w)
	}
}

var apt = &manager{
	name:     "apt",
	programs: []string{"apt", "apt-get"},
	verbs:    [][]string{{"install"}},
	options: lazily(options{
		"-q --quiet": talk, "-qq": talk, "-y --yes --assume-yes": talk, "--show-progress": talk, "--assume-no": never,
		"-V --verbose-versions": talk, "--no-color": talk, "--color": talk, "-u --show-upgraded": talk,
		"-s --simulate --just-print --dry-run --recon --no-act": never, "-h --help": never, "-v --version": never,
		"--print-uris": never, "-d --download-only": never,
		"--no-install-recommends": keep, "--install-recommends": keep, "--install-suggests": keep, "--no-install-suggests": keep,
		"-t --target-release --default-release": keepValue, "-o --option": keepValue, "-a --host-architecture": keepValue,
		"-c --config-file": keepPath, "--allow-downgrades": keep, "--allow-unauthenticated": keep,
		"--allow-change-held-packages": keep, "--allow-remove-essential": keep, "--reinstall": keep, "--no-upgrade": keep,
		"--only-upgrade": keep, "-f --fix-broken": keep, "-m --ignore-missing --fix-missing": keep, "--no-remove": keep,
		"--force-yes": keep, "--purge": keep, "--auto-remove --autoremove": keep, "--mark-auto": keep,
	}),
	// apt says itself that its command line is not for scripts.
	command: func(string, []string) []string {
		return []string{"apt-get", "install", "-y", "--no-install-recommends"}
	},
	drop:    []string{"--no-install-recommends"},
	instead: map[string]string{"--install-recommends": "--no-install-recommends"},
	prepare: "apt-get update",
	local:   localOr(".deb"),
	base:    baseBefore("=/"),
}

var apk = &manager{
	name:     "apk",
	programs: []string{"apk"},
	verbs:    [][]string{{"add"}},
	options: lazily(options{
		"-q --quiet": talk, "-v --verbose": talk, "--progress": talk, "--no-progress": talk, "--progress-fd": talkValue,
		"-i --interactive": talk, "--no-interactive": talk, "--no-cache": talk, "-U --update-cache": talk, "--cache-dir": talkValue,
		"--cache-max-age": talkValue, "--wait": talkValue, "--timeout": talkValue,
		"-h --help": never, "-V --version": never, "-s --simulate": never,
		"-t --virtual": keepValue, "-u --upgrade": keep, "-l --latest": keep, "--allow-untrusted": keep, "-f --force": keep,
		"--force-overwrite": keep, "--no-scripts": keep, "-X --repository": keepValue, "--repositories-file": keepPath,
		"-p --root": keepPath, "--initdb": keep, "--arch": keepValue, "--no-chown": keep, "--keys-dir": keepPath,
	}),
	command: func(string, []string) []string { return []string{"apk", "add", "--no-cache"} },
	local:   localOr(".apk"),
	base:    baseBefore("=<>~@"),
}

var dnf = &manager{
	name:     "dnf",
	programs: []string{"dnf", "microdnf", "yum"},
	verbs:    [][]string{{"install", "in"}},
	options: lazily(options{
		"-q --quiet": talk, "-v --verbose": talk, "-y --assumeyes": talk, "--color": talkValue, "-d --debuglevel": talkValue,
		"-e --errorlevel": talkValue, "-C --cacheonly": talk, "--refresh": talk, "-R --randomwait": talkValue,
		"-h --help": never, "--version": never, "--assumeno": never, "--downloadonly": never,
		"--setopt": keepValue, "--enablerepo --enable-repo": keepValue, "--disablerepo --disable-repo": keepValue,
		"--repo --repoid": keepValue, "-x --exclude": keepValue, "--allowerasing": keep, "-b --best": keep, "--nobest --no-best": keep,
		"--skip-broken": keep, "--nogpgcheck --no-gpgchecks": keep, "--nodocs": keep, "--installroot": keepPath,
		"--releasever": keepValue, "-c --config": keepPath, "--forcearch": keepValue, "--noplugins": keep,
		"--allow-downgrade": keep,
	}),
	command: func(program string, _ []string) []string { return []string{program, "install", "-y"} },
	local:   localOr(".rpm"),
}
