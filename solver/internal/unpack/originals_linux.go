package unpack

import (
	"errors"
	"fmt"
	"path"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/clayer/clayer/internal/inroot"
	"github.com/clayer/clayer/solver/internal/record"
)

// openOriginals opens the directory of the originals, making it.
func (r *recorder) openOriginals() error {
	if r.originalsFD >= 0 {
		return nil
	}
	fd, err := r.to.Dir.Held().OpenPrivate(record.OriginalsName(r.ev.Seq))
	if err == nil {
		r.originalsFD = fd
	}
	return err
}

// save saves the original of a name that a rename is about to replace: by a
// second link to it, so that the name is never without a file. A directory, which
// no rename replaces, is moved away.
func (r *recorder) save(parent *inroot.Dir, name string, c *record.Change, st *unix.Stat_t) error {
	if inroot.IsDir(st) {
		return r.aside(parent, name, c, st)
	}
	if inroot.IsLink(st) {
		r.Forget(parent, name)
	}
	err := r.Linkat(parent.FD, name, r.originalsFD, strconv.Itoa(c.N))
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.EMLINK) {
		// A file system without hard links, a file with too many, or one that
		// fs.protected_hardlinks guards: for an instant the name is gone.
		return r.aside(parent, name, c, st)
	}
	if err != nil {
		return fmt.Errorf("save the original: %w", err)
	}
	return nil
}

// aside moves what is at a name to the originals.
func (r *recorder) aside(parent *inroot.Dir, name string, c *record.Change, st *unix.Stat_t) error {
	fixed := inroot.IsFixed(st)
	if fixed {
		if err := r.noteFixed(parent, name, c); err != nil {
			return err
		}
	}
	if inroot.IsDir(st) || inroot.IsLink(st) {
		r.Forget(parent, name) // it may have been the way to others
	}
	to := strconv.Itoa(c.N)
	// EXDEV: a mount, or on one. Its bytes are not copied; it is left, and reported.
	// EINVAL: a directory that clayer's own is in.
	err := r.Renameat(parent.FD, name, r.originalsFD, to, 0)
	if errors.Is(err, unix.EXDEV) && inroot.IsDir(st) {
		err = r.moveTree(parent, name, c, st)
	}
	if err != nil {
		if errors.Is(err, unix.EINVAL) {
			return fmt.Errorf("clayer's own directory is in it: %w", unix.EBUSY)
		}
		return fmt.Errorf("save the original: %w", err)
	}
	if !inroot.IsDir(st) {
		return nil
	}
	mtime, mode := r.TimeOf(st), r.ModeOf(st)
	r.ForgetTime(st)
	err = r.Utimensat(r.originalsFD, to, st.Atim, mtime)
	if err == nil && (fixed || mode != st.Mode&0o7777) {
		err = r.Fchmodat(r.originalsFD, to, mode)
	}
	return err
}

// noteFixed announces a directory that gets another mode to be moved, and its change
// once more, which comes first when they are rolled back.
func (r *recorder) noteFixed(parent *inroot.Dir, name string, c *record.Change) error {
	d, err := r.Get(path.Join(parent.Path, name))
	if err != nil {
		return err
	}
	if err := r.Note(d); err != nil {
		return err
	}
	r.supersede(c, &staged{announced: true})
	if err := r.announce(c); err != nil {
		return err
	}
	return r.Free(parent.FD, name)
}

// putBack gives a name its original back after what was to replace it could not
// be made.
func (r *recorder) putBack(parent *inroot.Dir, name string, c *record.Change) error {
	from := strconv.Itoa(c.N)
	err := r.Renameat(r.originalsFD, from, parent.FD, name, unix.RENAME_NOREPLACE)
	switch {
	case errors.Is(err, unix.ENOENT): // nothing stood there
		return nil
	case errors.Is(err, unix.EEXIST): // it was linked, not moved, and stands there still
		return r.Unlinkat(r.originalsFD, from, 0)
	case err != nil:
		return inroot.Hard(fmt.Errorf("put the original back: %w", err))
	}
	return nil
}

// moveTree moves a directory that can't be renamed, since a file system below an
// overlay has it: file by file. It is announced again, after the times of all its
// directories, so that it can be rolled back from wherever it was cut off.
func (r *recorder) moveTree(parent *inroot.Dir, name string, c *record.Change, st *unix.Stat_t) error {
	var own unix.Stat_t
	if err := r.Fstat(r.originalsFD, &own); err != nil {
		return err
	}
	if own.Dev != st.Dev {
		return unix.EXDEV // it is on another file system
	}
	p := path.Join(parent.Path, name)
	if err := r.noteTree(parent.FD, name, p, uint64(st.Dev)); err != nil {
		return err
	}
	r.supersede(c, &staged{announced: true})
	if err := r.announce(c); err != nil {
		return err
	}
	return r.moveDir(parent.FD, name, r.originalsFD, strconv.Itoa(c.N))
}

// noteTree announces that the times of a directory, and of those below it, will
// change. A mount in it is an error, before anything is moved.
func (r *recorder) noteTree(at int, name, p string, dev uint64) error {
	fd, err := r.OpenIn(at, name, p)
	if err != nil {
		return err
	}
	f, err := r.NewDir(fd, p, p)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if uint64(f.St.Dev) != dev {
		return unix.EXDEV
	}
	if err := errors.Join(r.NoteTime(f), r.unlock(f)); err != nil {
		return err
	}
	names, err := r.List(fd)
	if err != nil {
		return err
	}
	for _, n := range names {
		st, err := f.Stat(n)
		if err == nil && inroot.IsDir(st) {
			err = r.noteTree(fd, n, path.Join(p, n), dev)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// moveDir makes a directory like another, moves into it what that holds, and
// removes that.
func (r *recorder) moveDir(fromAt int, from string, toAt int, to string) error {
	src, err := r.OpenDirAt(fromAt, from)
	if err != nil {
		return err
	}
	defer unix.Close(src)
	var st unix.Stat_t
	if err := r.Fstat(src, &st); err != nil {
		return err
	}
	if err := r.Mkdirat(toAt, to, 0o700); err != nil && !errors.Is(err, unix.EEXIST) {
		return err
	}
	dst, err := r.OpenDirAt(toAt, to)
	if err != nil {
		return err
	}
	defer unix.Close(dst)
	names, err := r.List(src)
	if err != nil {
		return err
	}
	for _, n := range names {
		err := r.Renameat(src, n, dst, n, unix.RENAME_NOREPLACE)
		if errors.Is(err, unix.EXDEV) || errors.Is(err, unix.EEXIST) { // a directory of the same sort, or one that was begun
			err = r.moveDir(src, n, dst, n)
		}
		if err != nil {
			return err
		}
	}
	xattrs, err := r.ListXattrs(src)
	if err != nil {
		return err
	}
	have, err := r.ListXattrs(dst)
	if err == nil {
		err = r.SetXattrs(dst, have, xattrs)
	}
	if err == nil {
		err = r.Allow(r.Fchown(dst, int(st.Uid), int(st.Gid)))
	}
	if err == nil {
		err = r.Utimensat(dst, ".", st.Atim, st.Mtim)
	}
	if err == nil {
		err = r.Fchmod(dst, r.ModeOf(&st))
	}
	if err != nil {
		return err
	}
	return r.Unlinkat(fromAt, from, unix.AT_REMOVEDIR)
}
