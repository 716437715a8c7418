package edit

import (
	"strings"
)

var npm = &manager{
	name:     "npm",
	programs: []string{"npm"},
	// npm's own aliases of install.
	verbs: [][]string{{"install", "i", "add", "in", "ins", "inst", "insta", "instal", "isnt", "isnta", "isntal", "isntall"}},
	options: lazily(options{
		"-g --global --location=global": keep, "-s -d -dd -ddd --silent --quiet --verbose -q": talk, "--loglevel": talkValue, "--no-progress --progress": talk, "--no-audit --audit": talk,
		"--no-fund --fund": talk, "-S --save": talk, "--no-save": talk, "-D --save-dev": talk, "-E --save-exact": talk, "-O --save-optional": talk,
		"-P --save-prod": talk, "-B --save-bundle": talk, "-y --yes": talk, "--no-update-notifier": talk, "--prefer-offline": talk, "--prefer-online": talk,
		"--offline": talk, "--cache": talkValue, "--color": talk, "--no-color": talk,
		"-h --help": never, "--dry-run": never, "-v --version": never, "--usage": never,
		"-f --force": keep, "--legacy-peer-deps": keep, "--strict-peer-deps": keep, "--ignore-scripts": keep, "--no-bin-links": keep,
		"--omit": keepValue, "--include": keepValue, "--no-optional": keep, "--tag": keepValue, "--registry": keepValue,
		"--prefix": keepPath, "--engine-strict": keep, "--foreground-scripts": talk, "--os": keepValue, "--cpu": keepValue,
		"--allow-scripts": keepValue, "--before": keepValue, "--install-strategy": keepValue,
	}),
	command: func(string, []string) []string { return []string{"npm", "install", "-g"} },
	require: "-g",
	local: func(w string) bool {
		return slashLocal(w) || strings.HasPrefix(w, "link:") || !isURL(w) && (strings.HasSuffix(w, ".tgz") || strings.HasSuffix(w, ".tar.gz"))
	},
	base: func(w string) string {
		if i := strings.LastIndexByte(w, '@'); i > 0 && !isURL(w) {
			return w[:i]
		}
		return w
	},
}

var cargo = &manager{
	name:     "cargo",
	programs: []string{"cargo"},
	verbs:    [][]string{{"install", "binstall"}},
	options: lazily(options{
		"-q --quiet": talk, "-v --verbose": talk, "-vv": talk, "--color": talkValue, "--message-format": talkValue, "--timings": talk,
		"-j --jobs": talkValue, "--keep-going": talk, "-y --no-confirm": keep, "--offline": talk,
		"-h --help": never, "--list": never, "-V": never, "-n --dry-run": never,
		"--version --vers": keepValue, "--git": keepValue, "--branch": keepValue, "--tag": keepValue, "--rev": keepValue,
		"--path": folder, "--root": keepPath, "-f --force": keep, "--no-track": keep, "-F --features": keepValue, "--all-features": keep,
		"--no-default-features": keep, "--bin": keepValue, "--bins": keep, "--example": keepValue, "--examples": keep,
		"--locked": keep, "--frozen": keep, "--profile": keepValue, "--debug": keep, "--target": keepValue, "--index": keepValue,
		"--registry": keepValue, "--ignore-rust-version": keep, "--config": keepValue, "--target-dir": talkValue,
	}),
	command: func(_ string, verbs []string) []string { return []string{"cargo", verbs[0]} },
	single:  true,
	base:    baseBefore("@"),
}

var goInstall = &manager{
	name:     "go",
	programs: []string{"go"},
	verbs:    [][]string{{"install"}},
	options: lazily(options{
		"-v": talk, "-x": talk, "-p": talkValue, "-h": never, "-n": never, "-a": keep, "-race": keep, "-trimpath": keep,
		"-tags": keepValue, "-ldflags": keepValue, "-gcflags": keepValue, "-mod": keepValue, "-buildvcs": keepValue, "-asmflags": keepValue,
		"-installsuffix": keepValue, "-buildmode": keepValue, "-overlay": away, "-modfile": away, "-C": away, "-work": talk, "-cover": keep,
	}),
	command: func(string, []string) []string { return []string{"go", "install"} },
	single:  true,
	// Without @version it is the module of the folder.
	local: func(w string) bool { return !strings.Contains(w, "@") },
	base:  baseBefore("@"),
	refuse: func(opts []arg, words []string) string {
		if why := elsewhere(opts, words); why != "" {
			return why
		}
		for _, w := range words {
			if !strings.Contains(w, "@") {
				return "without @version it installs the module of a folder of this machine"
			}
		}
		return ""
	},
}

var gem = &manager{
	name:     "gem",
	programs: []string{"gem"},
	verbs:    [][]string{{"install", "i"}},
	options: lazily(options{
		"-q --quiet": talk, "-V --verbose": talk, "--no-verbose": talk, "--silent": talk, "--backtrace": talk, "--debug": talk, "--norc": keep,
		"-h --help": never, "--explain": never,
		"-v --version": keepValue, "--platform": keepValue, "-i --install-dir": keepPath, "-n --bindir": keepPath, "-N --no-document": keep,
		"--document": keepValue, "--user-install": keep, "--no-user-install": keep, "--pre --prerelease": keep, "-f --force": keep,
		"--conservative": keep, "--minimal-deps": keep, "-s --source": keepValue, "--clear-sources": keep, "-b --both": keep,
		"-r --remote": keep, "--ignore-dependencies": keep, "--development": keep, "-g --file": reads, "-l --local": folder,
		"--without": keepValue, "-P --trust-policy": keepValue, "-w --wrappers": keep, "-E --env-shebang": keep,
	}),
	command: func(string, []string) []string { return []string{"gem", "install"} },
	single:  true,
	local:   localOr(".gem"),
	base:    baseBefore(":"),
}

var conda = &manager{
	name:     "conda",
	programs: []string{"conda", "mamba", "micromamba"},
	verbs:    [][]string{{"install"}},
	options: lazily(options{
		"-q --quiet": talk, "-v --verbose": talk, "-y --yes": talk, "--json": talk, "--no-banner": talk, "--console": talkValue,
		"-h --help": never, "-d --dry-run": never, "--download-only": never, "-V --version": never,
		"-c --channel": keepValue, "-n --name": keepValue, "-p --prefix": keepPath, "--file -f": reads, "--override-channels": keep,
		"--no-deps": keep, "--only-deps": keep, "--no-pin": keep, "--freeze-installed --no-update-deps": keep, "--update-deps": keep,
		"--update-all --all": keep, "--update-specs": keep, "--force-reinstall": keep, "--strict-channel-priority": keep,
		"--no-channel-priority": keep, "--solver": keepValue, "--copy": keep, "-S --satisfied-skip-solve": keep, "--use-local": away,
		"--revision": away, "--offline -C --use-index-cache -k --insecure": talk,
	}),
	command: func(program string, _ []string) []string { return []string{program, "install", "-y"} },
	local:   localOr(".conda", ".tar.bz2"),
	base:    baseBefore("=<>! "),
	venv: func(at Place, opts []arg) string {
		for _, a := range opts {
			if a.name == "-n" || a.name == "-p" {
				return ""
			}
		}
		if name := at.getenv("CONDA_DEFAULT_ENV"); name != "" && name != "base" {
			return at.getenv("CONDA_PREFIX")
		}
		return ""
	},
	refuse: elsewhere,
}
