package rootfs

import (
	"context"
	"errors"
	"path"

	"github.com/clayer/clayer/cache/snapshot"
	"github.com/clayer/clayer/internal/inroot"
	"github.com/clayer/clayer/solver/internal/metadata"
	"github.com/clayer/clayer/solver/internal/record"
	"github.com/clayer/clayer/solver/internal/unpack"
)

// Adopt records a step that ran on the root itself, so that its changes are there
// already: a transaction of its own, which also commits what was begun before.
//
// Nothing was saved of what the step overwrote or deleted, but by SaveDatabases. Undo takes away what it
// created, by step.Before, gives directories back what they were, and reports the rest
// as lost. The content of the entries is not read. Changes of no step, of a RUN that
// failed, have the zero key, and are in the log alone.
func (l *Lock) Adopt(ctx context.Context, step record.Applied, changes snapshot.Changes) (unpack.Result, error) {
	t, err := l.begin()
	if err != nil {
		return unpack.Result{}, err
	}
	t.undoes() // what is done has to be recorded, also on a full disk
	res, err := t.adopt(ctx, step, forRoot(&step, changes))
	if err != nil {
		return res, errors.Join(err, l.Rollback())
	}
	if !step.Key.IsZero() {
		t.next.Add(step)
	}
	res.Scratch = step.Scratch
	if err := l.commit(); err != nil {
		return res, err
	}
	return res, l.root.state.Held().RemoveAll(savedName)
}

func (t *transaction) adopt(ctx context.Context, step record.Applied, changes snapshot.Changes) (res unpack.Result, err error) {
	tree, err := metadata.Open(t.r.sys, t.r.dir, t.journal)
	if err != nil {
		return res, err
	}
	defer func() {
		err = errors.Join(err, tree.SetTimes())
		tree.Close()
	}()
	ev := record.Event{Seq: t.next.NextSeq(), Key: step.Key, Tx: t.id, From: t.journal.End(), Adopted: true}
	saved, err := t.adopting(ev.Seq, step.Original)
	if err != nil {
		return res, err
	}
	defer saved.close()
	needed := t.journal.Needs()
	n := 0
	for e, err := range snapshot.Validate(changes) {
		if err == nil {
			err = context.Cause(ctx)
		}
		if err != nil {
			return res, err
		}
		n++
		c, err := adopted(tree.Dirs, e, step.Before)
		if err == nil && c != nil {
			c.Seq, c.N = ev.Seq, n
			if err = saved.original(tree.Dirs, c); err == nil {
				err = t.journal.Add(c)
			}
		}
		if err != nil {
			return res, err
		}
		res.Entries++
		res.Bytes += e.Size
	}
	ev.To, ev.Space = t.journal.End(), t.journal.Needs().Minus(needed)
	t.next.Log = append(t.next.Log, ev)
	return res, nil
}

// adopted returns the record of an entry, by what stands at its path; nil for one
// that needs none. Left: undone is only what a transaction did itself.
func adopted(fs *inroot.Dirs, e *snapshot.Entry, before func(string) (*snapshot.Entry, bool)) (*record.Change, error) {
	c := &record.Change{Path: []byte(e.Path), Kind: record.KindOf(e.Kind), Lost: true, Left: true}
	switch {
	case e.Kind == snapshot.Opaque, e.Kind == snapshot.Dir && e.Implied:
		return nil, nil
	case e.Kind != snapshot.Delete:
		c.Now = record.MetaOf(e)
		if before != nil {
			var dir *snapshot.Entry
			if dir, c.Lost = before(e.Path); dir != nil && e.Kind == snapshot.Dir {
				c.Was, c.Lost = record.MetaOf(dir), false
			}
		}
	}
	if e.Kind == snapshot.Link {
		f, err := fs.Get(path.Dir(e.Path))
		if err != nil {
			return nil, err
		}
		st, err := f.Stat(path.Base(e.Path))
		if err != nil || st == nil {
			return nil, err
		}
		c.Now = record.MetaOfStat(st)
		c.Now.Size, c.Now.Type = st.Size, record.TypeOf(st)
	}
	return c, nil
}
