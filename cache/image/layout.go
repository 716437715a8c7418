package image

import (
	"archive/tar"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"
	specs "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"

	"github.com/clayer/clayer/cache"
	"github.com/clayer/clayer/internal/ctxio"
	"github.com/clayer/clayer/internal/safefile"
)

// A layout is an OCI image layout that is being written.
type layout struct {
	dir  string
	size int64 // bytes of its blobs
}

func (l *layout) blobs() string { return filepath.Join(l.dir, "blobs", "sha256") }

func (l *layout) init() error {
	if err := os.Chmod(l.dir, 0o755); err != nil {
		return err
	}
	return safefile.MakeAll(l.blobs(), 0o755)
}

// addBlob copies a blob and checks that it is what it is said to be.
func (l *layout) addBlob(ctx context.Context, desc specs.Descriptor, r io.Reader) error {
	if err := desc.Digest.Validate(); err != nil || desc.Digest.Algorithm() != digest.SHA256 {
		return fmt.Errorf("digest %q: want one by sha256", desc.Digest)
	}
	path := filepath.Join(l.blobs(), desc.Digest.Encoded())
	if _, err := os.Stat(path); err == nil {
		return nil // two steps with the same bytes
	}
	n, err := l.write(path, func(w io.Writer) error {
		return cache.Check(ctx, w, r, cache.Descriptor{Digest: desc.Digest, Size: desc.Size})
	})
	if err != nil {
		return err
	}
	l.size += n
	return nil
}

// addGzip adds what a zstd stream holds, as gzip. Its bytes are those of
// compress/gzip of the Go release that this program was built by.
func (l *layout) addGzip(ctx context.Context, r io.Reader, diffID digest.Digest) (specs.Descriptor, error) {
	dec, err := zstd.NewReader(ctxio.Reader(ctx, r))
	if err != nil {
		return specs.Descriptor{}, err
	}
	defer dec.Close()
	plain, packed := digest.Canonical.Digester(), digest.Canonical.Digester()
	part := filepath.Join(l.dir, "part")
	n, err := l.write(part, func(w io.Writer) error {
		z := gzip.NewWriter(io.MultiWriter(w, packed.Hash()))
		if _, err := io.Copy(io.MultiWriter(z, plain.Hash()), dec); err != nil {
			return err
		}
		return z.Close()
	})
	if err != nil {
		return specs.Descriptor{}, err
	}
	if plain.Digest() != diffID {
		return specs.Descriptor{}, fmt.Errorf("the snapshot unpacks to %s, want %s", plain.Digest(), diffID)
	}
	desc := specs.Descriptor{MediaType: specs.MediaTypeImageLayerGzip, Digest: packed.Digest(), Size: n}
	path := filepath.Join(l.blobs(), desc.Digest.Encoded())
	if _, err := os.Stat(path); err != nil {
		l.size += n
	}
	return desc, os.Rename(part, path)
}

func (l *layout) addJSON(mediaType string, v any) (specs.Descriptor, error) {
	data, desc, err := cache.JSON(mediaType, v)
	if err != nil {
		return desc, err
	}
	l.size += desc.Size
	_, err = l.write(filepath.Join(l.blobs(), desc.Digest.Encoded()), func(w io.Writer) error {
		_, err := w.Write(data)
		return err
	})
	return desc, err
}

// finish writes what makes the directory a layout.
func (l *layout) finish(index specs.Index) error {
	for name, v := range map[string]any{
		specs.ImageLayoutFile: specs.ImageLayout{Version: specs.ImageLayoutVersion},
		specs.ImageIndexFile:  index,
	} {
		data, _, err := cache.JSON("", v)
		if err != nil {
			return err
		}
		if _, err := l.write(filepath.Join(l.dir, name), func(w io.Writer) error {
			_, err := w.Write(data)
			return err
		}); err != nil {
			return err
		}
	}
	return nil
}

// write writes a file, all of it on the disk, and returns its size.
func (l *layout) write(path string, fill func(io.Writer) error) (n int64, err error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o644)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if err := fill(f); err != nil {
		return 0, err
	}
	if n, err = f.Seek(0, io.SeekCurrent); err != nil {
		return n, err
	}
	return n, errors.Join(f.Chmod(0o644), f.Sync())
}

// install gives the directory its name. One that is there is empty: the kernel
// refuses to replace any other.
func (l *layout) install(dest string) error {
	// os.Rename would not replace an empty directory.
	switch err := unix.Rename(l.dir, dest); {
	case errors.Is(err, unix.ENOTEMPTY), errors.Is(err, unix.EEXIST), errors.Is(err, unix.ENOTDIR):
		return fmt.Errorf("%s %w", dest, ErrThere)
	case err != nil:
		return &os.LinkError{Op: "rename", Old: l.dir, New: dest, Err: err}
	}
	return syncDir(filepath.Dir(dest))
}

// archive writes the layout as a tar, in an order and with times of its own.
func (l *layout) archive(ctx context.Context, dest string) error {
	f, err := os.CreateTemp(filepath.Dir(dest), "."+filepath.Base(dest)+".part-")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // there is nothing once it has its name
	defer f.Close()
	if err := l.tar(ctx, f); err != nil {
		return err
	}
	if err := errors.Join(f.Chmod(0o644), f.Sync()); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), dest); err != nil {
		return err
	}
	return syncDir(filepath.Dir(dest))
}

func (l *layout) tar(ctx context.Context, out io.Writer) error {
	w := tar.NewWriter(out)
	entries, err := os.ReadDir(l.blobs())
	if err != nil {
		return err
	}
	names := []string{specs.ImageLayoutFile, specs.ImageIndexFile, "blobs/", "blobs/sha256/"}
	for _, e := range entries { // sorted
		names = append(names, "blobs/sha256/"+e.Name())
	}
	for _, name := range names {
		if err := l.addFile(ctx, w, name); err != nil {
			return err
		}
	}
	return w.Close()
}

func (l *layout) addFile(ctx context.Context, w *tar.Writer, name string) error {
	f, err := os.Open(filepath.Join(l.dir, name))
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	h := &tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644, Size: info.Size(), ModTime: epoch, Format: tar.FormatPAX}
	if info.IsDir() {
		h.Typeflag, h.Mode, h.Size = tar.TypeDir, 0o755, 0
		return w.WriteHeader(h)
	}
	if err := w.WriteHeader(h); err != nil {
		return err
	}
	_, err = io.Copy(w, ctxio.Reader(ctx, f))
	return err
}

func syncDir(path string) error {
	dir, err := os.Open(path)
	if err != nil {
		return err
	}
	defer dir.Close()
	_ = dir.Sync() // some file systems can't
	return nil
}
