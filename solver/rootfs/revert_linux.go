package rootfs

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/clayer/clayer/cache/snapshot"
	"github.com/clayer/clayer/solver/rootfs/inroot"
	"github.com/clayer/clayer/solver/rootfs/record"
)

// Revert returns the changes that give back what the root was before the
// events, which are the last of its log. It reads the record and the originals;
// the root itself is not looked at, and nothing is changed: the caller lays
// them over a view.
//
// Hard links between originals are not told: each is a file of its own.
func (r *Root) Revert(events []record.Event) (snapshot.Changes, error) {
	was := make(map[string]*snapshot.Entry) // by path, what stood there before the first change of it
	for _, ev := range events {
		for c, err := range r.state.Changes(ev) {
			if err != nil {
				return nil, fmt.Errorf("revert %s: %w", ev.Key.Short(), err)
			}
			if err := r.before(was, ev.Seq, c); err != nil {
				return nil, fmt.Errorf("revert %s: %q: %w", ev.Key.Short(), c.Path, err)
			}
		}
	}
	paths := make([]string, 0, len(was))
	for p := range was {
		paths = append(paths, p)
	}
	slices.SortFunc(paths, record.ComparePaths)
	return func(yield func(*snapshot.Entry, error) bool) {
		gone := "" // the path last met that was no folder: what is below goes with the folder there
		for _, p := range paths {
			e := was[p]
			if gone != "" && strings.HasPrefix(p, gone) {
				continue
			}
			if e.Kind != snapshot.Dir {
				gone = p + "/"
			}
			if !yield(e, nil) {
				return
			}
		}
	}, nil
}

// before notes what stood at the path of a change, and below it for a folder
// that was moved away, where no earlier change has told.
func (r *Root) before(was map[string]*snapshot.Entry, seq int, c record.Change) error {
	p := string(c.Path)
	note := func(p string, e *snapshot.Entry) {
		if was[p] == nil {
			was[p] = e
		}
	}
	switch {
	case c.Was != nil:
		e := &snapshot.Entry{Path: p, Kind: snapshot.Dir, Mode: c.Was.Mode, UID: c.Was.UID, GID: c.Was.GID, ModTime: c.Was.ModTime}
		for k, v := range c.Was.Xattrs {
			if e.Xattrs == nil {
				e.Xattrs = make(map[string]string)
			}
			e.Xattrs[k] = string(v)
		}
		note(p, e)
		return nil
	case c.Kept || c.Lost:
		return nil
	default:
		original := r.state.OriginalPath(seq, c.N)
		switch kept, err := r.state.Keeps(seq, &c); {
		case err != nil:
			return err
		case !kept && c.Kind != "gone":
			note(p, &snapshot.Entry{Path: p, Kind: snapshot.Delete})
			return nil
		case !kept:
			return nil
		}
		return filepath.WalkDir(original, func(at string, _ fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			below, err := filepath.Rel(original, at)
			if err != nil {
				return err
			}
			p := path.Join(p, below)
			if was[p] != nil {
				return nil
			}
			e, err := entryAt(at, p)
			if e != nil {
				note(p, e)
			}
			return err
		})
	}
}

// entryAt reads a file of the machine as the entry of a path; nil for a socket.
func entryAt(file, p string) (*snapshot.Entry, error) {
	var st unix.Stat_t
	if err := unix.Lstat(file, &st); err != nil {
		return nil, err
	}
	e := &snapshot.Entry{
		Path: p, Mode: st.Mode & 0o7777, UID: int(st.Uid), GID: int(st.Gid), ModTime: time.Unix(st.Mtim.Unix()),
		Major: unix.Major(st.Rdev), Minor: unix.Minor(st.Rdev),
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		e.Kind, e.Size = snapshot.File, st.Size
		e.Open = func() (io.ReadCloser, error) { return os.Open(file) }
	case unix.S_IFDIR:
		e.Kind = snapshot.Dir
	case unix.S_IFLNK:
		e.Kind = snapshot.Symlink
		target, err := os.Readlink(file)
		e.Target = target
		return e, err
	case unix.S_IFCHR:
		e.Kind = snapshot.Char
		return e, nil
	case unix.S_IFBLK:
		e.Kind = snapshot.Block
		return e, nil
	case unix.S_IFIFO:
		e.Kind = snapshot.Fifo
		return e, nil
	default:
		return nil, nil
	}
	f, err := os.Open(file)
	if errors.Is(err, fs.ErrPermission) {
		return e, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	xattrs, err := inroot.ListXattrs(int(f.Fd()))
	for k, v := range xattrs {
		if e.Xattrs == nil {
			e.Xattrs = make(map[string]string)
		}
		e.Xattrs[k] = string(v)
	}
	return e, err
}
