package inroot

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// A Folder is an open folder of a root.
type Folder struct {
	FD   int
	Name string // as it was asked for
	Path string // without links
	St   unix.Stat_t
	ACL  bool // what is made in it inherits an ACL
	used uint64
}

// NewFolder looks at an open folder, which it takes over.
func NewFolder(fd int, name, real string) (*Folder, error) {
	f := &Folder{FD: fd, Name: name, Path: real}
	if err := Fstat(fd, &f.St); err != nil {
		unix.Close(fd)
		return nil, err
	}
	n, err := Fgetxattr(fd, "system.posix_acl_default", nil)
	if err != nil && !noXattr(err) {
		unix.Close(fd)
		return nil, err
	}
	f.ACL = err == nil && n > 0
	return f, nil
}

// Folders opens folders of a root, and keeps some open.
type Folders struct {
	Root    int // the open folder of the root
	Openat2 bool
	open    map[string]*Folder
	clock   uint64
}

// maxOpen is how many folders are kept open.
const maxOpen = 64

// OpenFolders opens a root; Close closes it, and all that is kept open.
// openat2 tells whether openat2(2) is to be used: HasOpenat2.
func OpenFolders(dir string, openat2 bool) (*Folders, error) {
	fd, err := OpenDir(dir)
	if err != nil {
		return nil, fmt.Errorf("open root %s: %w", dir, err)
	}
	return FoldersOf(fd, openat2), nil
}

// FoldersOf is OpenFolders for an open directory, which it takes over.
func FoldersOf(fd int, openat2 bool) *Folders {
	return &Folders{Root: fd, Openat2: openat2, open: make(map[string]*Folder)}
}

// Get returns the folder at a path. It stays open until ForgetBut, or until
// others push it out: it is good until the next Get.
func (fs *Folders) Get(p string) (*Folder, error) {
	fs.clock++
	if f := fs.open[p]; f != nil {
		f.used = fs.clock
		return f, nil
	}
	fd, real, err := Resolve(fs.Root, p, fs.Openat2)
	if err != nil {
		return nil, err
	}
	return fs.Keep(fd, p, real)
}

// GetReal is Get for a path without links; a link on the way is an error, ELOOP.
func (fs *Folders) GetReal(p string) (*Folder, error) {
	f, err := fs.Get(p)
	if err == nil && f.Path != p {
		return nil, unix.ELOOP
	}
	return f, err
}

// Keep adds an open folder, which it takes over, to those kept open.
func (fs *Folders) Keep(fd int, p, real string) (*Folder, error) {
	f, err := NewFolder(fd, p, real)
	if err != nil {
		return nil, err
	}
	if len(fs.open) >= maxOpen {
		var oldest *Folder
		for _, f := range fs.open {
			if oldest == nil || f.used < oldest.used {
				oldest = f
			}
		}
		fs.drop(oldest)
	}
	f.used = fs.clock
	fs.open[p] = f
	return f, nil
}

func (fs *Folders) drop(f *Folder) {
	unix.Close(f.FD)
	delete(fs.open, f.Name)
}

// ForgetBut closes all folders but parent, which is in use: one of them, or a
// link on the way to one, may be something else now.
func (fs *Folders) ForgetBut(parent *Folder) {
	for _, f := range fs.open {
		if f != parent {
			fs.drop(f)
		}
	}
}

// IsBelow reports whether an open folder is the one of that id, or below it.
func (fs *Folders) IsBelow(fd int, id FileID) (bool, error) {
	const openPath = unix.O_PATH | unix.O_DIRECTORY | unix.O_CLOEXEC
	var st unix.Stat_t
	if err := Fstat(fs.Root, &st); err != nil {
		return false, err
	}
	top, last := IDOf(&st), FileID{}
	at, err := unix.Openat(fd, ".", openPath, 0)
	for err == nil {
		err = Fstat(at, &st)
		// The .. of / is / itself: the folder was moved out of the root.
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

// Close closes the root, and all that is kept open.
func (fs *Folders) Close() {
	fs.ForgetBut(nil)
	unix.Close(fs.Root)
}

// Stat returns what stands at a name, nil for nothing.
func (f *Folder) Stat(name string) (*unix.Stat_t, error) {
	var st unix.Stat_t
	err := Fstatat(f.FD, name, &st)
	if errors.Is(err, unix.ENOENT) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return &st, nil
}
