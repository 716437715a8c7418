// Package dir keeps snapshots in a directory that is an OCI image layout, so that
// skopeo, crane and podman read it, and may keep images of their own there.
//
//	oci-layout, index.json   as the OCI image-layout specification has them
//	blobs/sha256/<hex>       snapshots, and the manifests and configs of layers
//	keys/<hh>/<hex>.json     a step: its Descriptor by chain key, and the seal of its blob; its time is that of its last use
//	written                  the blobs that clayer wrote: no other is ever removed
//	lock                     held while index.json and what is kept change
//	tmp/                     what is being written
//
// A step is found by its key file, with no manifest needed: an interrupted
// build is taken up again. A complete layer is an image, tagged layer-name-key.
//
// Every write goes to tmp/ first and is renamed into place, so that a reader,
// or the next process after a kill, sees a file whole or not at all. Blobs and
// key files need no lock for that: their names say what they hold.
//
// A store may be somebody else's. No link in it is followed, what is no regular
// file or far too large is an error, and a name that clayer does not give is not
// removed.
package dir

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/clayer/clayer/cache"
	"github.com/clayer/clayer/dag/key"
	"github.com/clayer/clayer/internal/safefile"
)

// DefaultMaxSize bounds a store unless Options say otherwise: 10 GiB.
const DefaultMaxSize = 10 << 30

// Options say how to keep snapshots. The zero value is the default.
type Options struct {
	MaxSize int64 // bytes of clayer's blobs; 0 means DefaultMaxSize
	Private bool  // it is in the user's cache: never a symbolic link, and created with mode 0700
}

// Dir is a store in a directory. It is safe for several processes.
type Dir struct {
	path    string
	max     int64
	private bool

	sweepOnce sync.Once // of tmp/, at the first Put

	mu      sync.Mutex
	putting map[digest.Digest]int // blobs that this process is putting: not to be evicted
}

// Open returns the store in the directory at path. Nothing is made or written
// until the first Put: looking never changes anything.
func Open(path string, opt Options) (*Dir, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	info, err := os.Lstat(path)
	if err == nil && info.Mode()&fs.ModeSymlink != 0 && !opt.Private {
		if path, err = filepath.EvalSymlinks(path); err != nil {
			return nil, fmt.Errorf("store %w", err)
		}
		info, err = os.Lstat(path)
	}
	switch {
	case err == nil && info.Mode()&fs.ModeSymlink != 0:
		return nil, fmt.Errorf("store %s: a symbolic link", path)
	case err == nil && !info.IsDir():
		return nil, fmt.Errorf("store %s: not a directory", path)
	}
	if opt.MaxSize == 0 {
		opt.MaxSize = DefaultMaxSize
	}
	return &Dir{path: path, max: opt.MaxSize, private: opt.Private, putting: make(map[digest.Digest]int)}, nil
}

// Name returns "dir".
func (d *Dir) Name() string { return "dir" }

// Path returns the directory.
func (d *Dir) Path() string { return d.path }

func blobName(dg digest.Digest) string {
	return path.Join("blobs", dg.Algorithm().String(), dg.Encoded())
}

func keyName(k key.Key) string {
	hex := k.String()
	return path.Join(keysName, hex[:2], hex+".json")
}

// hasBlob reports whether there is a file for the blob of a step, of its size.
func hasBlob(root *os.Root, desc cache.Descriptor) bool {
	return isFile(root, blobName(desc.Digest), desc.Size)
}

func isFile(dir *os.Root, name string, size int64) bool {
	info, err := dir.Lstat(name)
	return err == nil && info.Mode().IsRegular() && info.Size() == size
}

// Find reads the key files. A step whose blob is gone or of another size is
// not there.
func (d *Dir) Find(ctx context.Context, _ string, keys []key.Key) (map[key.Key]cache.Descriptor, error) {
	found := make(map[key.Key]cache.Descriptor, len(keys))
	root, err := d.root()
	if missing(err) {
		return found, nil
	}
	if err != nil {
		return nil, err
	}
	defer root.Close()
	blobs, err := safefile.OpenDirIn(root, blobsName) // once for all
	if errors.Is(err, fs.ErrNotExist) {
		return found, nil
	}
	if err != nil {
		return nil, err
	}
	defer blobs.Close()
	var failed []error
	for _, k := range keys {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		desc, err := readStep(root, k)
		switch {
		case errors.Is(err, fs.ErrNotExist):
		case err != nil:
			failed = append(failed, fmt.Errorf("%s: %w", k.Short(), err))
		case isFile(blobs, desc.Digest.Encoded(), desc.Size):
			found[k] = desc
		}
	}
	if len(failed) > 0 {
		slog.Warn("steps in the store can't be read; they count as not there", "path", d.path, "steps", len(failed), "first", failed[0])
	}
	return found, nil
}

// readStep reads a key file.
func readStep(root *os.Root, k key.Key) (cache.Descriptor, error) {
	kept, err := readKept(root, k)
	return kept.Descriptor, err
}

func readKept(root *os.Root, k key.Key) (s kept, err error) {
	name := keyName(k)
	data, err := safefile.ReadFile(root, name, maxKeyFile)
	if err != nil {
		return s, err
	}
	if err := json.Unmarshal(data, &s); err != nil {
		return s, fmt.Errorf("%s: %w", name, err)
	}
	if s.Key != k || !valid(s.Digest) || s.Size < 0 {
		return s, fmt.Errorf("%s: not the descriptor of its key", name)
	}
	return s, nil
}

// valid reports whether a store can have a blob of this digest. One that is
// malformed must not be asked for its parts: that panics.
func valid(dg digest.Digest) bool {
	return dg.Validate() == nil && dg.Algorithm() == digest.SHA256
}

// Open opens a blob, which counts as a use of its step: the least recently used
// go first when the store is full. It is an *os.File, or a *cache.VerifiedFile:
// eviction by another process does not take it away while it is open.
func (d *Dir) Open(_ context.Context, desc cache.Descriptor, offset int64) (io.ReadCloser, error) {
	if !valid(desc.Digest) {
		return nil, fmt.Errorf("%w: digest %q", cache.ErrNotCached, desc.Digest)
	}
	root, err := d.root()
	if missing(err) {
		return nil, fmt.Errorf("%w: %s", cache.ErrNotCached, desc.Digest)
	}
	if err != nil {
		return nil, err
	}
	defer root.Close()
	f, err := safefile.OpenFile(root, blobName(desc.Digest), os.O_RDONLY, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: %s", cache.ErrNotCached, desc.Digest)
	}
	if err != nil {
		return nil, err
	}
	now := time.Now()
	_ = root.Chtimes(keyName(desc.Key), now, now) // in a read-only store the order stays
	if offset > 0 {
		if _, err := f.Seek(offset, io.SeekStart); err != nil {
			f.Close()
			return nil, err
		}
	}
	if isSealed(root, f, desc) {
		return &cache.VerifiedFile{File: f}, nil
	}
	return f, nil
}

// Put stores a blob and its key file, the blob first: a key file always names a
// blob that was there. A file that Create of this store made is moved into
// place: it was hashed when it was packed, so its size alone is checked, and it
// must not be written to any more. A *cache.VerifiedFile without a name is kept
// itself where the file system can. Any other blob is copied, and its digest checked
// on the way.
func (d *Dir) Put(ctx context.Context, desc cache.Descriptor, blob io.ReaderAt) error {
	if err := d.put(ctx, desc, blob); err != nil {
		return fmt.Errorf("put %s into %s: %w", desc.Key.Short(), d.path, err)
	}
	return nil
}

func (d *Dir) put(ctx context.Context, desc cache.Descriptor, blob io.ReaderAt) error {
	if desc.Key.IsZero() {
		return errors.New("no key")
	}
	if !valid(desc.Digest) {
		return fmt.Errorf("digest %q", desc.Digest)
	}
	root, err := d.init(ctx)
	if err != nil {
		return err
	}
	defer root.Close()
	defer d.hold(desc.Digest)()

	// Shared: eviction waits, so that it never sees a blob whose key file is
	// about to come.
	unlock, err := d.lock(ctx, root, false)
	if err != nil {
		return err
	}
	defer unlock()
	s, err := d.putBlob(ctx, root, desc, blob)
	if err != nil {
		return err
	}
	if desc.CRC32C == 0 {
		s = nil // nothing to compare it with
	}
	data, err := json.Marshal(kept{desc, s})
	if err != nil {
		return err
	}
	if len(data) > maxKeyFile {
		return fmt.Errorf("a descriptor of %d bytes: %w", len(data), safefile.ErrTooLarge)
	}
	if err := write(root, keyName(desc.Key), data); err != nil {
		return err
	}
	unlock()
	return d.evict(ctx, root)
}

// hold keeps a blob from eviction by this process until the returned function
// is called.
func (d *Dir) hold(dg digest.Digest) func() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.putting[dg]++
	return func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		if d.putting[dg]--; d.putting[dg] == 0 {
			delete(d.putting, dg)
		}
	}
}

func (d *Dir) putBlob(ctx context.Context, root *os.Root, desc cache.Descriptor, blob io.ReaderAt) (*seal, error) {
	// Another step, session or tool may have written the same bytes. A blob that
	// has gone bad meanwhile is replaced: it would be a miss for ever.
	if hasBlob(root, desc) {
		// Whoever reads it while it comes, comes from elsewhere.
		if f, err := cache.OpenVerified(cache.WithArrival(ctx, nil), d, desc, ""); err == nil {
			defer f.Close()
			return sealOf(f)
		}
	}
	if err := record(root, desc.Digest); err != nil {
		return nil, err
	}
	name := blobName(desc.Digest)
	if v, ok := blob.(*cache.VerifiedFile); ok {
		if s, err := link(root, v.File, desc, name); err == nil {
			return s, nil
		}
	}
	if f, ok := blob.(*os.File); ok {
		// One that was put before, under this key or another, has gone from
		// tmp/: it is a blob like any other.
		if temp, ok := d.spooled(f); ok {
			if s, err := adopt(root, f, temp, desc, name); !errors.Is(err, fs.ErrNotExist) {
				return s, err
			}
		}
	}
	return writeFrom(root, name, func(w io.Writer) error {
		return cache.Check(ctx, w, io.NewSectionReader(blob, 0, desc.Size), desc)
	})
}

// Create makes a file in the store's own file system that Put moves into place
// without a copy. The caller closes it, and calls Discard for one that was
// never put.
func (d *Dir) Create() (*os.File, error) {
	root, err := d.init(context.Background())
	if err != nil {
		return nil, err
	}
	defer root.Close()
	f, _, err := safefile.CreateTemp(root, path.Join(tmpName, spoolPrefix))
	return f, err
}

// spooled returns the name in the store of a file that Create made.
func (d *Dir) spooled(f *os.File) (name string, ok bool) {
	dir, base := filepath.Split(f.Name())
	return path.Join(tmpName, base), filepath.Clean(dir) == filepath.Join(d.path, tmpName) && strings.HasPrefix(base, spoolPrefix)
}

// Discard removes a file of Create that was not put. One that was is not there
// under its old name any more.
func (d *Dir) Discard(f *os.File) {
	name, ok := d.spooled(f)
	if !ok {
		return
	}
	root, err := d.root()
	if err != nil {
		return
	}
	defer root.Close()
	_ = root.Remove(name)
}

// adopt moves a file into place that is known to be the blob; temp is its name in
// the store. Its size is checked, since a full disk shows there. The error is
// fs.ErrNotExist for one that was moved before.
func adopt(root *os.Root, f *os.File, temp string, desc cache.Descriptor, name string) (*seal, error) {
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if info.Size() != desc.Size {
		return nil, &cache.CorruptError{Want: desc.Digest, WantSize: desc.Size, GotSize: info.Size()}
	}
	if err := f.Chmod(0o644); err != nil {
		return nil, err
	}
	return install(root, f, temp, name)
}
