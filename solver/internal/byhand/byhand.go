// Package byhand knows what an install by hand is, as a step: what of it is no part of the
// step, which step it is of, and when it is of none.
package byhand

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/clayer/clayer/cache/snapshot"
	"github.com/clayer/clayer/dag"
	"github.com/clayer/clayer/frontend"
	"github.com/clayer/clayer/internal/pathname"
	"github.com/clayer/clayer/solver/capture"
	"github.com/clayer/clayer/solver/internal/needs"
	"github.com/clayer/clayer/solver/internal/survey"
	"github.com/clayer/clayer/solver/sandbox"
)

// rewritten are files that managers write again at an install, beside the databases and
// what is in /etc.
var rewritten = []string{
	"var/lib/dpkg/*", "var/lib/dpkg/alternatives/*", "var/lib/dpkg/triggers/*", "var/lib/apt/*", "lib/apk/db/*", "usr/share/info/dir",
	"usr/local/.crates*", "usr/local/lib/node_modules/.package-lock.json", "usr/lib/node_modules/.package-lock.json", "opt/*/conda-meta/history",
}

// Rewritten returns the files of a root that an install may write again: those whose
// digests are known, and what managers keep for themselves.
func Rewritten(root, home string, known needs.Saved) []string {
	paths := slices.Collect(maps.Keys(known))
	dir := os.DirFS(root)
	for _, pattern := range append(rewritten, strings.Trim(home, "/")+"/.cargo/.crates*") {
		found, _ := fs.Glob(dir, pattern) // the patterns are sound
		paths = append(paths, found...)
	}
	slices.Sort(paths)
	return slices.Compact(paths)
}

// A View is a root on which an install by hand has run. What it changed is not read where
// that is no step.
type View struct {
	sandbox.InPlace
	Root     string
	Projects []string     // directories, relative to the root, of the user's own work
	Alone    func() error // an error if others were at work
	Held     *Held
	Empty    *bool // set by Run: nothing was changed
}

// IsEmpty reports whether the install has changed nothing.
func (v View) IsEmpty() bool { return *v.Empty }

// Original implements sandbox.InPlace.
func (v View) Original(p string, dir int, name string) (bool, error) {
	return v.Held.Save(p, dir, name)
}

// Run implements sandbox.View.
func (v View) Run(ctx context.Context, c sandbox.Command) (snapshot.Changes, error) {
	changes, err := v.InPlace.Run(ctx, c)
	if err != nil {
		return nil, err
	}
	inCheckout := capture.Checkouts(v.Root)
	return func(yield func(*snapshot.Entry, error) bool) {
		any := false
		for e, err := range changes {
			if err == nil && e.Kind != snapshot.Dir {
				any = true
				if in := func(dir string) bool { return pathname.Under(e.Path, dir) }; inCheckout("/"+e.Path) || slices.ContainsFunc(v.Projects, in) {
					e, err = nil, fmt.Errorf("/%s changed meanwhile, and what is in a working tree is in no snapshot", e.Path)
				}
			}
			if !yield(e, err) || err != nil {
				return
			}
		}
		err := v.Alone()
		*v.Empty = !any
		if err != nil {
			yield(nil, err)
		}
	}, nil
}

// ErrNothing says that an install by hand has changed no file. Its step is in the root, and
// stored nowhere, like that of a RUN which finds what it would install.
var ErrNothing = errors.New("it changed no file, so this machine had it already")

// Step returns the step that an install by hand has made: the last one of the composition,
// of which all else is in the root, but for what is copied for it.
func Step(sv *survey.Survey, text string) (*dag.Step, error) {
	all := sv.Plan.Graph.Steps()
	if len(all) == 0 || all[len(all)-1].Text() != text {
		return nil, errors.New("its line is not the last one of the composition")
	}
	last := all[len(all)-1]
	for _, s := range all {
		_, copied := s.Instr.(*frontend.Copy)
		switch it := sv.Plan.Item(s); {
		case it.State == dag.Present && s != last:
		case it.State == dag.Cached && s == last:
			return nil, errors.New("a snapshot of that line is in a store already")
		case it.State == dag.ToRun && (s == last || copied && forLast(s, last)):
		default:
			return nil, fmt.Errorf("%s is not in the root as it stands there; run clayer solve before the next install", s.Pos())
		}
	}
	if len(sv.State.Log) != survey.Staying(sv.Plan.Graph, sv.Answers.Present) || sv.State.Retry() {
		return nil, errors.New("other steps were applied after those of the file; run clayer solve, or clayer undo, before the next install")
	}
	return last, nil
}

// forLast reports whether all between a step and the last one copies what that reads.
func forLast(s, last *dag.Step) bool {
	if s.Layer != last.Layer {
		return false
	}
	for _, between := range s.Layer.Steps[s.Index:last.Index] {
		if _, ok := between.Instr.(*frontend.Copy); !ok {
			return false
		}
	}
	return true
}

// Differs returns an error if a step runs otherwise than in the session, where the install
// ran: as another user, or with a variable by ENV or ARG.
func Differs(s *dag.Step, environ []string, session map[string]string) error {
	run := s.Instr.(*frontend.Run)
	if run.User != "" {
		return fmt.Errorf("USER %s runs the line in a solve", run.User)
	}
	env := make(map[string]string)
	for _, kv := range environ {
		name, value, _ := strings.Cut(kv, "=")
		env[name] = value
	}
	names := slices.Concat(run.Args, run.Env)
	for _, l := range s.Layer.Before() {
		names = append(names, l.Scope.Env...)
	}
	for _, v := range names {
		if want, have := env[v.Name], session[v.Name]; want != have && (have == "" || len(missing(want, have)) > 0) {
			return fmt.Errorf("the session has another $%s than the line, and clayer env prints the one of the line", v.Name)
		}
	}
	return nil
}

// missing returns the elements of a list that another one has not.
func missing(want, have string) []string {
	list := strings.Split(have, ":")
	return slices.DeleteFunc(strings.Split(want, ":"), func(w string) bool { return slices.Contains(list, w) })
}
