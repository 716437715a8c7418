package edit

import (
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/clayer/clayer/internal/lazyregexp"
)

var pythonName = lazyregexp.New(`^python(3(\.\d+)?)?$`)

func isPython(program string) bool { return pythonName().MatchString(program) }

// pythonModule returns where the arguments of pip begin in those of python, or
// -1: -m pip, after options without a value.
func pythonModule(args []string) int {
	for i, a := range args {
		switch {
		case a == "-m" && i+1 < len(args) && args[i+1] == "pip":
			return i + 2
		case a == "-mpip":
			return i + 1
		case !strings.HasPrefix(a, "-") || a == "-c" || a == "-m" || a == "-W" || a == "-X" || a == "-":
			return -1
		}
	}
	return -1
}

// PythonDefaults make pip and uv install into the system's Python, which Debian
// marks as externally managed. Every RUN gets them, and so does a command of pip
// or uv pip through a shim, unless the variable is set or an environment is active.
var PythonDefaults = map[string]string{
	"PIP_BREAK_SYSTEM_PACKAGES": "1",
	"UV_BREAK_SYSTEM_PACKAGES":  "1",
	"UV_SYSTEM_PYTHON":          "1",
	"UV_LINK_MODE":              "copy", // uv's cache is often on another file system, and uv warns of it
}

// InstallsIntoSystemPython reports whether a command line is one of pip or uv pip
// that changes the system's Python, since no environment is active.
func InstallsIntoSystemPython(argv []string, at Place) bool {
	if len(argv) < 2 || at.getenv("VIRTUAL_ENV") != "" || at.getenv("CONDA_PREFIX") != "" {
		return false
	}
	switch program := filepath.Base(argv[0]); {
	case isPython(program):
		return pythonModule(argv[1:]) >= 0 && venvOf(at.Program) == ""
	case program == "pip", program == "pip3":
		return venvOf(at.Program) == ""
	case program == "uv":
		var opts []arg
		pip := false
		for _, a := range uvPip.options().scan(argv[1:]) {
			if a.name != "" {
				opts = append(opts, a)
			} else if !pip {
				if a.value != "pip" {
					return false
				}
				pip = true
			}
		}
		return pip && uvVenv(at, opts) == ""
	}
	return false
}

// pipOptions are those that pip and uv pip share.
var pipOptions = options{
	"-q --quiet": talk, "-v --verbose": talk, "--no-color": talk, "--no-input": talk, "--disable-pip-version-check": talk,
	"--progress-bar": talkValue, "--no-progress": talk, "--color": talkValue, "--log": talkValue, "--debug": talk,
	"--cache-dir": talkValue, "--no-cache-dir": talk, "-n --no-cache": talk, "--no-warn-script-location": talk,
	"--no-warn-conflicts": talk, "--root-user-action": talkValue, "--report": talkValue, "--retries": talkValue,
	"--timeout": talkValue, "--exists-action": talkValue, "--require-virtualenv": talk,
	"-h --help": never, "--dry-run": never, "-V --version": never,
	"-r --requirement --requirements": reads, "-c --constraint --constraints": reads,
	"-b --build-constraint --build-constraints": reads, "--override --overrides": reads,
	"-e --editable": directory,
	"-t --target":   retainPath, "--prefix": retainPath, "--root": retainPath, "-f --find-links": retainPath, "--cert": talkValue,
	"--client-cert": talkValue, "--src": retainPath,
	"-U --upgrade": retain, "-P --upgrade-package": retainValue, "--upgrade-strategy": retainValue, "--force-reinstall": retain,
	"--reinstall": retain, "--reinstall-package": retainValue, "-I --ignore-installed": retain, "--no-deps": retain, "--pre": retain,
	"--user": retain, "--break-system-packages": retain, "--no-build-isolation": retain, "--use-pep517": retain,
	"--no-binary": retainValue, "--only-binary": retainValue, "--prefer-binary": retain, "--require-hashes": retain, "--no-index": retain,
	"-i --index-url": retainValue, "--default-index": retainValue, "--index": retainValue, "--extra-index-url": retainValue,
	"--trusted-host": retainValue, "--allow-insecure-host": retainValue, "--ignore-requires-python": retain,
	"--compile": retain, "--no-compile": retain, "--platform": retainValue, "--python-version": retainValue,
	"--implementation": retainValue, "--abi": retainValue, "-C --config-settings --config-setting": retainValue,
	"--extra": retainValue, "--all-extras": retain, "--use-deprecated": retainValue, "--use-feature": retainValue,
}

// uvOptions are those of uv alone.
var uvOptions = options{
	"--system": retain, "--no-system": retain, "-p --python": retainValue, "--native-tls": talk, "--offline": talk,
	"--link-mode": retainValue, "--compile-bytecode": retain, "--resolution": retainValue, "--prerelease": retainValue,
	"--index-strategy": retainValue, "--keyring-provider": retainValue, "--exclude-newer": retainValue, "--exact": retain,
	"--refresh": talk, "--refresh-package": talkValue, "--torch-backend": retainValue, "--no-config": retain,
	"--config-file": retainPath, "--no-build": retain, "--no-build-package": retainValue, "--no-binary-package": retainValue,
	"--no-sources": retain, "--with": retainValue, "--with-executables-from": retainValue, "--with-requirements": reads,
	"--with-editable": directory, "--force": retain, "--fork-strategy": retainValue, "--strict": talk, "--lfs": retain,
	"--managed-python": retain, "--no-managed-python": retain, "--no-python-downloads": retain, "--directory": away, "--project": away,
	"--overrides": reads, "--excludes": reads, "--preview": retain,
}

var pip = &manager{
	name:     "pip",
	programs: []string{"pip", "pip3", "python", "python3"},
	verbs:    [][]string{{"install"}},
	removes:  []string{"uninstall"},
	options:  lazily(pipOptions, options{"--python": retainPath, "-p": retainValue}),
	command: func(program string, _ []string) []string {
		return append(strings.Fields(program), "install")
	},
	local: pythonLocal,
	base:  pythonBase,
	venv: func(at Place, opts []arg) string {
		if goesElsewhere(opts) {
			return ""
		}
		return venvOf(at.Program)
	},
}

var uvPip = &manager{
	name:     "uv pip",
	programs: []string{"uv"},
	verbs:    [][]string{{"pip"}, {"install"}},
	removes:  []string{"uninstall", "sync"},
	options:  lazily(pipOptions, uvOptions),
	// The environment is the system's: what the session has is captured.
	command: func(string, []string) []string { return []string{"uv", "pip", "install", "--system"} },
	drop:    []string{"--system", "--break-system-packages"},
	local:   pythonLocal,
	base:    pythonBase,
	venv:    uvVenv,
	refuse:  elsewhere,
}

var uvTool = &manager{
	name:     "uv tool",
	programs: []string{"uv"},
	verbs:    [][]string{{"tool"}, {"install"}},
	options:  lazily(pipOptions, uvOptions),
	command:  func(string, []string) []string { return []string{"uv", "tool", "install"} },
	single:   true,
	local:    pythonLocal,
	base:     pythonBase,
	refuse:   elsewhere,
}

func elsewhere(opts []arg, _ []string) string {
	for _, a := range opts {
		if a.effect == away {
			return a.name + " makes it depend on a directory of this machine"
		}
	}
	return ""
}

// goesElsewhere reports whether options say where the install goes.
func goesElsewhere(opts []arg) bool {
	return slices.ContainsFunc(opts, func(a arg) bool { return leadsElsewhere(a.name) })
}

func leadsElsewhere(option string) bool {
	return slices.Contains([]string{"--target", "-t", "--prefix", "--root", "--python"}, option)
}

// venvOf returns the virtual environment that a program is of, "" for none.
func venvOf(program string) string {
	if program == "" {
		return ""
	}
	dir := filepath.Dir(filepath.Dir(program))
	if _, err := os.Stat(filepath.Join(dir, "pyvenv.cfg")); err == nil {
		return dir
	}
	return ""
}

// uvVenv finds the environment that uv pip would take: that of --python, none
// with --system, else $VIRTUAL_ENV, $CONDA_PREFIX, or here or above one that the
// directory is in or has as .venv.
func uvVenv(at Place, opts []arg) string {
	for _, a := range opts {
		switch a.name {
		case "--system", "-t", "--target", "--prefix", "--root":
			return ""
		case "-p", "--python":
			if v := venvOf(at.abs(a.value)); v != "" {
				return v
			}
			if v := at.abs(a.value); isVenv(v) {
				return v
			}
			return ""
		}
	}
	if at.Getenv == nil {
		return ""
	}
	if s := at.getenv("UV_SYSTEM_PYTHON"); s != "" && s != "0" && s != "false" {
		return ""
	}
	if v := at.getenv("VIRTUAL_ENV"); v != "" {
		return v
	}
	if v, name := at.getenv("CONDA_PREFIX"), at.getenv("CONDA_DEFAULT_ENV"); v != "" && name != "base" {
		return v
	}
	for dir := at.Dir; dir != ""; dir = filepath.Dir(dir) {
		for _, v := range []string{dir, filepath.Join(dir, ".venv")} {
			if isVenv(v) {
				return v
			}
		}
		if dir == filepath.Dir(dir) {
			break
		}
	}
	return ""
}

func isVenv(dir string) bool {
	_, err := os.Stat(filepath.Join(dir, "pyvenv.cfg"))
	return err == nil
}

// pythonLocal reports whether a requirement is a file or directory.
func pythonLocal(w string) bool {
	if _, url, ok := strings.Cut(w, " @ "); ok {
		w = strings.TrimSpace(url)
	}
	if isURL(w) {
		return false
	}
	return strings.HasPrefix(w, "file:") || strings.HasPrefix(w, ".") || strings.ContainsRune(w, '/') ||
		strings.HasSuffix(w, ".whl") || strings.HasSuffix(w, ".tar.gz") || strings.HasSuffix(w, ".zip")
}

var pythonRuns = lazyregexp.New(`[-_.]+`)

// pythonBase is a requirement's name, as PyPI compares names.
func pythonBase(w string) string {
	if isURL(w) || pythonLocal(w) {
		return w
	}
	return strings.ToLower(pythonRuns().ReplaceAllString(baseBefore("=<>!~;@ ")(w), "-"))
}
