package lint

import (
	"path"
	"slices"
	"strings"

	"github.com/clayer/clayer/cache/snapshot"
	"github.com/clayer/clayer/frontend"
)

func snapshotRepeats(p *pass) {
	list, _, _ := p.file.Resolve(p.scope)
	for _, in := range list {
		s, ok := in.(*frontend.Snapshot)
		if !ok || s.Capture != frontend.CaptureChanged || snapshot.LiftsExclusion(s.Path) {
			continue
		}
		pos := s.Pos
		var fix *Fix
		if pos.End < len(p.file.Lines) {
			fix = &Fix{"remove it", []Edit{{Line: pos.Line, Column: 1, EndLine: pos.End + 1, EndColumn: 1}}}
		} else if pos.Line > 1 {
			end := len(p.file.Lines[pos.Line-2]) + 1
			fix = &Fix{"remove it", []Edit{{pos.Line - 1, end, pos.End, len(p.file.Lines[pos.End-1]) + 1, ""}}}
		}
		p.report(s.Base(), fix, "what the steps change below "+s.Path+" is in their snapshots already", "--all captures what no step has changed there too")
	}
}

// included returns the paths that SNAPSHOT names.
func (p *pass) included() (paths []string) {
	list, _, _ := p.file.Resolve(p.scope)
	for _, in := range list {
		if s, ok := in.(*frontend.Snapshot); ok {
			paths = append(paths, s.Path)
		}
	}
	return paths
}

func writesExcluded(p *pass) {
	filter, err := snapshot.Filter{Include: p.included()}.CompileWithScratch()
	if err != nil {
		return
	}
	for _, r := range p.runs {
		if r.script == nil {
			continue
		}
		dir, all := r.Dir, []string(nil)
		known := len(r.script.cmds) > 0
		for i := range r.script.cmds {
			c := &r.script.cmds[i]
			if name, args, _ := c.args(); name == "cd" && len(args) == 1 {
				dir = below(dir, args[0])
				continue
			}
			paths, ok := c.targets(dir)
			if known = known && ok; !known {
				break
			}
			all = append(all, paths...)
		}
		if !known || len(all) == 0 || slices.ContainsFunc(all, func(f string) bool { return !excluded(filter, f) }) {
			continue
		}
		p.report(r.Base(), nil, "it writes to "+all[0]+" alone, where nothing is captured: its snapshot is empty, and later steps don't find it",
			"do it in the RUN that needs it, or SNAPSHOT "+path.Dir(all[0]))
	}
}

func excluded(filter *snapshot.Matcher, file string) bool {
	file = strings.TrimPrefix(file, "/")
	for p := file; p != "." && p != ""; p = path.Dir(p) {
		if filter.Skip(p) {
			return true
		}
	}
	return false
}

func below(dir, p string) string {
	if path.IsAbs(p) {
		return path.Clean(p)
	}
	return path.Join(dir, p)
}

// quiet are programs that write nothing but their output.
var quiet = []string{"echo", "printf", "true", ":", "set", "test", "[", "cat", "ls", "sleep", "head", "tail", "grep", "date", "which", "id", "uname"}

// targets returns the files that a command writes; ok is false where that
// can't be known.
func (c *command) targets(dir string) (files []string, ok bool) {
	name, args, _ := c.args()
	for _, f := range c.writes {
		if f != "/dev/null" {
			files = append(files, f)
		}
	}
	var plain []string // arguments that are no options
	values := map[string]string{}
	for i := 0; i < len(args); i++ {
		a := args[i]
		if strings.HasPrefix(a, "-") && a != "-" {
			if i+1 < len(args) && slices.Contains(writers[name].options, a) {
				values[a] = args[i+1]
				i++
			}
			continue
		}
		plain = append(plain, a)
	}
	w, known := writers[name]
	switch {
	case slices.Contains(quiet, name):
	case !known:
		return nil, false
	case w.what == allArgs:
		files = append(files, plain...)
	case w.what == lastArg && len(plain) > 1:
		files = append(files, plain[len(plain)-1])
	case w.what == option:
		for _, o := range w.options {
			if v, given := values[o]; given && v != "-" {
				files = append(files, v)
			}
		}
		if len(files) == 0 {
			return nil, false
		}
	default:
		return nil, false
	}
	for i, f := range files {
		if strings.ContainsAny(f, "$`") || strings.HasPrefix(f, "~") {
			return nil, false
		}
		files[i] = below(dir, f)
	}
	return files, true
}

type writes uint8

const (
	allArgs writes = iota + 1 // each argument is written
	lastArg                   // the last one is
	option                    // the value of an option is
)

// writers are programs of which it is known where they write.
var writers = map[string]struct {
	what    writes
	options []string
}{
	"mkdir": {allArgs, []string{"-m", "--mode"}},
	"touch": {allArgs, []string{"-d", "-t", "-r"}},
	"tee":   {allArgs, nil},
	"cp":    {lastArg, nil},
	"curl":  {option, []string{"-o", "--output"}},
	"wget":  {option, []string{"-O", "-P"}},
	"tar":   {option, []string{"-C", "--directory"}},
	"unzip": {option, []string{"-d"}},
}
