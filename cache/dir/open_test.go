package dir

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	specs "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/clayer/clayer/cache"
	"github.com/clayer/clayer/dag/key"
	"github.com/opencontainers/go-digest"
)

// Paths of what is in a store, for tests that look at it, or damage it.

func (d *Dir) tmp() string { return filepath.Join(d.path, tmpName) }

func (d *Dir) indexPath() string { return filepath.Join(d.path, specs.ImageIndexFile) }

func (d *Dir) blobPath(dg digest.Digest) string { return filepath.Join(d.path, blobName(dg)) }

func (d *Dir) keyPath(k key.Key) string { return filepath.Join(d.path, keyName(k)) }

func (d *Dir) readIndex() (*index, error) {
	root, err := d.root()
	if err != nil {
		return nil, err
	}
	defer root.Close()
	return readIndex(root)
}

func (d *Dir) writeIndex(idx *index) error {
	root, err := d.root()
	if err != nil {
		return err
	}
	defer root.Close()
	return d.replaceIndex(root, idx)
}

// size is what counts for the bound.
func (d *Dir) size() (int64, error) {
	root, err := d.root()
	if err != nil {
		return 0, err
	}
	defer root.Close()
	c, err := d.count(root)
	if err != nil {
		return 0, err
	}
	return c.size(), nil
}

func (d *Dir) evictNow(ctx context.Context) error {
	root, err := d.root()
	if err != nil {
		return err
	}
	defer root.Close()
	return d.evict(ctx, root)
}

// isStamped reports whether the file of a blob is the one of its step's inode stamp.
func (d *Dir) isStamped(t *testing.T, desc cache.Descriptor) bool {
	t.Helper()
	root, err := d.root()
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	f, err := openBlob(root, desc)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	s, name, err := storedOf(root, desc)
	return err == nil && s.stamps(root, name, f, desc)
}

// stamp returns the inode stamp that the file of a blob has now.
func (d *Dir) stamp(t *testing.T, desc cache.Descriptor) *stamp {
	t.Helper()
	f, err := os.Open(d.blobPath(desc.Digest))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	s, err := stampOf(f)
	if err != nil {
		t.Fatal(err)
	}
	return s
}
