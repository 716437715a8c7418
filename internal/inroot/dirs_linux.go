package inroot

import (
	"errors"
	"fmt"
	"path"

	"golang.org/x/sys/unix"
)

// A Directory is an open directory of a root.
type Dir struct {
	FD   int
	Name string // as it was asked for
	Path string // without links
	St   unix.Stat_t
	ACL  bool // what is made in it inherits an ACL
	Sys  Sys  // by which it was opened
	used uint64
}

// NewDir looks at an open directory, which it takes over.
func (s Sys) NewDir(fd int, name, real string) (*Dir, error) {
	f := &Dir{FD: fd, Name: name, Path: real, Sys: s}
	if err := s.Fstat(fd, &f.St); err != nil {
		unix.Close(fd)
		return nil, err
	}
	n, err := s.Fgetxattr(fd, "system.posix_acl_default", nil)
	if err != nil && !noXattr(err) {
		unix.Close(fd)
		return nil, err
	}
	f.ACL = err == nil && n > 0
	return f, nil
}

// Dirs opens directories of a root, and keeps some open.
type Dirs struct {
	Sys
	Root    int // the open directory of the root
	Openat2 bool

	// Locked, if not nil, is called before a directory of this user's, who is not root
	// and may not read or enter it, gets the mode that lets him: see unlock.
	Locked Locked
	Writes bool // also one that he may not write

	open  map[string]*Dir
	clock uint64
}

// maxOpen is how many directories are held open.
const maxOpen = 64

// OpenDirs opens a root; Close closes it, and all that is held open.
func (s Sys) OpenDirs(dir string) (*Dirs, error) {
	fd, err := s.OpenDir(dir)
	if err != nil {
		return nil, fmt.Errorf("open root %s: %w", dir, err)
	}
	return s.DirsOf(fd), nil
}

// DirsOf is OpenDirs for an open directory, which it takes over.
func (s Sys) DirsOf(fd int) *Dirs {
	return &Dirs{Sys: s, Root: fd, Openat2: !s.WithoutOpenat2 && HasOpenat2(), open: make(map[string]*Dir)}
}

// Get returns the directory at a path. It stays open until it is forgotten, or until
// others push it out: it is good until the next Get.
func (fs *Dirs) Get(p string) (*Dir, error) {
	f, err := fs.get(p)
	if errors.Is(err, unix.EACCES) && fs.unlocks() {
		if err := fs.unlockTo(p); err != nil {
			return nil, err
		}
		f, err = fs.get(p)
	}
	if err == nil && fs.unlocks() {
		err = fs.unlock(f.FD, f.Path, &f.St)
	}
	return f, err
}

func (fs *Dirs) get(p string) (*Dir, error) {
	fs.clock++
	if f := fs.open[p]; f != nil {
		f.used = fs.clock
		return f, nil
	}
	if f, err := fs.getBelow(p); f != nil || err != nil {
		return f, err
	}
	fd, real, err := fs.Resolve(fs.Root, p, fs.Openat2)
	if err != nil {
		return nil, err
	}
	return fs.Add(fd, p, real)
}

// holdEach is how many levels are gone down, with a call for each, until a directory is
// held open on the way: who goes up again need not begin at the root each time.
const holdEach = 32

// getBelow is Get from the nearest directory above that is held open, so that the calls
// that it takes do not grow with the depth. It returns nil where a link is on the way,
// and where one call from the root will do.
func (fs *Dirs) getBelow(p string) (*Dir, error) {
	above := fs.open[path.Dir(p)]
	if above == nil {
		if fs.Openat2 && len(p) < unix.PathMax-1 {
			return nil, nil
		}
		above = &Dir{FD: fs.Root}
		for name, f := range fs.open {
			if len(name) > len(above.Name) && Under(p, name) {
				above = f
			}
		}
	}
	at, start := above.FD, 0
	if Under(p, above.Name) {
		start = len(above.Name) + 1
	}
	opened := false
	for level, done := 1, start; ; level++ {
		fd, n, err := fs.descend(at, p[done:], fs.Openat2)
		if opened {
			unix.Close(at)
		}
		if errors.Is(err, unix.ELOOP) || errors.Is(err, unix.ENOTDIR) {
			return nil, nil
		}
		if err != nil {
			return nil, err
		}
		done += n
		if opened = done < len(p) && !fs.Openat2 && level%holdEach != 0; !opened {
			f, err := fs.Add(fd, p[:done], path.Join(above.Path, p[start:done]))
			if err != nil || done == len(p) {
				return f, err
			}
		}
		at = fd
		done++ // the slash
	}
}

// GetReal is Get for a path without links; a link on the way is an error, ELOOP.
func (fs *Dirs) GetReal(p string) (*Dir, error) {
	f, err := fs.Get(p)
	if err == nil && f.Path != p {
		return nil, unix.ELOOP
	}
	return f, err
}

// Add adds an open directory, which it takes over, to those held open.
func (fs *Dirs) Add(fd int, p, real string) (*Dir, error) {
	f, err := fs.NewDir(fd, p, real)
	if err != nil {
		return nil, err
	}
	if len(fs.open) >= maxOpen {
		var oldest *Dir
		for _, f := range fs.open {
			if oldest == nil || f.used < oldest.used {
				oldest = f
			}
		}
		fs.drop(oldest)
	}
	fs.clock++
	f.used = fs.clock
	fs.open[p] = f
	return f, nil
}

func (fs *Dirs) drop(f *Dir) {
	unix.Close(f.FD)
	delete(fs.open, f.Name)
}

// Forget closes the directories to which a directory or a link at a name of parent may lead:
// something else is to stand there, or what is made in it is to inherit another ACL.
// parent itself stays open.
func (fs *Dirs) Forget(parent *Dir, name string) {
	gone := path.Join(parent.Path, name)
	for _, f := range fs.open {
		if f != parent && (f.Name != f.Path || f.Path == gone || Under(f.Path, gone)) {
			fs.drop(f)
		}
	}
}

// IsBelow reports whether an open directory is the one of that id, or below it.
func (fs *Dirs) IsBelow(fd int, id FileID) (bool, error) {
	const openPath = unix.O_PATH | unix.O_DIRECTORY | unix.O_CLOEXEC
	var st unix.Stat_t
	if err := fs.Fstat(fs.Root, &st); err != nil {
		return false, err
	}
	top, last := IDOf(&st), FileID{}
	at, err := unix.Openat(fd, ".", openPath, 0)
	for err == nil {
		err = fs.Fstat(at, &st)
		// The .. of / is / itself: the directory was moved out of the root.
		if here := IDOf(&st); err != nil || here == id || here == top || here == last {
			unix.Close(at)
			return err == nil && here == id, err
		}
		last = IDOf(&st)
		below := at
		at, err = unix.Openat(below, "..", openPath, 0)
		unix.Close(below)
	}
	return false, err
}

// Close closes the root, and all that is held open.
func (fs *Dirs) Close() {
	for _, f := range fs.open {
		fs.drop(f)
	}
	unix.Close(fs.Root)
}

// Stat returns what stands at a name, nil for nothing.
func (f *Dir) Stat(name string) (*unix.Stat_t, error) {
	var st unix.Stat_t
	err := f.Sys.Fstatat(f.FD, name, &st)
	if errors.Is(err, unix.ENOENT) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return &st, nil
}
