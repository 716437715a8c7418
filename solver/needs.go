package solver

import (
	"context"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/clayer/clayer/dag"
	"github.com/clayer/clayer/frontend"
	"github.com/clayer/clayer/frontend/edit"
	"github.com/clayer/clayer/solver/internal/environ"
	"github.com/clayer/clayer/solver/internal/inventory"
	"github.com/clayer/clayer/solver/internal/names"
	"github.com/clayer/clayer/solver/internal/needs"
	"github.com/clayer/clayer/solver/internal/record"
	"github.com/clayer/clayer/solver/internal/survey"
	"github.com/clayer/clayer/solver/internal/variants"
	"github.com/clayer/clayer/solver/rootfs"
)

// Session returns where $HOME is for a step, "" if its key or user says that, and where programs are searched.
func (r *session) Session(s *dag.Step) (home string, dirs []string) {
	run := environ.RunOf(s)
	if run == nil {
		return "", nil
	}
	for _, kv := range r.environ().Of(s, run) {
		switch name, value, _ := strings.Cut(kv, "="); {
		case name == "PATH":
			dirs = strings.Split(value, ":")
		case name == "HOME" && path.IsAbs(value) && run.User == "" && !slices.ContainsFunc(run.Env, isHome) && !slices.ContainsFunc(run.Args, isHome):
			home = path.Clean(value)
		}
	}
	return home, slices.DeleteFunc(dirs, func(dir string) bool { return !path.IsAbs(dir) })
}

func isHome(v frontend.Var) bool { return v.Name == "HOME" }

// checkNeeds chooses which snapshots of the cached steps are restored.
func (r *session) checkNeeds(ctx context.Context, root *rootfs.Root, sv *survey.Survey, g *dag.Graph, keys *dag.Keys) error {
	c := variants.Choice{
		Survey: sv, Graph: g, Keys: keys, Ask: r.Variants, Session: r.Session, Warn: r.warnOnce, Unchecked: r.elsewhere != "",
		View: func() (*names.View, error) {
			view, err := nextView(root, sv.State, len(sv.Answers.Undo))
			if err != nil {
				err = fmt.Errorf("%w: %w", ErrRoot, err)
			}
			return view, err
		},
	}
	err := c.Choose(ctx)
	if unread := (*variants.UnreadError)(nil); errors.As(err, &unread) {
		err = fmt.Errorf("%w: %w", ErrUnread, err)
	}
	return err
}

// nextView returns the root without the last applies of its log.
func nextView(root *rootfs.Root, state *record.State, undone int) (*names.View, error) {
	view := root.Names()
	if undone == 0 {
		return view, nil
	}
	log := state.Log
	changes, err := root.Revert(log[:len(log)-undone], log[len(log)-undone:])
	if err != nil {
		return nil, err
	}
	return view, view.Add(changes)
}

// Named returns the packages that the command of a step installs, as it names them. One
// that goes to another directory than the machine's, or that is a file, is none.
func (r *session) Named(s *dag.Step) (list []needs.Named) {
	for _, in := range inventory.InstallsOf(s) {
		if manager := inventory.ManagerOf(in); manager != "" && in.Verdict == edit.Captured {
			for _, p := range in.Install.Packages {
				list = append(list, needs.Named{Manager: manager, Package: p})
			}
		}
	}
	return list
}
