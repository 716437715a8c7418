package inventory

import (
	"regexp"
	"slices"
	"strings"

	"github.com/clayer/clayer/cache/snapshot"
	"github.com/clayer/clayer/dag"
	"github.com/clayer/clayer/frontend"
	"github.com/clayer/clayer/frontend/edit"
	"github.com/clayer/clayer/frontend/lint"
	"github.com/clayer/clayer/internal/lazyregexp"
)

// Installs reports whether a step is a RUN in which a package manager installs
// what no RUN that its key covers names. If it changed nothing, it found that on
// the machine, and its snapshot would install it on no other.
func Installs(s *dag.Step) bool {
	named := make(map[string]bool)
	for l, i := s.Layer, s.Index; l != nil; {
		for _, before := range l.Steps[:i] {
			for _, r := range InstallsOf(before) {
				if r.Verdict == edit.Captured {
					for _, name := range r.Install.Names() {
						named[r.Manager+" "+name] = true
					}
				}
			}
		}
		if l.Ordered {
			break // what it is composed after enters no key
		}
		if l = l.On; l != nil {
			i = len(l.Steps)
		}
	}
	return slices.ContainsFunc(InstallsOf(s), func(r edit.Reading) bool {
		return r.Verdict != edit.Captured || len(r.Install.Packages) == 0 ||
			slices.ContainsFunc(r.Install.Names(), func(name string) bool { return !named[r.Manager+" "+name] })
	})
}

// InstallsOf returns the installs of a step's command line.
func InstallsOf(s *dag.Step) (list []edit.Reading) {
	run, ok := s.Instr.(*frontend.Run)
	if !ok {
		return nil
	}
	for _, argv := range lint.Commands(run) {
		if r := edit.Read(argv, edit.Place{}); r.Verdict != edit.Nothing {
			list = append(list, r)
		}
	}
	return list
}

// idle are programs that install nothing: what they change is all that they do.
var idle = []string{"true", ":", "false", "test", "[", "[[", "echo", "printf", "set", "unset", "export", "cd", "exit", "umask", "sleep", "wait", "mkdir", "rmdir",
	"rm", "ln", "cp", "mv", "touch", "chmod", "chown", "chgrp", "install", "ls", "cat", "pwd", "id", "date", "uname", "sed", "grep", "tee", "sort", "head", "tail", "sync"}

// MayFind reports whether a RUN that changed nothing may have found what it would install
// elsewhere: it installs something that no step before names, or nobody knows what it does.
func MayFind(s *dag.Step) bool {
	run, ok := s.Instr.(*frontend.Run)
	if !ok {
		return false
	}
	if len(InstallsOf(s)) > 0 {
		return Installs(s)
	}
	commands := lint.Commands(run)
	return len(commands) == 0 || slices.ContainsFunc(commands, func(argv []string) bool { return !slices.Contains(idle, argv[0]) })
}

// managers are those of which a need can name a package, by the names that commands have.
var managers = map[string]string{
	"apt": snapshot.ManagerDpkg, "pip": snapshot.ManagerPython, "uv pip": snapshot.ManagerPython, "npm": snapshot.ManagerNPM, "apk": snapshot.ManagerAPK,
}

// ManagerOf returns the manager of the packages that an install names; "" if a need
// cannot name them.
func ManagerOf(r edit.Reading) string { return managers[r.Manager] }

// interpreters run scripts, which install whatever they like.
var interpreters = []string{"sh", "bash", "dash", "ash", "zsh", "ksh", "xargs", "make", "just", "task", "source", ".", "eval"}

var (
	isScript = lazyregexp.New(`\.(sh|bash|py|pl|js)$`)
	programs = map[string]func() *regexp.Regexp{
		snapshot.ManagerDpkg:   lazyregexp.New(`\b(apt|apt-get|aptitude|dpkg)\b`),
		snapshot.ManagerPython: lazyregexp.New(`\b(pip3?|uv|poetry|pdm|pipenv|conda|mamba)\b`),
		snapshot.ManagerNPM:    lazyregexp.New(`\b(npm|yarn|pnpm|corepack)\b`),
		snapshot.ManagerAPK:    lazyregexp.New(`\bapk\b`),
	}
)

// isPlain reports whether a command line installs what it names and nothing else, or nothing.
func isPlain(argv []string) bool {
	switch r := edit.Read(argv, edit.Place{}); r.Verdict {
	case edit.Captured:
		return len(r.Install.Packages) > 0 && len(r.Install.Copies) == 0 && !r.Install.AsTyped
	case edit.Nothing:
		isUpdate := slices.Contains([]string{"apt-get", "apt", "apk"}, argv[0]) && slices.ContainsFunc(argv[1:], func(arg string) bool {
			return slices.Contains([]string{"update", "clean", "autoclean"}, arg)
		})
		return isUpdate || slices.Contains(idle, argv[0]) && !slices.ContainsFunc(argv, isScript().MatchString)
	}
	return false
}

// MayLack returns those of the packages that a RUN may have found, and that its result
// would have to have elsewhere, beside those that its text names: those of each manager of
// which nobody can say what the RUN installs. changed reports whether it changed what the
// manager has.
func MayLack(s *dag.Step, list []Package, empty bool, changed func(manager string) bool) []Package {
	run, ok := s.Instr.(*frontend.Run)
	if !ok || len(list) == 0 {
		return nil
	}
	commands, installs := lint.Commands(run), InstallsOf(s)
	if len(commands) > 0 && !slices.ContainsFunc(commands, func(argv []string) bool { return !isPlain(argv) }) {
		// All that it can find is what it names, and what that requires.
		list = slices.DeleteFunc(slices.Clone(list), func(p Package) bool {
			return !slices.ContainsFunc(installs, func(r edit.Reading) bool { return ManagerOf(r) == p.Manager })
		})
		if !empty {
			return nil
		}
	}
	if empty && MayFind(s) {
		return list
	}
	script := len(commands) == 0 || slices.ContainsFunc(commands, func(argv []string) bool {
		return slices.Contains(interpreters, argv[0]) || !slices.Contains(idle, argv[0]) && slices.ContainsFunc(argv, isScript().MatchString)
	})
	unnamed := make(map[string]bool)
	for manager, program := range programs {
		named := false
		for _, r := range installs {
			if ManagerOf(r) == manager {
				named = true
				unnamed[manager] = unnamed[manager] || r.Verdict != edit.Captured || len(r.Install.Packages) == 0 || len(r.Install.Copies) > 0 || r.Install.AsTyped
			}
		}
		unnamed[manager] = unnamed[manager] || script || !named && changed(manager) || slices.ContainsFunc(commands, func(argv []string) bool {
			return program().MatchString(strings.Join(argv[1:], " "))
		})
	}
	return slices.DeleteFunc(slices.Clone(list), func(p Package) bool { return !unnamed[p.Manager] })
}
