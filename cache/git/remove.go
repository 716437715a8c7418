package git

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/clayer/clayer/cache"
	"github.com/clayer/clayer/cache/git/internal/branch"
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

func (s *Store) removeOnce(ctx context.Context, r *repo, ms []cache.Manifest) (int64, error) {
	x, err := s.refresh(ctx, r)
	if err != nil {
		return 0, err
	}
	left := x.Without(ms)
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
	for name := range left.Data {
		files = append(files, file{Path: name, ID: x.Files[name]})
	}
	tree, err := r.writeTree(ctx, "", append(files, file{Path: branch.ReadmeName, ID: x.Files[branch.ReadmeName]}))
	if err != nil {
		return 0, err
	}
	commit, err := r.writeCommit(ctx, tree, left.Commits(), "Remove "+layersOf(ms), time.Now())
	if err != nil {
		return 0, err
	}
	err = s.try(ctx, removing, func(ctx context.Context) error {
		if err := s.rate.Wait(ctx); err != nil {
			return err
		}
		return r.push(ctx, s.addr.Branch, commit, &x.Commit)
	})
	if err != nil {
		return 0, err
	}
	left.Commit = commit
	s.seen(left)
	return x.Bytes() - left.Bytes(), nil
}

// forgetGone removes what leads to commits that the branch does not have, as one that
// somebody has made by hand: nothing can be pushed that has them as ancestors.
func (s *Store) forgetGone(ctx context.Context, r *repo, x *index) error {
	all := x.Commits()
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
	for name, l := range x.Layers() {
		if slices.ContainsFunc(l.Steps, isGone) {
			delete(x.Data, name)
		}
	}
	for _, st := range x.Steps() {
		if isGone(*st) {
			delete(x.Data, st.Path)
		}
	}
	return nil
}
