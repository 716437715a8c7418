package unpack

import (
	"errors"
	"os"
	"path"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/clayer/clayer/cache/snapshot"
	"github.com/clayer/clayer/internal/inroot"
	"github.com/clayer/clayer/solver/internal/merge"
	"github.com/clayer/clayer/solver/internal/metadata"
	"github.com/clayer/clayer/solver/internal/record"
)

// A lower is the root that another one is layered over. A directory that is made in the
// upper one hides that of the lower one, so it gets the same metadata. nil: there is
// none.
type lower struct {
	mu   sync.Mutex
	dirs *inroot.Dirs
	has  map[string]bool // by path

	hidden map[string]bool // what steps have deleted, as record.Event has it
}

// openLower opens the root dir; "" is none.
func openLower(sys inroot.Sys, dir string, hidden []string) (*lower, error) {
	if dir == "" {
		return nil, nil
	}
	dirs, err := sys.OpenDirs(dir)
	if err != nil {
		return nil, err
	}
	l := &lower{dirs: dirs, has: map[string]bool{".": true}, hidden: make(map[string]bool)}
	for _, p := range hidden {
		l.hidden[p] = true
	}
	return l, nil
}

func (l *lower) close() {
	if l != nil {
		l.dirs.Close()
	}
}

// dir returns an entry that makes the directory at a path what it is in the lower
// root; nil where none is, or none that this user may enter.
func (l *lower) dir(p string) (*snapshot.Entry, error) {
	if l == nil {
		return nil, nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if record.IsHidden(l.hidden, p) {
		return nil, nil
	}
	return l.find(p)
}

// hide notes that a name is deleted; with a final slash, all names in that directory.
func (l *lower) hide(p string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.hidden[p] = true
}

// find is dir, and looks at the directories above first.
func (l *lower) find(p string) (*snapshot.Entry, error) {
	if up := path.Dir(p); !l.has[up] {
		if above, err := l.find(up); above == nil {
			return nil, err
		}
	}
	f, err := l.dirs.GetReal(p)
	if err != nil {
		if errors.Is(err, unix.EACCES) {
			err = nil
		}
		return nil, inroot.UnlessMissing(err)
	}
	xattrs, err := l.dirs.ListXattrs(f.FD)
	if err != nil {
		return nil, err
	}
	l.has[p] = true
	e := &snapshot.Entry{
		Path: p, Kind: snapshot.Dir, Implied: true, Mode: f.St.Mode & 0o7777,
		UID: int(f.St.Uid), GID: int(f.St.Gid), ModTime: time.Unix(f.St.Mtim.Unix()),
	}
	if os.Geteuid() != 0 {
		e.Mode |= 0o700 // the upper one is this user's, who puts things into it
	}
	for name, value := range xattrs {
		if e.Xattrs == nil {
			e.Xattrs = make(map[string]string)
		}
		e.Xattrs[name] = string(value)
	}
	return e, nil
}

// implicit returns the entry by which an implicit parent is created.
func (r *recorder) implicit(p string) (*snapshot.Entry, error) {
	e, err := r.lower.dir(p)
	if e == nil {
		e = implicitParent(p)
	}
	return e, err
}

// overLower returns an entry as it is made over the root below: a directory that is only
// there since something is put into it gets the metadata of that root. What is deleted
// is noted, since the names of that root go on to stand there.
func (r *recorder) overLower(e *snapshot.Entry) (*snapshot.Entry, error) {
	switch {
	case r.lower == nil:
	case e.Kind == snapshot.Delete:
		r.ev.Hidden = append(r.ev.Hidden, e.Path)
		r.lower.hide(e.Path)
	case e.Kind == snapshot.Opaque:
		r.ev.Hidden = append(r.ev.Hidden, e.Path+"/")
		r.lower.hide(e.Path + "/")
	case e.Kind == snapshot.Dir && e.Implied:
		below, err := r.lower.dir(e.Path)
		if below != nil {
			return below, nil
		}
		return e, err
	}
	return e, nil
}

// SetMetadataOf gives directories of the root dir, a directory before those in it, the
// metadata that they have in the root below, as far as they are there.
func SetMetadataOf(sys inroot.Sys, below, dir string, paths []string) error {
	l, err := openLower(sys, below, nil)
	if l == nil {
		return err
	}
	defer l.close()
	tree, err := metadata.Open(sys, dir, nil)
	if err != nil {
		return err
	}
	defer tree.Close()
	for _, p := range paths {
		e, err := l.dir(p)
		if err != nil {
			return err
		}
		if e == nil {
			continue
		}
		f, err := tree.GetReal(p)
		if err == nil {
			err = tree.SetMetadata(f.FD, e, nil, true)
		}
		if err != nil {
			return &os.PathError{Op: "give the metadata of the root below to", Path: filepath.Join(dir, p), Err: err}
		}
	}
	return tree.SetTimes()
}

// database returns the database that the lower root has at a path, as merge.Below.
func (l *lower) database(p string) ([]byte, *record.Meta, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if record.IsHidden(l.hidden, p) {
		return nil, nil, nil
	}
	return merge.Read(l.dirs, p)
}
