package edit

import (
	"strings"
)

var npm = &manager{
	name:     "npm",
	programs: []string{"npm"},
	// npm's own aliases of install.
	verbs:   [][]string{{"install", "i", "add", "in", "ins", "inst", "insta", "instal", "isnt", "isnta", "isntal", "isntall"}},
	removes: []string{"uninstall", "unlink", "remove", "rm", "r", "un"},
	options: lazily(options{
		"-g --global --location=global": retain, "-s -d -dd -ddd --silent --quiet --verbose -q": talk, "--loglevel": talkValue, "--no-progress --progress": talk, "--no-audit --audit": talk,
		"--no-fund --fund": talk, "-S --save": talk, "--no-save": talk, "-D --save-dev": talk, "-E --save-exact": talk, "-O --save-optional": talk,
		"-P --save-prod": talk, "-B --save-bundle": talk, "-y --yes": talk, "--no-update-notifier": talk, "--prefer-offline": talk, "--prefer-online": talk,
		"--offline": talk, "--cache": talkValue, "--color": talk, "--no-color": talk,
		"-h --help": never, "--dry-run": never, "-v --version": never, "--usage": never,
		"-f --force": retain, "--legacy-peer-deps": retain, "--strict-peer-deps": retain, "--ignore-scripts": retain, "--no-bin-links": retain,
		"--omit": retainValue, "--include": retainValue, "--no-optional": retain, "--tag": retainValue, "--registry": retainValue,
		"--prefix": retainPath, "--engine-strict": retain, "--foreground-scripts": talk, "--os": retainValue, "--cpu": retainValue,
		"--allow-scripts": retainValue, "--before": retainValue, "--install-strategy": retainValue,
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
		"-j --jobs": talkValue, "--keep-going": talk, "-y --no-confirm": retain, "--offline": talk,
		"-h --help": never, "--list": never, "-V": never, "-n --dry-run": never,
		"--version --vers": retainValue, "--git": retainValue, "--branch": retainValue, "--tag": retainValue, "--rev": retainValue,
		"--path": directory, "--root": retainPath, "-f --force": retain, "--no-track": retain, "-F --features": retainValue, "--all-features": retain,
		"--no-default-features": retain, "--bin": retainValue, "--bins": retain, "--example": retainValue, "--examples": retain,
		"--locked": retain, "--frozen": retain, "--profile": retainValue, "--debug": retain, "--target": retainValue, "--index": retainValue,
		"--registry": retainValue, "--ignore-rust-version": retain, "--config": retainValue, "--target-dir": talkValue,
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
		"-v": talk, "-x": talk, "-p": talkValue, "-h": never, "-n": never, "-a": retain, "-race": retain, "-trimpath": retain,
		"-tags": retainValue, "-ldflags": retainValue, "-gcflags": retainValue, "-mod": retainValue, "-buildvcs": retainValue, "-asmflags": retainValue,
		"-installsuffix": retainValue, "-buildmode": retainValue, "-overlay": away, "-modfile": away, "-C": away, "-work": talk, "-cover": retain,
	}),
	command: func(string, []string) []string { return []string{"go", "install"} },
	single:  true,
	// Without @version it is the module of the directory.
	local: func(w string) bool { return !strings.Contains(w, "@") },
	base:  baseBefore("@"),
	refuse: func(opts []arg, words []string) string {
		if why := elsewhere(opts, words); why != "" {
			return why
		}
		for _, w := range words {
			if !strings.Contains(w, "@") {
				return "without @version it installs the module of a directory of this machine"
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
		"-q --quiet": talk, "-V --verbose": talk, "--no-verbose": talk, "--silent": talk, "--backtrace": talk, "--debug": talk, "--norc": retain,
		"-h --help": never, "--explain": never,
		"-v --version": retainValue, "--platform": retainValue, "-i --install-dir": retainPath, "-n --bindir": retainPath, "-N --no-document": retain,
		"--document": retainValue, "--user-install": retain, "--no-user-install": retain, "--pre --prerelease": retain, "-f --force": retain,
		"--conservative": retain, "--minimal-deps": retain, "-s --source": retainValue, "--clear-sources": retain, "-b --both": retain,
		"-r --remote": retain, "--ignore-dependencies": retain, "--development": retain, "-g --file": reads, "-l --local": directory,
		"--without": retainValue, "-P --trust-policy": retainValue, "-w --wrappers": retain, "-E --env-shebang": retain,
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
		"-c --channel": retainValue, "-n --name": retainValue, "-p --prefix": retainPath, "--file -f": reads, "--override-channels": retain,
		"--no-deps": retain, "--only-deps": retain, "--no-pin": retain, "--freeze-installed --no-update-deps": retain, "--update-deps": retain,
		"--update-all --all": retain, "--update-specs": retain, "--force-reinstall": retain, "--strict-channel-priority": retain,
		"--no-channel-priority": retain, "--solver": retainValue, "--copy": retain, "-S --satisfied-skip-solve": retain, "--use-local": away,
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
