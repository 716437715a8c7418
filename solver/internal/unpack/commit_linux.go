package unpack

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"time"

	"golang.org/x/sys/unix"

	"github.com/clayer/clayer/cache/snapshot"
	"github.com/clayer/clayer/internal/inroot"
	"github.com/clayer/clayer/solver/internal/record"
)

// flush changes the root by the entries that are staged. As many as can be
// expected are announced, all at once and in the order in which they are done
// then; an entry that needs more than that is announced and synced by itself.
//
// Where something was not as expected, what follows is announced again, since
// rolling back goes by the order of the lines: little at first, lest a stream that
// was made for it be announced over and over.
func (r *recorder) flush(ctx context.Context, chunk []*staged) error {
	if r.to.Verified != nil {
		select {
		case <-r.to.Verified:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	for i, most := 0, MaxChunk; i < len(chunk); most = min(2*most, MaxChunk) {
		clear(r.will)
		end := i
		for end < len(chunk) && end-i < most {
			foreseen, err := r.precheck(chunk[end])
			if err != nil {
				return err
			}
			if !foreseen {
				break
			}
			end++
		}
		if err := r.to.Journal.Sync(); err != nil {
			return err
		}
		end = max(end, i+1)
		for r.unexpected = false; i < end && !r.unexpected; i++ {
			if err := r.commit(ctx, chunk[i]); err != nil {
				return err
			}
		}
		if r.unexpected && i < end {
			most = 1
		}
	}
	return nil
}

// commit puts what was staged where it belongs.
func (r *recorder) commit(ctx context.Context, s *staged) error {
	if err := context.Cause(ctx); err != nil {
		return err
	}
	err := s.err
	switch {
	case err != nil:
	case s.placement() != moved:
		err = r.entry(ctx, s.e, s)
	case s.leftOut:
		err = errNotMade
	}
	if err != nil && s.n > 0 {
		r.ev.Not = append(r.ev.Not, s.n)
	}
	if errors.Is(err, errNotMade) || err == nil && s.implicit {
		return nil
	}
	return r.res.count(s.e, err)
}

// entry does what an entry says; s is what was staged for it.
func (r *recorder) entry(ctx context.Context, e *snapshot.Entry, s *staged) error {
	if err := r.guard(e.Path); err != nil {
		return err
	}
	if e.Kind == snapshot.Opaque {
		return r.opaque(e.Path)
	}
	dir, name := path.Split(e.Path)
	dir = path.Clean(dir)
	parent, err := r.parent(dir, e.Kind == snapshot.Delete)
	if err != nil || parent == nil {
		return err
	}
	if err := r.guardBelow(parent, name, e.Path); err != nil {
		return err
	}
	switch e.Kind {
	case snapshot.Delete:
		return r.remove(parent, name, e, s)
	case snapshot.Dir:
		r.filled.add(dir)
		return r.directory(parent, name, e, s)
	}
	r.filled.add(dir)
	return r.place(ctx, parent, name, e, s)
}

// remove deletes what is at a name, with all below it; nothing there is no error.
func (r *recorder) remove(parent *inroot.Dir, name string, e *snapshot.Entry, s *staged) error {
	st, err := parent.Stat(name)
	if err != nil || st == nil {
		return err
	}
	c := r.change(parent, name, e, s)
	if err := r.begin(c, s); err != nil || c.Preserved {
		return err
	}
	return r.aside(parent, name, c, st)
}

// parent is maker.parent, with the parents that no entry names.
func (r *recorder) parent(dir string, deletion bool) (*inroot.Dir, error) {
	f, err := r.maker.parent(dir, deletion, func(above *inroot.Dir, name, p string) error {
		if err := r.guard(p); err != nil {
			return err
		}
		e, err := r.implicit(p)
		if err == nil {
			err = r.unlock(above)
		}
		if err != nil {
			return err
		}
		return r.makeDir(above, name, e, nil, nil)
	})
	if err != nil || f == nil {
		return nil, err
	}
	return f, r.unlock(f)
}

// unlock is Unlock of what is announced.
func (r *recorder) unlock(f *inroot.Dir) error {
	if err := r.to.Journal.Sync(); err != nil { // nothing, nearly always
		return err
	}
	return r.Unlock(f)
}

// directory makes a directory, or gives the one that is there its metadata.
func (r *recorder) directory(parent *inroot.Dir, name string, e *snapshot.Entry, s *staged) error {
	st, err := parent.Stat(name)
	if err != nil {
		return err
	}
	if s.placement() == asTree && st == nil {
		if err := r.moveNew(parent, name, e, s); err != nil || s.in.place == moved {
			return err
		}
		if st, err = parent.Stat(name); err != nil {
			return err
		}
	}
	if e.Implied {
		there := r.leadsToDir(e.Path, st)
		if there && s.announced || !there && st != nil && s.implicit {
			return errNotMade // though it was announced; what needs it fails, and says so
		}
		if there {
			return nil
		}
	}
	if inroot.IsDir(st) {
		return r.describe(parent, name, e, st, s)
	}
	return r.makeDir(parent, name, e, st, s)
}

func (r *recorder) makeDir(parent *inroot.Dir, name string, e *snapshot.Entry, st *unix.Stat_t, s *staged) error {
	c := r.change(parent, name, e, s)
	if err := r.begin(c, s); err != nil || c.Preserved {
		return err
	}
	if st != nil {
		if err := r.aside(parent, name, c, st); err != nil {
			return err
		}
	}
	if err := r.Mkdirat(parent.FD, name, 0o700); err != nil {
		return errors.Join(err, r.putBack(parent, name, c))
	}
	return r.setMetadataAt(parent, name, e)
}

// describe gives a directory that is there the entry's metadata.
func (r *recorder) describe(parent *inroot.Dir, name string, e *snapshot.Entry, st *unix.Stat_t, s *staged) error {
	fd, err := r.OpenIn(parent.FD, name, path.Join(parent.Path, name))
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	old, err := r.ListXattrs(fd)
	if err != nil {
		return err
	}
	c := r.change(parent, name, e, s)
	r.was(c, st, old)
	if err := r.begin(c, s); err != nil || c.Preserved {
		return err
	}
	if len(old) > 0 || len(e.Xattrs) > 0 {
		r.Forget(parent, name) // what is made in it may inherit another ACL now
	}
	return r.SetMetadata(fd, e, old, false)
}

// was completes the record of a directory that is described.
func (r *recorder) was(c *record.Change, st *unix.Stat_t, xattrs map[string][]byte) {
	mtime := r.TimeOf(st) // entries below may have been made before: by then it had changed
	c.Was = record.MetaOfStat(st)
	c.Was.Mode = r.ModeOf(st)
	c.Was.ModTime, c.Was.Xattrs = time.Unix(mtime.Unix()).UTC(), xattrs
	if !r.Privileged { // it stays what it is
		c.Now.UID, c.Now.GID = c.Was.UID, c.Was.GID
	}
}

// opaque deletes all that a directory held. It stands before all that the stream
// itself puts there.
func (r *recorder) opaque(p string) error {
	if err := r.filled.mayBeOpaque(p); err != nil {
		return err
	}
	f, err := r.parent(p, true)
	if err != nil || f == nil {
		return err
	}
	names, err := r.List(f.FD)
	if err != nil {
		return err
	}
	var gone []staged
	for _, name := range names {
		below := path.Join(p, name)
		if r.guard(below) != nil {
			continue // it held that before clayer came as little as after
		}
		s := staged{e: &snapshot.Entry{Path: below, Kind: snapshot.Delete}}
		// All are announced first, for one sync.
		s.n = r.number()
		s.line = r.change(f, name, s.e, &s)
		s.announced, r.unexpected = true, true
		if err := r.to.Journal.Add(s.line); err != nil {
			return err
		}
		gone = append(gone, s)
	}
	if len(gone) > 0 {
		if err := r.to.Journal.Sync(); err != nil {
			return err
		}
	}
	var left error
	for i := range gone {
		s := &gone[i]
		name := path.Base(s.e.Path)
		f, err := r.Get(p)
		if err == nil {
			if err = r.guardBelow(f, name, s.e.Path); err == nil {
				err = r.remove(f, name, s.e, s)
			}
		}
		if err != nil && inroot.IsHard(err) {
			return err
		}
		if err != nil {
			r.ev.Not = append(r.ev.Not, s.n)
			if left == nil {
				left = fmt.Errorf("%q: %w", name, err)
			}
		}
	}
	return left
}

// place puts what was staged over what stands at its name, which becomes
// an original.
func (r *recorder) place(ctx context.Context, parent *inroot.Dir, name string, e *snapshot.Entry, s *staged) error {
	c := r.change(parent, name, e, s)
	if err := r.begin(c, s); err != nil || c.Preserved {
		return err
	}
	if s.leftOut {
		return errNotMade
	}
	from := s.at
	// Nothing stands there, nearly always, and one call is enough. What another
	// program put there meanwhile is seen.
	if err := r.Place(r.stage.FD, from, parent.FD, name); err == nil || inroot.IsHard(err) {
		return err
	}
	st, err := parent.Stat(name)
	if err != nil {
		return err
	}
	if st == nil {
		err := r.Renameat(r.stage.FD, from, parent.FD, name, unix.RENAME_NOREPLACE)
		if errors.Is(err, unix.EXDEV) {
			err = r.placeBeside(ctx, parent, name, e, s, c)
		}
		return err
	}
	if err := r.mayReplace(r.to.Placement, e, st); err != nil {
		return err
	}
	if err := r.save(parent, name, c, st); err != nil {
		return err
	}
	if err := r.Renameat(r.stage.FD, from, parent.FD, name, 0); err != nil {
		return errors.Join(err, r.putBack(parent, name, c))
	}
	return nil
}

// placeBeside is the end of place for a directory on another file system
// than clayer's state: the only one that copies.
func (r *recorder) placeBeside(ctx context.Context, parent *inroot.Dir, name string, e *snapshot.Entry, s *staged, c *record.Change) error {
	temp := record.TempName(r.ev.Seq, s.n)
	if err := r.announce(&record.Change{Seq: r.ev.Seq, Kind: record.KindTemp, Path: []byte(path.Join(parent.Path, temp))}); err != nil {
		return err
	}
	copied := *e
	var err error
	if e.Kind == snapshot.File || e.Kind == snapshot.Link {
		err = r.copyStaged(ctx, parent, temp, &copied, s)
	} else {
		_, err = r.make(ctx, parent, temp, &copied)
	}
	if err == nil {
		// From here on it is the file beside that says whether it was done.
		c.Beside = true
		r.supersede(c, s)
		if err = r.announce(c); err == nil {
			err = r.Renameat(parent.FD, temp, parent.FD, name, unix.RENAME_NOREPLACE)
		}
	}
	if err != nil {
		_ = r.Unlinkat(parent.FD, temp, 0)
		return err
	}
	return r.Unlinkat(r.stage.FD, s.at, 0)
}

// copyStaged makes a copy of a staged file under a temporary name.
func (r *recorder) copyStaged(ctx context.Context, parent *inroot.Dir, temp string, e *snapshot.Entry, s *staged) error {
	fd, err := r.OpenAt(r.stage.FD, s.at)
	if err != nil {
		return err
	}
	f := os.NewFile(uintptr(fd), temp)
	defer f.Close()
	e.Kind, e.Size, e.Mode, e.UID, e.GID, e.ModTime = snapshot.File, s.now.Size, s.now.Mode, s.now.UID, s.now.GID, s.now.ModTime
	e.Open = func() (io.ReadCloser, error) { return io.NopCloser(f), nil }
	counted := r.bytes
	err = r.file(ctx, parent, temp, e)
	r.bytes = counted
	return err
}
