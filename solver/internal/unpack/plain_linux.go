package unpack

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/clayer/clayer/cache/snapshot"
	"github.com/clayer/clayer/internal/inroot"
	"github.com/clayer/clayer/solver/internal/merge"
	"github.com/clayer/clayer/solver/internal/metadata"
	"github.com/clayer/clayer/solver/internal/record"
)

// Unpack applies a stream to the directory dir, which must exist, and records
// nothing: what is replaced or deleted is gone. Names are resolved inside dir.
//
// The same stream on equal directories gives equal directories: one that has a Dir
// entry gets its time, any other keeps the time it had.
func Unpack(ctx context.Context, dir string, changes snapshot.Changes, opt Options) (res Result, err error) {
	tree, err := metadata.Open(opt.Sys, dir, nil)
	if err != nil {
		return Result{}, err
	}
	p := &plain{
		maker: maker{Tree: tree}, placement: opt.Placement, filled: make(filled),
		prefix: fmt.Sprintf(record.TempPrefix+"%x-%d-", time.Now().UnixNano(), os.Getpid()),
	}
	m := merge.New(opt.Placement, nil, nil)
	defer func() {
		// Also after a failure: what a directory's time was must not depend on how
		// far this came.
		err = errors.Join(err, p.SetTimes())
		p.Close()
		res = p.res
		res.Bytes, res.Unprivileged, res.Foreign = p.bytes, p.Unprivileged, p.Foreign
	}()
	for e, err := range snapshot.Validate(changes) {
		if err == nil {
			err = context.Cause(ctx)
		}
		if err == nil {
			e, _, err = m.Entry(tree.Dirs, e)
		}
		if err == nil {
			err = p.res.count(e, p.entry(ctx, e))
		}
		if err != nil {
			return p.res, err
		}
		if e.Release != nil {
			e.Release()
		}
	}
	return p.res, nil
}

// plain is an apply that records nothing: each entry is created under a temporary
// name beside its place, and renamed.
type plain struct {
	maker
	placement record.Placement
	prefix    string // of temporary names
	temps     int
	filled    filled
	res       Result
}

func (p *plain) entry(ctx context.Context, e *snapshot.Entry) error {
	if e.Kind == snapshot.Opaque {
		return p.opaque(e.Path)
	}
	dir, name := path.Split(e.Path)
	dir = path.Clean(dir)
	parent, err := p.parent(dir, e.Kind == snapshot.Delete)
	if err != nil || parent == nil {
		return err
	}
	if e.Kind != snapshot.Delete {
		p.filled.add(dir)
	}
	st, err := parent.Stat(name)
	if err != nil {
		return err
	}
	switch e.Kind {
	case snapshot.Delete:
		return p.clear(parent, name, st)
	case snapshot.Dir:
		return p.directory(parent, name, e, st)
	}
	return p.place(ctx, parent, name, e, st)
}

// parent is maker.parent, with the parents that no entry names.
func (p *plain) parent(dir string, deletion bool) (*inroot.Dir, error) {
	f, err := p.maker.parent(dir, deletion, func(above *inroot.Dir, name, dir string) error {
		if err := p.Unlock(above); err != nil {
			return err
		}
		return p.makeDir(above, name, implicitParent(dir))
	})
	if err != nil || f == nil {
		return nil, err
	}
	return f, p.Unlock(f)
}

// clear removes what is at a name, with all below it; nothing there is no error.
func (p *plain) clear(parent *inroot.Dir, name string, st *unix.Stat_t) error {
	if inroot.IsDir(st) || inroot.IsLink(st) {
		p.Forget(parent, name) // it may have been the way to others
	}
	switch {
	case st == nil:
		return nil
	case inroot.IsDir(st):
		return p.RemoveAllAt(parent.FD, name)
	}
	return p.Unlinkat(parent.FD, name, 0)
}

// directory creates a directory, or gives the one that is there its metadata.
func (p *plain) directory(parent *inroot.Dir, name string, e *snapshot.Entry, st *unix.Stat_t) error {
	switch {
	case e.Implied && p.leadsToDir(e.Path, st):
		return nil
	case inroot.IsDir(st):
		return p.describe(parent, name, e)
	}
	if err := p.clear(parent, name, st); err != nil {
		return err
	}
	return p.makeDir(parent, name, e)
}

func (p *plain) makeDir(parent *inroot.Dir, name string, e *snapshot.Entry) error {
	if err := p.Mkdirat(parent.FD, name, 0o700); err != nil {
		return err
	}
	return p.setMetadataAt(parent, name, e)
}

// describe gives a directory that is there the entry's metadata.
func (p *plain) describe(parent *inroot.Dir, name string, e *snapshot.Entry) error {
	fd, err := p.OpenIn(parent.FD, name, path.Join(parent.Path, name))
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	old, err := p.ListXattrs(fd)
	if err != nil {
		return err
	}
	if len(old) > 0 || len(e.Xattrs) > 0 {
		p.Forget(parent, name) // what is created in it may inherit another ACL now
	}
	return p.SetMetadata(fd, e, old, false)
}

// place creates anything but a directory: beside its place first, then over what is
// there, so that there is no instant without the name, and what has the old file open
// or mapped keeps it.
func (p *plain) place(ctx context.Context, parent *inroot.Dir, name string, e *snapshot.Entry, st *unix.Stat_t) error {
	if err := p.mayReplace(p.placement, e, st); err != nil {
		return err
	}
	p.temps++
	temp := p.prefix + strconv.Itoa(p.temps)
	made, err := p.make(ctx, parent, temp, e)
	if err == nil && made {
		if inroot.IsDir(st) || inroot.IsLink(st) {
			p.Forget(parent, name) // it may have been the way to others
		}
		if inroot.IsDir(st) {
			err = p.RemoveAllAt(parent.FD, name)
		}
		if err == nil {
			err = p.Renameat(parent.FD, temp, parent.FD, name, 0)
		}
	}
	if err != nil || e.Kind == snapshot.Link && st != nil {
		// Also for a link: rename(2) of two names of one file does nothing.
		_ = p.Unlinkat(parent.FD, temp, 0)
	}
	return err
}

// opaque deletes all that a directory held. It stands before all that the stream
// itself puts there.
func (p *plain) opaque(dir string) error {
	if err := p.filled.mayBeOpaque(dir); err != nil {
		return err
	}
	f, err := p.parent(dir, true)
	if err != nil || f == nil {
		return err
	}
	names, err := p.List(f.FD)
	if err != nil {
		return err
	}
	var left error
	for _, name := range names {
		f, err := p.Get(dir)
		var st *unix.Stat_t
		if err == nil {
			st, err = f.Stat(name)
		}
		if err == nil {
			err = p.clear(f, name, st)
		}
		if err != nil && inroot.IsHard(err) {
			return err
		}
		if err != nil && left == nil {
			left = fmt.Errorf("%q: %w", name, err)
		}
	}
	return left
}

// filled are the directories that a stream put something into, and those above.
type filled map[string]bool

func (f filled) add(dir string) {
	for ; !f[dir]; dir = path.Dir(dir) {
		f[dir] = true
	}
}

// mayBeOpaque refuses an opaque directory into which the stream put something before.
func (f filled) mayBeOpaque(dir string) error {
	if f[dir] {
		return unsafe(dir, "opaque, after an entry below it")
	}
	return nil
}
