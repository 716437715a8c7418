package unpack

import (
	"errors"
	"path"
	"time"

	"golang.org/x/sys/unix"

	"github.com/clayer/clayer/cache/snapshot"
	"github.com/clayer/clayer/internal/inroot"
	"github.com/clayer/clayer/solver/internal/record"
)

// epoch is the time of implicit parents: 1980-01-01, since zip files, and tools that
// make them, know none before.
var epoch = time.Unix(315532800, 0)

// implicitParent returns the entry of a directory that no snapshot names.
func implicitParent(p string) *snapshot.Entry {
	return &snapshot.Entry{Path: p, Kind: snapshot.Dir, Implied: true, Mode: 0o755, ModTime: epoch}
}

// parent opens the directory of an entry, and has it and those above it created where
// they are missing. For a deletion a missing one is nil: there is nothing to delete.
func (m *maker) parent(dir string, deletion bool, create func(above *inroot.Dir, name, path string) error) (*inroot.Dir, error) {
	f, err := m.Get(dir)
	switch {
	case deletion && (errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR)):
		return nil, nil
	case errors.Is(err, unix.ENOENT):
		f, err = m.createAll(dir, create)
	}
	if err != nil {
		return nil, err
	}
	return f, m.NoteTime(f)
}

// createAll has the directory at a path created, and what is missing above it, also
// where a link on the way leads to nothing.
func (m *maker) createAll(dir string, create func(above *inroot.Dir, name, path string) error) (*inroot.Dir, error) {
	fd, real, err := m.Walk(m.Root, dir, func(at int, name, p string) error {
		fd, err := m.OpenDirAt(at, ".")
		if err != nil {
			return err
		}
		above, err := m.NewDir(fd, path.Dir(p), path.Dir(p))
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		if err := m.NoteTime(above); err != nil {
			return err
		}
		return create(above, name, p)
	}, nil)
	if err != nil {
		return nil, err
	}
	return m.Add(fd, dir, real)
}

// leadsToDir reports whether a directory is at a path, or a link to one, such as /lib.
func (m *maker) leadsToDir(p string, st *unix.Stat_t) bool {
	if !inroot.IsLink(st) {
		return inroot.IsDir(st)
	}
	fd, _, err := m.Resolve(m.Root, p, m.Openat2)
	if err == nil {
		unix.Close(fd)
	}
	return err == nil
}

// setMetadataAt gives a directory that was created just now its metadata.
func (m *maker) setMetadataAt(parent *inroot.Dir, name string, e *snapshot.Entry) error {
	fd, err := m.OpenDirAt(parent.FD, name)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	var old map[string][]byte
	if parent.ACL {
		if old, err = m.ListXattrs(fd); err != nil {
			return err
		}
	}
	return m.SetMetadata(fd, e, old, true)
}

// mayReplace refuses an entry, which is no directory, where its Placement forbids
// it to take the place of what stands there.
func (m *maker) mayReplace(placement record.Placement, e *snapshot.Entry, st *unix.Stat_t) error {
	alone := e.Path == placement.File
	isDir := inroot.IsDir(st) && (placement.ProtectDirs || alone)
	if inroot.IsLink(st) && alone {
		fd, _, err := m.Resolve(m.Root, e.Path, m.Openat2)
		if isDir = err == nil; isDir {
			unix.Close(fd)
		}
	}
	if isDir {
		return inroot.Hard(&DirError{e.Path})
	}
	return nil
}
