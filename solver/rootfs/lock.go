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

	"golang.org/x/sys/unix"

	"github.com/clayer/clayer/internal/inroot"
	"github.com/clayer/clayer/internal/safefile"
	"github.com/clayer/clayer/solver/internal/metadata"
	"github.com/clayer/clayer/solver/internal/record"
	"github.com/clayer/clayer/solver/internal/scratch"
	"github.com/clayer/clayer/solver/internal/shortfall"
	"github.com/clayer/clayer/solver/internal/unpack"
	"github.com/clayer/clayer/solver/internal/unsynced"
)

// ErrLocked says that another solve is at work in the root.
var ErrLocked = errors.New("another solve is at work here")

func mayWrite(path string) bool { return unix.Access(path, unix.W_OK) == nil }

// A Lock is the right to change a root: one process has it. It ends with
// Unlock, or with the process.
type Lock struct {
	root  *Root
	file  *os.File
	state *record.State // as committed
	tx    *transaction  // nil: none is open
	made  []string      // the directories that were made for the state, itself included

	scratch *scratch.Scratch

	unsynced *unsynced.Mark // what says that something may not be on the disk; nil: all is

	// Recovered is what became of what was cut off before.
	Recovered Recovery

	// Preserved is what rollbacks left as the user had changed it meanwhile.
	Preserved []Preserved

	// Lost is what a loss of power has taken; nil: nothing that is known.
	Lost *unsynced.Lost
}

// Recovery is what Lock found of a command that was cut off, and made of it.
type Recovery string

// What becomes of what was cut off.
const (
	NothingCutOff Recovery = ""
	RolledBack    Recovery = "rolled back" // the root is what it was before that command
	Finished      Recovery = "finished"    // the root is what that command made it
)

// Root returns the root, with its state directory open until Unlock, wherever that is
// moved.
func (l *Lock) Root() *Root { return l.root }

// Scratch is what steps that run in place find of the steps before them in the root's
// scratch directories: until Unlock at the latest.
func (l *Lock) Scratch() *scratch.Scratch { return l.scratch }

// State returns what is applied, as committed last. It is not to be changed.
func (l *Lock) State() *record.State { return l.state }

// Lock takes the root's lock, making the state directory. While another process
// has it, waiting is called once with its holder, and Lock waits; without wait it fails
// with ErrLocked. What was cut off before is rolled back, or finished.
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
		return nil, err
	}
	defer func() {
		if err != nil {
			r.removeEmpty(made)
		}
	}()
	state, err := r.state.Open()
	if errors.Is(err, fs.ErrNotExist) && ctx.Err() == nil {
		return nil, nil // removed meanwhile
	}
	if err != nil {
		return nil, err
	}
	held := *r
	held.state = state
	l := &Lock{root: &held, made: made}
	defer func() {
		if l.file == nil || err != nil {
			err = errors.Join(err, l.close())
		}
	}()
	if err := l.take(ctx, wait, waiting); err != nil || l.file == nil {
		return nil, err
	}
	if l.state, err = l.root.State(); err == nil {
		err = l.recordMade()
	}
	if err == nil {
		err = l.recover()
	}
	if err == nil {
		l.scratch, err = scratch.Open(l.root.dir, l.root.state)
	}
	if err == nil {
		_ = l.scratch.Remove() // of a command that was killed: what can't be removed are files in /tmp
	}
	if err == nil {
		err = l.root.removeWork()
	}
	if err != nil && len(made) > 0 && l.state != nil && l.state.Pristine() {
		err = errors.Join(err, l.removeHome())
	}
	if err != nil {
		return nil, err
	}
	return l, nil
}

// take takes the lock's file, and writes into it who has it. It leaves the Lock
// without one where its name, or the state directory, was removed meanwhile.
func (l *Lock) take(ctx context.Context, wait bool, waiting func(holder string)) error {
	own, path := l.root.state.Held(), l.root.state.Path(lockName)
	f, err := own.TryLock(lockName)
	if errors.Is(err, safefile.ErrLocked) {
		who := l.holder()
		if !wait {
			return fmt.Errorf("%w: %s", ErrLocked, who)
		}
		if waiting != nil {
			waiting(who)
		}
	}
	for errors.Is(err, safefile.ErrLocked) {
		select {
		case <-time.After(50 * time.Millisecond):
			f, err = own.TryLock(lockName)
		case <-ctx.Done():
			err = ctx.Err()
		}
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("lock %s: %w", path, err)
	}
	have, err := f.Stat()
	if err != nil {
		return errors.Join(err, f.Close())
	}
	if now, err := os.Lstat(path); err != nil || !os.SameFile(have, now) {
		return f.Close()
	}
	l.file = f
	return l.sign()
}

// lockName is the file that the command that changes the root has locked.
const lockName = "lock"

// close gives back what a Lock holds.
func (l *Lock) close() error {
	err := l.root.state.Close()
	if l.file != nil {
		err = errors.Join(err, l.file.Close())
	}
	return err
}

// recover rolls back what was cut off, and finishes what was committed.
func (l *Lock) recover() error {
	var errs error
	there := func(name string) bool {
		is, err := l.root.state.Exists(name)
		errs = errors.Join(errs, err)
		return is
	}
	tx, err := l.root.unfinished(l.state)
	if err == nil {
		l.unsynced, err = unsynced.Read(l.root.state)
	}
	if err != nil {
		return err
	}
	switch {
	case tx > 0:
		if err := l.rollback(tx); err != nil {
			return fmt.Errorf("after a command that was cut off: %w", err)
		}
		l.Recovered = RolledBack
		if l.unsynced.MayLack() {
			l.lost().CutOff = true
		}
	case there(record.RolledBack):
		l.Recovered = RolledBack
	case there("stage"), there("trash"):
		l.Recovered = Finished
	}
	if errs != nil {
		return errs
	}
	if l.unsynced.MayLack() {
		if err := l.afterPowerLoss(); err != nil {
			return fmt.Errorf("after a loss of power: %w", err)
		}
		return nil
	}
	if err := l.root.cleanup(l.state); err != nil {
		return fmt.Errorf("after a command that was cut off: %w", err)
	}
	return nil
}

// unfinished returns the number of a transaction that was begun and not
// committed, and 0 for none.
func (r *Root) unfinished(s *record.State) (int, error) {
	is, err := r.state.Exists(record.LogName(s.Tx + 1))
	if err != nil || !is {
		return 0, err
	}
	return s.Tx + 1, nil
}

// CutOff reports whether a command that changed the root has not come to its end:
// it is at work, or was cut off, or power was lost before what it did was on the disk. s is the root's state, as State returns it. It never
// waits.
func (r *Root) CutOff(s *record.State) (bool, error) {
	tx, err := r.unfinished(s)
	if tx > 0 || err != nil {
		return tx > 0, err
	}
	u, err := unsynced.Read(r.state)
	return u.MayLack(), err
}

// makeHome makes the state directory, and those above it that are missing. It returns
// what it made, the uppermost first, and removes it again if it fails. The directory
// that was there keeps its time: to keep a record leaves no trace in what it is about.
func (r *Root) makeHome() (made []string, err error) {
	top := r.state.String()
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
	err = metadata.PreserveTime(top, func() error {
		if err := r.state.Make(); err != nil {
			return err
		}
		return unpack.SetMetadataOf(r.sys, r.lower, r.dir, r.above(made))
	})
	if err != nil {
		r.removeEmpty(made)
		return nil, err
	}
	return made, nil
}

// above returns those of the directories that makeHome made that are in the root and
// are not the state directory itself, relative to the root.
func (r *Root) above(made []string) (paths []string) {
	for _, dir := range made {
		if rel, err := filepath.Rel(r.dir, dir); err == nil && dir != r.state.String() && filepath.IsLocal(rel) {
			paths = append(paths, rel)
		}
	}
	return paths
}

// removeEmpty removes directories, the last first, as far as nothing is in them.
func (r *Root) removeEmpty(dirs []string) {
	for _, dir := range slices.Backward(dirs) {
		_ = metadata.PreserveTime(filepath.Dir(dir), func() error { return r.sys.Rmdir(dir) })
	}
}

// shimsName is where shims are in the state directory of /, where that is in the user's home.
const shimsName = "shims"

// removeHome removes the state directory, which has no state any more, and those
// that were made for it, as far as nothing else is in them.
func (l *Lock) removeHome() error {
	r := l.root
	own := r.state.Held()
	entries, err := own.ReadDir(".")
	if err != nil {
		return err
	}
	made := l.made
	if len(made) == 0 {
		for _, m := range l.state.Made {
			made = append(made, filepath.Join(r.dir, m))
		}
		made = append(made, r.state.String())
	}
	preserved := []string{lockName, shimsName} // the lock is removed last: it is what others wait for
	if slices.ContainsFunc(entries, func(e fs.DirEntry) bool { return e.Name() == shortfall.FileName }) {
		preserved = append(preserved, shortfall.FileName, madeName)
		_ = l.writeMade() // without it, what was made for it stays
	}
	for _, e := range entries {
		if !slices.Contains(preserved, e.Name()) {
			if err := own.RemoveAll(e.Name()); err != nil {
				return err
			}
		}
	}
	if err := own.Remove(lockName); err != nil {
		return err
	}
	r.removeEmpty(made)
	return nil
}

// madeName is a file with the directories that were made for the state, for the command that
// commits the first time: the one that made them may be killed before.
const madeName = "made"

// recordMade records what was made for the state directory, now or by a command
// that committed nothing.
func (l *Lock) recordMade() error {
	if l.state.Tx > 0 {
		return nil
	}
	if len(l.made) == 0 {
		data, err := l.root.state.ReadFile(madeName)
		if err == nil {
			err = json.Unmarshal(data, &l.state.Made)
		}
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return err
	}
	l.state.Made = l.root.above(l.made)
	return l.writeMade()
}

func (l *Lock) writeMade() error {
	if len(l.state.Made) == 0 {
		return nil
	}
	data, err := json.Marshal(l.state.Made)
	if err != nil {
		return err
	}
	f, err := l.root.state.Held().OpenFile(madeName, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o644)
	if err == nil {
		_, err = l.root.sys.WriteFile(f, data)
		err = errors.Join(err, f.Close())
	}
	return err
}

// sign writes into the lock file who has it, for those who wait. That a full disk has
// no space for it is no reason to wait too.
func (l *Lock) sign() error {
	who := fmt.Sprintf("process %d, since %s", os.Getpid(), time.Now().Format(time.TimeOnly))
	err := l.file.Truncate(0)
	if err == nil {
		_, err = l.file.WriteAt([]byte(who), 0)
	}
	if !inroot.IsFull(err) {
		return err
	}
	return nil
}

func (l *Lock) holder() string {
	text, err := l.root.state.ReadFile(lockName)
	if s := strings.TrimSpace(string(text)); err == nil && s != "" {
		return s
	}
	return "another process"
}

// removeWork removes the work directory, with the views that a killed process left.
func (r *Root) removeWork() error {
	err := r.state.Held().RemoveAll("work")
	if r.removeAll == nil || !errors.Is(err, fs.ErrPermission) {
		return err
	}
	if herr := r.removeAll(r.state.Path("work")); herr != nil {
		return errors.Join(err, herr)
	}
	return nil
}

// Unlock gives the lock back, rolls back what was not committed, and removes the
// work directory; and all of clayer's own, where nothing is applied.
func (l *Lock) Unlock() error {
	_ = l.scratch.Remove()
	err := errors.Join(l.Rollback(), l.root.removeWork())
	if err == nil && l.state.Pristine() {
		if err = l.root.cleanup(l.state); err == nil {
			err = l.removeHome()
		}
	}
	if err == nil {
		err = l.settle()
	}
	return errors.Join(err, l.close())
}
