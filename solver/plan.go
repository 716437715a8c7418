package solver

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/clayer/clayer/cache"
	"github.com/clayer/clayer/dag"
	"github.com/clayer/clayer/dag/key"
	"github.com/clayer/clayer/frontend"
	"github.com/clayer/clayer/frontend/buildchecks"
	"github.com/clayer/clayer/solver/exec"
	"github.com/clayer/clayer/solver/internal/environ"
	"github.com/clayer/clayer/solver/internal/inventory"
	"github.com/clayer/clayer/solver/internal/probe"
	"github.com/clayer/clayer/solver/internal/record"
	"github.com/clayer/clayer/solver/internal/survey"
	"github.com/clayer/clayer/solver/layers"
	"github.com/clayer/clayer/solver/machine"
	"github.com/clayer/clayer/solver/rootfs"
)

// Plan says what Solve would do. It writes nothing but what it learned of the files of a context,
// in the cache directory.
func Plan(ctx context.Context, opt Options) (*dag.Plan, error) {
	p, _, err := PlanFor(ctx, opt, "")
	return p, err
}

// PlanFor says what Solve would do on a machine of a platform to which nothing is applied,
// and which has all that snapshots need; "" is the platform of the options' root, which is
// looked at. It also returns the snapshots that stores have, those that are chosen.
func PlanFor(ctx context.Context, opt Options, platform string) (*dag.Plan, map[key.Key]cache.Found, error) {
	r := newReadOnly(opt)
	r.elsewhere = platform
	root, err := r.open()
	if err != nil {
		return nil, nil, err
	}
	for _, f := range r.files {
		if line, ahead := buildchecks.Syntax([]byte(f.Source)); ahead != "" {
			r.warnOnce("%s:%d: %s", f.Path, line, ahead)
		}
	}
	s, err := r.survey(ctx, root)
	if err == nil {
		s.Plan.Stages, err = r.stages.Plan(ctx, s.Plan)
	}
	var unbuilt frontend.Problems
	if err == nil && platform == "" && errors.As(r.checkInPlace(ctx, root, s.Plan), &unbuilt) {
		for _, p := range unbuilt {
			r.warn("%s: %s: %s", p.Pos, p.Word, p.Message)
		}
	}
	if err != nil {
		return nil, nil, err
	}
	return s.Plan, s.Found, nil
}

// Hash computes the keys of the options' layers: a plan without a look at
// stores and root.
func Hash(ctx context.Context, opt Options) (*dag.Graph, *dag.Keys, error) {
	r := newReadOnly(opt)
	_, state, err := r.openState()
	if err != nil {
		return nil, nil, err
	}
	g, err := r.checkedGraph(ctx)
	if err != nil {
		return nil, nil, err
	}
	keys, err := r.keys(ctx, g, r.platform(ctx, state))
	return g, keys, err
}

// Snapshots returns the snapshots of steps that are on this machine: of each first the one
// that is applied to the root, and then those that the local store has.
func Snapshots(ctx context.Context, opt Options, g *dag.Graph, keys *dag.Keys) (map[key.Key][]cache.Descriptor, error) {
	_, state, err := opt.openState()
	if err != nil {
		return nil, err
	}
	all := make(map[key.Key][]cache.Descriptor)
	for _, l := range state.Layers {
		for _, a := range l.Steps {
			if a.Digest != "" {
				all[a.Key] = []cache.Descriptor{{Key: a.Key, Digest: a.Digest, Needs: a.Needs, On: a.On}}
			}
		}
	}
	for _, l := range g.Layers {
		if opt.Local == nil {
			break
		}
		found, err := opt.Local.Variants(ctx, cache.Tag(l.Name, keys.Layer[l]), keys.Of(l))
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		for k, list := range found { // of a store that fails, what it has cannot be said
			for _, f := range list {
				if err == nil && !slices.ContainsFunc(all[k], func(d cache.Descriptor) bool { return d.VariantID() == f.VariantID() }) {
					all[k] = append(all[k], f.Descriptor)
				}
			}
		}
	}
	return all, nil
}

func (r *session) survey(ctx context.Context, root *rootfs.Root) (*survey.Survey, error) {
	r.root = root
	state, err := root.State()
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrRoot, err)
	}
	if r.elsewhere != "" {
		state = &record.State{Platform: r.elsewhere}
	}
	g, err := r.checkedGraph(ctx)
	if err != nil {
		return nil, err
	}
	for _, name := range g.UnusedArgs(r.BuildArgs) {
		r.warnOnce("build argument %s: no layer has ARG %s", name, name)
	}
	r.SetState(state)
	s := survey.New(state, r.platform(ctx, state))
	keys, err := r.keys(ctx, g, s.Platform)
	if err != nil {
		return nil, err
	}
	answers := dag.Answers{
		Present:  make(map[*dag.Step]bool),
		Cached:   make(map[key.Key]dag.Found),
		Previous: make(map[string][]dag.Old),
	}
	answers.Unstored = func(step *dag.Step) bool {
		return !s.Changed[step] && (inventory.Installs(step) || slices.ContainsFunc(answers.Previous[step.Layer.Name], func(o dag.Old) bool { return o.LeftOut && o.Key == keys.Step[step] }))
	}
	answers.Again = func(step *dag.Step) bool { return s.Again[step] != "" && !s.Changed[step] }
	var probed probe.Log
	if len(r.Probes) > 0 {
		if probed, err = probe.Read(root.StateDir()); err != nil {
			r.warnOnce("%v", err)
		}
	}
	if !r.Rebuild {
		answers.Gone = probed.Leave(r.Probes, state, inventory.Gone(root, state))
		answers.Present = r.present(g, keys, state, answers.Gone)
		if s.Found, err = r.Find(ctx, g, keys, answers.Present); err != nil {
			return nil, err
		}
		files, err := r.legacyFiles(ctx, g, keys, answers.Present, s.Found)
		if err != nil {
			return nil, err
		}
		if files != nil {
			r.files = files
			if g, err = r.graph(); err != nil {
				return nil, err
			}
			if keys, err = r.keys(ctx, g, s.Platform); err != nil {
				return nil, err
			}
			answers.Present = r.present(g, keys, state, answers.Gone)
			if s.Found, err = r.Find(ctx, g, keys, answers.Present); err != nil {
				return nil, err
			}
		}
		for k, d := range s.Found {
			answers.Cached[k] = survey.FoundOf(d)
		}
	}
	if err := r.previous(ctx, g, keys, state, &answers); err != nil {
		return nil, err
	}
	for _, ev := range slices.Backward(state.Log[survey.Staying(g, answers.Present):]) {
		answers.Undo = append(answers.Undo, ev.Key)
	}
	s.Answers = answers
	if err := r.checkNeeds(ctx, root, s, g, keys); err != nil {
		return nil, err
	}
	probed.Refuse(r.Probes, s, g, keys)
	r.proven = probed.Proven(r.Probes, s, g, keys)
	s.Plan = dag.NewPlan(g, keys, s.Answers)
	return s, nil
}

// present is survey.Present. A stage is made from the base and snapshots alone: what is of it
// is known by these.
func (r *session) present(g *dag.Graph, keys *dag.Keys, state *record.State, gone map[key.Key]string) map[*dag.Step]bool {
	if r.isStage {
		return make(map[*dag.Step]bool)
	}
	return survey.Present(g, keys, state, gone, r.Again)
}

// Platform returns what the options' root was before clayer changed it first, as the keys
// of its steps have it.
func Platform(ctx context.Context, opt Options) (string, error) {
	r := newReadOnly(opt)
	_, state, err := r.openState()
	if err != nil {
		return "", err
	}
	return r.platform(ctx, state), nil
}

// platform returns what the root was before clayer changed it first.
func (r *session) platform(ctx context.Context, state *record.State) string {
	if platform := cmp.Or(state.Platform, r.machine); platform != "" {
		return platform
	}
	searchPath := environ.DefaultPath
	if r.base() == "/" {
		searchPath = r.environ().Variables()["PATH"]
	}
	return machine.Platform(ctx, r.base(), searchPath)
}

// keys pins all sources, at the same time, and computes the keys.
func (r *session) keys(ctx context.Context, g *dag.Graph, platform string) (*dag.Keys, error) {
	r.machine = platform
	pins := make(dag.Pins, len(g.Sources))
	var mu sync.Mutex
	var problems frontend.Problems
	eg, ctx := errgroup.WithContext(ctx)
	eg.SetLimit(r.jobs())
	var commits []string
	eg.Go(func() (err error) {
		commits, err = r.sources().Commits(ctx, r.InvalidateOn, r.jobs())
		return err
	})
	for _, src := range g.Sources {
		eg.Go(func() error {
			pin, err := r.Pin(ctx, src.Steps[0])
			var ofStage frontend.Problems
			mu.Lock()
			defer mu.Unlock()
			switch p := exec.Problem(src.Steps[0], err); {
			case p != nil:
				problems = append(problems, p) // the writer's fault: gather them all
			case errors.As(err, &ofStage):
				problems = append(problems, ofStage...)
				return nil
			case err != nil:
				return &BuildError{Step: src.Steps[0], Err: err}
			}
			pins[src.ID] = pin
			return nil
		})
	}
	err := eg.Wait()
	if !r.isStage { // whose files are saved with those of what uses it
		r.contexts.Save()
	}
	if err != nil {
		return nil, err
	}
	if err := problems.Sorted().Err(); err != nil {
		return nil, err
	}
	return g.Keys(dag.Base{Platform: platform, ID: r.BaseID, Salts: r.Salts, Commits: commits}, pins)
}

// previous gathers the steps of earlier solves, by which new keys are
// explained: those of this root, else the newest layer of that name in a store.
func (r *session) previous(ctx context.Context, g *dag.Graph, keys *dag.Keys, state *record.State, a *dag.Answers) error {
	for _, l := range state.Layers {
		for _, s := range l.Steps {
			a.Previous[l.Name] = append(a.Previous[l.Name], dag.Old{
				Key: s.Key, Recoded: s.Encoding != key.Encoding, Line: s.Line, Record: s.Record,
				Took: s.Took, LeftOut: s.LeftOut, Changed: s.Entries > 0 && !s.LeftOut, Cutoff: !s.Cutoff.IsZero(),
			})
		}
	}
	if r.store == nil || !survey.Unexplained(dag.NewPlan(g, keys, *a)) {
		return nil
	}
	manifests, err := r.store.List(ctx)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil {
		return nil // it only explains; Find has reported that the store fails
	}
	r.Learn(manifests)
	for _, m := range manifests { // newest first
		if len(a.Previous[m.Name]) > 0 {
			continue
		}
		a.Previous[m.Name] = survey.OldSteps(m)
	}
	return nil
}

// graph lowers the files of the session.
func (r *session) graph() (*dag.Graph, error) {
	ignore := make(map[string][]string)
	for _, f := range r.files {
		if _, ok := ignore[f.Dir]; ok {
			continue
		}
		patterns, err := layers.ReadIgnore(filepath.Join(f.Dir, ".clayerignore"))
		if err != nil {
			return nil, err
		}
		ignore[f.Dir] = patterns
	}
	return dag.Build(r.files, dag.Options{
		Session:   r.environ().Variables(),
		Inherit:   r.environ().Inherit(),
		BuildArgs: r.BuildArgs,
		Ignore:    ignore,
		Scope:     r.scope,
	})
}
