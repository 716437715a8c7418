package source

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"path"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sync/errgroup"

	"github.com/clayer/clayer/cache/snapshot"
	"github.com/clayer/clayer/dag/key"
	"github.com/clayer/clayer/frontend"
	"github.com/clayer/clayer/internal/ctxio"
	"github.com/clayer/clayer/solver/internal/names"
	"github.com/clayer/clayer/solver/internal/places"
)

// An item is one thing that a COPY copies.
type item struct {
	rel    string // its path below dest
	from   string // where it is in the directory; for an inline file, its name
	kind   snapshot.Kind
	mode   uint32
	size   int64
	target string // of a symlink
	inline *string
	sum    [sha256.Size]byte // of a file's content

	// In a stage; else root's, and none.
	uid, gid int
	xattrs   map[string]string
}

// files is what a COPY copies, by path.
type files struct {
	dir   string
	items []item
	// single is true for one file and a dest without a final slash: dest is
	// then the file's own path, unless a directory stands there.
	single bool
	// unmatched are the patterns that no file matches. If there is nothing else, the
	// COPY does nothing: dest is not made either.
	unmatched []string
	nothing   bool
	pin       Pin
	stage     bool // they are in a stage, which nobody changes
}

// Copy resolves the sources of a COPY, which stand in dir, the Containerfile's
// directory. What .dockerignore leaves out is not there; a
// Containerfile.X.dockerignore beside a Containerfile.X comes before it.
//
// The pin is of paths, kinds, modes, the texts of symlinks and contents. Modes lack
// the right of group and others to write: the umasks of those who check out a
// repository differ in it. Times don't count.
//
// The pin of files in a stage is that of the stage, which is not built for it.
func (r *Resolver) Copy(ctx context.Context, dir string, c *frontend.Copy) (Pin, error) {
	if c.Stage != nil {
		pin, err := r.Stages.Pin(ctx, c.Stage)
		return Pin{Digest: pin}, err
	}
	fs, err := r.files(ctx, dir, c)
	if err != nil {
		return Pin{}, err
	}
	return fs.pin, nil
}

func (r *Resolver) files(ctx context.Context, dir string, c *frontend.Copy) (*files, error) {
	return once(&r.mu, &r.copies, c, func() (*files, error) {
		if c.Stage != nil {
			return r.readStage(ctx, c)
		}
		fs, err := readFiles(ctx, dir, c, r.Exclude)
		if err == nil && r.Warn != nil {
			for _, src := range fs.unmatched {
				r.Warn(fmt.Sprintf("%s: %s: no file matches %q", c.Pos, c.Word, src))
			}
		}
		return fs, err
	})
}

// CheckCopy returns what Copy would refuse, without reading the files.
// Of a stage that would take building it.
func (r *Resolver) CheckCopy(ctx context.Context, dir string, c *frontend.Copy) error {
	if c.Stage != nil {
		return nil
	}
	s, err := newScan(dir, c.Pos.File)
	if err != nil {
		return err
	}
	defer s.root.Close()
	_, err = s.files(ctx, dir, c, r.Exclude)
	return err
}

// readFiles finds the files of a COPY and hashes them.
func readFiles(ctx context.Context, dir string, c *frontend.Copy, exclude []string) (*files, error) {
	s, err := newScan(dir, c.Pos.File)
	if err != nil {
		return nil, err
	}
	defer s.root.Close()
	fs, err := s.files(ctx, dir, c, exclude)
	if err != nil {
		return nil, err
	}
	if err := fs.hash(ctx, s.root); err != nil {
		return nil, err
	}
	fs.pin = fs.sum()
	return fs, nil
}

// files finds the files of a COPY.
func (s *scan) files(ctx context.Context, dir string, c *frontend.Copy, exclude []string) (*files, error) {
	if err := s.leaveOut(dir, exclude); err != nil {
		return nil, err
	}
	fs := &files{dir: dir}
	var found []match
	for _, src := range c.Sources {
		ms, err := s.match(src)
		if err != nil {
			return nil, err
		}
		if len(ms) == 0 {
			fs.unmatched = append(fs.unmatched, src)
		}
		found = append(found, ms...)
	}
	fs.nothing = len(found)+len(c.Inline) == 0
	intoDir := strings.HasSuffix(c.Dest, "/") || len(found)+len(c.Inline) > 1 ||
		len(found) == 1 && found[0].isDir
	fs.single = !intoDir
	for _, m := range found {
		if err := canceled(ctx); err != nil {
			return nil, err
		}
		if err := s.add(ctx, m); err != nil {
			return nil, err
		}
	}
	for _, in := range c.Inline {
		if in.Name == "" || in.Name == "." || in.Name == ".." || strings.ContainsAny(in.Name, "/\x00") {
			return nil, faultf("heredoc %q is no file name", in.Name)
		}
		s.items = append(s.items, item{
			rel: in.Name, from: in.Name, kind: snapshot.File, mode: 0o644,
			size: int64(len(in.Content)), inline: &in.Content, sum: sha256.Sum256([]byte(in.Content)),
		})
	}
	var err error
	fs.items, err = merge(s.items)
	return fs, err
}

// merge sorts items by path, so that a directory comes before what it holds. Of
// several sources that have a path, the last one counts.
func merge(items []item) ([]item, error) {
	slices.SortStableFunc(items, func(a, b item) int { return cmp.Compare(a.rel, b.rel) })
	kinds := make(map[string]snapshot.Kind, len(items))
	out := items[:0]
	for _, it := range items {
		if len(out) > 0 && out[len(out)-1].rel == it.rel {
			last := &out[len(out)-1]
			if (last.kind == snapshot.Dir) != (it.kind == snapshot.Dir) {
				return nil, faultf("%q is a directory in one source and a file in another", it.rel)
			}
			*last = it
		} else {
			out = append(out, it)
		}
		kinds[it.rel] = it.kind
	}
	for _, it := range out {
		if up := path.Dir(it.rel); up != "." && kinds[up] != snapshot.Dir {
			return nil, faultf("%q is a directory in one source and a file in another", up)
		}
	}
	return out, nil
}

// buffers are what files are hashed through: one each would be the most of what
// a directory of small files takes.
var buffers = sync.Pool{New: func() any { b := make([]byte, 128<<10); return &b }}

// hash fills in the sums of all files, several at a time.
func (fs *files) hash(ctx context.Context, root *os.Root) error {
	g, each := errgroup.WithContext(ctx)
	g.SetLimit(runtime.GOMAXPROCS(0))
	for i := range fs.items {
		it := &fs.items[i]
		if it.kind != snapshot.File || it.inline != nil {
			continue
		}
		if each.Err() != nil {
			break
		}
		g.Go(func() error {
			f, err := openRegular(root, it.from)
			if err != nil {
				return err
			}
			defer f.Close()
			h := sha256.New()
			buf := buffers.Get().(*[]byte)
			defer buffers.Put(buf)
			n, err := io.CopyBuffer(h, ctxio.Reader(each, f), *buf)
			if err != nil {
				return fmt.Errorf("%q: %w", it.from, err)
			}
			it.size = n
			h.Sum(it.sum[:0])
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	return canceled(ctx)
}

// sum returns the pin.
func (fs *files) sum() Pin {
	var size int64
	k := key.Sum("copy", func(w key.Writer) {
		for _, it := range fs.items {
			w.Field("path", it.rel)
			switch it.kind {
			case snapshot.Dir:
				w.Field("directory", strconv.FormatUint(uint64(it.mode), 8))
			case snapshot.Symlink:
				w.Field("symlink", it.target)
			case snapshot.File:
				w.Field("file", strconv.FormatUint(uint64(it.mode), 8))
				w.Field("content", hex.EncodeToString(it.sum[:]))
				size += it.size
			}
		}
	})
	return Pin{Digest: digest.NewDigestFromBytes(digest.SHA256, k[:]), Size: size}
}

// openRegular opens a regular file of the directory, and nothing else: a pipe that
// took its place would block.
func openRegular(root *os.Root, name string) (*os.File, error) {
	f, err := root.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%q is not a regular file", name)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
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
// one to read. All times are 1980-01-01. Symlinks in a directory are copied as they
// are. Dest is implied: an existing one stays as it is, one that is created gets the mode of
// octal digits in --chmod, and those below it get the modes, and the owner, of their
// sources.
func (r *Resolver) CopyChanges(ctx context.Context, dir string, c *frontend.Copy, p Pin) (Placer, error) {
	fs, err := r.files(ctx, dir, c)
	if err != nil {
		return nil, err
	}
	if fs.pin.Digest != p.Digest && !fs.stage {
		return nil, &Fault{
			Message: "the files changed since they were resolved",
			Hint:    "run the command again",
		}
	}
	return func(at *names.View) (snapshot.Changes, error) {
		by, err := styleIn(at, c.Owner)
		if err != nil {
			return nil, err
		}
		dest, single, err := fs.copyDest(at, c)
		if err != nil {
			return nil, err
		}
		in := places.Of(at)
		for _, it := range fs.items {
			if single {
				break
			}
			if err := mayPlace(in, path.Join(dest, it.rel), it.kind == snapshot.Dir, false); err != nil {
				return nil, err
			}
		}
		var above []string
		if c.Owner.Chown != "" && !fs.nothing {
			if above, err = missingParents(at, dest); err != nil {
				return nil, err
			}
		}
		return fs.entries(ctx, above, dest, single, by), nil
	}, nil
}

// entries returns what a COPY makes: the directories above dest, and its items below
// dest, or, for a single one, at dest itself.
func (fs *files) entries(ctx context.Context, above []string, dest string, single bool, by style) snapshot.Changes {
	return func(yield func(*snapshot.Entry, error) bool) {
		for _, dir := range above {
			if !yield(impliedDir(dir, style{uid: by.uid, gid: by.gid}), nil) {
				return
			}
		}
		if !single && !fs.nothing && dest != "" {
			e := impliedDir(dest, by)
			e.Mode = by.destMode()
			if !yield(e, nil) {
				return
			}
		}
		for _, it := range fs.items {
			if err := canceled(ctx); err != nil {
				yield(nil, err)
				return
			}
			e := &snapshot.Entry{
				Path: path.Join(dest, it.rel), Kind: it.kind, Mode: it.mode,
				ModTime: epoch, Target: it.target, Xattrs: it.xattrs,
			}
			if single {
				e.Path = dest
			}
			if it.kind == snapshot.File {
				e.Size = it.size
				e.Open = func() (io.ReadCloser, error) { return it.open(fs) }
			}
			by.apply(e)
			if fs.stage && !by.chown {
				e.UID, e.GID = it.uid, it.gid
			}
			if !yield(e, nil) {
				return
			}
		}
	}
}

// open returns the content of a file, which must still be what was hashed.
func (it item) open(fs *files) (io.ReadCloser, error) {
	if it.inline != nil {
		return io.NopCloser(strings.NewReader(*it.inline)), nil
	}
	root, err := os.OpenRoot(fs.dir)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	f, err := openRegular(root, it.from)
	if err != nil || fs.stage {
		return f, err
	}
	info, err := f.Stat()
	if err == nil && info.Size() != it.size {
		err = it.changed()
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return &unchanged{f: f, sum: it.sum, wrong: it.changed, h: sha256.New(), left: it.size}, nil
}

func (it item) changed() error {
	return &Fault{
		Message: fmt.Sprintf("%q changed while it was copied", it.from),
		Hint:    "run the command again",
	}
}
