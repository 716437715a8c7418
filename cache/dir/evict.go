package dir

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	specs "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/clayer/clayer/cache"
)

// abandoned is how old a file in tmp/ must be to be taken for one that a killed
// process left. What is being packed is written to all the time.
const abandoned = 24 * time.Hour

// evict removes the least recently used steps until the blobs fit the bound,
// never what this process is putting. Layers that lose a step are forgotten.
func (d *Dir) evict(ctx context.Context) error {
	size, err := d.size()
	if err != nil || size <= d.max {
		return err
	}
	unlock, err := d.lock(ctx, true)
	if err != nil {
		return err
	}
	defer unlock()
	if _, err := d.sweep(); err != nil { // what nothing needs goes first
		return err
	}
	if size, err = d.size(); err != nil || size <= d.max {
		return err
	}
	used, err := d.used()
	if err != nil {
		return err
	}
	keys := make(map[digest.Digest]int) // of each blob: it goes with its last
	for _, u := range used {
		keys[u.desc.Digest]++
	}
	for _, u := range used {
		if size <= d.max {
			break
		}
		if d.isPutting(u.desc.Digest) {
			continue
		}
		if err := os.Remove(d.keyPath(u.desc.Key)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if keys[u.desc.Digest]--; keys[u.desc.Digest] == 0 {
			size -= u.desc.Size
		}
	}
	if err := d.forget(); err != nil {
		return err
	}
	_, err = d.sweep()
	return err
}

func (d *Dir) isPutting(dg digest.Digest) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.putting[dg] > 0
}

// size adds up the blobs.
func (d *Dir) size() (total int64, err error) {
	entries, err := os.ReadDir(filepath.Join(d.path, "blobs", "sha256"))
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	for _, e := range entries {
		if info, err := e.Info(); err == nil {
			total += info.Size()
		}
	}
	return total, err
}

type usedStep struct {
	desc cache.Descriptor
	at   time.Time
}

// used returns all steps, the least recently used first. Key files that are
// damaged are removed: they name nothing. One that merely can't be read now
// (too many open files, a disk that hesitates) is an error: taken for none, its
// blob would be swept.
func (d *Dir) used() ([]usedStep, error) {
	var list []usedStep
	err := filepath.WalkDir(filepath.Join(d.path, "keys"), func(path string, e fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil || e.IsDir() {
			return err
		}
		info, err := e.Info()
		if err != nil {
			return nil // removed meanwhile
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		var desc cache.Descriptor
		if json.Unmarshal(data, &desc) != nil || d.keyPath(desc.Key) != path || !valid(desc.Digest) || desc.Size < 0 {
			return os.Remove(path)
		}
		list = append(list, usedStep{desc, info.ModTime()})
		return nil
	})
	slices.SortFunc(list, func(a, b usedStep) int {
		return cmp.Or(a.at.Compare(b.at), strings.Compare(a.desc.Key.String(), b.desc.Key.String()))
	})
	return list, err
}

// forget drops the layers from the index that have lost a step.
func (d *Dir) forget() error {
	idx, err := d.readIndex()
	if err != nil {
		return err
	}
	before := len(idx.Manifests)
	idx.Manifests = slices.DeleteFunc(idx.Manifests, func(desc specs.Descriptor) bool {
		m, err := d.manifest(desc)
		if err != nil {
			return !unreadable(err)
		}
		return slices.ContainsFunc(m.Steps, func(s cache.Descriptor) bool {
			_, err := os.Stat(d.keyPath(s.Key))
			return errors.Is(err, fs.ErrNotExist)
		})
	})
	if len(idx.Manifests) == before {
		return nil
	}
	return d.writeIndex(idx)
}

// sweep removes the blobs that neither a step nor a layer names, and what
// killed processes left in tmp/. It returns the bytes of blobs removed. The
// caller holds the lock, exclusively: nobody is between a blob and its name.
func (d *Dir) sweep() (freed int64, err error) {
	steps, err := d.used()
	if err != nil {
		return 0, err
	}
	named := make(map[string]bool, len(steps))
	for _, s := range steps {
		named[s.desc.Digest.Encoded()] = true
	}
	idx, err := d.readIndex()
	if err != nil {
		return 0, err
	}
	for _, desc := range idx.Manifests {
		named[desc.Digest.Encoded()] = true
		image, err := d.image(desc)
		if unreadable(err) {
			return 0, err
		}
		if err != nil {
			continue // damaged: it names nothing
		}
		named[image.Config.Digest.Encoded()] = true
		for _, l := range image.Layers {
			named[l.Digest.Encoded()] = true
		}
	}
	dir := filepath.Join(d.path, "blobs", "sha256")
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return 0, err
	}
	for _, e := range entries {
		info, err := e.Info()
		if err != nil || named[e.Name()] || d.isPutting(digest.NewDigestFromEncoded(digest.SHA256, e.Name())) {
			continue
		}
		if err := os.Remove(filepath.Join(dir, e.Name())); err != nil {
			return freed, err
		}
		freed += info.Size()
	}
	return freed, d.sweepTmp()
}

func (d *Dir) sweepTmp() error {
	entries, err := os.ReadDir(d.tmp())
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for _, e := range entries {
		if info, err := e.Info(); err == nil && time.Since(info.ModTime()) > abandoned {
			if err := os.Remove(filepath.Join(d.tmp(), e.Name())); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
		}
	}
	return nil
}
