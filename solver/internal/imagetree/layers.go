// Package imagetree puts the layers of an image together: which files the image has, and those
// of them that are asked for, in a directory. Layers come from anywhere: their names are judged,
// and nothing is written but below that directory.
package imagetree

import (
	"archive/tar"
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"path"
	"strings"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"

	"github.com/clayer/clayer/internal/ctxio"
)

// A Layer is one of an image: a tar, as it is or compressed.
type Layer struct {
	Name string // for errors
	Open func(ctx context.Context) (io.ReadCloser, error)
}

// maxPath bounds a name, in bytes, as Linux does. The others bound what all layers of an image take
// in memory, since few compressed bytes can say much: members, the directories that names need
// and no member is, and the bytes of names, links and attributes.
const (
	maxPath    = 4096
	maxMembers = 2_000_000
	maxImplied = 200_000
	maxText    = 128 << 20
)

// A member is one of the tar of a layer.
type member struct {
	*tar.Header
	name string // clean, below the root; "" for the root itself
}

// members yields the members of a layer in order. What reads content is good until the next.
func (l Layer) members(ctx context.Context) iter.Seq2[member, io.Reader] {
	return func(yield func(member, io.Reader) bool) {
		fail := func(err error) { yield(member{}, failed{fmt.Errorf("%s: %w", l.Name, err)}) }
		f, err := l.Open(ctx)
		if err != nil {
			fail(err)
			return
		}
		defer f.Close()
		plain, err := decompress(ctxio.Reader(ctx, f))
		if err != nil {
			fail(err)
			return
		}
		defer plain.Close()
		for tr := tar.NewReader(plain); ; {
			h, err := tr.Next()
			if err == io.EOF {
				return
			}
			if err != nil && !errors.Is(err, tar.ErrInsecurePath) { // clean judges names
				if ctx.Err() != nil {
					err = context.Cause(ctx)
				}
				fail(notEOF(err))
				return
			}
			if h.Typeflag == tar.TypeXGlobalHeader {
				continue
			}
			name, err := clean(h.Name)
			if err != nil {
				fail(err)
				return
			}
			if !yield(member{h, name}, tr) {
				return
			}
		}
	}
}

// failed is read instead of a member that could not be.
type failed struct{ err error }

func (f failed) Read([]byte) (int, error) { return 0, f.err }

// decompress reads a layer by its first bytes, as containerd does: media types lie.
func decompress(r io.Reader) (io.ReadCloser, error) {
	b := bufio.NewReaderSize(r, 256<<10)
	head, err := b.Peek(4)
	if err != nil && err != io.EOF {
		return nil, err
	}
	switch {
	case bytes.HasPrefix(head, []byte("\x1f\x8b")):
		return gzip.NewReader(b)
	case bytes.HasPrefix(head, []byte("\x28\xb5\x2f\xfd")), len(head) == 4 && head[0]&0xf0 == 0x50 && string(head[1:]) == "\x2a\x4d\x18":
		z, err := zstd.NewReader(b, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(128<<20))
		if err != nil {
			return nil, err
		}
		return z.IOReadCloser(), nil
	}
	return io.NopCloser(b), nil
}

// notEOF is for places where the end of a stream is a cut.
func notEOF(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

// clean returns a name as a path below the root of the image.
func clean(name string) (string, error) {
	c := path.Clean(strings.TrimLeft(name, "/"))
	switch {
	case strings.ContainsRune(name, 0), len(name) > maxPath:
		return "", fmt.Errorf("%.100q is no name of a file", name)
	case c == "..", strings.HasPrefix(c, "../"):
		return "", fmt.Errorf("%.100q leads out of the image", name)
	case c == ".":
		return "", nil
	}
	return c, nil
}
