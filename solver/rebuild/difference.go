package rebuild

import (
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"maps"
	"slices"

	"github.com/clayer/clayer/cache"
	"github.com/clayer/clayer/cache/snapshot"
)

// A File is a path that differs between two snapshots.
type File struct {
	Path string   `json:"path"`
	What []string `json:"what"` // content, mode, owner, time, attributes, target, kind; or "added", "gone"
}

// entry is an entry without its content.
type entry struct {
	snapshot.Entry
	sum [sha256.Size]byte // of a file
}

// read returns the entries of a snapshot by path.
func (f found) read(ctx context.Context) (map[string]entry, error) {
	blob := new(cache.Blob)
	defer blob.Close()
	if err := cache.Fetch(ctx, f.store, f.Descriptor, blob); err != nil {
		return nil, fmt.Errorf("%s: %w", f.store.Name(), err)
	}
	entries := make(map[string]entry)
	for e, err := range snapshot.Read(io.NewSectionReader(blob, 0, f.Size)) {
		if err != nil {
			return nil, err
		}
		one := entry{Entry: *e}
		one.Open, one.Content, one.Release = nil, nil, nil
		if e.Kind == snapshot.File {
			if one.sum, err = sumOf(e); err != nil {
				return nil, err
			}
		}
		at := e.Path
		if e.Kind == snapshot.Opaque {
			at += "/" // beside its directory
		}
		entries[at] = one
		if e.Release != nil {
			e.Release()
		}
	}
	return entries, nil
}

func sumOf(e *snapshot.Entry) (sum [sha256.Size]byte, err error) {
	content, err := e.Open()
	if err != nil {
		return sum, err
	}
	defer content.Close()
	h := sha256.New()
	_, err = io.Copy(h, content)
	return [sha256.Size]byte(h.Sum(nil)), err
}

// differences lists what differs, by path.
func differences(was, is map[string]entry) (files []File) {
	paths := make(map[string]entry, len(is))
	maps.Copy(paths, was)
	maps.Copy(paths, is)
	for _, p := range slices.Sorted(maps.Keys(paths)) {
		a, before := was[p]
		b, now := is[p]
		var what []string
		switch {
		case !before:
			what = []string{"added"}
		case !now:
			what = []string{"gone"}
		default:
			what = a.differs(b)
		}
		if len(what) > 0 {
			files = append(files, File{paths[p].Path, what})
		}
	}
	return files
}

func (a entry) differs(b entry) (what []string) {
	for _, c := range []struct {
		what string
		is   bool
	}{
		{"kind", a.Kind != b.Kind || a.Implied != b.Implied || a.Major != b.Major || a.Minor != b.Minor},
		{"content", a.sum != b.sum || a.Size != b.Size || !slices.Equal(a.Data, b.Data)},
		{"target", a.Target != b.Target},
		{"mode", a.Mode != b.Mode},
		{"owner", a.UID != b.UID || a.GID != b.GID},
		{"time", !a.ModTime.Equal(b.ModTime)},
		{"attributes", !maps.Equal(a.Xattrs, b.Xattrs)},
	} {
		if c.is {
			what = append(what, c.what)
		}
	}
	return what
}
