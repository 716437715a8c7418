// Package rebuild builds steps again, beside what stores have of them, and says what differs.
//
// It is a solve into a store of its own, which is removed at the end: nothing is applied, and
// what other stores have of the steps is only compared.
package rebuild

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"github.com/opencontainers/go-digest"

	"github.com/clayer/clayer/cache"
	"github.com/clayer/clayer/cache/dir"
	"github.com/clayer/clayer/dag"
	"github.com/clayer/clayer/dag/key"
	"github.com/clayer/clayer/frontend"
	"github.com/clayer/clayer/solver"
	"github.com/clayer/clayer/solver/sandbox"
)

// A Step is what came of a step that was built again.
type Step struct {
	Layer string  `json:"layer"`
	Line  int     `json:"line"`
	Text  string  `json:"text"`
	Key   key.Key `json:"key"`

	// Stored and Built are the DiffIDs of the snapshots; "": no store has one, or what was built
	// is put into none.
	Stored digest.Digest `json:"stored,omitempty"`
	Built  digest.Digest `json:"built,omitempty"`

	Entries int    `json:"entries"`         // of what was built
	Files   []File `json:"files,omitempty"` // that differ, by path
}

// Compared reports whether there are two snapshots to compare.
func (s *Step) Compared() bool { return s.Stored != "" && s.Built != "" }

// Differs reports whether they are not the same bytes.
func (s *Step) Differs() bool { return s.Compared() && s.Stored != s.Built }

// Compare builds the step in a line of a file again, or, with line 0, all steps, each on what
// stores have of those before it, and compares them with what stores have. The error wraps
// sandbox.ErrUnavailable where there is no overlay, and cache.ErrNotCached where no store has
// the step in the line.
func Compare(ctx context.Context, opt solver.Options, file string, line int) (steps []Step, err error) {
	if opt.Sandbox == "inplace" {
		return nil, fmt.Errorf("%w: a RUN in place changes the root itself, and a step is built again in an overlay alone", sandbox.ErrUnavailable)
	}
	plan, err := solver.Plan(ctx, opt)
	if err != nil {
		return nil, err
	}
	chosen := make(map[key.Key]*dag.Step)
	for _, s := range plan.Graph.Steps() {
		if s.ChangesRoot() {
			chosen[plan.Keys.Step[s]] = s
		}
	}
	if line != 0 {
		at, err := plan.Graph.StepAt(file, line)
		if err != nil {
			return nil, err
		}
		k := plan.Keys.Step[at]
		if chosen[k] == nil {
			return nil, fmt.Errorf("%s: %s has no snapshot to compare", at.Pos(), at.Word())
		}
		chosen = map[key.Key]*dag.Step{k: at}
	}
	stored, err := find(ctx, opt.AllStores(), chosen)
	if err != nil {
		return nil, err
	}
	for k, s := range chosen {
		if line != 0 && len(stored[k]) == 0 {
			return nil, fmt.Errorf("%s: %w: no store has the step, so there is nothing to compare", s.Pos(), cache.ErrNotCached)
		}
	}

	// By its second key a step would be found that makes the same again.
	hidden := make(map[key.Key]bool)
	for k := range chosen {
		hidden[k] = true
		for _, f := range stored[k] {
			hidden[f.Cutoff] = true
		}
	}

	temp, err := os.MkdirTemp(opt.Cache, "rebuild-")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(temp)) }()
	own, err := dir.Open(filepath.Join(temp, "store"), dir.Options{Private: true, MaxSize: 1 << 40})
	if err != nil {
		return nil, err
	}
	again := opt
	again.Local, again.Stores = own, nil
	for _, s := range opt.AllStores() {
		again.Stores = append(again.Stores, source{s, hidden})
	}
	again.BuildOnly, again.Push, again.PushAgain, again.ShareMounts, again.Rebuild, again.RequireCache = true, true, false, false, false, false
	again.Sandbox = "overlay"
	at := make(map[frontend.Pos]bool) // the solve makes a graph of its own
	for _, s := range chosen {
		at[s.Pos()] = true
	}
	again.Again = func(s *dag.Step) bool { return at[s.Pos()] }
	if _, err := solver.Solve(ctx, again); err != nil {
		return nil, err
	}
	built, err := find(ctx, []cache.Store{own}, chosen)
	if err != nil {
		return nil, err
	}
	for _, s := range plan.Graph.Steps() {
		k := plan.Keys.Step[s]
		if chosen[k] != s {
			continue
		}
		step := Step{Layer: s.Layer.Name, Line: s.Pos().Line, Text: s.Text(), Key: k}
		if err := step.compare(ctx, stored[k], built[k]); err != nil {
			return nil, fmt.Errorf("%s: %w", s.Pos(), err)
		}
		steps = append(steps, step)
	}
	return steps, nil
}

// compare completes a step by what it was, and what it is now.
func (s *Step) compare(ctx context.Context, stored, built []found) error {
	if len(stored) > 0 {
		s.Stored = stored[0].DiffID
	}
	if len(built) > 0 {
		s.Built, s.Entries = built[0].DiffID, built[0].Entries
	}
	if !s.Differs() {
		return nil
	}
	// Machines that differ have snapshots of their own of a step.
	if slices.ContainsFunc(stored, func(f found) bool { return f.DiffID == s.Built }) {
		s.Stored = s.Built
		return nil
	}
	was, err := stored[0].read(ctx)
	if err != nil {
		return err
	}
	is, err := built[0].read(ctx)
	if err == nil {
		s.Files = differences(was, is)
	}
	return err
}

// found is a snapshot, and where it is.
type found struct {
	cache.Descriptor
	store cache.Store
}

// find returns all snapshots of the steps in the first store that has any.
func find(ctx context.Context, stores []cache.Store, steps map[key.Key]*dag.Step) (map[key.Key][]found, error) {
	all := make(map[key.Key][]found)
	var failed error
	for _, store := range stores {
		var missing []key.Key
		for k := range steps {
			if all[k] == nil {
				missing = append(missing, k)
			}
		}
		if len(missing) == 0 {
			break
		}
		variants, err := store.Variants(ctx, "", missing)
		if err != nil {
			failed = errors.Join(failed, fmt.Errorf("%s: %w", store.Name(), err))
		}
		for k, fs := range variants {
			for _, f := range fs {
				all[k] = append(all[k], found{f.Descriptor, store})
			}
		}
	}
	if len(all) > 0 {
		return all, nil
	}
	return all, failed
}

// source is a store that gives, of all but some keys, what it has, and takes nothing. It finds
// nothing by a second key, which would be what the other key is of.
type source struct {
	cache.Store
	without map[key.Key]bool
}

func (s source) Writable() error { return cache.ErrReadOnly }

func (s source) visible(keys []key.Key) []key.Key {
	return slices.DeleteFunc(slices.Clone(keys), func(k key.Key) bool { return s.without[k] })
}

func (s source) Find(ctx context.Context, tag string, keys []key.Key) (map[key.Key]cache.Found, error) {
	found, err := s.Store.Find(ctx, tag, s.visible(keys))
	maps.DeleteFunc(found, func(k key.Key, f cache.Found) bool { return s.without[k] || f.ByContent() })
	return found, err
}

func (s source) List(ctx context.Context) ([]cache.Manifest, error) {
	list, err := s.Store.List(ctx)
	for i := range list {
		list[i].Steps = slices.Clone(list[i].Steps)
		for j := range list[i].Steps {
			list[i].Steps[j].Cutoff = key.Key{}
		}
	}
	return list, err
}

func (s source) Variants(ctx context.Context, tag string, keys []key.Key) (map[key.Key][]cache.Found, error) {
	return s.Store.Variants(ctx, tag, s.visible(keys))
}

func (s source) Put(context.Context, cache.Descriptor, *cache.Blob) error { return cache.ErrReadOnly }
func (s source) Complete(context.Context, cache.Manifest) error           { return cache.ErrReadOnly }
func (s source) Remove(context.Context, []cache.Manifest) (int64, error)  { return 0, cache.ErrReadOnly }
