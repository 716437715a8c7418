package shim

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/clayer/clayer/dag"
	"github.com/clayer/clayer/frontend"
	"github.com/clayer/clayer/frontend/edit"
	"github.com/clayer/clayer/frontend/layername"
	"github.com/clayer/clayer/solver"
	"github.com/clayer/clayer/solver/layers"
)

// lockTime is how long a shim waits for others that write to the same file.
const lockTime = 20 * time.Second

// sessionTime is how long after an install another one folds into its RUN: what
// was captured yesterday may be cached, and then stays as it is.
const sessionTime = 12 * time.Hour

// session is what shims remember of a Containerfile. It is stored beside them, and
// where that can't be written every install is a RUN of its own.
type session struct {
	Last     *edit.Record `json:"last,omitempty"`
	Reported []string     `json:"told,omitempty"` // virtual environments
	At       time.Time    `json:"at"`
}

func (o Options) sessionFile() string {
	sum := sha256.Sum256([]byte(o.File))
	return filepath.Join(o.Dir, fmt.Sprintf("%s%x", sessionPrefix, sum[:8]))
}

func (o Options) session() session {
	var s session
	data, err := os.ReadFile(o.sessionFile())
	if err != nil || json.Unmarshal(data, &s) != nil || time.Since(s.At) > sessionTime {
		return session{}
	}
	return s
}

func (o Options) save(s session) error {
	s.At = time.Now()
	return o.replace(o.sessionFile(), s)
}

// replace writes v to a file beside the shims.
func (o Options) replace(file string, v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(o.Dir, 0o755); err != nil {
		return err
	}
	temp, err := os.CreateTemp(o.Dir, sessionPrefix)
	if err != nil {
		return err
	}
	_, err = temp.Write(data)
	if e := temp.Close(); err == nil {
		err = e
	}
	if err == nil {
		err = os.Rename(temp.Name(), file)
	}
	if err != nil {
		_ = os.Remove(temp.Name())
	}
	return err
}

// once reports whether a virtual environment was not reported in this session.
func (o Options) once(venv string) bool {
	s := o.session()
	if slices.Contains(s.Reported, venv) {
		return false
	}
	s.Reported = append(s.Reported, venv)
	_ = o.save(s) // at worst it is reported again
	return true
}

// capture writes what was installed into the Containerfile.
func (o Options) capture(r edit.Reading, w *watching, warn func(format string, args ...any)) {
	ctx, cancel := context.WithTimeout(context.Background(), lockTime)
	defer cancel()
	var wrote string
	own := false // the RUN repeats this install, and no other
	_, err := edit.Update(ctx, o.File, func(src []byte) ([]byte, error) {
		if r.Verdict == edit.Noted {
			out, err := edit.Comment(src, r.Note)
			if err == nil && len(out) != len(src) {
				wrote = r.Note
			}
			return out, err
		}
		s := o.session()
		if s.Last != nil && o.isSettled(ctx) {
			s.Last = nil // what is folded into it has another key
		}
		out, next, err := edit.Capture(src, r.Install, s.Last)
		if err != nil {
			return nil, err
		}
		if string(out) != string(src) {
			wrote = next.Text
			s.Last, own = next, next.Installs[0] == r.Install
			// Under the lock, and before the file: a record of what isn't there
			// matches nothing.
			_ = o.save(s)
		}
		return out, nil
	})
	switch {
	case err != nil:
		warn("%s: what was installed is not captured: %v", o.File, err)
	case wrote != "" && !is(modeQuiet):
		warn("%s: %s", o.File, wrote)
	}
	if err == nil && wrote != "" && r.Verdict == edit.Captured {
		switch err := w.adopt(own); {
		case err == nil || is(modeQuiet):
		case errors.Is(err, solver.ErrStore):
			warn("what it installed is a step, but its snapshot is in no store: %v", err)
		default:
			warn("no snapshot is made of what it installed, and the next solve runs the line: %v", err)
		}
	}
	o.refresh()
}

// refresh makes shims of what was just installed: pip install uv.
func (o Options) refresh() {
	entries, err := os.ReadDir(o.Dir)
	if err != nil {
		return
	}
	installed := false
	var missing []string
	for _, name := range edit.Programs() {
		if slices.ContainsFunc(entries, func(e os.DirEntry) bool { return e.Name() == name }) {
			installed = true
		} else {
			missing = append(missing, name)
		}
	}
	if installed && o.Clayer != "" { // else it is the functions of Source that called
		_, _ = add(o, missing)
	}
}

// composition loads the Containerfile, and before it the files of the layers that are in the
// root: those of their names beside it. That they are the ones which were applied, their keys
// say.
func (o Options) composition(ctx context.Context, opt solver.Options) ([]*frontend.File, error) {
	own := layername.Of(filepath.Base(o.File))
	var paths []string
	if st, err := solver.Status(opt); err == nil {
		for _, l := range st.State.Layers {
			found, err := layers.Lookup(filepath.Dir(o.File), []string{l.Name}, func(string) {})
			if err != nil || l.Name == own {
				break
			}
			paths = append(paths, found...)
		}
	}
	return layers.Load(ctx, append(paths, o.File), layers.Options{Args: frontend.Args{Build: opt.BuildArgs}})
}

// isSettled reports whether the last step of the Containerfile has been built.
func (o Options) isSettled(ctx context.Context) bool {
	if o.Solver == nil {
		return false
	}
	opt, err := o.Solver(ctx)
	if err != nil && !errors.Is(err, ErrNotHere) {
		return false
	}
	if opt.Files, err = o.composition(ctx, opt); err != nil {
		return false
	}
	p, err := solver.Plan(ctx, opt)
	if err != nil || len(p.Graph.Steps()) == 0 {
		return false
	}
	steps := p.Graph.Steps()
	return p.Item(steps[len(steps)-1]).State != dag.ToRun
}

// countName is a file beside the shims that is a byte longer for each install that began,
// and that each has locked, shared, until it ends.
const countName = ".installs"

// ErrNotHere says that a solve would not change this machine, unless it is told to.
var ErrNotHere = errors.New("this machine is not to be changed")
