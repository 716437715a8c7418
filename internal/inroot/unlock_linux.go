package inroot

import (
	"errors"
	"os"
	"path"

	"golang.org/x/sys/unix"
)

// unlocks reports whether directories are unlocked: root needs none.
func (fs *Dirs) unlocks() bool { return fs.Locked != nil && os.Geteuid() != 0 }

// unlock gives an open directory that its owner, this user, may not read or enter
// u+rwx. fd may be one that openPath opened.
func (fs *Dirs) unlock(fd int, p string, st *unix.Stat_t) error {
	use := uint32(unix.S_IRUSR | unix.S_IXUSR)
	if fs.Writes {
		use = unix.S_IRWXU
	}
	if st.Mode&use == use || int(st.Uid) != os.Geteuid() {
		return nil
	}
	if err := fs.Fstat(fd, st); err != nil || st.Mode&use == use { // it has another one by now
		return err
	}
	if err := fs.Locked(p, st); err != nil {
		return err
	}
	if err := fs.chmodPath(fd, st.Mode&0o7777|unix.S_IRWXU); err != nil {
		return err
	}
	st.Mode |= unix.S_IRWXU
	return nil
}

// unlockAt unlocks a directory by its name in an open one, which may be locked itself.
func (fs *Dirs) unlockAt(at int, name, p string) error {
	var st unix.Stat_t
	if err := fs.Fstat(at, &st); err != nil {
		return err
	}
	if err := fs.unlock(at, path.Dir(p), &st); err != nil {
		return err
	}
	fd, err := fs.openPath(at, name)
	if errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) {
		return nil // a link: what it leads to matters
	}
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := fs.Fstat(fd, &st); err != nil {
		return err
	}
	return fs.unlock(fd, p, &st)
}

// unlockTo unlocks the directories on the way to a path.
func (fs *Dirs) unlockTo(p string) error {
	fd, _, err := fs.Walk(fs.Root, p, nil, fs.unlockAt)
	if err != nil {
		return err
	}
	return unix.Close(fd)
}

// IsFixed reports whether a directory is this user's, who is not root, and may not be
// moved, or emptied, as it is: to move it to another one takes the right to write it.
func IsFixed(st *unix.Stat_t) bool {
	return IsDir(st) && st.Mode&unix.S_IRWXU != unix.S_IRWXU && os.Geteuid() != 0 && int(st.Uid) == os.Geteuid()
}

// Free gives the directory at a name u+rwx, if it is fixed. What it was is announced, or
// of no use any more.
func (s Sys) Free(at int, name string) error {
	if os.Geteuid() == 0 {
		return nil
	}
	var st unix.Stat_t
	if err := s.Fstatat(at, name, &st); err != nil || !IsFixed(&st) {
		return err
	}
	fd, err := s.openPath(at, name)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return s.chmodPath(fd, st.Mode&0o7777|unix.S_IRWXU)
}

// OpenIn opens the directory at a name of an open one, following nothing; p is its
// path without links.
func (fs *Dirs) OpenIn(at int, name, p string) (int, error) {
	fd, err := fs.OpenDirAt(at, name)
	if errors.Is(err, unix.EACCES) && fs.unlocks() {
		if err := fs.unlockAt(at, name, p); err != nil {
			return -1, err
		}
		fd, err = fs.OpenDirAt(at, name)
	}
	return fd, err
}
