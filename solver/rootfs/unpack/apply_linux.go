package unpack

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"slices"
	"strconv"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/clayer/clayer/cache/snapshot"
	"github.com/clayer/clayer/internal/pathname"
	"github.com/clayer/clayer/solver/rootfs/inroot"
	"github.com/clayer/clayer/solver/rootfs/record"
)

// Unpack applies a stream to the folder dir, which must be there, and keeps no
// record: what is replaced or deleted is gone. Names are resolved inside dir.
//
// The same stream on equal folders gives equal folders: one that has a Dir
// entry gets its time, any other keeps the time it had.
func Unpack(ctx context.Context, dir string, changes snapshot.Changes, opt Options) (Result, error) {
	a, err := newApplier(opt.Sys, dir, nil)
	if err != nil {
		return Result{}, err
	}
	a.placement = opt.Placement
	return a.run(ctx, changes)
}

// Recorded is Unpack in a transaction: each change is announced before it is done,
// and what it replaces or deletes is kept. ev has the numbers of the apply and of
// the transaction; it comes back with what the record needs.
func Recorded(ctx context.Context, dir string, changes snapshot.Changes, to Recording, ev record.Event) (record.Event, Result, error) {
	a, err := newApplier(to.Dir.Sys(), dir, &to)
	if err != nil {
		return ev, Result{}, err
	}
	if a.lower, err = openLower(to.Dir.Sys(), to.Lower); err != nil {
		a.close()
		return ev, Result{}, err
	}
	a.ev, a.placement = ev, to.Placement
	a.ev.From = to.Journal.End()
	if err := a.openState(); err != nil {
		a.close()
		return ev, Result{}, err
	}
	res, err := a.run(ctx, changes)
	a.ev.To = to.Journal.End()
	slices.Sort(a.ev.Not)
	return a.ev, res, err
}

// openState opens the folder in which what comes is made, and finds the state
// folder itself, into which nothing may come.
func (a *applier) openState() error {
	var err error
	if a.own, a.ownID, err = inroot.Below(a.dir, a.to.Dir.String()); err != nil {
		return err
	}
	fd, err := a.to.Dir.Held().OpenPrivate(path.Join("stage", strconv.Itoa(a.ev.Seq)))
	if err != nil {
		return err
	}
	if a.stageDir, err = a.NewDir(fd, "", ""); err != nil {
		return err
	}
	// What is made there must inherit nothing from it.
	if a.stageDir.St.Mode&unix.S_ISGID != 0 {
		if err := a.Fchmod(fd, 0o700); err != nil {
			return err
		}
	}
	a.stageDir.ACL = false
	err = a.Fremovexattr(fd, "system.posix_acl_default")
	if errors.Is(err, unix.ENODATA) || errors.Is(err, unix.ENOTSUP) {
		err = nil
	}
	if err != nil {
		return err
	}
	a.born, err = bornIn(fd)
	return err
}

// applier is one run over a stream.
type applier struct {
	*Tree
	dir    string
	prefix string // of temporary names
	temps  int
	buf    []byte
	sum    uint32          // CRC-32C of the content that was copied last
	filled map[string]bool // folders that the stream put something into, and those above
	res    Result

	placement record.Placement

	// Clayer's state, if it is below the root: no entry may be there.
	own   string // without links
	ownID inroot.FileID

	// Of an apply in a transaction; to is nil for Unpack.
	to          *Recording
	lower       *lower
	ev          record.Event
	n           atomic.Int64       // of the last change
	stageDir    *inroot.Dir        // where what comes is made
	born        *birth             // of what is made there; nil: not known
	originalsFD int                // -1 until the first original
	inChunk     map[string]*staged // by the path, the files of the chunk
	unexpected  bool               // something was announced by itself
	will        map[string]string  // by the path of a folder that the chunk makes: where it will be
}

func newApplier(sys inroot.Sys, dir string, to *Recording) (*applier, error) {
	var journal *record.Journal
	if to != nil {
		journal = to.Journal
	}
	tree, err := OpenTree(sys, dir, journal)
	if err != nil {
		return nil, err
	}
	return &applier{
		Tree: tree, dir: dir, to: to,
		prefix:      fmt.Sprintf(record.TempPrefix+"%x-%d-", time.Now().UnixNano(), os.Getpid()),
		filled:      make(map[string]bool),
		originalsFD: -1,
		inChunk:     make(map[string]*staged),
		will:        make(map[string]string),
	}, nil
}

func (a *applier) close() {
	if a.originalsFD >= 0 {
		unix.Close(a.originalsFD)
	}
	if a.stageDir != nil {
		unix.Close(a.stageDir.FD)
	}
	a.lower.close()
	a.Dirs.Close()
}

func (a *applier) run(ctx context.Context, changes snapshot.Changes) (res Result, err error) {
	var st *stager
	if a.to != nil {
		st = newStager(a)
	}
	defer func() {
		if st != nil {
			err = errors.Join(err, st.end())
		}
		// Also after a failure: what a folder's time was must not depend on how
		// far we came.
		err = errors.Join(err, a.SetTimes())
		a.close()
		res = a.res
		res.Unprivileged = a.Unprivileged
	}()
	for e, err := range snapshot.Validate(changes) {
		if err == nil {
			err = context.Cause(ctx)
		}
		if err != nil {
			return a.res, err
		}
		if st != nil {
			if err := st.stage(ctx, e); err != nil {
				return a.res, err
			}
			continue
		}
		if err := a.outcome(e, a.entry(ctx, e, nil)); err != nil {
			return a.res, err
		}
		if e.Release != nil {
			e.Release()
		}
	}
	if st != nil {
		return a.res, st.finish(ctx)
	}
	return a.res, nil
}

// isSound reports whether it is known that the stream is what it should be.
func (a *applier) isVerified() bool {
	if a.to.Verified == nil {
		return true
	}
	select {
	case <-a.to.Verified:
		return true
	default:
		return false
	}
}

// outcome counts an entry that was made, notes one that could not be, and
// returns the error after which none can.
func (a *applier) outcome(e *snapshot.Entry, err error) error {
	switch {
	case err == nil:
		a.res.Entries++
	case inroot.IsHard(err):
		return fmt.Errorf("%q: %w", e.Path, err)
	default:
		a.res.Problems = append(a.res.Problems, Problem{e.Path, err})
	}
	return nil
}

// entry makes an entry; s is what was made of it already, nil for Unpack.
func (a *applier) entry(ctx context.Context, e *snapshot.Entry, s *staged) error {
	if err := a.guard(e.Path); err != nil {
		return err
	}
	if e.Kind == snapshot.Opaque {
		return a.opaque(e.Path)
	}
	dir, name := path.Split(e.Path)
	dir = path.Clean(dir)
	parent, err := a.parent(dir, e.Kind == snapshot.Delete)
	if err != nil || parent == nil {
		return err
	}
	if err := a.guardBelow(parent, name, e.Path); err != nil {
		return err
	}
	switch e.Kind {
	case snapshot.Delete:
		return a.remove(parent, name, e, s)
	case snapshot.Dir:
		a.fill(dir)
		return a.directory(parent, name, e, s)
	}
	a.fill(dir)
	return a.place(ctx, parent, name, e, s)
}

// guard refuses a path in clayer's own folder: a snapshot that could write
// there would say what is applied, and what the originals were.
func (a *applier) guard(p string) error {
	if a.own != "" && pathname.Under(p, a.own) {
		return unsafe(p, "in clayer's own folder")
	}
	return nil
}

// guardBelow is guard for what stands at a name, however one came there: a
// step before, or the machine, may have a link to clayer's folder.
func (a *applier) guardBelow(parent *inroot.Dir, name, p string) error {
	if a.own == "" || parent.Path == parent.Name {
		return nil
	}
	in, err := a.IsBelow(parent.FD, a.ownID)
	if err == nil && !in {
		var st *unix.Stat_t
		st, err = parent.Stat(name)
		in = err == nil && st != nil && inroot.IDOf(st) == a.ownID
	}
	if err == nil && in {
		return unsafe(p, "in clayer's own folder")
	}
	return err
}

// remove deletes what is at a name, with all below it; nothing there is no error.
func (a *applier) remove(parent *inroot.Dir, name string, e *snapshot.Entry, s *staged) error {
	st, err := parent.Stat(name)
	if err != nil || st == nil {
		return err
	}
	c := a.change(parent, name, e, s)
	if err := a.begin(c, s); err != nil || isPreserved(c) {
		return err
	}
	return a.aside(parent, name, c, st)
}
