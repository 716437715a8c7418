package rootfs

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"github.com/clayer/clayer/cache/snapshot"
	"github.com/clayer/clayer/solver/internal/record"
	"github.com/clayer/clayer/solver/internal/unpack"
)

// liftProfile undoes the apply of the profile. It lies above all steps, so it is
// the first that a transaction undoes, and the last that it applies: a step's
// directory that holds it can then be undone wholly.
func (t *transaction) liftProfile(ctx context.Context, force bool, res *Undone) error {
	ev := t.next.Profile
	if ev == nil || ev.Tx == 0 {
		return nil
	}
	t.next.Profile = &record.Event{}
	if err := t.undo(ctx, *ev, force, res); err != nil {
		return fmt.Errorf("undo the profile: %w", err)
	}
	return nil
}

// SetProfile makes commands what login shells of the root begin with, in the
// transaction that Commit ends, or, unless it is wanted, sees to it that there is
// no profile. One that the user changed stays, and is reported, unless by force.
//
// After ErrProfile the transaction goes on without; after another error nothing
// but Rollback is possible.
func (l *Lock) SetProfile(ctx context.Context, wanted bool, commands []byte, force bool) (preserved []Preserved, err error) {
	if l.tx == nil && l.state.Profile == nil && !wanted {
		return nil, nil
	}
	t, err := l.begin()
	if err != nil {
		return nil, err
	}
	err = t.liftProfile(ctx, force, &t.lifted)
	preserved = t.lifted.Preserved
	if err != nil {
		return preserved, err
	}
	t.next.Profile = nil
	if len(t.lifted.Problems) > 0 {
		return preserved, notMade(t.lifted.Problems)
	}
	if !wanted {
		return preserved, nil
	}
	if !t.preserve[record.ProfilePath] && t.r.profileOfAnother() {
		return preserved, fmt.Errorf("%w: /%s is not clayer's", ErrProfile, record.ProfilePath)
	}
	t.next.Profile = &record.Event{}
	if len(commands) == 0 {
		return preserved, nil
	}
	text := append([]byte(profileMark), commands...)
	changes := func(yield func(*snapshot.Entry, error) bool) {
		yield(&snapshot.Entry{
			Path: record.ProfilePath, Kind: snapshot.File, Mode: 0o644, UID: os.Geteuid(), GID: os.Getegid(),
			Size: int64(len(text)), ModTime: time.Now(), Content: text,
		}, nil)
	}
	undoing := t.spends
	space := t.applies()
	if undoing { // of what stays, there may be a profile too: UndoNeeds counts it
		t.journal.Reserve = nil
		for range record.ProfileSpace.Files {
			t.r.reserve().Spend(rollbackFiles)
		}
	}
	to := unpack.Recording{Dir: t.r.state, Journal: t.journal, Preserve: t.preserve, Lower: t.r.lower}
	ev, res, err := unpack.Recorded(ctx, t.r.dir, changes, to, record.Event{Seq: t.next.NextSeq(), Tx: t.id})
	if err != nil {
		return preserved, err
	}
	ev.Space = space()
	if undoing {
		t.undoes()
	}
	t.next.Profile = &ev
	if len(res.Problems) > 0 {
		return preserved, notMade(res.Problems)
	}
	return preserved, nil
}

func notMade(problems []unpack.Problem) error {
	return fmt.Errorf("%w: /%s: %w", ErrProfile, problems[0].Path, problems[0].Err)
}

// profileOfAnother reports whether something stands in the place of the profile
// that clayer did not make.
func (r *Root) profileOfAnother() bool {
	root, err := os.OpenRoot(r.dir)
	if err != nil {
		return false
	}
	defer root.Close()
	_, err = root.Lstat(record.ProfilePath)
	return !errors.Is(err, fs.ErrNotExist) && r.Profile() == nil
}
