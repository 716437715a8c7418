package rootfs

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/gofrs/flock"
	"golang.org/x/sys/unix"

	"github.com/clayer/clayer/solver/rootfs/inroot"
	"github.com/clayer/clayer/solver/rootfs/record"
	"github.com/clayer/clayer/solver/rootfs/unpack"
)

// ErrLocked says that another solve is at work in the root.
var ErrLocked = errors.New("another solve is at work here")

func mayWrite(path string) bool { return unix.Access(path, unix.W_OK) == nil }

// A Lock is the right to change a root: one process has it. It ends with
// Unlock, or with the process.
type Lock struct {
	root  *Root
	file  *flock.Flock
	state *record.State // as committed
	tx    *transaction  // nil: none is open
	made  []string      // the directories that were made for the state, itself included

	// Recovered tells what became of what was cut off before.
	Recovered Recovery
}

// Recovery tells what Lock found of a command that was cut off, and made of it.
type Recovery string

// What becomes of what was cut off.
const (
	NothingCutOff Recovery = ""
	TakenBack     Recovery = "taken back" // the root is what it was before that command
	Finished      Recovery = "finished"   // the root is what that command made it
)

// State returns what is applied, as committed last. It is not to be changed.
func (l *Lock) State() *record.State { return l.state }

// Lock takes the root's lock, making the state folder. While another process
// has it, waiting is told once for whom, and Lock waits; without wait it fails
// with ErrLocked. What was cut off before is taken back, or finished.
func (r *Root) Lock(ctx context.Context, wait bool, waiting func(holder string)) (*Lock, error) {
	for {
		l, err := r.lock(ctx, wait, waiting)
		if l != nil || err != nil {
			return l, err
		}
	}
}

// lock is Lock; it returns nil where the lock's file was removed meanwhile, by
// an undo that left nothing.
func (r *Root) lock(ctx context.Context, wait bool, waiting func(holder string)) (_ *Lock, err error) {
	made, err := r.makeHome()
	if err != nil {
		return nil, fmt.Errorf("make the state directory: %w", err)
	}
	defer func() {
		if err != nil {
			removeEmpty(made)
		}
	}()
	f := flock.New(r.state.Path("lock"), flock.SetPermissions(0o644))
	locked, err := f.TryLock()
	if err == nil && !locked {
		who := holder(f.Path())
		if !wait {
			return nil, errors.Join(fmt.Errorf("%w: %s", ErrLocked, who), f.Close())
		}
		if waiting != nil {
			waiting(who)
		}
		_, err = f.TryLockContext(ctx, 50*time.Millisecond)
	}
	if errors.Is(err, fs.ErrNotExist) && ctx.Err() == nil {
		return nil, f.Close()
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("lock %s: %w", f.Path(), err), f.Close())
	}
	have, err := f.Stat()
	if err == nil {
		if now, e := os.Stat(f.Path()); e != nil || !os.SameFile(have, now) {
			return nil, f.Close()
		}
	}
	l := &Lock{root: r, file: f, made: made}
	if err == nil {
		err = l.sign()
	}
	if err == nil {
		l.state, err = r.State()
	}
	if err == nil {
		err = l.keepMade()
	}
	if err == nil {
		err = l.recover()
	}
	if err == nil {
		err = inroot.RemoveAll(r.state.Path("work"))
	}
	if err != nil && len(made) > 0 && l.state != nil && l.state.Pristine() {
		err = errors.Join(err, l.removeHome())
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return l, nil
}

// recover takes back what was cut off, and finishes what was committed.
func (l *Lock) recover() error {
	var errs error
	there := func(path string) bool {
		is, err := inroot.Exists(path)
		errs = errors.Join(errs, err)
		return is
	}
	tx, err := l.root.unfinished(l.state)
	if err != nil {
		return err
	}
	switch {
	case tx > 0:
		if err := l.root.rollback(tx); err != nil {
			return fmt.Errorf("after a command that was cut off: %w", err)
		}
		l.Recovered = TakenBack
	case there(l.root.state.RolledBack()):
		l.Recovered = TakenBack
	case there(l.root.state.Path("stage")), there(l.root.state.Path("trash")):
		l.Recovered = Finished
	}
	if errs != nil {
		return errs
	}
	if err := l.root.cleanup(l.state); err != nil {
		return fmt.Errorf("after a command that was cut off: %w", err)
	}
	return nil
}

// unfinished returns the number of a transaction that was begun and not
// committed, and 0 for none.
func (r *Root) unfinished(s *record.State) (int, error) {
	is, err := inroot.Exists(r.state.LogPath(s.Tx + 1))
	if err != nil || !is {
		return 0, err
	}
	return s.Tx + 1, nil
}

// CutOff reports whether a command that changed the root has not come to its end:
// it is at work, or was cut off. It never waits.
func (r *Root) CutOff() (bool, error) {
	s, err := r.State()
	if err != nil {
		return false, err
	}
	tx, err := r.unfinished(s)
	return tx > 0, err
}

// makeHome makes the state directory, and those above it that are missing. It returns
// what it made, the uppermost first, and removes it again if it fails. The directory
// that was there keeps its time: to keep a record leaves no trace in what it is about.
func (r *Root) makeHome() (made []string, err error) {
	top := string(r.state)
	for {
		_, err := os.Lstat(top)
		if err == nil {
			break
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		made = append(made, top)
		top = filepath.Dir(top)
	}
	if len(made) == 0 {
		return nil, nil
	}
	slices.Reverse(made)
	err = keepingTime(top, func() error {
		if err := inroot.MkdirAll(string(r.state), 0o755); err != nil {
			return err
		}
		return unpack.DressAs(r.lower, r.dir, r.above(made))
	})
	if err != nil {
		removeEmpty(made)
		return nil, err
	}
	return made, nil
}

// above returns those of the directories that makeHome made that are in the root and
// are not the state directory itself, relative to the root.
func (r *Root) above(made []string) (paths []string) {
	for _, dir := range made {
		if rel, err := filepath.Rel(r.dir, dir); err == nil && dir != string(r.state) && filepath.IsLocal(rel) {
			paths = append(paths, rel)
		}
	}
	return paths
}

// removeEmpty removes directories, the last first, as far as nothing is in them.
func removeEmpty(dirs []string) {
	for _, dir := range slices.Backward(dirs) {
		_ = keepingTime(filepath.Dir(dir), func() error { return inroot.Remove(dir) })
	}
}

// removeHome removes the state directory, which has no state any more, and those
// that were made for it, as far as nothing else is in them.
func (l *Lock) removeHome() error {
	r := l.root
	entries, err := os.ReadDir(string(r.state))
	if err != nil {
		return err
	}
	made := l.made
	if len(made) == 0 {
		for _, m := range l.state.Made {
			made = append(made, filepath.Join(r.dir, m))
		}
		made = append(made, string(r.state))
	}
	for _, e := range entries {
		if e.Name() != "lock" { // last: it is what others wait for
			if err := inroot.RemoveAll(r.state.Path(e.Name())); err != nil {
				return err
			}
		}
	}
	if err := inroot.Remove(r.state.Path("lock")); err != nil {
		return err
	}
	removeEmpty(made)
	return nil
}

// madePath is a file with the directories that were made for the state, for whoever
// commits the first time: the one who made them may be killed before.
func (r *Root) madePath() string { return r.state.Path("made") }

// keepMade keeps what was made for the state directory, now or by a command
// that committed nothing.
func (l *Lock) keepMade() error {
	if l.state.Tx > 0 {
		return nil
	}
	if len(l.made) == 0 {
		data, err := inroot.ReadFile(l.root.madePath())
		if err == nil {
			err = json.Unmarshal(data, &l.state.Made)
		}
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return err
	}
	if l.state.Made = l.root.above(l.made); len(l.state.Made) == 0 {
		return nil
	}
	data, err := json.Marshal(l.state.Made)
	if err != nil {
		return err
	}
	f, err := inroot.OpenFile(l.root.madePath(), os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o644)
	if err == nil {
		_, err = inroot.WriteFile(f, data)
		err = errors.Join(err, f.Close())
	}
	return err
}

// keepingTime gives a folder the time that it had back behind f.
func keepingTime(dir string, f func() error) error {
	info, err := os.Stat(dir)
	if err != nil {
		return err
	}
	err = f()
	if err == nil {
		_ = os.Chtimes(dir, time.Time{}, info.ModTime()) // another's folder, perhaps
	}
	return err
}

// sign writes into the lock file who has it, for those who wait. That a full disk has
// no room for it is no reason to wait too.
func (l *Lock) sign() error {
	who := fmt.Sprintf("process %d, since %s", os.Getpid(), time.Now().Format(time.TimeOnly))
	err := errors.Join(os.WriteFile(l.file.Path(), []byte(who), 0o644), os.Chmod(l.file.Path(), 0o644))
	if !inroot.IsFull(err) {
		return err
	}
	return nil
}

func holder(path string) string {
	text, err := os.ReadFile(path)
	if s := strings.TrimSpace(string(text)); err == nil && s != "" {
		return s
	}
	return "another process"
}

// Unlock gives the lock back, takes back what was not committed, and removes the
// work folder; and all of clayer's own, where nothing is applied.
func (l *Lock) Unlock() error {
	err := errors.Join(l.Rollback(), inroot.RemoveAll(l.root.state.Path("work")))
	if err == nil && l.state.Pristine() {
		if err = l.root.cleanup(l.state); err == nil {
			err = l.removeHome()
		}
	}
	return errors.Join(err, l.file.Close())
}
