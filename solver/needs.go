package solver

import (
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/clayer/clayer/cache"
	"github.com/clayer/clayer/cache/snapshot"
	"github.com/clayer/clayer/dag"
	"github.com/clayer/clayer/dag/key"
	"github.com/clayer/clayer/frontend"
	"github.com/clayer/clayer/solver/internal/names"
	"github.com/clayer/clayer/solver/internal/needs"
	"github.com/clayer/clayer/solver/internal/record"
	"github.com/clayer/clayer/solver/internal/survey"
	"github.com/clayer/clayer/solver/rootfs"
)

// Session returns where $HOME is for a step, "" if its key covers that or its user decides
// it, and the directories that programs are searched in.
func (r *session) Session(s *dag.Step) (home string, dirs []string) {
	run, ok := s.Instr.(*frontend.Run)
	if !ok {
		return "", nil
	}
	for _, kv := range r.environ(s, run) {
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

// checkNeeds finds the cached steps that need what the root lacks. What steps make that
// are not in the root yet is not known: where a layer is composed after such steps, which
// no key of its own covers, its needs are checked once more when those are applied.
func (r *session) checkNeeds(root *rootfs.Root, sv *survey.Survey, g *dag.Graph, keys *dag.Keys, answers *dag.Answers) error {
	answers.Unmet, sv.Late = make(map[key.Key]string), make(map[key.Key]bool)
	var base *needs.Site
	pending := make(map[*dag.Layer]bool)      // those with a step that is not in the root
	sites := make(map[*dag.Layer]*needs.Site) // with what the restored steps up to the end of a layer change
	for _, l := range g.Layers {
		late := survey.PendingBelow(l, pending)
		var chain *needs.Site
		for _, s := range l.Steps {
			pending[l] = pending[l] || s.ChangesRoot() && !answers.Present[s]
			found, ok := sv.Found[keys.Step[s]]
			if !ok || answers.Present[s] || len(found.Needs) == 0 {
				continue
			}
			if base == nil {
				view, err := nextView(root, sv.State, len(answers.Undo))
				if err != nil {
					return fmt.Errorf("%w: %w", ErrRoot, err)
				}
				base = needs.NewSite(view, nil)
			}
			if chain == nil {
				chain = siteOf(l, sites, base)
			}
			unmet, err := r.unmet(s, chain.For(func() (string, []string) { return r.Session(s) }), found, late)
			if err != nil {
				return fmt.Errorf("%w: %s: check what it needs: %w", ErrUnread, s.Pos(), err)
			}
			if unmet != "" {
				answers.Unmet[found.Key] = unmet
			}
			sv.Late[found.Key] = late
			chain.Expect(found.Needs)
		}
		sites[l] = chain
	}
	return nil
}

// siteOf returns the site of the first step of a layer: with what its key covers noted.
func siteOf(l *dag.Layer, sites map[*dag.Layer]*needs.Site, base *needs.Site) *needs.Site {
	for on := l; on.On != nil && !on.Ordered; on = on.On {
		if site := sites[on.On]; site != nil {
			return site.Clone()
		}
	}
	return base.Clone()
}

// unmet returns what a root lacks of what a snapshot needs; if that is checked late, as
// far as no step changes it.
func (r *session) unmet(s *dag.Step, site *needs.Site, found cache.Found, late bool) (string, error) {
	if err := needs.Check(found.Needs); err != nil {
		r.warnOnce("%s: what %s has cannot be used, since %v", s.Pos(), found.Store, err)
		return "what it needs makes no sense", nil
	}
	if late {
		home := slices.IndexFunc(found.Needs, func(n cache.Need) bool { return n.Kind == snapshot.NeedHome })
		if home < 0 {
			return "", nil
		}
		return site.Unmet(found.Needs[home : home+1])
	}
	return site.Unmet(found.Needs)
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
