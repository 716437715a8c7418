// Package contextdir reads a directory that COPYs copy from: each directory in it once for a
// solve, and the content of a file only if no earlier solve has read it as it stands.
package contextdir

import (
	"errors"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// Contexts are the directories that one solve reads. A nil *Contexts reads without memory.
type Contexts struct {
	// Path is the directory for what is known of files, made when first written to; "" for
	// none. Where it cannot be written, or holds damage, files are read again: that is no error.
	Path string

	// Shows reports whether ctime shows every change of a file in the file system of a
	// directory, which is asked of those that are not known to.
	Shows func(dir string) bool

	mu       sync.Mutex
	readings map[string]*Reading
}

// In returns contexts of which what is known is stored in a cache directory; "" for nowhere.
func In(cache string, shows func(dir string) bool) *Contexts {
	c := &Contexts{Shows: shows}
	if cache != "" {
		c.Path = filepath.Join(cache, "context")
	}
	return c
}

// Of returns the reading of a directory: the same each time.
func (c *Contexts) Of(dir string) *Reading {
	if c == nil {
		return &Reading{}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	r := c.readings[dir]
	if r == nil {
		r = &Reading{store: c.Path, path: dir, shows: c.Shows}
		if c.readings == nil {
			c.readings = make(map[string]*Reading)
		}
		c.readings[dir] = r
	}
	return r
}

// Save stores what was learned of the files of all directories.
func (c *Contexts) Save() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, r := range c.readings {
		r.save()
	}
}

// A Reading is what a directory was found to hold. What it has found stands for as long as it
// does. Its methods are safe for concurrent use; top is the open directory.
type Reading struct {
	store string // see Contexts.Path
	path  string // of the directory
	shows func(dir string) bool

	mu    sync.Mutex
	lists map[string]*listing // by path

	hashing sync.Mutex          // a hash takes all cores: the next one finds what it has found
	known   *known              // from earlier; nil before it is needed
	fresh   map[string][]record // by directory
}

type listing struct {
	once  sync.Once
	nodes []*Node
	err   error
}

// A Node is a name in a directory, and what stands there.
type Node struct {
	Name string
	Stat
	Err error // of looking at it

	// Of a file, guarded by hashing of its reading.
	queued bool
	hashed bool
	sum    Sum
	size   int64 // of what was hashed
}

// List returns what is in a directory, by name. No element of its path may be a link.
func (r *Reading) List(top *os.File, dir string) ([]*Node, error) {
	dir = path.Clean(dir)
	r.mu.Lock()
	l := r.lists[dir]
	if l == nil {
		l = new(listing)
		if r.lists == nil {
			r.lists = make(map[string]*listing)
		}
		r.lists[dir] = l
	}
	r.mu.Unlock()
	l.once.Do(func() { l.nodes, l.err = list(top, dir) })
	return l.nodes, l.err
}

// Lookup returns what stands at a path, of which no element but the last may be a link.
func (r *Reading) Lookup(top *os.File, name string) (*Node, error) {
	dir, base := path.Split(path.Clean(name))
	if base == "." {
		n := &Node{Name: "."}
		n.Err = n.Stat.ofOpen(int(top.Fd()))
		return n, n.Err
	}
	r.mu.Lock()
	l := r.lists[path.Clean(dir)]
	r.mu.Unlock()
	if l != nil {
		l.once.Do(func() { l.nodes, l.err = list(top, path.Clean(dir)) })
		if l.err != nil {
			return nil, l.err
		}
		i, ok := slices.BinarySearchFunc(l.nodes, base, func(n *Node, name string) int { return strings.Compare(n.Name, name) })
		if !ok {
			return nil, &fs.PathError{Op: "lstat", Path: name, Err: unix.ENOENT}
		}
		return l.nodes[i], l.nodes[i].Err
	}
	n := &Node{Name: base}
	err := inDir(top, path.Clean(dir), func(fd int) error { return n.Stat.at(fd, base) })
	if err != nil {
		return nil, &fs.PathError{Op: "lstat", Path: name, Err: err}
	}
	return n, nil
}

// Readlink returns the text of a link; no other element of its path may be one.
func Readlink(top *os.File, name string) (target string, err error) {
	dir, base := path.Split(path.Clean(name))
	err = inDir(top, path.Clean(dir), func(fd int) error {
		for size := 256; ; size *= 2 {
			buf := make([]byte, size)
			n, err := unix.Readlinkat(fd, base, buf)
			if err != nil {
				return err
			}
			if n < size {
				target = string(buf[:n])
				return nil
			}
		}
	})
	if err != nil {
		err = &fs.PathError{Op: "readlink", Path: name, Err: err}
	}
	return target, err
}

// list reads a directory.
func list(top *os.File, dir string) (nodes []*Node, err error) {
	fd, err := openDir(int(top.Fd()), dir)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: dir, Err: err}
	}
	f := os.NewFile(uintptr(fd), dir)
	defer f.Close()
	names, err := f.Readdirnames(-1)
	if err != nil {
		return nil, err
	}
	slices.Sort(names)
	all := make([]Node, len(names))
	nodes = make([]*Node, 0, len(names))
	for i, name := range names {
		n := &all[i]
		n.Name = name
		switch err := n.Stat.at(fd, name); {
		case errors.Is(err, unix.ENOENT): // it has gone since
			continue
		case err != nil:
			n.Err = &fs.PathError{Op: "lstat", Path: path.Join(dir, name), Err: err}
		}
		nodes = append(nodes, n)
	}
	return nodes, nil
}

// inDir opens a directory for f.
func inDir(top *os.File, dir string, f func(fd int) error) error {
	if dir == "." {
		return f(int(top.Fd()))
	}
	fd, err := openDir(int(top.Fd()), dir)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return f(fd)
}

// openDir opens a directory below another one, and follows no link on the way.
func openDir(top int, dir string) (fd int, err error) {
	at := top
	for rest := dir; ; {
		first, below, more := strings.Cut(rest, "/")
		fd, err = openat(at, first, unix.O_RDONLY|unix.O_DIRECTORY)
		if at != top {
			unix.Close(at)
		}
		if err != nil || !more {
			return fd, err
		}
		at, rest = fd, below
	}
}

// openat opens a name without following a link, or waiting for who has the other end of a pipe.
func openat(dir int, name string, flag int) (fd int, err error) {
	for {
		fd, err = unix.Openat(dir, name, flag|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
		if !errors.Is(err, unix.EINTR) {
			return fd, err
		}
	}
}
