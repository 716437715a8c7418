package lint

import (
	"fmt"
	"slices"
	"strings"

	"github.com/clayer/clayer/frontend"
	"github.com/clayer/clayer/internal/lazyregexp"
	"github.com/clayer/clayer/internal/pathname"
)

const aptLists = "/var/lib/apt/lists"

// apt returns the subcommand of an apt-get command, where its word is, and the
// arguments after it; "" for other commands.
func (c *command) apt() (sub string, word int, rest []string) {
	name, args, at := c.args()
	if name != "apt-get" && name != "apt" {
		return "", 0, nil
	}
	for i := 0; i < len(args); i++ {
		switch a := args[i]; {
		case slices.Contains([]string{"-o", "-c", "-t", "-a", "--option", "--target-release"}, a):
			i++
		case !strings.HasPrefix(a, "-"):
			return a, at + 1 + i, args[i+1:]
		}
	}
	return "", 0, nil
}

func (r *run) mountsOn(directory string) bool {
	return slices.ContainsFunc(r.Mounts, func(m frontend.Mount) bool {
		return pathname.Under(directory, m.Target)
	})
}

func aptNoUpdate(p *pass) {
	older := 0 // the line of an earlier RUN that left lists
	for _, r := range p.runs {
		if r.script == nil {
			continue
		}
		updated, cleaned := false, false
		for i := range r.script.cmds {
			c := &r.script.cmds[i]
			sub, _, rest := c.apt()
			updated = updated || sub == "update"
			cleaned = cleaned || c.removesLists()
			if sub != "install" || updated || r.mountsOn(aptLists) || !slices.ContainsFunc(rest, isPackage) {
				continue
			}
			message := "apt-get install without apt-get update in this RUN: a fresh machine has no package lists"
			if older > 0 {
				message = fmt.Sprintf("apt-get install with the package lists of line %d, which are as old as its snapshot", older)
			}
			var fix *Fix
			if name, _, at := c.args(); c.at != nil && c.chain && at == 0 {
				fix = &Fix{"put apt-get update before it", []Edit{c.before(name + " update && ")}}
			}
			p.report(r.Base(), fix, message, "RUN apt-get update && apt-get install -y ...")
			updated = true
		}
		if updated && !cleaned {
			older = r.Pos.Line
		}
	}
}

// isPackage reports whether an argument of install is looked up in the lists.
func isPackage(arg string) bool {
	return !strings.HasPrefix(arg, "-") && !strings.HasPrefix(arg, "./") && !strings.HasPrefix(arg, "/") && !strings.HasSuffix(arg, ".deb")
}

func (c *command) removesLists() bool {
	name, args, _ := c.args()
	return (name == "rm" || name == "find") && slices.ContainsFunc(args, func(a string) bool { return strings.HasPrefix(a, aptLists) })
}

func aptNoYes(p *pass) {
	for _, r := range p.runs {
		if r.script == nil {
			continue
		}
		for i := range r.script.cmds {
			c := &r.script.cmds[i]
			sub, word, _ := c.apt()
			if !slices.Contains([]string{"install", "upgrade", "dist-upgrade", "full-upgrade", "remove", "purge", "autoremove", "build-dep"}, sub) {
				continue
			}
			if slices.ContainsFunc(c.words, answers) || slices.ContainsFunc(r.script.cmds[:i], func(c command) bool { return c.words[0] == "yes" }) {
				continue
			}
			var fix *Fix
			if c.ends != nil {
				at := c.ends[word]
				at.Text = " -y"
				fix = &Fix{"add -y", []Edit{at}}
			}
			p.report(r.Base(), fix, "apt-get "+sub+" asks, and a RUN cannot answer", "apt-get "+sub+" -y")
		}
	}
}

// answers reports whether apt-get asks nothing with this argument.
func answers(arg string) bool {
	if strings.HasPrefix(arg, "--") {
		return slices.Contains([]string{"--yes", "--assume-yes", "--assume-no", "--simulate", "--dry-run", "--just-print", "--print-uris", "--download-only"}, arg)
	}
	if strings.HasPrefix(arg, "-") && !strings.HasPrefix(arg, "-o") {
		return strings.ContainsAny(arg, "ysd") || strings.Contains(arg, "qq")
	}
	return strings.Contains(arg, "Assume-Yes")
}

func aptListsLeft(p *pass) {
	for _, r := range p.runs {
		if r.script == nil || r.mountsOn(aptLists) {
			continue
		}
		updates := slices.ContainsFunc(r.script.cmds, func(c command) bool { sub, _, _ := c.apt(); return sub == "update" })
		if !updates || slices.ContainsFunc(r.script.cmds, func(c command) bool { return c.removesLists() }) {
			continue
		}
		var fix *Fix
		installs := slices.ContainsFunc(r.script.cmds, func(c command) bool { sub, _, _ := c.apt(); return sub == "install" })
		if n := len(r.script.cmds); installs && r.script.chain && r.script.last == n-1 && r.script.cmds[n-1].at != nil {
			fix = &Fix{"remove the lists at its end", []Edit{r.script.cmds[n-1].appended(" && rm -rf " + aptLists + "/*")}}
		}
		p.report(r.Base(), fix, "the package lists stay in the snapshot, tens of MB",
			"end with rm -rf "+aptLists+"/*, or --mount=type=cache,target="+aptLists)
	}
}

// pipValues are the options of pip and uv with a value of their own.
var pipValues = []string{
	"-r", "--requirement", "-e", "--editable", "-i", "--index-url", "--extra-index-url", "-f", "--find-links", "-t", "--target",
	"--prefix", "--root", "--python", "-p", "--python-version", "--platform", "--abi", "--implementation", "--cache-dir", "--log", "--trusted-host",
	"--proxy", "--timeout", "--retries", "--cert", "--no-binary", "--only-binary", "--src", "--upgrade-strategy", "--progress-bar",
	"--config-settings", "-C", "--report", "--index", "--default-index", "--torch-backend", "--index-strategy", "--group", "-P", "--upgrade-package",
}

func pipUnpinned(p *pass) {
	for _, r := range p.runs {
		if r.script == nil {
			continue
		}
		var loose []string
		for i := range r.script.cmds {
			loose = append(loose, r.script.cmds[i].unpinned()...)
		}
		if len(loose) > 0 {
			p.report(r.Base(), nil, "no version for "+strings.Join(loose, ", ")+": what is installed depends on the day that the step is run", requirement().FindString(loose[0])+"==VERSION")
		}
	}
}

// unpinned returns the packages that a pip install, in whatever form, is free
// to choose a version of.
func (c *command) unpinned() (loose []string) {
	name, args, _ := c.args()
	switch {
	case pipName().MatchString(name):
	case pythonName().MatchString(name) && len(args) > 1 && args[0] == "-m" && args[1] == "pip":
		args = args[2:]
	case name == "uv" && len(args) > 1 && (args[0] == "pip" || args[0] == "tool"):
		args = args[1:]
	default:
		return nil
	}
	if len(args) == 0 || args[0] != "install" {
		return nil
	}
	for i := 1; i < len(args); i++ {
		switch a := args[i]; {
		case a == "-c" || a == "--constraint" || a == "--constraints" || strings.HasPrefix(a, "--constraint"):
			return nil // versions are said elsewhere
		case slices.Contains(pipValues, a):
			i++
		case strings.HasPrefix(a, "-"):
		case packageName().MatchString(a):
			loose = append(loose, a)
		}
	}
	return loose
}

var (
	pipName    = lazyregexp.New(`^(pip|pipx)[0-9.]*$`)
	pythonName = lazyregexp.New(`^python[0-9.]*$`)
	// A name, its extras, and bounds that leave a choice. No path, no URL, and
	// nothing with a variable in it.
	packageName = lazyregexp.New(`^[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?(\[[A-Za-z0-9._,-]*\])?((>=|<=|!=|~=|>|<)[^=$]*)?$`)
	// Of those the name and its extras.
	requirement = lazyregexp.New(`^[^<>=!~]+`)
)
