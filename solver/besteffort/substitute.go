package besteffort

import (
	"context"
	"time"

	"github.com/clayer/clayer/cache"
	"github.com/clayer/clayer/dag"
	"github.com/clayer/clayer/dag/key"
	"github.com/clayer/clayer/frontend"
	"github.com/clayer/clayer/solver"
)

// listTime bounds how long stores are asked for layers that may take the place of others.
const listTime = 20 * time.Second

// substitutes are the layers of earlier solves that take the place of those which cannot be
// had as they are.
type substitutes struct {
	listed   bool
	layers   []cache.Manifest // of this project and platform, newest first
	rejected map[key.Key]bool
}

// substitute returns the newest whole layer of the same name, of this project, that builds
// on what is composed here; false for none.
func (r *run) substitute(ctx context.Context, f *frontend.File) (m cache.Manifest, ok bool) {
	from, ok := r.builtOn(ctx, f)
	if !ok {
		return m, false
	}
	for _, m := range r.earlier(ctx) {
		if m.Name == f.Name && m.From == from && !r.subs.rejected[m.Key] {
			return m, true
		}
	}
	return m, false
}

// builtOn returns the key of what a layer builds on by FROM, as it is composed here: zero for
// nothing. false: it is composed in part, or its key is not known.
func (r *run) builtOn(ctx context.Context, f *frontend.File) (k key.Key, ok bool) {
	on := r.fromOf(f)
	if on == nil {
		return k, true
	}
	if r.inCycle(f) {
		return k, false
	}
	if !r.isShort(on) {
		k, ok = r.wantedKeys(ctx)[on.Name]
		return k, ok
	}
	m, ok := r.substitute(ctx, on)
	return m.Key, ok
}

// earlier returns the layers that the stores list, of this project and platform.
func (r *run) earlier(ctx context.Context) []cache.Manifest {
	if r.subs.listed {
		return r.subs.layers
	}
	r.subs.listed = true
	if r.opt.Project == nil {
		return nil
	}
	project := r.opt.Project()
	platform, err := solver.Platform(ctx, r.opt)
	stores := r.opt.AllStores()
	if project == "" || err != nil || len(stores) == 0 {
		return nil
	}
	if r.Budget > 0 && r.left() <= 0 && r.opt.Local != nil {
		stores = stores[:1]
	}
	limit := listTime
	if r.Budget > 0 {
		limit = min(limit, max(time.Second, r.left()))
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	all, err := cache.Tiered(func(string, error) {}, stores...).List(ctx)
	if err != nil && len(all) == 0 {
		return nil
	}
	for _, m := range all {
		// A step that is in no store would have to be run.
		if m.Project == project && m.Platform == platform && m.Version == cache.Version && len(m.LeftOut) == 0 && len(m.Steps) > 0 {
			r.subs.layers = append(r.subs.layers, m)
		}
	}
	return r.subs.layers
}

// reject says that a layer cannot be had, by one of its steps; false: that is a line of a
// file.
func (r *run) reject(ctx context.Context, s *dag.Step) bool {
	if run, ok := s.Instr.(*frontend.Run); !ok || run.Stored == nil {
		return false
	}
	for _, f := range r.opt.Files {
		if f.Name != s.Layer.Name {
			continue
		}
		if m, ok := r.substitute(ctx, f); ok {
			r.subs.rejected[m.Key] = true
			return true
		}
	}
	return false
}

// storedFile returns a layer of an earlier solve as a file, with the variables of today's.
func storedFile(f *frontend.File, m cache.Manifest) *frontend.File {
	part := *f
	part.Instructions = nil
	for _, in := range f.Instructions {
		switch in.(type) {
		case *frontend.From, *frontend.Arg, *frontend.Env:
			part.Instructions = append(part.Instructions, in)
		}
	}
	for i, d := range m.Steps {
		at := frontend.Meta{Pos: frontend.Pos{File: f.Path, Line: i + 1, End: i + 1}, Word: "RUN", Text: d.Text}
		part.Instructions = append(part.Instructions, dag.StoredStep(d.Key, d.Record, at))
	}
	return &part
}
