package git

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/clayer/clayer/cache"
)

// Remove removes layers, and the steps that no other layer has; of what interrupted
// sessions left, what is two weeks old. It puts a commit in the place of the branch
// that has nothing else as ancestors: the server frees the rest when it collects
// garbage, and what is returned is what it may free then.
func (s *Store) Remove(ctx context.Context, ms []cache.Manifest) (int64, error) {
	freed, err := s.remove(ctx, ms)
	if err != nil {
		return 0, fmt.Errorf("remove %s: %w", layersOf(ms), err)
	}
	return freed, nil
}

func layersOf(ms []cache.Manifest) string {
	if len(ms) == 1 {
		return ms[0].Tag()
	}
	return fmt.Sprintf("%d layers", len(ms))
}

func (s *Store) remove(ctx context.Context, ms []cache.Manifest) (int64, error) {
	done, err := hold(ctx, s.turn)
	if err != nil {
		return 0, err
	}
	defer done()
	if err := s.refused.Writing(); err != nil {
		return 0, err
	}
	for n := 1; ; n++ {
		r, err := s.open()
		if err != nil {
			return 0, err
		}
		freed, err := s.removeOnce(ctx, r, ms)
		r.close()
		var e *Error
		if !errors.As(err, &e) || e.kind != raced || n == races {
			return freed, err
		}
	}
}

// abandonedStep is how old a step must be that no layer has to be removed with others.
const abandonedStep = 14 * 24 * time.Hour

func (s *Store) removeOnce(ctx context.Context, r *repo, ms []cache.Manifest) (int64, error) {
	x, err := s.refresh(ctx, r)
	if err != nil {
		return 0, err
	}
	left := x.without(ms)
	if left == nil {
		return 0, nil
	}
	// Commits without their files: those that remain are not sent again, since the
	// server has them as ancestors of what the branch is now.
	err = s.try(ctx, reading, func(ctx context.Context) error { return r.fetchCommits(ctx, s.addr.Branch) })
	if err != nil {
		return 0, err
	}
	if err := s.forgetGone(ctx, r, left); err != nil {
		return 0, err
	}
	var files []file
	for name := range left.data {
		files = append(files, file{name, x.files[name]})
	}
	tree, err := r.writeTree(ctx, "", append(files, file{readmeName, x.files[readmeName]}))
	if err != nil {
		return 0, err
	}
	commit, err := r.writeCommit(ctx, tree, left.commits(), "Remove "+layersOf(ms), time.Now())
	if err != nil {
		return 0, err
	}
	err = s.try(ctx, removing, func(ctx context.Context) error {
		if err := s.rate.Wait(ctx); err != nil {
			return err
		}
		return r.push(ctx, s.addr.Branch, commit, &x.commit)
	})
	if err != nil {
		return 0, err
	}
	left.commit = commit
	s.seen(left)
	return x.bytes() - left.bytes(), nil
}

// forgetGone removes what leads to commits that the branch does not have, as one that
// somebody has made by hand: nothing can be pushed that has them as ancestors.
func (s *Store) forgetGone(ctx context.Context, r *repo, x *index) error {
	all := x.commits()
	gone := make(map[object]bool)
	err := r.contents(ctx, all, func(i int, kind string, _ int64, _ io.Reader) error {
		if kind != "commit" {
			gone[all[i]] = true
		}
		return nil
	})
	if err != nil || len(gone) == 0 {
		return err
	}
	s.opt.Warn(fmt.Sprintf("%s: %d snapshots on the list are not on the branch: they are removed from it", r.git.where, len(gone)))
	isGone := func(st stored) bool { return gone[st.Commit] }
	for name, l := range x.layers() {
		if slices.ContainsFunc(l.Steps, isGone) {
			delete(x.data, name)
		}
	}
	for _, st := range x.steps() {
		if isGone(*st) {
			delete(x.data, st.name)
		}
	}
	return nil
}

// without returns the index without layers, and without what only they have; nil if none
// of them is there.
func (x *index) without(ms []cache.Manifest) *index {
	left := x.with("", nil, nil)
	var gone []*layer
	for i := range ms {
		name := layerPath(&ms[i])
		if l, ok := x.layer(name); ok {
			gone = append(gone, l)
		}
		delete(left.data, name)
	}
	if len(gone) == 0 {
		return nil
	}
	used, removed := make(map[string]bool), make(map[string]bool) // by key
	for _, l := range left.layers() {
		for _, st := range l.Steps {
			used[st.Key.String()] = true
		}
	}
	for _, l := range gone {
		for _, st := range l.Steps {
			removed[st.Key.String()] = true
		}
	}
	for _, st := range x.steps() {
		k := st.Key.String()
		if !used[k] && (removed[k] || time.Since(st.Pushed) > abandonedStep) {
			delete(left.data, st.name)
		}
	}
	for name := range left.files {
		if left.data[name] == nil && name != readmeName {
			delete(left.files, name)
		}
	}
	return left
}

// each calls f for every snapshot, possibly several times.
func (x *index) each(f func(*stored)) {
	for _, l := range x.layers() {
		for i := range l.Steps {
			f(&l.Steps[i])
		}
	}
	for _, st := range x.steps() {
		f(st)
	}
}

// commits returns those with the snapshots.
func (x *index) commits() (all []object) {
	x.each(func(st *stored) { all = append(all, st.Commit) })
	slices.Sort(all)
	return slices.Compact(all)
}

// bytes returns the size of all snapshots.
func (x *index) bytes() (n int64) {
	seen := make(map[object]bool)
	x.each(func(st *stored) {
		if !seen[st.Commit] {
			seen[st.Commit] = true
			n += st.Size
		}
	})
	return n
}
