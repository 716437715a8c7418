// Package filelist finds the files that a COPY names, in the directory of its Containerfile
// or in a stage, and reads them as they were found.
package filelist

import (
	"context"
	"crypto/sha256"

	"fmt"
	"io"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/clayer/clayer/cache/snapshot"
	"github.com/clayer/clayer/dag/key"
	"github.com/clayer/clayer/frontend"
	"github.com/clayer/clayer/solver/internal/archive"
	"github.com/clayer/clayer/solver/internal/contextdir"
	"github.com/clayer/clayer/solver/internal/fault"
	"github.com/opencontainers/go-digest"
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
	Stored func() (io.ReadCloser, error) // opens one that was downloaded; nil for others
	Sum    [sha256.Size]byte             // of a file's content
	Source int                           // the number of the source that it is of

	Above bool // a directory that is there only for what is copied in it

	Major, Minor uint32 // of a device
	Archive      archive.Kind

	found *contextdir.Node // nil where nothing was looked at

	// In a stage; else root's, and none.
	UID, GID int
	Xattrs   map[string]string
}

// A List is what a COPY copies, by path.
type List struct {
	Dir   string
	Items []Item
	// Archives are those that are unpacked, by their Source.
	Archives []Item
	// Single is true for one file and a dest without a final slash: dest is
	// then the file's own path, unless a directory stands there.
	Single bool
	Top    Item // the directory of which it is the content, where that is one
	// Several is true for files of a pattern, and a dest without a final slash: each would be
	// dest itself, as Docker has it.
	Several bool
	// Unmatched are the patterns that no file matches. If there is nothing else, the
	// COPY does nothing: dest is not made either.
	Unmatched []string
	Nothing   bool
	Digest    digest.Digest // of paths, kinds, modes, the texts of symlinks and contents; none of a stage
	Size      int64         // bytes of all files
	Stage     bool          // they are in a stage, which nobody changes
	Fetched   bool          // by a FETCH, whose directories stay where they exist, or links to some
}

// Check returns what Read would refuse, without reading the files.
func Check(ctx context.Context, in *contextdir.Contexts, dir string, c *frontend.Copy, exclude []string) error {
	s, err := newScan(in, dir, c)
	if err != nil {
		return err
	}
	defer s.close()
	_, err = s.files(ctx, dir, c, exclude)
	return err
}

// Read finds the files of a COPY and hashes them; in has what other COPYs found in the directory.
func Read(ctx context.Context, in *contextdir.Contexts, dir string, c *frontend.Copy, exclude []string) (*List, error) {
	s, err := newScan(in, dir, c)
	if err != nil {
		return nil, err
	}
	defer s.close()
	fs, err := s.files(ctx, dir, c, exclude)
	if err != nil {
		return nil, err
	}
	if err := s.hash(ctx, fs); err != nil {
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
	if err := s.leaveOutOf(c); err != nil {
		return nil, err
	}
	fs := &List{Dir: dir}
	var found []match
	for _, src := range c.Sources {
		ms, err := s.matches(c, src)
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
	fs.Several = len(found) > 1 && !strings.HasSuffix(c.Dest, "/") && slices.ContainsFunc(found, func(m match) bool { return !m.isDir })
	if len(found) == 1 && found[0].isDir {
		info, err := s.lstat(found[0].real)
		if err != nil {
			return nil, err
		}
		fs.Top = s.owned(Item{From: found[0].real, Kind: snapshot.Dir, Mode: s.mode(info)}, info)
	}
	for _, m := range found {
		if err := canceled(ctx); err != nil {
			return nil, err
		}
		if err := s.add(ctx, m); err != nil {
			return nil, err
		}
		s.source++
	}
	for _, in := range c.Inline {
		if in.Name == "" || in.Name == "." || in.Name == ".." || strings.ContainsAny(in.Name, "/\x00") {
			return nil, fault.New("heredoc %q is no file name", in.Name)
		}
		s.put(Item{
			Rel: in.Name, From: in.Name, Kind: snapshot.File, Mode: 0o644, Source: s.source,
			Size: int64(len(in.Content)), Inline: &in.Content, Sum: sha256.Sum256([]byte(in.Content)),
		})
	}
	fs.Archives, fs.Single = s.archives, fs.Single && len(s.archives) == 0
	var err error
	if fs.Items, err = merge(s.items, len(c.Sources)+len(c.Inline) == 1 && len(found) < 2); err == nil {
		link(fs.Items)
	}
	return fs, err
}

// ModTime returns the time of an item's file; zero for one of none.
func (it Item) ModTime() time.Time {
	if it.found == nil {
		return time.Time{}
	}
	return it.found.MTime.Time()
}

// clamped is the time of what RUNs have written, unless an ENV or ARG says otherwise.
var clamped = time.Unix(315619200, 0) // 1980-01-02

// TimeOf returns the time that a COPY gives an item: in a stage that of what a RUN has written,
// so that a file that says which time another one has, as a compiled Python module does, fits
// it where both are copied; else usual.
func (fs *List) TimeOf(it Item, usual time.Time) time.Time {
	if at := it.ModTime(); fs.Stage && at.Equal(clamped) {
		return at
	}
	return usual
}

// merge sorts items by path, so that a directory comes before what it holds. Of
// several sources that have a path, the last one counts; one alone has each once.
func merge(items []*Item, single bool) ([]Item, error) {
	byPath := func(a, b *Item) int { return strings.Compare(a.Rel, b.Rel) }
	out := make([]Item, 0, len(items))
	if single {
		slices.SortFunc(items, byPath)
		for _, it := range items {
			out = append(out, *it)
		}
		return out, nil
	}
	slices.SortStableFunc(items, byPath)
	kinds := make(map[string]snapshot.Kind, len(items))
	for _, it := range items {
		if len(out) > 0 && out[len(out)-1].Rel == it.Rel {
			last := &out[len(out)-1]
			if (last.Kind == snapshot.Dir) != (it.Kind == snapshot.Dir) {
				return nil, fault.New("%q is a directory in one source and a file in another", it.Rel)
			}
			*last = *it
		} else {
			out = append(out, *it)
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

// A node is a file of the disk that has several names, in one source: as with Docker, those
// of several sources are copies.
type node struct {
	dev, ino uint64
	source   int
}

// link makes hard links of the further names of a file.
func link(items []Item) {
	first := make(map[node]string)
	for i := range items {
		it := &items[i]
		if it.Kind != snapshot.File || it.found == nil || it.found.Nlink < 2 {
			continue
		}
		of := node{it.found.Dev, it.found.Ino, it.Source}
		if to, ok := first[of]; ok {
			it.Kind, it.Target = snapshot.Link, to
		} else {
			first[of] = it.Rel
		}
	}
}

// at returns an item, or, after those, an archive.
func (fs *List) at(i int) *Item {
	if i < len(fs.Items) {
		return &fs.Items[i]
	}
	return &fs.Archives[i-len(fs.Items)]
}

// hash fills in the sums of all files.
func (s *scan) hash(ctx context.Context, fs *List) error {
	files := make([]contextdir.File, 0, len(fs.Items)+len(fs.Archives))
	each := func(use func(it *Item)) {
		for i := range len(fs.Items) + len(fs.Archives) {
			if it := fs.at(i); (it.Kind == snapshot.File || it.Kind == snapshot.Link) && it.Inline == nil {
				use(it)
			}
		}
	}
	each(func(it *Item) { files = append(files, contextdir.File{Path: it.From, Node: it.found}) })
	if err := s.found.Hash(ctx, s.top, files); err != nil {
		return err
	}
	each(func(it *Item) {
		it.Sum, it.Size = files[0].Sum, files[0].Size
		files = files[1:]
	})
	return nil
}

// sum returns the digest of the list, and the bytes of its files.
func (fs *List) sum() (digest.Digest, int64) {
	var size int64
	k := key.Sum("copy", func(w key.Writer) {
		for i := range fs.Items {
			it := &fs.Items[i]
			w.Field("path", it.Rel)
			switch it.Kind {
			case snapshot.Dir:
				w.Field("directory", strconv.FormatUint(uint64(it.Mode), 8))
			case snapshot.Symlink:
				w.Field("symlink", it.Target)
			case snapshot.File:
				w.Field("file", strconv.FormatUint(uint64(it.Mode), 8))
				w.Field("content", key.Key(it.Sum).String())
				size += it.Size
			case snapshot.Link:
				w.Field("link", it.Target)
			default:
				w.Field("special", fmt.Sprintf("%d %d:%d %o", it.Kind, it.Major, it.Minor, it.Mode))
			}
		}
		for _, it := range fs.Archives {
			w.Field("archive", fmt.Sprintf("%d %x", it.Source, it.Sum))
			size += it.Size
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

// Blob opens an archive, which must still be what was hashed.
func (fs *List) Blob(it Item) (archive.Blob, error) {
	root, err := os.OpenRoot(fs.Dir)
	if err != nil {
		return archive.Blob{}, err
	}
	defer root.Close()
	f, err := openRegular(root, it.From)
	if err != nil {
		return archive.Blob{}, err
	}
	info, err := f.Stat()
	if err == nil && info.Size() != it.Size {
		err = it.changed()
	}
	if err != nil {
		f.Close()
		return archive.Blob{}, err
	}
	verify := func(r io.Reader) io.Reader { return Unchanged(io.NopCloser(r), it.Sum, it.Size, it.changed) }
	return archive.Blob{ReaderAt: f, Closer: f, Size: it.Size, Verify: verify}, nil
}

// Open returns the content of a file, which must still be what was hashed.
func (fs *List) Open(it Item) (io.ReadCloser, error) {
	if it.Stored != nil {
		return it.Stored()
	}
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
