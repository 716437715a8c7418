package overlay

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/clayer/clayer/cache/snapshot"
	"github.com/clayer/clayer/internal/beneath"
	"github.com/clayer/clayer/internal/fsclock"
	"github.com/clayer/clayer/internal/tree"
	"github.com/clayer/clayer/solver/internal/record"
	"github.com/clayer/clayer/solver/sandbox"
	"github.com/clayer/clayer/solver/sandbox/helper"
)

// A View is one upper directory, and the reading of it that the next change is compared
// with.
type View struct {
	s     *Overlay
	dir   string
	lock  *os.File // held while the view is in use, see sweep
	files files

	at    *tree.Reading // of the upper directory as the last Apply or Run left it
	spool *os.File      // of the last Capture

	indexed map[string]bool // entries of the overlay's index that are dealt with
	span    *fsclock.Span   // since the first Run; nil before
	broken  error           // set once the upper directory is not what at says
	inexact bool            // something that was applied is not seen as it is
}

// Dir is the directory of the view. It is removed when the view is closed.
func (v *View) Dir() string { return v.dir }

func (v *View) upper() string { return filepath.Join(v.dir, helper.UpperDir) }

// view makes the directories of a view.
func (s *Overlay) view() (_ *View, err error) {
	if s.elsewhere {
		if err := makeUpper(s.Work); err != nil {
			return nil, err
		}
	}
	v := &View{s: s, files: direct{}}
	if v.dir, v.lock, err = newViewDir(s.Work); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, v.Close())
		}
	}()
	for _, d := range []string{helper.UpperDir, helper.WorkDir, helper.RootDir, helper.StageDir, helper.BaseDir} {
		if err = os.Mkdir(filepath.Join(v.dir, d), 0o755); err != nil {
			return nil, err
		}
	}
	if !s.rooted {
		k, err := startFileHelper(s.ids)
		if err != nil {
			return nil, err
		}
		v.files = k
	}
	return v, nil
}

// refresh makes the upper directory as it is now the start of the next change.
func (v *View) refresh(ctx context.Context) error {
	r, err := v.files.read(ctx, v.upper(), v.at)
	if err == nil {
		v.at = r
	}
	return err
}

// ready is asked first by every method.
func (v *View) ready() error {
	if v.broken != nil {
		return fmt.Errorf("the view is of no use any more: %w", v.broken)
	}
	if v.at == nil {
		return fmt.Errorf("the view is closed: %w", os.ErrClosed)
	}
	if v.spool != nil {
		v.spool.Close()
		v.spool = nil
	}
	return nil
}

// Apply implements sandbox.Layered.
func (v *View) Apply(ctx context.Context, blob io.ReadSeeker, at record.Placement) error {
	return v.apply(ctx, blob, helper.Job{Task: helper.TaskApply, Placement: at})
}

// ApplyScratch implements sandbox.Layered.
func (v *View) ApplyScratch(ctx context.Context, blob io.ReadSeeker) error {
	return v.apply(ctx, blob, helper.Job{Task: helper.TaskApply, Scratch: true})
}

func (v *View) apply(ctx context.Context, blob io.ReadSeeker, j helper.Job) (err error) {
	if err := v.ready(); err != nil {
		return err
	}
	defer func() { v.broken = err }()
	closed, err := v.unpack(ctx, blob, j)
	if len(closed) > 0 && err == nil {
		// Where directories of the view's own are above it, as the root has them when the
		// snapshot is applied there, it can be shown.
		for _, p := range closed {
			err = errors.Join(err, v.seedAbove(p))
		}
		if err == nil {
			closed, err = v.unpack(ctx, blob, j)
		}
		if len(closed) > 0 {
			v.inexact = true
			v.s.warn([]string{fmt.Sprintf("%q (and %d more) cannot be shown to RUN: it is in a directory of another user", closed[0], len(closed)-1)})
		}
	}
	if err != nil {
		return fmt.Errorf("apply a snapshot to the view: %w", err)
	}
	return v.refresh(ctx)
}

// Exact implements sandbox.Layered.
func (v *View) Exact() bool { return !v.inexact }

// unpack has a helper apply a snapshot, and returns what it could not put into directories
// of other users.
func (v *View) unpack(ctx context.Context, blob io.ReadSeeker, j helper.Job) (closed []string, err error) {
	if _, err := blob.Seek(0, io.SeekStart); err != nil {
		return nil, err
	}
	err = v.do(ctx, j, helper.Process{Stdin: blob, Closed: func(paths []string) { closed = paths }, Foreign: func() { v.inexact = true }})
	return closed, err
}

// Run implements sandbox.View.
func (v *View) Run(ctx context.Context, c sandbox.Command) (_ snapshot.Changes, err error) {
	if err := v.ready(); err != nil {
		return nil, err
	}
	_, matcher, err := c.Changes()
	if err != nil {
		return nil, err
	}
	if err := fsclock.After(ctx, v.s.Work, v.at.Newest()); err != nil {
		return nil, err
	}
	if v.span == nil {
		if v.span, err = fsclock.Begin(v.s.Work); err != nil {
			return nil, err
		}
	}
	defer func() { v.broken = err }()

	if err := v.process().Run(ctx, v.job(helper.Job{}), c); err != nil {
		return nil, err
	}
	if err := sandbox.CheckSpace(v.s.Work); err != nil {
		return nil, err
	}
	if err := v.completeGroups(ctx); err != nil {
		return nil, err
	}
	after, err := v.files.read(ctx, v.upper(), v.at)
	if err != nil {
		return nil, err
	}
	hide := tree.Hide(append(c.Targets(), v.s.Hide...))
	if after, err = v.clamp(ctx, c.Epoch, after, matcher, hide); err != nil {
		return nil, err
	}
	u := tree.Upper{
		Before: v.at, After: after, Lower: v.s.lowers(), Owner: v.s.owner(),
		Open: v.open, OpenLower: v.files.open, Filter: matcher, Hide: hide,
	}
	if _, own := v.files.(direct); own {
		u.Dir = v.upper()
	}
	if !v.s.whole {
		u.Below = v.below
	}
	changes, err := u.Changes(ctx)
	if err != nil {
		return nil, err
	}
	v.at = after
	return changes, nil
}

// clamp gives what the command wrote the time, and returns a reading that has it.
func (v *View) clamp(ctx context.Context, to time.Time, after *tree.Reading, filter tree.Filter, hide func(string) bool) (*tree.Reading, error) {
	if to.IsZero() {
		return after, nil
	}
	v.span.End()
	written := tree.Written(v.at, after, v.span.Holds, filter, hide)
	if len(written) == 0 {
		return after, nil
	}
	after, err := v.files.clamp(ctx, v.upper(), after, written, to)
	if err == nil {
		after.Touched(written)
	}
	return after, err
}

func (v *View) open(path string) (*os.File, error) { return v.files.open(v.upper(), path) }

// Exec implements sandbox.Layered.
func (v *View) Exec(ctx context.Context, c sandbox.Command, stdin, stdout, stderr *os.File) error {
	if err := v.ready(); err != nil {
		return err
	}
	if err := c.CheckMounts(); err != nil {
		return err
	}
	defer func() { v.broken = os.ErrClosed }()
	return v.process().Exec(ctx, v.job(helper.Job{}), c, stdin, stdout, stderr)
}

// job completes a job by what the view is.
func (v *View) job(j helper.Job) helper.Job {
	j.Rooted, j.Root, j.View = v.s.rooted, v.s.Root, v.dir
	j.Over, j.Whole = v.s.over(), v.s.whole
	j.Hide, j.Seeded = v.s.Hide, !v.s.index
	return j
}

func (v *View) process() helper.Process { return helper.Process{Warn: v.s.warn, IDs: v.s.ids} }

// do has a helper with these streams do the job.
func (v *View) do(ctx context.Context, j helper.Job, p helper.Process) error {
	p.Warn, p.IDs = v.s.warn, v.s.ids
	return p.Do(ctx, v.job(j))
}

// Capture implements sandbox.View.
func (v *View) Capture(ctx context.Context, path string) (snapshot.Changes, error) {
	if err := v.ready(); err != nil {
		return nil, err
	}
	if !filepath.IsAbs(path) {
		return nil, fmt.Errorf("capture %q: not an absolute path", path)
	}
	fd, err := unix.Open(v.dir, unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, fmt.Errorf("capture %s: make a spool file: %w", path, err)
	}
	v.spool = os.NewFile(uintptr(fd), "spool")
	if err := v.do(ctx, helper.Job{Task: helper.TaskCapture, Path: filepath.Clean(path)}, helper.Process{Spool: v.spool}); err != nil {
		return nil, fmt.Errorf("capture %s: %w", path, err)
	}
	spool := v.spool
	return func(yield func(*snapshot.Entry, error) bool) {
		st, err := spool.Stat()
		if err != nil {
			yield(nil, err)
			return
		}
		for e, err := range snapshot.Read(io.NewSectionReader(spool, 0, st.Size())) {
			if !yield(e, err) {
				return
			}
		}
	}, nil
}

// Exists implements sandbox.View.
func (v *View) Exists(ctx context.Context, path string) (bool, error) {
	if err := v.ready(); err != nil {
		return false, err
	}
	if !filepath.IsAbs(path) {
		return false, fmt.Errorf("look at %q: not an absolute path", path)
	}
	err := v.do(ctx, helper.Job{Task: helper.TaskExists, Path: filepath.Clean(path)}, helper.Process{})
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, unix.ENOTDIR):
		return false, nil
	case err != nil:
		return false, fmt.Errorf("look at %s: %w", path, err)
	}
	return true, nil
}

// Open implements sandbox.View: what no step has written is as the root below has it.
func (v *View) Open(path string) (*os.File, error) {
	if err := v.ready(); err != nil {
		return nil, err
	}
	if _, existed := v.at.Lookup(path); existed {
		return sandbox.RegularFile(v.open(path))
	}
	for up := filepath.Dir(path); up != "."; up = filepath.Dir(up) {
		if dir, existed := v.at.Lookup(up); existed && dir == nil {
			return nil, fmt.Errorf("open %s: %w", path, fs.ErrNotExist) // not a directory any more
		}
	}
	return sandbox.RegularFile(beneath.Open(v.s.Root, path, unix.O_RDONLY|unix.O_NONBLOCK))
}

// Clone implements sandbox.Layered.
func (v *View) Clone(ctx context.Context) (sandbox.Layered, error) {
	if err := v.ready(); err != nil {
		return nil, err
	}
	c, err := v.s.view()
	if err != nil {
		return nil, fmt.Errorf("clone a view: %w", err)
	}
	c.inexact, c.span = v.inexact, v.span.Clone()
	err = v.files.copy(ctx, v.upper(), c.upper(), nil)
	if err == nil {
		err = v.overlayAlike(c)
	}
	if err == nil {
		err = c.refresh(ctx)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("clone a view: %w", err), c.Close())
	}
	return c, nil
}

// Close implements sandbox.View. A second call does nothing.
func (v *View) Close() error {
	if v.dir == "" {
		return nil
	}
	err, cerr := v.files.remove(v.dir), v.files.close()
	switch {
	case errors.Is(err, unix.EPIPE), errors.Is(err, unix.ECONNRESET): // somebody ended the file helper
		err = RemoveAll(v.dir)
	case err == nil:
		err = cerr
	}
	if v.spool != nil {
		v.spool.Close()
	}
	if v.lock != nil {
		v.lock.Close()
	}
	if v.s.elsewhere {
		_ = os.Remove(v.s.Work) // the last one
	}
	v.dir, v.at = "", nil
	if err != nil {
		return fmt.Errorf("remove a view: %w", err)
	}
	return nil
}

// sweep removes the views of processes that were killed. The lock of a view
// goes with the process that made it, however that ended.
func (s *Overlay) sweep(f files) {
	old, _ := filepath.Glob(filepath.Join(s.Work, viewPrefix+"*"))
	for _, dir := range old {
		lock, err := lockViewDir(dir)
		if err != nil {
			continue
		}
		if err := f.remove(dir); err != nil {
			s.warn([]string{fmt.Sprintf("an old view is left: %v", err)})
		}
		lock.Close()
	}
}

// viewPrefix begins the names of the directories of views.
const viewPrefix = "view-"

// newViewDir makes the directory of a view. It is locked until lock is closed:
// sweep takes those of processes that are gone.
func newViewDir(work string) (dir string, lock *os.File, err error) {
	for {
		if dir, err = os.MkdirTemp(work, viewPrefix+"*"); err != nil {
			return "", nil, err
		}
		lock, err = lockViewDir(dir)
		switch {
		case err == nil:
			return dir, lock, nil
		case !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, fs.ErrNotExist):
			return "", nil, errors.Join(err, os.Remove(dir))
		}
		// A sweep was faster than the lock.
	}
}

// lockViewDir locks the directory of a view. The error is fs.ErrNotExist where it
// was removed.
func lockViewDir(dir string) (*os.File, error) {
	lock, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	var st unix.Stat_t
	err = unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if err == nil {
		err = unix.Fstat(int(lock.Fd()), &st)
	}
	if err == nil && st.Nlink == 0 {
		err = fs.ErrNotExist
	}
	if err != nil {
		lock.Close()
		return nil, fmt.Errorf("lock %s: %w", dir, err)
	}
	return lock, nil
}
