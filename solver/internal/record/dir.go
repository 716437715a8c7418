package record

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/clayer/clayer/internal/errhint"
	"github.com/clayer/clayer/internal/inroot"
	"github.com/clayer/clayer/internal/safefile"
)

// Dir is the state directory of a root: where the record of it is. It is opened
// through no link, and used only if no other user can change it. A Dir that Open
// returned is one directory, whatever becomes of its name; any other opens it for each
// call.
type Dir struct {
	root string // that it is in; "": it is elsewhere
	path string
	held *inroot.OwnDir
	sys  inroot.Sys
}

// DirIn returns the state directory at a path, which need not be there. In the
// directory root no element of the path may be a link.
func DirIn(root, path string) Dir {
	if rel, err := filepath.Rel(root, path); err != nil || !filepath.IsLocal(rel) {
		root = ""
	}
	return Dir{root: root, path: path}
}

// With returns the directory, to be opened and changed by the calls of sys.
func (d Dir) With(sys inroot.Sys) Dir {
	d.sys = sys
	return d
}

// Sys returns the system calls by which the directory is opened and changed.
func (d Dir) Sys() inroot.Sys { return d.sys }

// String returns the path of the directory.
func (d Dir) String() string { return d.path }

// Path returns a path in the state directory, to print or to pass to a program.
func (d Dir) Path(elem ...string) string {
	return filepath.Join(append([]string{d.path}, elem...)...)
}

// name is the directory's name in its root.
func (d Dir) name() string {
	if d.root == "" {
		return d.path
	}
	rel, err := filepath.Rel(d.root, d.path)
	if err != nil {
		panic("record: a state directory outside of its root")
	}
	return rel
}

// Make makes the directory, and those above it.
func (d Dir) Make() error {
	if d.root != "" {
		if err := d.sys.MkdirAll(d.root, 0o755); err != nil {
			return err
		}
	}
	err := d.sys.MakeOwn(d.root, d.name(), 0o755)
	if perr, ok := err.(*fs.PathError); ok && perr.Path != d.path { // the whole path says more
		err = &fs.PathError{Op: "mkdir", Path: d.path, Err: perr.Err}
	}
	return d.explain(err)
}

// Open opens the directory, and checks it. The caller closes it.
func (d Dir) Open() (Dir, error) {
	held, err := d.sys.OpenOwn(d.root, d.name())
	if err != nil {
		return d, d.explain(err)
	}
	if err := held.Check(); err != nil {
		return d, d.explain(errors.Join(err, held.Close()))
	}
	d.held = held
	return d, nil
}

// At returns an open directory under the name that it has by now.
func (d Dir) At(x Dir) Dir {
	x.held = d.held
	return x
}

// Close closes what Open opened.
func (d Dir) Close() error { return d.held.Close() }

// Held returns the open directory.
func (d Dir) Held() *inroot.OwnDir { return d.held }

func (d Dir) with(f func(*inroot.OwnDir) error) error {
	if d.held != nil {
		return f(d.held)
	}
	open, err := d.Open()
	if err != nil {
		return err
	}
	return errors.Join(f(open.held), open.Close())
}

// explain says what to do about a directory that somebody else may have made what it is.
func (d Dir) explain(err error) error {
	var owner *safefile.OwnerError
	if errors.As(err, &owner) {
		owner.Path = filepath.Clean(owner.Path)
	}
	switch {
	case owner != nil && owner.Mode != 0:
		return errhint.With(unsafe(err), fmt.Sprintf("chmod go-w %s, if you trust what it holds", owner.Path))
	case owner != nil:
		return errhint.With(unsafe(err), "run clayer as that user, or chown the state directory to yourself, if you trust what it holds")
	case errors.Is(err, safefile.ErrNotRegular), errors.Is(err, unix.ENOTDIR), errors.Is(err, unix.ELOOP):
		return errhint.With(unsafe(fmt.Errorf("%s: %w", d.path, err)), "clayer makes only directories and regular files there: move away anything else")
	}
	return err
}

func unsafe(err error) error { return fmt.Errorf("the state of clayer is not safe: %w", err) }

// ReadFile reads a file.
func (d Dir) ReadFile(name string) (data []byte, err error) {
	err = d.with(func(h *inroot.OwnDir) error {
		data, err = h.ReadFile(name)
		return err
	})
	return data, err
}

// ReplaceFile writes a file that is there wholly or not at all.
func (d Dir) ReplaceFile(name string, data []byte) error {
	return d.with(func(h *inroot.OwnDir) error { return h.ReplaceFile(name, data) })
}

// Exists reports whether something has a name. In a directory that is not there,
// nothing has one.
func (d Dir) Exists(name string) (is bool, err error) {
	err = d.with(func(h *inroot.OwnDir) error {
		is, err = h.Exists(name)
		return err
	})
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	return is, err
}

// Remove removes a file; nothing there is no error.
func (d Dir) Remove(name string) error {
	return d.with(func(h *inroot.OwnDir) error { return h.Remove(name) })
}

// MkdirAll makes a directory, and those above it.
func (d Dir) MkdirAll(name string, mode os.FileMode) error {
	return d.with(func(h *inroot.OwnDir) error { return h.MkdirAll(name, mode) })
}

// LogName is where a transaction announces its changes, and what of them is then
// the record of its applies.
func LogName(tx int) string { return fmt.Sprintf("log/%06d", tx) }

// RolledBack is what the log of a transaction becomes that was rolled back.
const RolledBack = "log/rolled-back"

// OriginalsName is where what an apply replaced or deleted is saved.
func OriginalsName(seq int) string { return fmt.Sprintf("originals/%06d", seq) }

// OriginalName is where the original of a Change is.
func OriginalName(seq, n int) string { return path.Join(OriginalsName(seq), strconv.Itoa(n)) }

// Originals returns the numbers of the changes of an apply of which an original is
// there.
func (d Dir) Originals(seq int) (map[int]bool, error) {
	all := make(map[int]bool)
	err := d.with(func(h *inroot.OwnDir) error {
		entries, err := h.ReadDir(OriginalsName(seq))
		for _, e := range entries {
			if n, err := strconv.Atoi(e.Name()); err == nil {
				all[n] = true
			}
		}
		return err
	})
	return all, err
}
