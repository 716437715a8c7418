// Package filelist finds the files that a COPY names, in the directory of its Containerfile
// or in a stage, and reads them as they were found.
package filelist

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
	"time"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sync/errgroup"

	"github.com/clayer/clayer/cache/snapshot"
	"github.com/clayer/clayer/dag/key"
	"github.com/clayer/clayer/frontend"
	"github.com/clayer/clayer/internal/ctxio"
	"github.com/clayer/clayer/solver/internal/fault"
)

// An Item is one thing that a COPY copies.
type Item struct {
	Rel    string // its path below dest
	From   string // where it is in the directory; for an inline file, its name
	Kind   snapshot.Kind
	Mode   uint32
	Size   int64
	Target string // of a symlink
	Inline *string
	Sum    [sha256.Size]byte // of a file's content

	ModTime time.Time // which no COPY keeps

	// In a stage; else root's, and none.
	UID, GID int
	Xattrs   map[string]string
}

// A List is what a COPY copies, by path.
type List struct {
	Dir   string
	Items []Item
	// Single is true for one file and a dest without a final slash: dest is
	// then the file's own path, unless a directory stands there.
	Single bool
	Mode   uint32 // of the directory of which it is the content, where that is one
	// Unmatched are the patterns that no file matches. If there is nothing else, the
	// COPY does nothing: dest is not made either.
	Unmatched []string
	Nothing   bool
	Digest    digest.Digest // of paths, kinds, modes, the texts of symlinks and contents; none of a stage
	Size      int64         // bytes of all files
	Stage     bool          // they are in a stage, which nobody changes
}

// Check returns what Read would refuse, without reading the files.
func Check(ctx context.Context, dir string, c *frontend.Copy, exclude []string) error {
	s, err := newScan(dir, c)
	if err != nil {
		return err
	}
	defer s.root.Close()
	_, err = s.files(ctx, dir, c, exclude)
	return err
}

// Read finds the files of a COPY and hashes them.
func Read(ctx context.Context, dir string, c *frontend.Copy, exclude []string) (*List, error) {
	s, err := newScan(dir, c)
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
	fs.Digest, fs.Size = fs.sum()
	return fs, nil
}

// files finds the files of a COPY.
func (s *scan) files(ctx context.Context, dir string, c *frontend.Copy, exclude []string) (*List, error) {
	if err := s.leaveOut(dir, exclude); err != nil {
		return nil, err
	}
	fs := &List{Dir: dir}
	var found []match
	for _, src := range c.Sources {
		ms, err := s.match(src)
		if err != nil {
			return nil, err
		}
		if len(ms) == 0 {
			fs.Unmatched = append(fs.Unmatched, src)
		}
		found = append(found, ms...)
	}
	fs.Nothing = len(found)+len(c.Inline) == 0
	intoDir := strings.HasSuffix(c.Dest, "/") || len(found)+len(c.Inline) > 1 ||
		len(found) == 1 && found[0].isDir
	fs.Single = !intoDir
	if len(found) == 1 && found[0].isDir {
		info, err := s.root.Stat(found[0].real)
		if err != nil {
			return nil, err
		}
		fs.Mode = s.mode(info)
	}
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
			return nil, fault.New("heredoc %q is no file name", in.Name)
		}
		s.items = append(s.items, Item{
			Rel: in.Name, From: in.Name, Kind: snapshot.File, Mode: 0o644,
			Size: int64(len(in.Content)), Inline: &in.Content, Sum: sha256.Sum256([]byte(in.Content)),
		})
	}
	var err error
	fs.Items, err = merge(s.items)
	return fs, err
}

// merge sorts items by path, so that a directory comes before what it holds. Of
// several sources that have a path, the last one counts.
func merge(items []Item) ([]Item, error) {
	slices.SortStableFunc(items, func(a, b Item) int { return cmp.Compare(a.Rel, b.Rel) })
	kinds := make(map[string]snapshot.Kind, len(items))
	out := items[:0]
	for _, it := range items {
		if len(out) > 0 && out[len(out)-1].Rel == it.Rel {
			last := &out[len(out)-1]
			if (last.Kind == snapshot.Dir) != (it.Kind == snapshot.Dir) {
				return nil, fault.New("%q is a directory in one source and a file in another", it.Rel)
			}
			*last = it
		} else {
			out = append(out, it)
		}
		kinds[it.Rel] = it.Kind
	}
	for _, it := range out {
		if up := path.Dir(it.Rel); up != "." && kinds[up] != snapshot.Dir {
			return nil, fault.New("%q is a directory in one source and a file in another", up)
		}
	}
	return out, nil
}

// buffers are what files are hashed through: one each would be the most of what
// a directory of small files takes.
var buffers = sync.Pool{New: func() any { b := make([]byte, 128<<10); return &b }}

// hash fills in the sums of all files, several at a time.
func (fs *List) hash(ctx context.Context, root *os.Root) error {
	g, each := errgroup.WithContext(ctx)
	g.SetLimit(runtime.GOMAXPROCS(0))
	for i := range fs.Items {
		it := &fs.Items[i]
		if it.Kind != snapshot.File || it.Inline != nil {
			continue
		}
		if each.Err() != nil {
			break
		}
		g.Go(func() error {
			f, err := openRegular(root, it.From)
			if err != nil {
				return err
			}
			defer f.Close()
			h := sha256.New()
			buf := buffers.Get().(*[]byte)
			defer buffers.Put(buf)
			n, err := io.CopyBuffer(h, ctxio.Reader(each, f), *buf)
			if err != nil {
				return fmt.Errorf("%q: %w", it.From, err)
			}
			it.Size = n
			h.Sum(it.Sum[:0])
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	return canceled(ctx)
}

// sum returns the digest of the list, and the bytes of its files.
func (fs *List) sum() (digest.Digest, int64) {
	var size int64
	k := key.Sum("copy", func(w key.Writer) {
		for _, it := range fs.Items {
			w.Field("path", it.Rel)
			switch it.Kind {
			case snapshot.Dir:
				w.Field("directory", strconv.FormatUint(uint64(it.Mode), 8))
			case snapshot.Symlink:
				w.Field("symlink", it.Target)
			case snapshot.File:
				w.Field("file", strconv.FormatUint(uint64(it.Mode), 8))
				w.Field("content", hex.EncodeToString(it.Sum[:]))
				size += it.Size
			}
		}
	})
	return digest.NewDigestFromBytes(digest.SHA256, k[:]), size
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

// Open returns the content of a file, which must still be what was hashed.
func (fs *List) Open(it Item) (io.ReadCloser, error) {
	if it.Inline != nil {
		return io.NopCloser(strings.NewReader(*it.Inline)), nil
	}
	root, err := os.OpenRoot(fs.Dir)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	f, err := openRegular(root, it.From)
	if err != nil || fs.Stage {
		return f, err
	}
	info, err := f.Stat()
	if err == nil && info.Size() != it.Size {
		err = it.changed()
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return Unchanged(f, it.Sum, it.Size, it.changed), nil
}

func (it Item) changed() error {
	return &fault.Fault{
		Message: fmt.Sprintf("%q changed while it was copied", it.From),
		Hint:    "run the command again",
	}
}

// canceled returns the error of a done context.
func canceled(ctx context.Context) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return nil
}
