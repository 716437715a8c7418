package shim

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/clayer/clayer/frontend"
	"github.com/clayer/clayer/frontend/edit"
	"github.com/clayer/clayer/internal/pathname"
	"github.com/clayer/clayer/solver"
)

// A watching makes a snapshot of what is installed, as that of the line which is written. Its
// error says why there is none; an install that is not to have one has a nil error.
type watching struct {
	o     Options
	opt   solver.Options
	watch *solver.Watch // nil: no snapshot is made
	count *count
	err   error
}

// watch reads the machine before an install. Whatever fails is an error of the watching, and
// not the install's.
func (o Options) watch(r edit.Reading) *watching {
	w := &watching{o: o}
	if o.Solver == nil || is(modeLines) {
		return w
	}
	ctx := context.Background() // Ctrl-C ends us: nothing has begun
	if w.opt, w.err = o.Solver(ctx); w.err != nil {
		if errors.Is(w.err, ErrNotHere) {
			w.err = nil
		}
		return w
	}
	if w.count, w.err = o.begin(); w.err != nil || r.Verdict != edit.Captured {
		return w
	}
	w.watch, w.err = solver.WatchInstall(ctx, w.opt)
	return w
}

// ended reads the machine after an install that succeeded.
func (w *watching) ended() {
	if w.watch == nil || w.err != nil {
		return
	}
	ctx, stop := interruptible()
	defer stop()
	if w.err = w.watch.Ended(ctx); w.err == nil {
		w.err = w.count.alone()
	}
}

// adopt makes the snapshot. The last line of the Containerfile repeats the install; own says
// that it repeats no other.
func (w *watching) adopt(own bool) error {
	if w.watch == nil || w.err != nil {
		return w.err
	}
	if !own {
		return errors.New("it changed a RUN that was in the file before")
	}
	ctx, stop := interruptible()
	defer stop()
	files, err := w.o.composition(ctx, w.opt)
	if err != nil {
		return err
	}
	i := slices.IndexFunc(files, func(f *frontend.File) bool { return f.Path == w.o.File })
	last := files[i].Instructions[len(files[i].Instructions)-1].Base()
	err = w.watch.Adopt(ctx, files, last.Text, w.projects(), w.count.alone)
	var failed *solver.BuildError
	if errors.As(err, &failed) {
		err = failed.Err
	}
	return err
}

// projects are the directories of the Containerfile and of the session, relative to the root,
// as far as they are not those of all that the user has, or of the system.
func (w *watching) projects() (dirs []string) {
	home, _ := os.UserHomeDir()
	here, _ := os.Getwd()
	for _, dir := range []string{contextOf(w.o.File), here} {
		rel, err := filepath.Rel(filepath.Join("/", w.opt.Root), dir)
		isSystem := slices.Contains([]string{".", "opt", "srv", "home", "root"}, rel) || slices.ContainsFunc([]string{"usr", "etc", "var"}, func(top string) bool { return pathname.Under(rel, top) })
		if err == nil && filepath.IsLocal(rel) && !isSystem && !pathname.Under(home, dir) {
			dirs = append(dirs, rel)
		}
	}
	return dirs
}

// close gives the machine back to others. It may be called again.
func (w *watching) close() {
	if w.watch != nil {
		_ = w.watch.Close() // what it leaves is removed by the next command
		w.watch = nil
	}
	if w.count != nil {
		_ = w.count.Close()
		w.count = nil
	}
}

// interruptible returns a context that signals cancel: what is installed stays, and the exit
// code is the program's.
func interruptible() (context.Context, context.CancelFunc) {
	return signal.NotifyContext(context.Background(), forwarded[:4]...)
}

// A count is that file, as an install found it.
type count struct {
	*os.File
	before int64 // its length when the install began
	shared bool  // another install was under way then
}

// begin counts an install.
func (o Options) begin() (c *count, err error) {
	if err := os.MkdirAll(o.Dir, 0o755); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(filepath.Join(o.Dir, countName), os.O_CREATE|os.O_RDWR|os.O_APPEND, 0o644)
	if err != nil {
		return nil, err
	}
	c = &count{File: f}
	if err := c.begin(); err != nil {
		return nil, fmt.Errorf("lock %s: %w", f.Name(), errors.Join(err, f.Close()))
	}
	return c, nil
}

// begin locks the file for an instant, to see whether others have. That it has it shared then
// is one call, unlike with flock: there is no moment at which it has not.
func (c *count) begin() error {
	lock := func(cmd int, how int16) error {
		return unix.FcntlFlock(c.Fd(), cmd, &unix.Flock_t{Type: how, Len: 1})
	}
	err := lock(unix.F_OFD_SETLK, unix.F_WRLCK)
	if c.shared = errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EACCES); err != nil && !c.shared {
		return err
	}
	if err := lock(unix.F_OFD_SETLKW, unix.F_RDLCK); err != nil {
		return err
	}
	if _, err := c.Write([]byte{'.'}); err != nil {
		return err
	}
	info, err := c.Stat()
	if err == nil {
		c.before = info.Size()
	}
	return err
}

// alone returns an error if another install has run while this one did.
func (c *count) alone() error {
	info, err := c.Stat()
	if err == nil && (c.shared || info.Size() != c.before) {
		err = errors.New("another install ran at the same time")
	}
	return err
}
