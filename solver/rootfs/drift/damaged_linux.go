package drift

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/clayer/clayer/internal/inroot"
	"github.com/clayer/clayer/solver/internal/record"
)

// Damaged counts, by the number of their apply, the files of some applies of a state that
// have another content than they were given, though nobody has changed them since: power
// was lost before they were on the disk.
func Damaged(ctx context.Context, sys inroot.Sys, root string, d record.Dir, s *record.State, some func(*record.Event) bool) (map[int]int, error) {
	asked := make(map[int]bool)
	for i := range s.Log {
		if ev := &s.Log[i]; some(ev) && !ev.Adopted {
			asked[ev.Seq] = true
		}
	}
	if len(asked) == 0 {
		return nil, nil
	}
	all, err := ownedBy(d, s)
	if err != nil {
		return nil, err
	}
	a, err := newComparer(sys, root, nil)
	if err != nil {
		return nil, err
	}
	defer a.Close()
	damaged := make(map[int]int)
	for p, o := range all {
		if o.Kind != record.KindFile || !asked[o.Seq] || o.Now == nil {
			continue
		}
		is, err := a.isDamaged(ctx, o)
		if err != nil {
			return nil, fmt.Errorf("%q: %w", p, err)
		}
		if is {
			damaged[o.Seq]++
		}
	}
	return damaged, nil
}

// isDamaged reports whether the content of an owned file is another one, and was so when
// the apply was committed.
func (a *comparer) isDamaged(ctx context.Context, o owned) (bool, error) {
	f, name, st, err := a.find(string(o.Path))
	if st == nil || err != nil || changedSince(st, o.done) || record.TypeOf(st) != record.KindFile {
		return false, err
	}
	what, err := Of(ctx, f, name, st, &o.Change, time.Time{}, a.buf) // content included
	return slices.Contains(what, "size") || slices.Contains(what, "content"), err
}
