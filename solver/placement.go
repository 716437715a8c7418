package solver

import (
	"os"
	"path"
	"path/filepath"

	"github.com/clayer/clayer/dag"
	"github.com/clayer/clayer/frontend"
	"github.com/clayer/clayer/solver/exec"
	"github.com/clayer/clayer/solver/internal/record"
	"github.com/clayer/clayer/solver/machine"
)

// misplacements finds each COPY of a file to what a step before it makes a
// directory, as far as the files say so: a RUN between the two may change that,
// and then the apply has the last word.
//
// isFile reports whether a COPY is of one file, and whether that is known.
func (r *session) misplacements(g *dag.Graph, isFile func(c *frontend.Copy) (is, known bool)) (problems frontend.Problems) {
	dirs := make(map[string]bool)
	add := func(dir string) {
		for ; dir != "/" && !dirs[dir]; dir = path.Dir(dir) {
			dirs[dir] = true
		}
	}
	for _, s := range g.Steps() {
		switch in := s.Instr.(type) {
		case *frontend.Run:
			clear(dirs)
		case *frontend.Workdir:
			add(in.Path)
		case *frontend.Fetch:
			add(in.Dest)
		case *frontend.Copy:
			first := s.Source.Steps[0].Instr.(*frontend.Copy) // which was resolved for all of them
			switch is, known := isFile(first); {
			case !known:
			case !is:
				add(path.Clean(in.Dest))
			case dirs[in.Dest] && !r.isMachineDir(in.Dest):
				problems = append(problems, exec.OverDirectory(s, in.Dest, nil).At(s.Instr.Base()))
			default:
				add(path.Dir(in.Dest))
			}
		}
	}
	return problems
}

// isMachineDir reports whether the machine has a directory, or a link to one, at
// an absolute path of the root. One that an applied step made is none: what a step
// makes must not depend on what was solved here before.
func (r *session) isMachineDir(name string) bool {
	for _, root := range []string{r.target(), r.base()} {
		p, err := machine.Within(root, name)
		if err != nil {
			continue
		}
		info, err := os.Lstat(p)
		if err != nil {
			continue
		}
		if !info.IsDir() {
			return false
		}
		if rel, err := filepath.Rel(root, p); err == nil && (root != r.target() || !r.madeDirs()[rel]) {
			return true
		}
	}
	return false
}

// madeDirs returns the directories in the root that applied steps made, by path.
// A record that cannot be read is for the survey to report.
func (r *session) madeDirs() map[string]bool {
	r.madeOnce.Do(func() {
		r.made = make(map[string]bool)
		root, err := r.open()
		if err != nil {
			return
		}
		state, err := root.State()
		if err != nil {
			return
		}
		for _, ev := range state.Log {
			for c, err := range root.StateDir().Changes(ev) {
				if err != nil {
					return
				}
				switch p := string(c.Path); {
				case c.Kind == record.KindDir && c.Was == nil && !c.Lost && !c.Preserved:
					r.made[p] = true
				case c.Kind == record.KindGone:
					delete(r.made, p)
				}
			}
		}
	})
	return r.made
}
