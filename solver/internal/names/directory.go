package names

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"syscall"
)

// A Directory is a directory of a view, for who looks at many names in it.
type Directory struct {
	view *View
	at   place
	ok   bool
}

// Directory returns the directory that a path leads to. One that is missing, or no
// directory, has nothing in it.
func (v *View) Directory(name string) (Directory, error) {
	real, kind, err := v.Resolve(name)
	if errors.Is(err, syscall.ENOTDIR) || errors.Is(err, syscall.ELOOP) {
		return Directory{}, nil
	}
	if err != nil || kind != Dir {
		return Directory{}, err
	}
	at, err := v.at().walk(real)
	if err != nil {
		return Directory{}, err
	}
	return Directory{v, at, true}, nil
}

// Path returns where the directory is, without links, relative to the root.
func (d Directory) Path() string { return d.at.path }

// Look returns what stands at a name of the directory. It follows no link.
func (d Directory) Look(name string) (Found, error) {
	if !d.ok {
		return Found{}, nil
	}
	n, kind, target, err := d.at.look(name)
	f := Found{Kind: kind, Target: target, view: d.view, node: n}
	if err == nil && kind == File && n == nil {
		for _, root := range d.at.roots {
			f.files = append(f.files, filepath.Join(root, name))
		}
	}
	return f, err
}

// Names returns all names in the directory, sorted.
func (d Directory) Names() ([]string, error) {
	all := make(map[string]bool)
	if !d.ok {
		return nil, nil
	}
	if d.at.node == nil || !d.at.node.opaque {
		for _, root := range d.at.roots {
			entries, err := os.ReadDir(root)
			if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, fs.ErrPermission) {
				return nil, err
			}
			for _, e := range entries {
				all[e.Name()] = true
			}
		}
	}
	if d.at.node != nil {
		for name, n := range d.at.node.children {
			all[name] = n.kind != Missing
			if n.kind == Missing {
				delete(all, name)
			}
		}
	}
	return slices.Sorted(maps.Keys(all)), nil
}

// A Found is what stands at a name.
type Found struct {
	Kind   Kind
	Target string // of a Link

	view  *View
	node  *node    // of a change
	files []string // where it may be in the roots
}

// Open returns the content of a File. Of one that comes of changes it is read at once.
func (f Found) Open() (io.ReadCloser, error) {
	switch {
	case f.Kind != File || f.node != nil && f.node.path == "":
		return nil, fs.ErrNotExist
	case f.node != nil:
		data, err := f.view.contentOf(f.node)
		return io.NopCloser(bytes.NewReader(data)), err
	}
	for _, name := range f.files {
		file, err := os.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK|syscall.O_NOFOLLOW, 0)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if info, err := file.Stat(); err != nil || !info.Mode().IsRegular() {
			return nil, errors.Join(err, file.Close(), &fs.PathError{Op: "read", Path: name, Err: fs.ErrInvalid})
		}
		return file, nil
	}
	return nil, fs.ErrNotExist
}

// Find returns what stands at a path, of which it follows all links but the last.
func (v *View) Find(name string) (Found, error) {
	up, base := path.Split(path.Clean("/" + name))
	if base == "" {
		return Found{Kind: Dir}, nil
	}
	d, err := v.Directory(up)
	if err != nil {
		return Found{}, err
	}
	return d.Look(base)
}

// Follow is Find which follows the last link too. A link that leads nowhere, or in a
// circle, is missing.
func (v *View) Follow(name string) (Found, error) {
	real, _, err := v.Resolve(name)
	if errors.Is(err, syscall.ENOTDIR) || errors.Is(err, syscall.ELOOP) {
		return Found{}, nil
	}
	if err != nil {
		return Found{}, err
	}
	return v.Find(real)
}
