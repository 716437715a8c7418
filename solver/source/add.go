package source

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/url"
	"path"
	"slices"
	"strings"

	"github.com/moby/patternmatcher"

	"github.com/clayer/clayer/cache/snapshot"
	"github.com/clayer/clayer/cache/transfer"
	"github.com/clayer/clayer/frontend"
	"github.com/clayer/clayer/internal/pathname"
	"github.com/clayer/clayer/solver/internal/archive"
	"github.com/clayer/clayer/solver/internal/fault"
	"github.com/clayer/clayer/solver/internal/filelist"
	"github.com/clayer/clayer/solver/internal/names"
	"github.com/clayer/clayer/solver/internal/places"
)

// An unpacking is an archive, or a tree, that an ADD unpacks.
type unpacking struct {
	*archive.Archive
	layout *archive.Layout
	source int // its number among the sources
	set    func(by style, e *snapshot.Entry)
}

// asPacked gives an entry the owner that --chown says; else it has the archive's. As with
// Docker, --chmod is not for what is unpacked, and directories that the archive has no member
// for are root's.
func asPacked(by style, e *snapshot.Entry) {
	if by.chown && !e.Implied {
		e.UID, e.GID = by.uid, by.gid
	}
}

// packedIn reads through the archives of a list.
func packedIn(ctx context.Context, list *filelist.List) (fs *filelist.List, all []unpacking, err error) {
	if len(list.Archives) == 0 {
		return list, nil, nil
	}
	own := *list
	fs, own.Items = &own, slices.Clone(list.Items)
	for _, it := range fs.Archives {
		a := &archive.Archive{Name: it.From, Kind: it.Archive, Whole: true, Open: func() (archive.Blob, error) { return fs.Blob(it) }}
		l, err := a.Layout(ctx, archive.Trim{})
		if err != nil {
			return nil, nil, asFault(ctx, err)
		}
		all = append(all, unpacking{a, l, it.Source, asPacked})
	}
	return fs, all, settle(fs, all)
}

// asFault is an error of an archive, which is one of the line that unpacks it.
func asFault(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return fault.Of(err, "--unpack=false copies it as it is")
}

// settle leaves each path to the last source that has it, as if one was copied after the
// other.
func settle(fs *filelist.List, all []unpacking) error {
	type owner struct {
		source int
		dir    bool
	}
	last := make(map[string]owner)
	note := func(p string, o owner) error {
		was, ok := last[p]
		if ok && was.dir != o.dir {
			return fault.New("%q is a directory in one source and a file in another", p)
		}
		if !ok || was.source < o.source {
			last[p] = o
		}
		return nil
	}
	var errs []error
	for _, it := range fs.Items {
		errs = append(errs, note(it.Rel, owner{it.Source, it.Kind == snapshot.Dir}))
	}
	for _, u := range all {
		for _, name := range u.layout.Names() {
			p, dir := strings.CutSuffix(name, "/")
			errs = append(errs, note(p, owner{u.source, dir}))
		}
	}
	for _, u := range all {
		u.layout.Drop(func(name string) bool { return !strings.HasSuffix(name, "/") && last[name].source != u.source })
	}
	taken := make(map[string]filelist.Item) // files whose first name an archive takes, by that name
	first := make(map[string]string)        // the first of their names that stay
	items := fs.Items[:0]
	for _, it := range fs.Items {
		if it.Kind != snapshot.Dir && last[it.Rel].source != it.Source {
			if it.Kind == snapshot.File {
				taken[it.Rel] = it
			}
			continue
		}
		if file, ok := taken[it.Target]; ok && it.Kind == snapshot.Link {
			if name := first[it.Target]; name != "" {
				it.Target = name
			} else {
				first[it.Target] = it.Rel
				file.Rel, file.Source = it.Rel, it.Source
				it = file
			}
		}
		items = append(items, it)
	}
	fs.Items = items
	return errors.Join(errs...)
}

// mayPlace refuses what the archive would replace.
func (u unpacking) mayPlace(in *places.Places, dest string) error {
	for _, name := range u.layout.Names() {
		if err := mayPlace(in, path.Join(dest, name), strings.HasSuffix(name, "/"), true); err != nil {
			return err
		}
	}
	return nil
}

// unpack returns the entries of an ADD with archives: all directories first, and then what
// is in them, source by source.
func (c *copying) unpack(ctx context.Context, at *names.View, above []string, dest string, by style) (snapshot.Changes, error) {
	top := impliedDir(dest, by)
	if c.unpacked[0].source > 0 || !c.unpacked[0].Whole {
		top.Mode = by.destMode()
	}
	dirs, err := c.directories(at, dest, by)
	if err != nil {
		return nil, err
	}
	files := *c.List
	files.Items = slices.DeleteFunc(slices.Clone(c.Items), func(it filelist.Item) bool { return it.Kind == snapshot.Dir })
	files.Nothing = true // dest is made already
	return func(yield func(*snapshot.Entry, error) bool) {
		for _, dir := range above {
			if !yield(by.parent(dir), nil) {
				return
			}
		}
		if dest != "" && !yield(top, nil) {
			return
		}
		for _, e := range dirs {
			if !yield(e, nil) {
				return
			}
		}
		for e, err := range entries(ctx, &files, nil, dest, false, by) {
			if !yield(e, err) {
				return
			}
		}
		for _, u := range c.unpacked {
			for e, err := range u.Unpack(ctx, u.layout, dest, func(e *snapshot.Entry) { u.set(by, e) }) {
				if err == nil && e.Kind == snapshot.Dir {
					continue
				}
				if !yield(e, err) || err != nil {
					return
				}
			}
		}
	}, nil
}

// directories returns those of all sources, each as the last one has it. One to which a
// link of the root leads stays as it is.
func (c *copying) directories(at *names.View, dest string, by style) ([]*snapshot.Entry, error) {
	all := make(map[string]*snapshot.Entry)
	items := slices.DeleteFunc(slices.Clone(c.Items), func(it filelist.Item) bool { return it.Kind != snapshot.Dir })
	slices.SortStableFunc(items, func(a, b filelist.Item) int { return a.Source - b.Source })
	next := 0
	for i := 0; i <= len(c.unpacked); i++ {
		for ; next < len(items) && (i == len(c.unpacked) || items[next].Source < c.unpacked[i].source); next++ {
			e := entryOf(c.List, items[next], dest, by)
			all[e.Path] = e
		}
		if i == len(c.unpacked) {
			break
		}
		for _, e := range c.unpacked[i].layout.Directories(dest) {
			c.unpacked[i].set(by, e)
			if all[e.Path] == nil || !e.Implied {
				all[e.Path] = e
			}
		}
	}
	var dirs []*snapshot.Entry
	for _, p := range slices.Sorted(maps.Keys(all)) {
		kind, err := at.Lookup(p)
		if err != nil {
			return nil, err
		}
		if kind == names.Link {
			all[p].Implied = true
		}
		dirs = append(dirs, all[p])
	}
	return dirs, nil
}

// addChanges returns the entries of an ADD of a URL: the file, as it was downloaded, where a
// COPY would put one of its name. Its mode is 0600 unless --chmod is given, its time
// 1980-01-01. With --unpack a tar archive is unpacked, as one of the context is.
func (r *Resolver) addChanges(ctx context.Context, f *frontend.Fetch, p Pin) (Placer, error) {
	if err := p.Digest.Validate(); err != nil {
		return nil, fmt.Errorf("pin of %s: %w", transfer.Redact(f.Source), err)
	}
	if err := r.ensure(ctx, f, p.Digest); err != nil {
		return nil, err
	}
	open := func() (archive.Blob, error) { return r.openBlob(p.Digest) }
	b, err := open()
	if err != nil {
		return nil, err
	}
	defer b.Close()
	kind, err := archive.Detect(b, b.Size)
	if err == nil && f.Extract == frontend.ExtractAuto {
		kind, err = archive.DetectTar(b, b.Size)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", transfer.Redact(f.Source), err)
	}
	c := &copying{List: addedFile(f, b.Size), Dest: f.Dest, Owner: f.Owner}
	if f.Extract == frontend.ExtractAuto && kind != archive.None {
		a := &archive.Archive{Name: transfer.Redact(f.Source), Kind: kind, Whole: true, Open: open}
		l, err := a.Layout(ctx, archive.Trim{})
		if err != nil {
			return nil, asFault(ctx, err)
		}
		c.List, c.unpacked = &filelist.List{}, []unpacking{{a, l, 0, asPacked}}
		return c.place(ctx), nil
	}
	if kind != archive.None && !(kind == archive.Zip && archive.UsedAsZip(f.Source)) {
		r.warnStored(f, kind == archive.Zip)
	}
	c.Items[0].Stored = func() (io.ReadCloser, error) {
		b, err := open()
		if err != nil {
			return nil, err
		}
		return struct {
			io.Reader
			io.Closer
		}{io.NewSectionReader(b, 0, b.Size), b}, nil
	}
	return c.place(ctx), nil
}

// addedFile is what an ADD of a URL copies.
func addedFile(f *frontend.Fetch, size int64) *filelist.List {
	name := "__unnamed__" // as BuildKit has it
	if u, err := url.Parse(f.Source); err == nil && !slices.Contains([]string{".", "/"}, path.Base(u.Path)) {
		name = path.Base(u.Path)
	}
	return &filelist.List{
		Items:  []filelist.Item{{Rel: name, From: name, Kind: snapshot.File, Mode: 0o600, Size: size}},
		Single: !strings.HasSuffix(f.Dest, "/"),
	}
}

// WarnOf warns of an ADD of an archive that is stored as it is, as far as a URL says it: such
// an ADD was once a FETCH.
func (r *Resolver) WarnOf(f *frontend.Fetch) {
	u, err := url.Parse(f.Source)
	if err == nil && pathname.IsPacked(u.Path) {
		r.warnStored(f, strings.HasSuffix(strings.ToLower(u.Path), ".zip"))
	}
}

func (r *Resolver) warnStored(f *frontend.Fetch, zip bool) {
	switch {
	case !f.Add || f.Unpack != nil || f.Extract != frontend.ExtractFalse:
	case zip:
		r.warnOnce(&f.Meta, "the archive is stored as it is, as in Docker; FETCH unpacks it")
	default:
		r.warnOnce(&f.Meta, "the archive is stored as it is, as in Docker; FETCH unpacks it, and so does ADD --unpack=true")
	}
}

// addTree returns the entries of an ADD of a repository.
func addTree(ctx context.Context, f *frontend.Fetch, a *archive.Archive, l *archive.Layout) Placer {
	u := unpacking{a, l, 0, func(by style, e *snapshot.Entry) {
		asTree(e)
		by.apply(e)
	}}
	return (&copying{List: &filelist.List{}, Dest: f.Dest, Owner: f.Owner, unpacked: []unpacking{u}}).place(ctx)
}

// leaveOut leaves out what patterns exclude.
func leaveOut(l *archive.Layout, patterns []string) error {
	if len(patterns) == 0 {
		return nil
	}
	excluded, err := patternmatcher.New(patterns)
	if err != nil {
		return fault.New("a pattern of what is excluded: %v", err)
	}
	var errs []error
	info := make(map[string]patternmatcher.MatchInfo)
	out := make(map[string]bool)
	for _, name := range l.Names() { // directories are before what they hold
		p := strings.TrimSuffix(name, "/")
		is, mi, err := excluded.MatchesUsingParentResults(p, info[path.Dir(p)])
		info[p], out[name] = mi, is
		errs = append(errs, err)
	}
	l.Drop(func(name string) bool { return out[name] })
	if err := errors.Join(errs...); err != nil {
		return fault.New("a pattern of what is excluded: %v", err)
	}
	return nil
}
