package dir

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
	specs "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/clayer/clayer/cache"
	"github.com/clayer/clayer/dag/key"
	"github.com/clayer/clayer/internal/order"
	"github.com/clayer/clayer/internal/safefile"
)

// evict removes the least recently used steps until clayer's blobs fit the bound,
// never what this process is putting. Layers that lose a step are removed.
func (d *Dir) evict(ctx context.Context, root *os.Root) error {
	if size, err := d.writtenSize(root); err != nil || size-d.sharedSize(root) <= d.max {
		return err
	}
	d.forgetSizes()
	unlock, err := d.lock(ctx, root, true)
	if err != nil {
		return err
	}
	defer unlock()
	index, err := indexStamp(root)
	if err != nil {
		return err
	}
	c, err := d.count(root)
	if err != nil {
		return err
	}
	d.share(shared{index, c.sharedSize()})
	if c.size() <= d.max {
		return nil
	}
	if _, err := c.sweep(); err != nil { // what nothing needs goes first
		return err
	}
	size := c.size()
	if size <= d.max {
		return nil
	}
	keys := make(map[string]int) // of each blob: it goes with its last
	for _, u := range c.steps {
		keys[u.desc.Digest.Encoded()]++
	}
	type named struct {
		key  key.Key
		blob string
	}
	gone := make(map[named]bool)
	for _, u := range slices.Clone(c.steps) {
		name := u.desc.Digest.Encoded()
		if size <= d.max {
			break
		}
		if !c.isOwn(name) || d.isPutting(name) {
			continue
		}
		if err := c.forget(u); err != nil {
			return err
		}
		gone[named{u.desc.Key, name}] = true
		if keys[name]--; keys[name] == 0 {
			size -= c.blobs[name]
		}
	}
	if err := c.renumber(); err != nil {
		return err
	}
	if _, err := c.drop(func(_ string, l *layer) bool {
		return l.own && (l.err != nil || slices.ContainsFunc(l.manifest.Steps, func(s cache.Descriptor) bool {
			return gone[named{s.Key, s.Digest.Encoded()}] || !exists(root, keyName(s.Key))
		}))
	}); err != nil {
		return err
	}
	_, err = c.sweep()
	return err
}

// shared is how many bytes of what clayer wrote other tools' entries of an index reach:
// they are never evicted. Another tool that reaches more writes a new index.
type shared struct {
	index stamp
	size  int64
}

func (d *Dir) share(s shared) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.shared = s
}

// sharedSize returns the bytes that are shared, as far as that is known of the index.
func (d *Dir) sharedSize(root *os.Root) int64 {
	index, err := indexStamp(root)
	d.mu.Lock()
	defer d.mu.Unlock()
	if err != nil || index != d.shared.index {
		return 0
	}
	return d.shared.size
}

func indexStamp(root *os.Root) (stamp, error) {
	f, err := safefile.OpenFile(root, specs.ImageIndexFile, os.O_RDONLY, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return stamp{}, nil
	}
	if err != nil {
		return stamp{}, err
	}
	defer f.Close()
	s, err := stampOf(f)
	if err != nil {
		return stamp{}, err
	}
	return *s, nil
}

func (d *Dir) isPutting(name string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.putting[digest.NewDigestFromEncoded(digest.SHA256, name)] > 0
}

// blobSizes returns the sizes of all blobs, by their names.
func blobSizes(root *os.Root) (map[string]int64, error) {
	entries, err := list(root, blobsName)
	if err != nil {
		return nil, err
	}
	sizes := make(map[string]int64, len(entries))
	for _, e := range entries {
		if !isDigest(e.Name()) || !e.Type().IsRegular() {
			continue // nothing of clayer's
		}
		if info, err := e.Info(); err == nil {
			sizes[e.Name()] = info.Size()
		}
	}
	return sizes, nil
}

// writtenSize adds up the blobs that clayer wrote, and counts those that another process
// has removed since they were looked at. Those of other tools, of which there may be far
// more, are not looked at.
func (d *Dir) writtenSize(root *os.Root) (total int64, err error) {
	names, err := recorded(root)
	if err != nil {
		return 0, err
	}
	blobs, err := safefile.OpenDirIn(root, blobsName)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	defer blobs.Close()
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.sizes == nil {
		d.sizes = make(map[string]int64)
	}
	for name := range names {
		size, known := d.sizes[name]
		if !known {
			if info, err := blobs.Lstat(name); err == nil && info.Mode().IsRegular() {
				size = info.Size()
				d.sizes[name] = size
			}
		}
		total += size
	}
	return total, nil
}

func (d *Dir) forgetSizes() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.sizes = nil
}

// A census says what is in the store, and what needs it.
type census struct {
	d       *Dir
	root    *os.Root
	index   *index
	steps   []usedStep
	blobs   map[string]int64 // the sizes of all blobs
	written map[string]bool  // those that clayer wrote
	foreign map[string]bool  // those that other tools' entries of the index reach
}

// A layer is an entry of the index that is one of clayer's by its name and content.
type layer struct {
	image    specs.Manifest
	manifest cache.Manifest
	own      bool  // clayer put it there, not another tool that copied it
	err      error // it is damaged: it names nothing
}

// count looks at all that is in the store. The caller holds the lock, exclusively:
// no process is between a blob and its name. What can't be read now (too many open
// files, a disk that hesitates) is an error: taken for nothing, what it names
// would be removed.
func (d *Dir) count(root *os.Root) (*census, error) {
	c := &census{d: d, root: root, foreign: make(map[string]bool)}
	var err error
	if c.steps, err = used(root); err != nil {
		return nil, err
	}
	if c.blobs, err = blobSizes(root); err != nil {
		return nil, err
	}
	if c.written, err = recorded(root); err != nil {
		return nil, err
	}
	if c.index, err = readIndex(root); err != nil && !damaged(err) {
		return nil, err
	}
	for i := range c.index.Manifests {
		e := &c.index.Manifests[i]
		if e.layer, err = c.layer(e); err != nil {
			return nil, fmt.Errorf("layer %s: %w", e.tag(), err)
		}
		if (e.layer == nil || !e.layer.own) && valid(e.Digest) {
			if err := c.reach(e.Digest.Encoded()); err != nil {
				return nil, err
			}
		}
	}
	return c, nil
}

// layer returns what an entry of the index is of clayer's, and nil if it is another
// tool's image.
func (c *census) layer(e *entry) (*layer, error) {
	if !e.mayBeLayer() {
		return nil, nil
	}
	l := &layer{own: c.written[e.Digest.Encoded()]}
	if l.image, l.err = readImage(c.root, e.Descriptor); unreadable(l.err) {
		return nil, l.err
	}
	if l.err == nil {
		l.manifest, l.err = cache.FromImage(l.image)
	}
	if l.err == nil && l.manifest.Tag() != e.tag() || l.err != nil && !l.own {
		return nil, nil
	}
	return l, nil
}

var digests256 = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`sha256:([0-9a-f]{64})\b`) })

// reach marks a blob, and what it names: an index its manifests, those their
// configs and layers. Whatever looks like a digest in a blob that looks like JSON
// counts, so that no kind of document has to be known.
func (c *census) reach(name string) error {
	size, ok := c.blobs[name]
	if !ok || c.foreign[name] {
		return nil
	}
	c.foreign[name] = true
	if size > maxManifest {
		return nil // no registry takes a document of that size
	}
	f, err := safefile.OpenFile(c.root, path.Join(blobsName, name), os.O_RDONLY, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	r := bufio.NewReaderSize(f, 512)
	start, err := r.Peek(16)
	if err != nil && err != io.EOF {
		return err
	}
	if !bytes.HasPrefix(bytes.TrimLeft(start, " \t\r\n"), []byte("{")) {
		return nil // a layer
	}
	data, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	f.Close()
	for _, m := range digests256().FindAllSubmatch(data, -1) {
		if err := c.reach(string(m[1])); err != nil {
			return err
		}
	}
	return nil
}

// isOwn reports whether a blob is clayer's alone.
func (c *census) isOwn(name string) bool { return c.written[name] && !c.foreign[name] }

// size adds up the blobs that are clayer's.
func (c *census) size() (total int64) {
	for name, n := range c.blobs {
		if c.isOwn(name) {
			total += n
		}
	}
	return total
}

// sharedSize adds up the blobs that clayer wrote and others reach.
func (c *census) sharedSize() (total int64) {
	for name, n := range c.blobs {
		if c.written[name] && c.foreign[name] {
			total += n
		}
	}
	return total
}

// drop removes layers from the index. It reports whether there were any.
func (c *census) drop(which func(tag string, l *layer) bool) (bool, error) {
	before := len(c.index.Manifests)
	c.index.Manifests = slices.DeleteFunc(c.index.Manifests, func(e entry) bool { return e.layer != nil && which(e.tag(), e.layer) })
	if len(c.index.Manifests) == before {
		return false, nil
	}
	return true, c.d.replaceIndex(c.root, c.index)
}

// forget removes a key file. Its blob goes with sweep.
func (c *census) forget(u usedStep) error {
	if err := c.root.Remove(u.name()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	c.steps = slices.DeleteFunc(c.steps, func(o usedStep) bool { return o.desc.Key == u.desc.Key && o.number == u.number })
	return nil
}

// forgetStep removes all snapshots of a step.
func (c *census) forgetStep(k key.Key) error {
	for _, u := range slices.Clone(c.steps) {
		if u.desc.Key == k {
			if err := c.forget(u); err != nil {
				return err
			}
		}
	}
	return nil
}

// forgetSeconds removes what is under second keys alone: of snapshots that neither a step has
// by its first key, nor a layer.
func (c *census) forgetSeconds() error {
	named := make(map[digest.Digest]bool)
	for _, u := range c.steps {
		if !u.desc.ByContent() {
			named[u.desc.Digest] = true
		}
	}
	for _, e := range c.index.Manifests {
		if e.layer != nil && e.layer.err == nil {
			for _, s := range e.layer.manifest.Steps {
				named[s.Digest] = true
			}
		}
	}
	for _, u := range slices.Clone(c.steps) {
		if u.desc.ByContent() && !named[u.desc.Digest] {
			if err := c.forget(u); err != nil {
				return err
			}
		}
	}
	return nil
}

// renumber has each key that has a snapshot have a first one: Find looks for no other.
func (c *census) renumber() error {
	lowest := make(map[key.Key]int) // by key, the index in steps
	for i, u := range c.steps {
		if at, ok := lowest[u.desc.Key]; !ok || u.number < c.steps[at].number {
			lowest[u.desc.Key] = i
		}
	}
	for _, i := range lowest {
		u := &c.steps[i]
		if u.number == 1 {
			continue
		}
		if err := c.root.Rename(u.name(), keyName(u.desc.Key)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		u.number = 1
	}
	return nil
}

// sweep removes clayer's blobs that neither a step nor a layer names, and what
// killed processes left in tmp/. It returns the bytes of blobs removed.
func (c *census) sweep() (freed int64, err error) {
	named := make(map[string]bool, len(c.steps))
	for _, s := range c.steps {
		named[s.desc.Digest.Encoded()] = true
	}
	for _, e := range c.index.Manifests {
		if e.layer == nil {
			continue
		}
		named[e.Digest.Encoded()] = true
		if e.layer.err == nil {
			for _, dg := range digestsOf(e.layer.image) {
				named[dg.Encoded()] = true
			}
		}
	}
	for name, size := range c.blobs {
		if !c.isOwn(name) || named[name] || c.d.isPutting(name) {
			continue
		}
		if err := c.root.Remove(path.Join(blobsName, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return freed, err
		}
		delete(c.blobs, name)
		freed += size
	}
	if err := c.shorten(); err != nil {
		return freed, err
	}
	_, err = safefile.Sweep(c.root, tmpName, isTemp)
	return freed, err
}

// digestsOf returns the blobs that an image names.
func digestsOf(image specs.Manifest) []digest.Digest {
	all := []digest.Digest{image.Config.Digest}
	for _, l := range image.Layers {
		all = append(all, l.Digest)
	}
	return all
}

// shorten drops from the list of blobs that clayer wrote those that are gone.
func (c *census) shorten() error {
	before := len(c.written)
	for name := range c.written {
		if _, ok := c.blobs[name]; !ok {
			delete(c.written, name)
		}
	}
	if len(c.written) == before {
		return nil
	}
	return c.d.writeRecorded(c.root, c.written)
}

// A usedStep is a key file.
type usedStep struct {
	desc   cache.Descriptor
	number int // which of the snapshots of the key, from 1
	at     time.Time
}

func (u usedStep) name() string { return variantName(u.desc.Key, u.number) }

// used returns all steps, the least recently used first. Key files that are
// damaged are removed: they name nothing. One that merely can't be read now is
// an error: taken for none, its blob would be removed. What is no file never was a
// key file; it is left alone.
func used(root *os.Root) ([]usedStep, error) {
	dirs, err := list(root, keysName)
	if err != nil {
		return nil, err
	}
	var all []usedStep
	var others []error
	for _, dir := range dirs {
		if len(dir.Name()) != 2 || !dir.IsDir() {
			continue
		}
		entries, err := list(root, path.Join(keysName, dir.Name()))
		if err != nil {
			return nil, err
		}
		for _, e := range entries {
			name := path.Join(keysName, dir.Name(), e.Name())
			k, number, ok := parseVariantName(name)
			if !ok {
				continue // not clayer's
			}
			info, err := e.Info()
			if err != nil {
				continue // removed meanwhile
			}
			s, err := readStored(root, name, k)
			switch {
			case errors.Is(err, fs.ErrNotExist):
			case errors.Is(err, safefile.ErrNotRegular):
				others = append(others, err)
			case unreadable(err):
				return nil, err
			case err != nil:
				if err := root.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
					return nil, err
				}
			default:
				all = append(all, usedStep{s.Descriptor, number, info.ModTime()})
			}
		}
	}
	if len(others) > 0 {
		slog.Warn("what has the name of a step in the store is no file; it is left alone", "path", root.Name(), "names", len(others), "first", others[0])
	}
	order.Stable(all, func(a, b usedStep) int {
		return cmp.Or(a.at.Compare(b.at), strings.Compare(a.name(), b.name()))
	})
	return all, nil
}
