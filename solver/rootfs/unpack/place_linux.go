package unpack

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/clayer/clayer/cache/snapshot"
	"github.com/clayer/clayer/solver/rootfs/inroot"
	"github.com/clayer/clayer/solver/rootfs/record"
)

// place makes anything but a folder: aside first, then over what is there, so
// that there is no instant without the name, and what has the old file open or
// mapped keeps it.
func (a *applier) place(ctx context.Context, parent *inroot.Dir, name string, e *snapshot.Entry, s *staged) error {
	if s != nil {
		return a.placeStaged(ctx, parent, name, e, s)
	}
	st, err := parent.Stat(name)
	if err == nil {
		err = a.mayReplace(e, st)
	}
	if err != nil {
		return err
	}
	a.temps++
	temp := a.prefix + strconv.Itoa(a.temps)
	made, err := a.make(ctx, parent, temp, e)
	if err == nil && made {
		if inroot.IsDir(st) || inroot.IsLink(st) {
			a.Forget(parent, name) // it may have been the way to others
		}
		if inroot.IsDir(st) {
			err = a.RemoveAllAt(parent.FD, name)
		}
		if err == nil {
			err = a.Renameat(parent.FD, temp, parent.FD, name, 0)
		}
	}
	if err != nil || e.Kind == snapshot.Link && st != nil {
		// Also for a link: rename(2) of two names of one file does nothing.
		_ = a.Unlinkat(parent.FD, temp, 0)
	}
	return err
}

// mayReplace refuses an entry, which is no directory, where its Placement forbids
// it to take the place of what stands there.
func (a *applier) mayReplace(e *snapshot.Entry, st *unix.Stat_t) error {
	alone := e.Path == a.placement.File
	isDir := inroot.IsDir(st) && (a.placement.ProtectDirs || alone)
	if inroot.IsLink(st) && alone {
		fd, _, err := a.Resolve(a.Root, e.Path, a.Openat2)
		if isDir = err == nil; isDir {
			unix.Close(fd)
		}
	}
	if isDir {
		return inroot.Hard(&DirError{e.Path})
	}
	return nil
}

// placeStaged puts what was staged over what stands at its name, which becomes
// an original.
func (a *applier) placeStaged(ctx context.Context, parent *inroot.Dir, name string, e *snapshot.Entry, s *staged) error {
	c := a.change(parent, name, e, s)
	if err := a.begin(c, s); err != nil || isPreserved(c) {
		return err
	}
	if !s.made {
		return errNotMade
	}
	from := s.at
	// Nothing stands there, nearly always, and one call is enough. What another
	// program put there meanwhile is seen.
	if err := a.Place(a.stageDir.FD, from, parent.FD, name); err == nil || inroot.IsHard(err) {
		return err
	}
	st, err := parent.Stat(name)
	if err != nil {
		return err
	}
	if st == nil {
		err := a.Renameat(a.stageDir.FD, from, parent.FD, name, unix.RENAME_NOREPLACE)
		if errors.Is(err, unix.EXDEV) {
			err = a.placeBeside(ctx, parent, name, e, s, c)
		}
		return err
	}
	if err := a.mayReplace(e, st); err != nil {
		return err
	}
	if err := a.save(parent, name, c, st); err != nil {
		return err
	}
	if err := a.Renameat(a.stageDir.FD, from, parent.FD, name, 0); err != nil {
		return errors.Join(err, a.putBack(parent, name, c))
	}
	return nil
}

// placeBeside is the end of placeStaged for a folder on another file system
// than clayer's state: the only one that copies.
func (a *applier) placeBeside(ctx context.Context, parent *inroot.Dir, name string, e *snapshot.Entry, s *staged, c *record.Change) error {
	temp := record.TempName(a.ev.Seq, s.n)
	if err := a.announce(&record.Change{Seq: a.ev.Seq, Kind: record.KindTemp, Path: []byte(path.Join(parent.Path, temp))}); err != nil {
		return err
	}
	copied := *e
	var err error
	if e.Kind == snapshot.File || e.Kind == snapshot.Link {
		err = a.copyStaged(ctx, parent, temp, &copied, s)
	} else {
		_, err = a.make(ctx, parent, temp, &copied)
	}
	if err == nil {
		// From here on it is the file beside that tells whether it was done.
		c.Beside = true
		a.supersede(c, s)
		if err = a.announce(c); err == nil {
			err = a.Renameat(parent.FD, temp, parent.FD, name, unix.RENAME_NOREPLACE)
		}
	}
	if err != nil {
		_ = a.Unlinkat(parent.FD, temp, 0)
		return err
	}
	return a.Unlinkat(a.stageDir.FD, s.at, 0)
}

// copyStaged makes a copy of a staged file under a temporary name.
func (a *applier) copyStaged(ctx context.Context, parent *inroot.Dir, temp string, e *snapshot.Entry, s *staged) error {
	fd, err := a.OpenAt(a.stageDir.FD, s.at)
	if err != nil {
		return err
	}
	f := os.NewFile(uintptr(fd), temp)
	defer f.Close()
	e.Kind, e.Size, e.Mode, e.UID, e.GID, e.ModTime = snapshot.File, s.now.Size, s.now.Mode, s.now.UID, s.now.GID, s.now.ModTime
	e.Open = func() (io.ReadCloser, error) { return io.NopCloser(f), nil }
	counted := a.res.Bytes
	err = a.file(ctx, parent, temp, e)
	a.res.Bytes = counted
	return err
}

// make makes the entry's object under a temporary name. It reports false for
// one that this user may not make.
func (a *applier) make(ctx context.Context, parent *inroot.Dir, temp string, e *snapshot.Entry) (bool, error) {
	switch e.Kind {
	case snapshot.File:
		return true, a.file(ctx, parent, temp, e)
	case snapshot.Link:
		if to := a.target(e); to != nil {
			return true, a.Linkat(parent.FD, to.at, parent.FD, temp)
		}
		dir, name := path.Split(e.Target)
		// Not by get: the target's folder may push the entry's out.
		fd, _, err := a.Resolve(a.Root, path.Clean(dir), a.Openat2)
		if err != nil {
			return false, err
		}
		defer unix.Close(fd)
		return true, a.Linkat(fd, name, parent.FD, temp)
	case snapshot.Symlink:
		if err := a.Symlinkat(e.Target, parent.FD, temp); err != nil {
			return false, err
		}
	case snapshot.Char, snapshot.Block, snapshot.Fifo:
		mode := map[snapshot.Kind]uint32{snapshot.Char: unix.S_IFCHR, snapshot.Block: unix.S_IFBLK, snapshot.Fifo: unix.S_IFIFO}[e.Kind]
		err := a.Mknodat(parent.FD, temp, mode|0o600, int(unix.Mkdev(e.Major, e.Minor)))
		if errors.Is(err, unix.EPERM) && !a.privileged {
			a.Unprivileged++
			return false, nil
		}
		if err != nil {
			return false, err
		}
	}
	return true, a.attributesAt(parent, temp, e)
}

func (a *applier) file(ctx context.Context, parent *inroot.Dir, temp string, e *snapshot.Entry) (err error) {
	mode, done := uint32(0o600), false
	if a.born != nil && parent == a.stageDir {
		mode, done = a.born.mode(e)
	}
	fd, err := a.Createat(parent.FD, temp, mode)
	if err != nil {
		return err
	}
	defer func() {
		if cerr := a.CloseFile(fd); err == nil {
			err = cerr // a quota that is full may be told only now
		}
	}()
	if err := a.content(ctx, fd, e); err != nil {
		return err
	}
	var old map[string][]byte
	if parent.ACL {
		if old, err = a.ListXattrs(fd); err != nil {
			return err
		}
	}
	if !done {
		if _, err := a.attributes(fd, e, old); err != nil {
			return err
		}
	}
	return a.Futimens(fd, inroot.Timespec(e.ModTime))
}

// birth is what a file that is made in the stage folder has from the beginning.
type birth struct {
	uid, gid int
	umask    uint32
}

// bornIn returns what files have that are made in a folder that hands down no ACL.
func bornIn(fd int) (*birth, error) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, err
	}
	b := &birth{uid: os.Geteuid(), gid: os.Getegid(), umask: inroot.Umask()}
	if st.Mode&unix.S_ISGID != 0 {
		b.gid = int(st.Gid)
	}
	return b, nil
}

// mode returns the mode to make a file with, and whether it then has all that
// its entry says, but for the content and the time.
func (b *birth) mode(e *snapshot.Entry) (uint32, bool) {
	if e.UID != b.uid || e.GID != b.gid || len(e.Xattrs) > 0 || e.Mode&^0o777 != 0 || e.Mode&b.umask != 0 {
		return 0o600, false
	}
	return e.Mode, true
}

// content writes a file; holes are not written.
func (a *applier) content(ctx context.Context, fd int, e *snapshot.Entry) error {
	a.sum = 0
	if e.Size == 0 {
		return nil
	}
	data := e.Data
	if data == nil {
		data = []snapshot.Extent{{Length: e.Size}}
	}
	if e.Data == nil && inMemory(e) {
		if err := context.Cause(ctx); err != nil {
			return inroot.Hard(err)
		}
		a.sum = crc32.Checksum(e.Content, record.Castagnoli)
		a.res.Bytes += e.Size
		return a.WriteAt(fd, e.Content, 0)
	}
	r, err := e.Open()
	if err != nil {
		return inroot.Hard(err)
	}
	defer r.Close()
	if a.buf == nil {
		a.buf = make([]byte, 128<<10)
	}
	var at int64
	for _, x := range data {
		// In this form no sum of the two can overflow.
		if x.Offset < at || x.Length < 0 || x.Offset > e.Size || x.Length > e.Size-x.Offset {
			return unsafe(e.Path, fmt.Sprintf("data at %d, %d bytes, in a file of %d", x.Offset, x.Length, e.Size))
		}
		if err := a.copy(ctx, -1, 0, r, x.Offset-at); err != nil {
			return err
		}
		if err := a.copy(ctx, fd, x.Offset, r, x.Length); err != nil {
			return err
		}
		at = x.Offset + x.Length
	}
	if err := a.copy(ctx, -1, 0, r, e.Size-at); err != nil {
		return err
	}
	if at < e.Size {
		if err := a.Ftruncate(fd, e.Size); err != nil {
			return err
		}
	}
	a.res.Bytes += e.Size
	return nil
}

// copy copies n bytes to an open file at an offset; -1 drops them.
func (a *applier) copy(ctx context.Context, fd int, off int64, r io.Reader, n int64) error {
	for n > 0 {
		if err := context.Cause(ctx); err != nil {
			return inroot.Hard(err)
		}
		k, err := r.Read(a.buf[:min(int64(len(a.buf)), n)])
		a.sum = crc32.Update(a.sum, record.Castagnoli, a.buf[:k])
		if fd >= 0 {
			if err := a.WriteAt(fd, a.buf[:k], off); err != nil {
				return err
			}
		}
		off, n = off+int64(k), n-int64(k)
		if err == io.EOF && n > 0 {
			return inroot.Hard(io.ErrUnexpectedEOF)
		}
		if err != nil && err != io.EOF {
			return inroot.Hard(err)
		}
	}
	return nil
}
