package sharedmounts

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/clayer/clayer/cache"
	"github.com/clayer/clayer/cache/snapshot"
	"github.com/clayer/clayer/internal/safefile"
	"github.com/clayer/clayer/internal/tree"
	"github.com/clayer/clayer/solver/internal/mounts"
)

// MaxSize is the most bytes of files that a mount in a store has: to download more takes
// longer than what it saves.
const MaxSize = 2 << 30

// Mounts are the cache mounts of this machine.
type Mounts struct {
	Cache    string // the cache directory
	Platform string // as Platform returns it
	Most     int64  // bytes of the files of a mount; 0 means MaxSize

	// Waiting reports what is waited for: a RUN that uses a mount. nil: nothing is waited
	// for, and a mount in use is ErrInUse.
	Waiting func(what string)
}

// Errors of a mount that is left as it is.
var (
	ErrInUse = errors.New("a RUN uses it")
	ErrEmpty = errors.New("it is empty on this machine")
)

func (m *Mounts) path() string { return filepath.Join(m.Cache, "mounts") }

func (m *Mounts) most() int64 {
	if m.Most > 0 {
		return m.Most
	}
	return MaxSize
}

// IDs returns the ids of the mounts that are here.
func (m *Mounts) IDs() ([]string, error) {
	dir, err := mounts.OpenExisting(m.path())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	notes, err := mounts.Notes(dir)
	var ids []string
	for _, n := range notes {
		if info, err := dir.Lstat(mounts.Name(n.ID)); err == nil && info.IsDir() {
			ids = append(ids, n.ID)
		}
	}
	return ids, err
}

// IsEmpty reports whether a mount has nothing in it here.
func (m *Mounts) IsEmpty(id string) (bool, error) {
	dir, err := mounts.OpenExisting(m.path())
	if errors.Is(err, fs.ErrNotExist) {
		return true, nil
	}
	if err != nil {
		return false, err
	}
	defer dir.Close()
	return isEmptyIn(dir, mounts.Name(id))
}

func isEmptyIn(dir *os.Root, name string) (bool, error) {
	in, err := safefile.OpenDirIn(dir, name)
	if errors.Is(err, fs.ErrNotExist) {
		return true, nil
	}
	if err != nil {
		return false, err
	}
	defer in.Close()
	return isEmpty(in)
}

// alone takes a mount for this process alone: no RUN has it until the lock is closed.
func (m *Mounts) alone(ctx context.Context, dir *os.Root, id string) (*os.File, error) {
	name := mounts.UsedLock(mounts.Name(id))
	l, err := safefile.TryLock(dir, name, unix.LOCK_EX)
	if !errors.Is(err, safefile.ErrLocked) {
		return l, err
	}
	if m.Waiting != nil {
		m.Waiting("a RUN that uses the cache mount " + id)
		return safefile.Lock(ctx, dir, name, unix.LOCK_EX)
	}
	// A program that is being started has the lock of a RUN that has ended, for an instant.
	wait, cancel := context.WithTimeout(ctx, 500*time.Millisecond)
	defer cancel()
	l, err = safefile.Lock(wait, dir, name, unix.LOCK_EX)
	if wait.Err() != nil && ctx.Err() == nil {
		err = ErrInUse
	}
	return l, err
}

// A Packed mount is ready to be put into stores. The caller closes it.
type Packed struct {
	ID       string
	desc     cache.Descriptor
	blob     *cache.Blob
	platform string
	stamp    string // of what was packed
	known    *memory
}

// Close closes what was packed.
func (p *Packed) Close() { p.blob.Close() }

// Size returns the size of the blob, in bytes.
func (p *Packed) Size() int64 { return p.desc.Size }

// Pack packs a mount, unless wanted, given the stamp of what is there, says that it is not
// to be: then the result is nil. wanted may be nil.
func (m *Mounts) Pack(ctx context.Context, id string, wanted func(stamp string) bool) (_ *Packed, err error) {
	dir, err := mounts.Open(m.path(), 0)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	name := mounts.Name(id)
	l, err := m.alone(ctx, dir, id)
	if err != nil {
		return nil, err
	}
	defer l.Close()
	if empty, err := isEmptyIn(dir, name); err != nil || empty {
		if err == nil {
			err = ErrEmpty
		}
		return nil, err
	}
	c, err := read(ctx, filepath.Join(dir.Name(), name), mounts.NoteOf(dir, id).Targets, m.most())
	if err != nil {
		return nil, err
	}
	stamp, err := c.stamp()
	if err != nil || wanted != nil && !wanted(stamp) {
		return nil, err
	}
	blob, err := cache.Create(dir.Name())
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			blob.Close()
		}
	}()
	entries, sum := hashed(c.entries())
	packed, err := snapshot.Pack(ctx, blob, entries, snapshot.PackOptions{})
	if err != nil {
		return nil, err
	}
	if packed.Entries < 2 { // the mount's own directory
		return nil, ErrEmpty
	}
	blob.Packed(packed.Digest)
	return &Packed{ID: id, blob: blob, platform: m.Platform, stamp: stamp, known: &memory{m, id}, desc: cache.Descriptor{
		Version: cache.Version, Key: keyOf(id, m.Platform), Layer: nameOf(id),
		Digest: packed.Digest, Size: packed.Size, CRC32C: packed.CRC32C, DiffID: packed.DiffID, Entries: packed.Entries, Bytes: packed.Bytes, Frames: packed.Frames,
		Record: recordOf(id, m.Platform, sum()),
		Text:   "cache mount " + id, Created: time.Now().UTC(), Needs: []cache.Need{}, Replaces: cache.AllVariants,
	}}, nil
}

// Push puts the mount into a store, in place of what that has of it. It reports whether it
// was sent: a store that has the same content gets nothing.
func (p *Packed) Push(ctx context.Context, s cache.Store, sending func()) (sent bool, err error) {
	if err := s.Writable(); err != nil {
		return false, err
	}
	there, err := find(ctx, s, p.desc.Key)
	if err != nil && !errors.Is(err, cache.ErrNotCached) {
		return false, err
	}
	d := p.desc
	if err == nil && contentOf(there) == contentOf(d) {
		there.Replaces = ""
		d = there
	} else {
		sending()
		if err := s.Put(ctx, d, p.blob); err != nil {
			return false, pushError{err}
		}
		sent = true
	}
	man := manifestOf(d, p.platform)
	if err := s.Complete(ctx, man); err != nil {
		return sent, err
	}
	if sent {
		if err := removeOld(ctx, s, man); err != nil {
			return sent, fmt.Errorf("what it had before is not removed: %w", err)
		}
	}
	p.known.set(s.Location(), p.stamp)
	return sent, nil
}

// Find returns what the first of several stores has of a mount that has any. failed is
// called for a store that fails.
func (m *Mounts) Find(ctx context.Context, stores []cache.Store, id string, failed func(s cache.Store, err error)) (cache.Store, cache.Descriptor, error) {
	for _, s := range stores {
		d, err := find(ctx, s, keyOf(id, m.Platform))
		if ctx.Err() != nil {
			return nil, d, context.Cause(ctx)
		}
		if err == nil && recorded(d, recordID) != id {
			err = cache.ErrNotCached // damaged, or not ours
		}
		if err == nil {
			return s, d, nil
		}
		if !errors.Is(err, cache.ErrNotCached) {
			failed(s, err)
		}
	}
	return nil, cache.Descriptor{}, cache.ErrNotCached
}

// Pull fetches what a store has of a mount, verifies it, and puts it where RUNs find it. What
// is in the mount stays; with onlyEmpty, it is left alone if there is anything by now.
func (m *Mounts) Pull(ctx context.Context, s cache.Store, id string, d cache.Descriptor, onlyEmpty bool) error {
	most := m.most()
	if d.Bytes > most || d.Bytes < 0 || d.Size > most+most/8 {
		return &TooLargeError{Bytes: max(d.Bytes, d.Size), Most: most}
	}
	dir, err := mounts.Open(m.path(), d.Bytes+d.Size)
	if err != nil {
		return err
	}
	defer dir.Close()
	var blob cache.Blob
	defer blob.Close()
	err = cache.Fetch(ctx, s, d, &blob)
	if errors.Is(err, cache.ErrNotCached) { // another machine may have replaced it just now
		again, ferr := find(ctx, s, d.Key)
		if ferr == nil && again.Digest != d.Digest && again.Size <= most+most/8 {
			d = again
			err = cache.Fetch(ctx, s, d, &blob)
		}
	}
	if err != nil {
		return err
	}
	l, err := m.alone(ctx, dir, id)
	if err != nil {
		return err
	}
	defer l.Close()
	name := mounts.Name(id)
	if onlyEmpty {
		if empty, err := isEmptyIn(dir, name); err != nil || !empty {
			return err
		}
	}
	err = unpack(ctx, dir, name+staged, &blob, d, most)
	if err == nil {
		err = move(dir, name+staged, name)
	}
	if err != nil {
		return errors.Join(err, removeAll(dir, name+staged))
	}
	_ = mounts.Remember(dir, id, "")
	// What came is what the store has: nothing is packed to find that out.
	if c, err := read(ctx, filepath.Join(dir.Name(), name), mounts.NoteOf(dir, id).Targets, most); err == nil && onlyEmpty {
		if stamp, err := c.stamp(); err == nil {
			(&memory{m, id}).set(s.Location(), stamp)
		}
	}
	return nil
}

// Known reports whether a store is known to have what is in a mount, by its stamp.
func (m *Mounts) Known(id, location, stamp string) bool {
	return (&memory{m, id}).load()[location] == stamp
}

// memory is what stores are known to have of a mount: the stamp of what was in it when they
// got it, by the location of the store. What is lost of it is asked again.
type memory struct {
	m  *Mounts
	id string
}

const (
	maxMemory     = 64 << 10
	maxLocations  = 16
	partialMemory = "part-"
)

func (k *memory) name() string { return mounts.Name(k.id) + ".shared" }

func (k *memory) load() map[string]string {
	all := make(map[string]string)
	dir, err := mounts.OpenExisting(k.m.path())
	if err != nil {
		return all
	}
	defer dir.Close()
	data, err := safefile.ReadFile(dir, k.name(), maxMemory)
	if err != nil || json.Unmarshal(data, &all) != nil {
		return make(map[string]string)
	}
	return all
}

func (k *memory) set(location, stamp string) {
	dir, err := mounts.OpenExisting(k.m.path())
	if err != nil {
		return
	}
	defer dir.Close()
	all := k.load()
	if len(all) >= maxLocations {
		clear(all)
	}
	all[location] = stamp
	data, err := json.Marshal(all)
	if err == nil {
		_ = safefile.WriteFile(dir, k.name(), partialMemory, data)
	}
}

// Remove removes a mount from this machine, and reports whether it was there.
func (m *Mounts) Remove(ctx context.Context, id string) (bool, error) {
	dir, err := mounts.OpenExisting(m.path())
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer dir.Close()
	l, err := m.alone(ctx, dir, id)
	if err != nil {
		return false, err
	}
	defer l.Close()
	name := mounts.Name(id)
	if _, err := dir.Lstat(name); errors.Is(err, fs.ErrNotExist) {
		return false, mounts.Forget(dir, id)
	}
	err = errors.Join(removeAll(dir, name), mounts.Forget(dir, id))
	if rerr := dir.Remove((&memory{m, id}).name()); !errors.Is(rerr, fs.ErrNotExist) {
		err = errors.Join(err, rerr)
	}
	return err == nil, err
}

// Here is the store of a mount that is on this machine.
const Here = "local"

// Local returns the mounts of this machine. Their time is that of the newest file.
func (m *Mounts) Local(ctx context.Context) ([]Stored, error) {
	ids, err := m.IDs()
	if err != nil {
		return nil, err
	}
	var all []Stored
	for _, id := range ids {
		r, err := tree.Read(ctx, filepath.Join(m.path(), mounts.Name(id)), tree.Options{})
		if err != nil {
			return nil, fmt.Errorf("cache mount %s: %w", id, err)
		}
		_, bytes := r.Files()
		all = append(all, Stored{ID: id, Platform: m.Platform, Store: Here, Bytes: bytes, Files: r.Len(), Created: r.Newest().UTC().Truncate(time.Second)})
	}
	return all, nil
}

// pushError is the error of a store, which takes what it gets for the result of a step.
type pushError struct{ error }

func (e pushError) Error() string {
	return strings.Replace(e.error.Error(), "built, not pushed: ", "not pushed: ", 1)
}
func (e pushError) Unwrap() error { return e.error }
