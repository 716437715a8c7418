package drift

import (
	"context"
	"path"
	"time"

	"github.com/clayer/clayer/internal/inroot"
	"github.com/clayer/clayer/solver/internal/record"
)

// Losses are what steps that ran on the root itself replaced or deleted, and nobody saved, of
// what is undone together: by path, whether it is as they left it. If a step before them put
// there what they took away, and is undone too, nothing of the machine's is lost.
type Losses map[string]bool

// Add notes a change of which the original was not saved. What stands at its path is compared
// with it, or was with that of a later step.
func (l Losses) Add(ctx context.Context, tree *inroot.Dirs, c *record.Change, done time.Time, buf []byte) error {
	p := string(c.Path)
	if _, later := l[p]; later {
		return nil
	}
	l[p] = c.Kind == record.KindGone
	f, err := tree.GetReal(path.Dir(p))
	if err != nil {
		return inroot.UnlessMissing(err)
	}
	st, err := f.Stat(path.Base(p))
	if err != nil || st == nil {
		return err
	}
	l[p] = false
	if c.Kind == record.KindGone || c.Kind == record.KindDir {
		return nil
	}
	what, err := Of(ctx, f, path.Base(p), st, c, done, buf)
	l[p] = len(what) == 0
	return err
}

// Settle reports whether a change put there what was lost, so that undoing it leads to what
// stood there before both.
func (l Losses) Settle(c *record.Change) bool {
	p := string(c.Path)
	if !l[p] || c.Was != nil || c.Records != nil {
		return false
	}
	delete(l, p)
	return true
}
