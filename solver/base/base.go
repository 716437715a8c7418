// Package base writes the root of a machine as an image, on which layers can be built for
// all machines that have that root: without homes, places of credentials, and what belongs to
// the running machine. docs/prebuild.md lists what is left out.
//
// Read looks at a root, and writes nothing; Base.Write writes an OCI image layout of one layer.
// The same root gives the same bytes.
package base

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/clayer/clayer/cache"
	"github.com/clayer/clayer/cache/image"
	"github.com/clayer/clayer/cache/snapshot"
	"github.com/clayer/clayer/internal/pathname"
	"github.com/clayer/clayer/internal/tree"
	"github.com/clayer/clayer/solver/internal/databases"
	"github.com/clayer/clayer/solver/internal/environ"
	"github.com/clayer/clayer/solver/machine"
	"github.com/clayer/clayer/solver/rootfs"
)

// Options say which root is read, and what of it.
type Options struct {
	Root    string   // "" means "/"
	Environ []string // the session's variables, as os.Environ returns them
	Work    string   // the working directory, whose project is left out of /; "" for none
	Exclude []string // more absolute paths that are left out
	Include []string // absolute paths in home directories that are not left out, but for credentials
	Own     []string // absolute paths of clayer's own, and of what is written
}

// A Base is a root that has been read.
type Base struct {
	Root     string    `json:"root"`
	Platform string    `json:"platform"` // as the keys of its sessions have it
	Built    string    `json:"built"`    // as those of a solve of an unpacked base have it
	Files    int       `json:"files"`
	Bytes    int64     `json:"bytes"` // of the files, before they are compressed
	LeftOut  []LeftOut `json:"leftOut"`

	env     []string
	changes snapshot.Changes
}

// A LeftOut is something of a root that its base lacks, with all below it.
type LeftOut struct {
	Path string `json:"path"`
	Why  string `json:"why"`
}

// Unreadable returns what is left out because this user may not read it.
func (b *Base) Unreadable() (list []string) {
	for _, l := range b.LeftOut {
		if l.Why == unreadable {
			list = append(list, l.Path)
		}
	}
	return list
}

// ErrApplied says that a root has layers.
var ErrApplied = errors.New("layers are applied to it, and a base is a root without any")

// Read reads a root: what its base would be. The error wraps ErrApplied if layers are applied
// to it.
func Read(ctx context.Context, opt Options) (*Base, error) {
	dir := "/"
	if opt.Root != "" {
		dir = filepath.Clean(opt.Root)
	}
	root, err := rootfs.Open(dir, rootfs.Options{})
	if err != nil {
		return nil, err
	}
	state, err := root.State()
	if err != nil {
		return nil, err
	}
	if len(state.Layers) > 0 {
		return nil, fmt.Errorf("%s: %w", dir, ErrApplied)
	}
	f := newFilter(dir)
	home, searchPath := "", environ.DefaultPath
	if dir == "/" {
		for _, kv := range opt.Environ {
			switch name, value, _ := strings.Cut(kv, "="); name {
			case "HOME":
				home = value
			case "PATH":
				searchPath = value
			}
		}
		f.leaveOut(project(opt.Work), ofProject)
	}
	f.homes(dir, home, func(p string) (string, bool) {
		real, err := machine.Within(dir, p)
		rel, ok := below(dir, real)
		return rel, err == nil && ok
	})
	for _, p := range append(opt.Own, root.StateDir().String()) {
		if rel, ok := below(dir, p); ok && p != "" {
			f.absent[rel] = ofClayer
		}
	}
	for _, p := range opt.Exclude {
		f.absent[strings.Trim(path.Clean(p), "/")] = ofUser
	}
	for _, p := range opt.Include {
		f.include = append(f.include, strings.Trim(path.Clean(p), "/"))
	}
	b := &Base{Root: dir, Platform: state.Platform, Built: machine.Platform(ctx, dir, f.inBase(environ.DefaultPath)), LeftOut: []LeftOut{}}
	if b.Platform == "" {
		b.Platform = machine.Platform(ctx, dir, searchPath)
	}
	b.env = []string{"PATH=" + f.inBase(searchPath)}
	reading, err := tree.Read(ctx, dir, tree.Options{Live: true, Prune: func(p string) bool { return f.emptied[path.Dir(p)] != "" && !f.reaches(p) }})
	if err != nil {
		return nil, err
	}
	whole := tree.Whole{Reading: reading, Filter: f, Dir: dir}
	b.changes = f.complete(withoutPasswords(whole.Changes()))
	for e, err := range b.changes {
		if err != nil {
			return nil, err
		}
		if e.Kind == snapshot.File {
			b.Files++
			b.Bytes += e.Size
		}
	}
	for _, p := range slices.Sorted(maps.Keys(f.left)) {
		b.LeftOut = append(b.LeftOut, LeftOut{"/" + p, f.left[p]})
	}
	return b, nil
}

// reaches reports whether a path is included, or leads to one that is.
func (f *filter) reaches(p string) bool {
	return slices.ContainsFunc(f.include, func(in string) bool { return pathname.Under(in, p) || pathname.Under(p, in) })
}

// leaveOut leaves out the contents of a directory, unless the system is made of it.
func (f *filter) leaveOut(dir, why string) {
	if p := strings.Trim(dir, "/"); dir != "" && mayBeLeftOut(p) {
		f.emptied[p] = why
	}
}

// inBase returns the directories of a PATH that a base has.
func (f *filter) inBase(searchPath string) string {
	var dirs []string
	for _, dir := range filepath.SplitList(searchPath) {
		p := strings.Trim(path.Clean(dir), "/")
		left := false
		for at := p; at != "." && at != ""; at = path.Dir(at) {
			left = left || f.emptied[path.Dir(at)] != "" && !f.reaches(p)
		}
		if path.IsAbs(dir) && !left {
			dirs = append(dirs, dir)
		}
	}
	return strings.Join(dirs, ":")
}

// project returns the directory of the repository that a directory is in; itself if it is in
// none.
func project(work string) string {
	for at := work; at != "" && at != "/" && at != "."; at = filepath.Dir(at) {
		if _, err := os.Lstat(filepath.Join(at, ".git")); err == nil {
			return at
		}
	}
	return work
}

// below returns a path of this machine as one relative to a root.
func below(root, p string) (string, bool) {
	rel, err := filepath.Rel(root, p)
	return rel, err == nil && filepath.IsLocal(rel) && rel != "."
}

// epoch is the time of what is the running machine's.
var epoch = time.Unix(0, 0)

// complete adds the directories that every root has, where they are other file systems, and
// gives those that are emptied a time that does not depend on what was in them.
func (f *filter) complete(changes snapshot.Changes) snapshot.Changes {
	must := []snapshot.Entry{
		{Path: "dev", Mode: 0o755}, {Path: "home", Mode: 0o755}, {Path: "proc", Mode: 0o555}, {Path: "root", Mode: 0o700}, {Path: "run", Mode: 0o755},
		{Path: "sys", Mode: 0o555}, {Path: "tmp", Mode: 0o1777}, {Path: "var/tmp", Mode: 0o1777},
	}
	return func(yield func(*snapshot.Entry, error) bool) {
		there := make(map[string]bool)
		for e, err := range changes {
			if err == nil && e.Kind == snapshot.Dir && f.emptied[e.Path] != "" {
				c := *e
				c.ModTime = epoch
				e = &c
				f.left[e.Path] = f.emptied[e.Path]
			}
			if !yield(e, err) || err != nil {
				return
			}
			there[e.Path] = true
		}
		for _, e := range must {
			dir := path.Dir(e.Path)
			if there[e.Path] || dir != "." && !there[dir] {
				continue
			}
			e.Kind, e.ModTime = snapshot.Dir, epoch
			if !yield(&e, nil) {
				return
			}
		}
	}
}

// withoutPasswords replaces the passwords of users and groups: nobody can log in by them.
func withoutPasswords(changes snapshot.Changes) snapshot.Changes {
	return func(yield func(*snapshot.Entry, error) bool) {
		for e, err := range changes {
			if err == nil {
				e, err = withoutPassword(e)
			}
			if !yield(e, err) || err != nil {
				return
			}
		}
	}
}

func withoutPassword(e *snapshot.Entry) (*snapshot.Entry, error) {
	d, known := databases.Known(e.Path)
	if !known || !d.HasSecrets() || e.Kind != snapshot.File {
		return e, nil
	}
	f, err := e.Open()
	if err != nil {
		return nil, err
	}
	data, err := io.ReadAll(io.LimitReader(f, databases.MaxSize+1))
	if err = errors.Join(err, f.Close()); err != nil {
		return nil, err
	}
	if len(data) > databases.MaxSize {
		return nil, fmt.Errorf("/%s: larger than %d bytes, so that its passwords are not known", e.Path, databases.MaxSize)
	}
	c := *e
	c.Content = d.Omit(data, data, nil)
	c.Size, c.Data = int64(len(c.Content)), nil
	c.Open = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(c.Content)), nil }
	return &c, nil
}

// Write writes the base to dest, as image.Write does. A credential of the session in a file is
// an error, and nothing is written then: a *cache.SecretError.
func (b *Base) Write(ctx context.Context, dest string, credentials []cache.Credential, gzip bool) (image.Written, error) {
	return image.WriteRoot(ctx, dest, image.Root{
		Platform: b.Platform, Env: b.env, Changes: b.changes,
		Check: func(blob io.ReaderAt, size int64) error { return cache.Search(ctx, credentials, blob, size) },
	}, gzip)
}
