// Package dir keeps snapshots in a folder that is an OCI image layout, so that
// skopeo, crane and podman read it.
//
//	oci-layout, index.json   as the OCI image-layout specification has them
//	blobs/sha256/<hex>       snapshots, and the manifests and configs of layers
//	keys/<hh>/<hex>.json     a step: its Descriptor by chain key, and the seal of its blob; its time is that of its last use
//	lock                     held while index.json and what is kept change
//	tmp/                     what is being written
//
// A step is found by its key file, with no manifest needed: an interrupted
// build is taken up again. A complete layer is an image, tagged layer-name-key.
//
// Every write goes to tmp/ first and is renamed into place, so that a reader,
// or the next process after a kill, sees a file whole or not at all. Blobs and
// key files need no lock for that: their names say what they hold.
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
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"github.com/clayer/clayer/cache"
	"github.com/clayer/clayer/dag/key"
)

// DefaultMaxSize bounds a folder unless Options say otherwise: 10 GiB.
const DefaultMaxSize = 10 << 30

// Options are how to keep. The zero value is the default.
type Options struct {
	MaxSize int64 // bytes of blobs; 0 means DefaultMaxSize
}

// Dir is a store in a folder. It is safe for several processes.
type Dir struct {
	path string
	max  int64

	sweepOnce sync.Once // of tmp/, at the first Put

	mu      sync.Mutex
	putting map[digest.Digest]int // blobs that this process is putting: not to be evicted
}

// Open returns the store in the folder at path. Nothing is made or written
// until the first Put: looking never changes anything.
func Open(path string, opt Options) (*Dir, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	if info, err := os.Stat(path); err == nil && !info.IsDir() {
		return nil, fmt.Errorf("store %s: not a folder", path)
	}
	if opt.MaxSize == 0 {
		opt.MaxSize = DefaultMaxSize
	}
	return &Dir{path: path, max: opt.MaxSize, putting: make(map[digest.Digest]int)}, nil
}

// Name returns "dir".
func (d *Dir) Name() string { return "dir" }

// Path returns the folder.
func (d *Dir) Path() string { return d.path }

func (d *Dir) blobPath(dg digest.Digest) string {
	return filepath.Join(d.path, "blobs", dg.Algorithm().String(), dg.Encoded())
}

func (d *Dir) keyPath(k key.Key) string {
	hex := k.String()
	return filepath.Join(d.path, "keys", hex[:2], hex+".json")
}

// Find reads the key files. A step whose blob is gone or of another size is
// not there.
func (d *Dir) Find(ctx context.Context, _ string, keys []key.Key) (map[key.Key]cache.Descriptor, error) {
	found := make(map[key.Key]cache.Descriptor, len(keys))
	for _, k := range keys {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		desc, err := d.step(k)
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) {
			continue
		}
		if err != nil {
			slog.Warn("a step in the store can't be read; it counts as not there", "key", k.Short(), "err", err)
			continue
		}
		if info, err := os.Stat(d.blobPath(desc.Digest)); err != nil || info.Size() != desc.Size {
			continue
		}
		found[k] = desc
	}
	return found, nil
}

// step reads a key file.
func (d *Dir) step(k key.Key) (cache.Descriptor, error) {
	var desc cache.Descriptor
	data, err := os.ReadFile(d.keyPath(k))
	if err != nil {
		return desc, err
	}
	if err := json.Unmarshal(data, &desc); err != nil {
		return desc, fmt.Errorf("%s: %w", d.keyPath(k), err)
	}
	if desc.Key != k || !valid(desc.Digest) || desc.Size < 0 {
		return desc, fmt.Errorf("%s: not the descriptor of its key", d.keyPath(k))
	}
	return desc, nil
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
	if err := desc.Digest.Validate(); err != nil {
		return nil, fmt.Errorf("%w: %w", cache.ErrNotCached, err)
	}
	f, err := os.Open(d.blobPath(desc.Digest))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: %s", cache.ErrNotCached, desc.Digest)
	}
	if err != nil {
		return nil, err
	}
	now := time.Now()
	_ = os.Chtimes(d.keyPath(desc.Key), now, now) // in a read-only store the order stays
	if offset > 0 {
		if _, err := f.Seek(offset, io.SeekStart); err != nil {
			f.Close()
			return nil, err
		}
	}
	if d.isSealed(f, desc) {
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
		return fmt.Errorf("keep %s in %s: %w", desc.Key.Short(), d.path, err)
	}
	return nil
}

func (d *Dir) put(ctx context.Context, desc cache.Descriptor, blob io.ReaderAt) error {
	if desc.Key.IsZero() {
		return errors.New("no key")
	}
	if err := desc.Digest.Validate(); err != nil {
		return err
	}
	if err := d.init(); err != nil {
		return err
	}
	defer d.hold(desc.Digest)()

	// Shared: eviction waits, so that it never sees a blob whose key file is
	// about to come.
	unlock, err := d.lock(ctx, false)
	if err != nil {
		return err
	}
	defer unlock()
	if err := d.putBlob(ctx, desc, blob); err != nil {
		return err
	}
	data, err := json.Marshal(kept{desc, d.seal(desc)})
	if err != nil {
		return err
	}
	if err := d.write(d.keyPath(desc.Key), data); err != nil {
		return err
	}
	unlock()
	return d.evict(ctx)
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

func (d *Dir) putBlob(ctx context.Context, desc cache.Descriptor, blob io.ReaderAt) error {
	path := d.blobPath(desc.Digest)
	if v, ok := blob.(*cache.VerifiedFile); ok && d.link(v.File, desc, path) == nil {
		return nil
	}
	if f, ok := blob.(*os.File); ok && filepath.Dir(f.Name()) == d.tmp() {
		// One that was put before, under this key or another, has gone from
		// tmp/: it is a blob like any other.
		if err := d.adopt(f, f.Name(), desc, path); !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	// Another step, or session, may have brought the same bytes. One that has
	// gone bad meanwhile is replaced: it would be a miss for ever.
	if f, err := cache.OpenVerified(ctx, d, desc, ""); err == nil {
		return f.Close()
	}
	return d.writeFrom(path, func(w io.Writer) error {
		return cache.Check(ctx, w, io.NewSectionReader(blob, 0, desc.Size), desc)
	})
}

// Create makes a file in the store's own file system that Put moves into place
// without a copy. The caller closes it, and calls Discard for one that was
// never put.
func (d *Dir) Create() (*os.File, error) {
	if err := d.init(); err != nil {
		return nil, err
	}
	return os.CreateTemp(d.tmp(), "blob-")
}

// Discard removes a file of Create that was not put. One that was is not there
// under its old name any more.
func (d *Dir) Discard(f *os.File) {
	if filepath.Dir(f.Name()) == d.tmp() && strings.HasPrefix(filepath.Base(f.Name()), "blob-") {
		_ = os.Remove(f.Name())
	}
}

// adopt moves a file into place that is known to be the blob; temp is its name in
// tmp/. Its size is checked, since a full disk shows there. The error is
// fs.ErrNotExist for one that was moved before.
func (d *Dir) adopt(f *os.File, temp string, desc cache.Descriptor, path string) error {
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if info.Size() != desc.Size {
		return &cache.CorruptError{Want: desc.Digest, WantSize: desc.Size, GotSize: info.Size()}
	}
	if err := f.Chmod(0o644); err != nil {
		return err
	}
	return d.install(f, temp, path)
}
