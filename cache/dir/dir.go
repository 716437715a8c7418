// Package dir stores snapshots in a directory that is an OCI image layout, so that
// skopeo, crane and podman read it, and may have images of their own there.
//
//	oci-layout, index.json   as the OCI image-layout specification has them
//	blobs/sha256/<hex>       snapshots, and the manifests and configs of layers
//	keys/<hh>/<hex>.json     a step: its Descriptor by chain key, and the inode stamp of its blob; its time is that of its last use
//	keys/<hh>/<hex>.<n>.json the second to fourth snapshot of the step, for machines that differ
//	keys/lock                held while it is decided which of these a snapshot becomes
//	written                  the blobs that clayer wrote: no other is ever removed
//	lock                     held while index.json and what is stored change
//	tmp/                     what is being written
//
// A step is found by its key file, with no manifest needed: an interrupted
// build is taken up again. A complete layer is an image, tagged layer-name-key, of the
// steps that have a snapshot.
//
// Every write goes to tmp/ first and is renamed into place, so that a reader,
// or the next process after a kill, sees a file whole or not at all. Blobs and
// key files need no lock for that: their names say what they hold.
//
// A store may be another user's. No link in it is followed, what is no regular
// file or far too large is an error, and a name that clayer does not give is not
// removed.
package dir

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sync/errgroup"

	"github.com/clayer/clayer/cache"
	"github.com/clayer/clayer/dag/key"
	"github.com/clayer/clayer/internal/durability"
	"github.com/clayer/clayer/internal/safefile"
)

// DefaultMaxSize bounds a store unless Options say otherwise: 10 GiB.
const DefaultMaxSize = 10 << 30

// Options say how to store snapshots. The zero value is the default.
type Options struct {
	MaxSize int64 // bytes of clayer's blobs; 0 means DefaultMaxSize
	Private bool  // it is in the user's cache: never a symbolic link, and created with mode 0700

	Durability durability.Policy // when what is written outlives a loss of power
}

// Dir is a store in a directory. It is safe for several processes.
type Dir struct {
	path    string
	max     int64
	private bool
	policy  durability.Policy

	decide     sync.Once // once the directory may be there
	durability durability.Mode
	unsynced   atomic.Bool // something was written that no sync has covered

	sweepOnce sync.Once // of tmp/, at the first Put

	mu      sync.Mutex
	putting map[digest.Digest]int // blobs that this process is putting: not to be evicted
	shared  shared                // as the last evict found it
	sizes   map[string]int64      // of blobs that clayer wrote, by name, as far as they were looked at

	nearMu sync.Mutex
	near   map[string][]cache.Descriptor // older snapshots, by the name of their layer
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
	return &Dir{path: path, max: opt.MaxSize, private: opt.Private, policy: opt.Durability, putting: make(map[digest.Digest]int)}, nil
}

// Name returns "dir".
func (d *Dir) Name() string { return "dir" }

// Location returns its path.
func (d *Dir) Location() string { return "dir:" + d.path }

// Writable returns nil: a Put finds out.
func (d *Dir) Writable() error { return nil }

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

// Find reads the key files. A snapshot whose blob is gone or of another size is
// not there: the next one of its step is the first.
func (d *Dir) Find(ctx context.Context, _ string, keys []key.Key) (map[key.Key]cache.Found, error) {
	found := make(map[key.Key]cache.Found, len(keys))
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
	files, err := safefile.NewReader(root)
	if err != nil {
		return nil, err
	}
	defer files.Close()
	var (
		mu     sync.Mutex // of found and failed
		failed []error
	)
	g, ctx := errgroup.WithContext(ctx)
	// A layer of thousands of steps keeps all cores busy; one of a hundred is not
	// worth a second goroutine.
	for some := range slices.Chunk(keys, max(250, len(keys)/runtime.GOMAXPROCS(0)+1)) {
		g.Go(func() error {
			needs := make(sameNeeds)
			for _, k := range some {
				if err := ctx.Err(); err != nil {
					return err
				}
				desc, ok, err := findStep(files, blobs, k, needs)
				mu.Lock()
				switch {
				case ok:
					found[k] = cache.Found{Descriptor: desc, Store: d.Name()}
				case err != nil:
					failed = append(failed, fmt.Errorf("%s: %w", k.Short(), err))
				}
				mu.Unlock()
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	if len(failed) > 0 {
		slog.Warn("steps in the store can't be read; they count as not there", "path", d.path, "steps", len(failed), "first", failed[0])
	}
	return found, nil
}

// findStep returns the first snapshot of a key that has its blob. The error is that of a
// key file before it that can't be read.
func findStep(files *safefile.Reader, blobs *os.Root, k key.Key, needs sameNeeds) (desc cache.Descriptor, ok bool, err error) {
	for n := 1; n <= cache.MaxVariants; n++ {
		var s stored
		data, e := files.ReadFile(variantName(k, n), maxKeyFile)
		if e == nil {
			s, e = parseStored(data, variantName(k, n), k, needs)
		}
		switch {
		case e == nil && isFile(blobs, s.Digest.Encoded(), s.Size):
			return s.Descriptor, true, nil
		case n == 1 && errors.Is(e, fs.ErrNotExist):
			return desc, false, nil // then there are no others
		case err == nil && e != nil && !errors.Is(e, fs.ErrNotExist):
			err = e
		}
	}
	return desc, false, err
}

// readStored reads a key file.
func readStored(root *os.Root, name string, k key.Key) (s stored, err error) {
	data, err := safefile.ReadFile(root, name, maxKeyFile)
	if err != nil {
		return s, err
	}
	return parseStored(data, name, k, nil)
}

// sameNeeds has the needs that were read, by their text: many steps need the same. Nobody
// changes them.
type sameNeeds map[string][]cache.Need

// parseStored reads the content of a key file.
func parseStored(data []byte, name string, k key.Key, same sameNeeds) (s stored, err error) {
	var raw struct {
		stored
		Needs json.RawMessage `json:"needs"` // in place of the descriptor's
	}
	if err = json.Unmarshal(data, &raw); err == nil && raw.Needs != nil {
		needs, known := same[string(raw.Needs)]
		if !known {
			if err = json.Unmarshal(raw.Needs, &needs); err == nil && same != nil {
				same[string(raw.Needs)] = slices.Clip(needs)
			}
		}
		raw.stored.Needs = slices.Clip(needs)
	}
	if s = raw.stored; err != nil {
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
	name, ok := strings.CutPrefix(string(dg), "sha256:")
	return ok && isDigest(name)
}

// isDigest reports whether a name is that of a blob. It is asked of thousands at each Put,
// so no regular expression is used.
func isDigest(name string) bool {
	return len(name) == 64 && strings.Trim(name, "0123456789abcdef") == ""
}

// Fetch opens the file of a blob, which counts as a use of its step: the least recently
// used go first when the store is full. Eviction by another process does not take it away
// while it is open. The blob is complete, and has the inode stamp of its step if that fits.
func (d *Dir) Fetch(_ context.Context, desc cache.Descriptor, b *cache.Blob) error {
	if !valid(desc.Digest) {
		return fmt.Errorf("%w: digest %q", cache.ErrNotCached, desc.Digest)
	}
	root, err := d.root()
	if missing(err) {
		return fmt.Errorf("%w: %s", cache.ErrNotCached, desc.Digest)
	}
	if err != nil {
		return err
	}
	defer root.Close()
	f, err := openBlob(root, desc)
	if err != nil {
		return err
	}
	s, name, err := storedOf(root, desc)
	if err == nil {
		now := time.Now()
		_ = root.Chtimes(name, now, now) // in a read-only store the order stays
	}
	b.Open(f, desc, err == nil && s.stamps(root, name, f, desc))
	return nil
}

func openBlob(root *os.Root, desc cache.Descriptor) (*os.File, error) {
	f, err := safefile.OpenFile(root, blobName(desc.Digest), os.O_RDONLY, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: %s", cache.ErrNotCached, desc.Digest)
	}
	return f, err
}

// Put stores a blob and its key file, the blob first: a key file always names a
// blob that was there. The file of a verified blob is linked where the file system
// can, and its size alone is checked. Any other blob is copied, and its digest checked
// on the way.
func (d *Dir) Put(ctx context.Context, desc cache.Descriptor, b *cache.Blob) error {
	if err := d.put(ctx, desc, b); err != nil {
		return fmt.Errorf("put %s into %s: %w", desc.Key.Short(), d.path, err)
	}
	return nil
}

func (d *Dir) put(ctx context.Context, desc cache.Descriptor, b *cache.Blob) error {
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
	// Decided twice: no bytes are written for nothing, nor while others wait.
	if name, err := place(ctx, root, desc); name == "" || err != nil {
		if err == nil {
			err = cache.Check(ctx, io.Discard, io.NewSectionReader(b, 0, desc.Size), desc)
		}
		return err
	}
	s, err := d.putBlob(ctx, root, desc, b)
	if err != nil {
		return err
	}
	if desc.CRC32C == 0 {
		s = nil // nothing to compare it with
	}
	if second, ok := desc.Second(); ok { // first: what has the first key has both
		if err := d.writeStep(ctx, root, second, s); err != nil {
			return err
		}
	}
	if err := d.writeStep(ctx, root, desc, s); err != nil {
		return err
	}
	unlock()
	return d.evict(ctx, root)
}

// writeStep writes a key file, unless one of the same variant is there by now.
func (d *Dir) writeStep(ctx context.Context, root *os.Root, desc cache.Descriptor, s *stamp) error {
	data, err := json.Marshal(stored{desc, s})
	if err != nil {
		return err
	}
	if len(data) > maxKeyFile {
		return fmt.Errorf("a descriptor of %d bytes: %w", len(data), safefile.ErrTooLarge)
	}
	unlock, err := d.lockKeys(ctx, root)
	if err != nil {
		return err
	}
	defer unlock()
	name, err := place(ctx, root, desc)
	if err != nil || name == "" {
		return err
	}
	if desc.Replaces == cache.AllVariants {
		if err := forgetOthers(root, desc.Key); err != nil {
			return err
		}
	}
	return d.write(root, name, data)
}

// hold protects a blob from eviction by this process until the returned function
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

func (d *Dir) putBlob(ctx context.Context, root *os.Root, desc cache.Descriptor, b *cache.Blob) (*stamp, error) {
	// Another step, session or tool may have written the same bytes. A blob that
	// has gone bad meanwhile is replaced: it would be a miss for ever.
	if hasBlob(root, desc) {
		if s, err := verified(ctx, root, desc); err == nil {
			return s, nil
		}
	}
	if err := record(root, desc.Digest); err != nil {
		return nil, err
	}
	name := blobName(desc.Digest)
	if b.Digest() == desc.Digest {
		if s, err := d.link(root, b, desc, name); err == nil {
			return s, nil
		}
	}
	return d.writeFrom(root, name, func(w io.Writer) error {
		return cache.Check(ctx, w, io.NewSectionReader(b, 0, desc.Size), desc)
	})
}

// verified returns the inode stamp of a blob that is there, and is what it should be.
func verified(ctx context.Context, root *os.Root, desc cache.Descriptor) (*stamp, error) {
	f, err := openBlob(root, desc)
	if err != nil {
		return nil, err
	}
	var b cache.Blob
	defer b.Close()
	s, name, err := storedOf(root, desc)
	b.Open(f, desc, err == nil && s.stamps(root, name, f, desc))
	if err := b.Verify(ctx, desc); err != nil {
		return nil, err
	}
	return stampOf(f)
}

// Create returns a blob for a snapshot that is packed, in the store's own file system, so
// that Put need not copy it. The caller closes it.
func (d *Dir) Create() (*cache.Blob, error) {
	root, err := d.init(context.Background())
	if err != nil {
		return nil, err
	}
	defer root.Close()
	tmp, err := safefile.OpenDirIn(root, tmpName)
	if err != nil {
		return nil, err
	}
	return cache.CreateIn(tmp, spoolPrefix)
}

// link gives the file of a verified blob its place. Its size is checked, since a full
// disk shows there.
func (d *Dir) link(root *os.Root, b *cache.Blob, desc cache.Descriptor, name string) (_ *stamp, err error) {
	tmp, err := safefile.OpenDirIn(root, tmpName)
	if err != nil {
		return nil, err
	}
	defer tmp.Close()
	base := partPrefix + rand.Text()
	f, err := b.Link(tmp, base)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			_ = tmp.Remove(base)
		}
	}()
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
	return d.install(root, f, path.Join(tmpName, base), name)
}

// Interrupted returns nothing: steps that no layer has are found by their keys alone.
func (d *Dir) Interrupted(context.Context) ([]cache.Manifest, error) { return nil, nil }
