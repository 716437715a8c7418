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
	removes:  []string{"remove", "purge"},
	options: lazily(options{
		"-q --quiet": talk, "-qq": talk, "-y --yes --assume-yes": talk, "--show-progress": talk, "--assume-no": never,
		"-V --verbose-versions": talk, "--no-color": talk, "--color": talk, "-u --show-upgraded": talk,
		"-s --simulate --just-print --dry-run --recon --no-act": never, "-h --help": never, "-v --version": never,
		"--print-uris": never, "-d --download-only": never,
		"--no-install-recommends": retain, "--install-recommends": retain, "--install-suggests": retain, "--no-install-suggests": retain,
		"-t --target-release --default-release": retainValue, "-o --option": retainValue, "-a --host-architecture": retainValue,
		"-c --config-file": retainPath, "--allow-downgrades": retain, "--allow-unauthenticated": retain,
		"--allow-change-held-packages": retain, "--allow-remove-essential": retain, "--reinstall": retain, "--no-upgrade": retain,
		"--only-upgrade": retain, "-f --fix-broken": retain, "-m --ignore-missing --fix-missing": retain, "--no-remove": retain,
		"--force-yes": retain, "--purge": retain, "--auto-remove --autoremove": retain, "--mark-auto": retain,
	}),
	// apt says itself that its command line is not for scripts.
	command: func(string, []string) []string {
		return []string{"apt-get", "install", "-y"}
	},
	beside:  []string{"--no-install-recommends", "--install-recommends"},
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
		"-t --virtual": retainValue, "-u --upgrade": retain, "-l --latest": retain, "--allow-untrusted": retain, "-f --force": retain,
		"--force-overwrite": retain, "--no-scripts": retain, "-X --repository": retainValue, "--repositories-file": retainPath,
		"-p --root": retainPath, "--initdb": retain, "--arch": retainValue, "--no-chown": retain, "--keys-dir": retainPath,
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
		"--setopt": retainValue, "--enablerepo --enable-repo": retainValue, "--disablerepo --disable-repo": retainValue,
		"--repo --repoid": retainValue, "-x --exclude": retainValue, "--allowerasing": retain, "-b --best": retain, "--nobest --no-best": retain,
		"--skip-broken": retain, "--nogpgcheck --no-gpgchecks": retain, "--nodocs": retain, "--installroot": retainPath,
		"--releasever": retainValue, "-c --config": retainPath, "--forcearch": retainValue, "--noplugins": retain,
		"--allow-downgrade": retain,
	}),
	command: func(program string, _ []string) []string { return []string{program, "install", "-y"} },
	local:   localOr(".rpm"),
}
