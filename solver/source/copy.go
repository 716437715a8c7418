package source

import (
	"context"
	"fmt"
	"io"
	"path"
	"strings"

	"github.com/clayer/clayer/cache/snapshot"
	"github.com/clayer/clayer/frontend"
	"github.com/clayer/clayer/solver/internal/filelist"
	"github.com/clayer/clayer/solver/internal/names"
	"github.com/clayer/clayer/solver/internal/places"
)

// Copy resolves the sources of a COPY, which stand in dir, the Containerfile's
// directory. What .dockerignore leaves out is not there; a
// Containerfile.X.dockerignore beside a Containerfile.X comes before it.
//
// The pin is of paths, kinds, modes, the texts of symlinks and contents. Modes lack
// the right of group and others to write: the umasks of those who check out a
// repository differ in it. Times don't count.
//
// The pin of files in a stage, or an image, is that of it, which is not built, or downloaded, for it.
func (r *Resolver) Copy(ctx context.Context, dir string, c *frontend.Copy) (Pin, error) {
	if c.Stage != nil {
		pin, err := r.Stages.Pin(ctx, c.Stage)
		return Pin{Digest: pin}, err
	}
	if c.Image != nil {
		pin, err := r.Images.Pin(ctx, *c.Image)
		return Pin{Digest: pin}, err
	}
	fs, err := r.files(ctx, dir, c, Pin{})
	if err != nil {
		return Pin{}, err
	}
	return Pin{Digest: fs.Digest, Size: fs.Size}, nil
}

// files finds the files of a COPY, which are in its image by a pin.
func (r *Resolver) files(ctx context.Context, dir string, c *frontend.Copy, p Pin) (*filelist.List, error) {
	return once(&r.mu, &r.copies, c, func() (*filelist.List, error) {
		if c.IsRoot() {
			return r.readRoot(ctx, c, p)
		}
		fs, err := filelist.Read(ctx, r.Contexts, dir, c, r.Exclude)
		if len(c.Sources)+len(c.Inline) > 1 && !strings.HasSuffix(c.Dest, "/") {
			r.warnOnce(&c.Meta, "with several sources %s is a directory; Docker requires a slash at its end", c.Dest)
		}
		if err == nil && r.Warn != nil {
			for _, src := range fs.Unmatched {
				r.Warn(fmt.Sprintf("%s: %s: no file matches %q", c.Pos, c.Word, src))
			}
		}
		return fs, err
	})
}

// CheckCopy returns what Copy would refuse, without reading the files.
// Of a stage or an image that would take having it.
func (r *Resolver) CheckCopy(ctx context.Context, dir string, c *frontend.Copy) error {
	if c.From != "" && c.Origin.Context == "" { // a stage, or an image
		return nil
	}
	return filelist.Check(ctx, r.Contexts, dir, c, r.Exclude)
}

// CopyChanges returns the entries of a COPY, given its pin. The stream
// may be read several times; a file is read as its entry is opened, and reading
// one that is no longer what was resolved is an error that names it.
//
// Sources are as Docker has them: a directory's content is copied, not the directory;
// several sources, or a dest with a final slash, make dest a directory; else it is
// the file's own path, or a directory that stands there. A pattern that
// no file matches is no error. Owner is
// 0:0 unless --chown is given; modes are those of Copy unless --chmod is given,
// which goes for files, and for directories with the right to enter where there is
// one to read. All times are 1980-01-01, but those of List.TimeOf. Symlinks in a directory are copied as they
// are. Dest is implied: an existing one stays as it is, one that is created gets the mode of
// octal digits in --chmod, and those below it get the modes, and the owner, of their
// sources.
func (r *Resolver) CopyChanges(ctx context.Context, dir string, c *frontend.Copy, p Pin) (Placer, error) {
	fs, err := r.files(ctx, dir, c, p)
	if err != nil {
		return nil, err
	}
	if fs.Digest != p.Digest && !fs.Stage {
		return nil, &Fault{
			Message: "the files changed since they were resolved",
			Hint:    "run the command again",
		}
	}
	fs, unpacked, err := packedIn(ctx, fs)
	if err != nil {
		return nil, err
	}
	all := &copying{List: fs, Dest: c.Dest, Owner: c.Owner, unpacked: unpacked}
	if explicit := len(c.Sources)+len(c.Inline) > 1; fs.Several && !explicit {
		all.several = func() {
			r.warnOnce(&c.Meta, "several files match, and go into the directory %s; Docker would leave the last of them there. A slash at its end says so", c.Dest)
		}
	}
	if c.Link {
		all.linked = func(real string) {
			r.warnOnce(&c.Meta, "--link: a link in dest leads to /%s, and is followed; Docker replaces it", real)
		}
	}
	return all.place(ctx), nil
}

// A copying is what a COPY, or an ADD, copies to its dest.
type copying struct {
	*filelist.List
	Dest     string
	Owner    frontend.Ownership
	unpacked []unpacking

	// What is called where links lead dest elsewhere, and where dest becomes a directory;
	// nil for nobody.
	linked  func(real string)
	several func()
}

// place returns the Placer of a COPY or ADD.
func (c *copying) place(ctx context.Context) Placer {
	return func(at *names.View) (snapshot.Changes, error) {
		by, err := styleIn(at, c.Owner)
		if err != nil {
			return nil, err
		}
		dest, single, err := copyDest(at, c.List, c.Dest)
		if err != nil {
			return nil, err
		}
		if c.several != nil {
			if kind, err := at.Lookup(dest); err == nil && kind != names.Dir {
				c.several()
			}
		}
		if c.linked != nil && dest != entryPath(path.Clean(c.Dest)) {
			c.linked(dest)
		}
		in := places.Of(at)
		for _, it := range c.Items {
			if single {
				break
			}
			if err := mayPlace(in, path.Join(dest, it.Rel), it.Kind == snapshot.Dir, c.Fetched); err != nil {
				return nil, err
			}
		}
		for _, u := range c.unpacked {
			if err := u.mayPlace(in, dest); err != nil {
				return nil, err
			}
		}
		var above []string
		if (c.Owner.Chown != "" || by.destMode() != 0o755) && !c.Nothing {
			if above, err = missingParents(at, dest); err != nil {
				return nil, err
			}
		}
		if len(c.unpacked) > 0 {
			return c.unpack(ctx, at, above, dest, by)
		}
		return entries(ctx, c.List, above, dest, single, by), nil
	}
}

// entries returns what a COPY makes: the directories above dest, and its items below
// dest, or, for a single one, at dest itself.
func entries(ctx context.Context, fs *filelist.List, above []string, dest string, single bool, by style) snapshot.Changes {
	return func(yield func(*snapshot.Entry, error) bool) {
		for _, dir := range above {
			if !yield(by.parent(dir), nil) {
				return
			}
		}
		if !single && !fs.Nothing && dest != "" {
			if !yield(by.parent(dest), nil) {
				return
			}
		}
		for _, it := range fs.Items {
			if err := canceled(ctx); err != nil {
				yield(nil, err)
				return
			}
			e := entryOf(fs, it, dest, by)
			if single {
				e.Path = dest
			}
			if !yield(e, nil) {
				return
			}
		}
	}
}

// entryOf returns the entry of an item below dest.
func entryOf(fs *filelist.List, it filelist.Item, dest string, by style) *snapshot.Entry {
	e := &snapshot.Entry{
		Path: path.Join(dest, it.Rel), Kind: it.Kind, Mode: it.Mode,
		ModTime: fs.TimeOf(it, epoch), Target: it.Target, Xattrs: it.Xattrs, Implied: it.Above, Major: it.Major, Minor: it.Minor,
	}
	switch it.Kind {
	case snapshot.Link:
		// No link leads from the root to a temporary file, which the root has not.
		if e.Target = path.Join(dest, it.Target); snapshot.IsScratch(e.Target) == snapshot.IsScratch(e.Path) {
			break
		}
		e.Kind, e.Target = snapshot.File, ""
		fallthrough
	case snapshot.File:
		e.Size = it.Size
		e.Open = func() (io.ReadCloser, error) { return fs.Open(it) }
	}
	by.apply(e)
	if fs.Stage && !by.chown {
		e.UID, e.GID = it.UID, it.GID
	}
	return e
}
