package rootfs

import (
	"context"
	"errors"
	"path"
	"slices"
	"time"

	"github.com/clayer/clayer/cache/snapshot"
)

// Adopt records a step that ran on the root itself, so that its changes are there
// already: a transaction of its own, which also commits what was begun before.
//
// Nothing was kept of what the step overwrote or deleted. Undo takes away what it
// created, by step.Before, gives folders back what they were, and tells the rest as lost. The content of the entries
// is not read.
func (l *Lock) Adopt(ctx context.Context, step Applied, changes snapshot.Changes) (Result, error) {
	t, err := l.begin()
	if err != nil {
		return Result{}, err
	}
	res, err := t.adopt(ctx, step, changes)
	if err != nil {
		return res, errors.Join(err, l.Rollback())
	}
	i := slices.IndexFunc(t.next.Layers, func(x Layer) bool { return x.Name == step.Layer })
	if i < 0 {
		i = len(t.next.Layers)
		t.next.Layers = append(t.next.Layers, Layer{Name: step.Layer})
	}
	steps := slices.DeleteFunc(slices.Clone(t.next.Layers[i].Steps), func(a Applied) bool { return a.Key == step.Key })
	t.next.Layers[i].Steps = append(steps, step)
	return res, l.commit()
}

func (t *transaction) adopt(ctx context.Context, step Applied, changes snapshot.Changes) (Result, error) {
	a, err := t.applier(t.next.nextSeq())
	if err != nil {
		return Result{}, err
	}
	defer a.close()
	for e, err := range snapshot.Validate(changes) {
		if err == nil {
			err = context.Cause(ctx)
		}
		if err == nil {
			err = a.adoptEntry(e, step.Before)
		}
		if err != nil {
			return a.res, err
		}
		a.res.Entries++
		a.res.Bytes += e.Size
	}
	ev := a.ev
	ev.Key, ev.To, ev.Adopted = step.Key, t.log.end, true
	t.next.Log = append(t.next.Log, ev)
	return a.res, nil
}

// adoptEntry records what stands at the path of an entry. Left: taken back is
// only what a transaction did itself.
func (a *applier) adoptEntry(e *snapshot.Entry, before func(string) (*snapshot.Entry, bool)) error {
	c := &Change{Seq: a.ev.Seq, Path: []byte(e.Path), Kind: kindNames[e.Kind], N: a.number(), Lost: true, Left: true}
	switch {
	case e.Kind == snapshot.Opaque, e.Kind == snapshot.Dir && e.Implied:
		return nil
	case e.Kind != snapshot.Delete:
		c.Now = metaOf(e)
		if before != nil {
			var folder *snapshot.Entry
			if folder, c.Lost = before(e.Path); folder != nil && e.Kind == snapshot.Dir {
				c.Was, c.Lost = metaOf(folder), false
			}
		}
	}
	if e.Kind == snapshot.Link {
		f, err := a.get(path.Dir(e.Path))
		if err != nil {
			return err
		}
		st, err := stat(f, path.Base(e.Path))
		if err != nil || st == nil {
			return err
		}
		c.Now = &Meta{Mode: st.Mode & 0o7777, UID: int(st.Uid), GID: int(st.Gid), Size: st.Size, ModTime: time.Unix(st.Mtim.Unix()).UTC()}
	}
	a.t.unsynced = true
	return a.t.log.add(c)
}
