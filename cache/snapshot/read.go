package snapshot

import (
	"archive/tar"
	"bufio"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"strings"
)

// maxWindow bounds what a zstd frame may ask for, in bytes: as much as zstd
// itself does at its highest level.
const maxWindow = 128 << 20

// Read yields the entries of a tar, tar.gz or tar.zst, recognised by its first bytes:
// blobs of Pack, and layers and tars that others made. Names are made clean;
// one that is absolute or has ".." in it is an UnsafeError. The stream is
// validated as by Validate. Input that is corrupt or cut off, at whatever byte,
// is an error; it is never taken for the end.
//
// The frames of a blob of Pack are decoded on all cores, some of them ahead. It
// begins with the first bytes and needs a few MiB per core. When the loop
// over the entries is left, nothing reads from r any more.
func Read(r io.Reader) Changes { return Validate(ReadUnvalidated(r)) }

// ReadUnvalidated is Read for who validates the stream himself: its entries have
// clean names inside the root, but may contradict each other.
func ReadUnvalidated(r io.Reader) Changes {
	return func(yield func(*Entry, error) bool) {
		if err := read(bufio.NewReaderSize(r, 64<<10), yield); err != nil {
			yield(nil, err)
		}
	}
}

func read(r *bufio.Reader, yield func(*Entry, error) bool) error {
	magic, err := r.Peek(4)
	if err != nil && err != io.EOF {
		return fmt.Errorf("read snapshot: %w", err)
	}
	switch {
	case bytes.HasPrefix(magic, []byte{0x28, 0xb5, 0x2f, 0xfd}),
		len(magic) == 4 && magic[0]&0xf0 == 0x50 && bytes.Equal(magic[1:], []byte{0x2a, 0x4d, 0x18}):
		j := &joiner{chunks: newChunker(r)}
		defer j.chunks.close()
		ended, more, err := j.entries(yield)
		switch {
		case err != nil:
			return fmt.Errorf("read snapshot: %w", err)
		case !more:
			return nil
		case ended:
			if err := (&unended{r: j}).end(); err != nil {
				return fmt.Errorf("read snapshot: %w", err)
			}
			return nil
		}
		return readTar(j, yield)
	case bytes.HasPrefix(magic, []byte{0x1f, 0x8b}):
		d, err := gzip.NewReader(r)
		if err != nil {
			return fmt.Errorf("read snapshot: %w", err)
		}
		return readTar(d, yield)
	}
	return readTar(r, yield)
}

// readTar reads a tar entry by entry.
func readTar(r io.Reader, yield func(*Entry, error) bool) error {
	body := &unended{r: r}
	t := tar.NewReader(body)
	for {
		h, err := t.Next()
		if err == io.EOF {
			if err = body.end(); err == nil {
				return nil
			}
		}
		if err != nil {
			return fmt.Errorf("read snapshot: %w", err)
		}
		e, err := entry(h, t)
		if err != nil {
			return err
		}
		if e != nil && !yield(e, nil) {
			return nil
		}
	}
}

// openOnce returns an Entry.Open of what can be read once.
func openOnce(name string, content io.Reader) func() (io.ReadCloser, error) {
	opened := false
	return func() (io.ReadCloser, error) {
		if opened {
			return nil, fmt.Errorf("%q: an entry of a stream can be opened once", name)
		}
		opened = true
		return io.NopCloser(content), nil
	}
}

// unended is a tar whose end is unexpected wherever it is met. A tar ends with
// two blocks of zeros, after which archive/tar reads nothing: whoever meets
// the end of the input before that has a tar that was cut off, and archive/tar
// takes one that just stops between two entries for whole.
type unended struct{ r io.Reader }

func (u *unended) Read(p []byte) (int, error) {
	n, err := u.r.Read(p)
	switch {
	case err != io.EOF:
		return n, err
	case n > 0:
		return n, nil
	}
	return 0, io.ErrUnexpectedEOF
}

// end reads on from after the two blocks to the end of the compressed stream,
// where its checksum is. Tars are padded with zeros; nothing else may come.
func (u *unended) end() error {
	buf := make([]byte, 32<<10)
	for {
		n, err := u.r.Read(buf)
		if len(bytes.TrimRight(buf[:n], "\x00")) > 0 {
			return errors.New("there is more after the end of the tar")
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// entry returns the entry of a tar header, and nil for one that means nothing.
func entry(h *tar.Header, content io.Reader) (*Entry, error) {
	name, err := cleanName(h.Name)
	if err != nil {
		return nil, err
	}
	if h.Typeflag == tar.TypeXGlobalHeader || name == "." {
		return nil, nil
	}
	e := &Entry{
		Path: name, Mode: uint32(h.Mode) & 0o7777, UID: h.Uid, GID: h.Gid, ModTime: h.ModTime,
	}
	if dir, base := path.Split(name); strings.HasPrefix(base, whiteoutPrefix) {
		return whiteout(dir, base)
	}
	for k, v := range h.PAXRecords {
		if x, ok := strings.CutPrefix(k, recordXattr); ok {
			if e.Xattrs == nil {
				e.Xattrs = make(map[string]string)
			}
			e.Xattrs[x] = v
		}
	}
	switch h.Typeflag {
	case tar.TypeReg, tar.TypeGNUSparse, '\x00', '7':
		e.Kind, e.Size = File, h.Size
		e.Open = openOnce(name, content)
		if s, ok := h.PAXRecords[recordData]; ok {
			if e.Data, err = parseExtents(s); err != nil {
				return nil, &UnsafeError{Path: name, Reason: err.Error()}
			}
		}
	case tar.TypeDir:
		e.Kind, e.Implied = Dir, h.PAXRecords[recordImplied] != ""
	case tar.TypeSymlink:
		e.Kind, e.Target = Symlink, h.Linkname
	case tar.TypeLink:
		e.Kind = Link
		if e.Target, err = cleanName(h.Linkname); err != nil {
			return nil, fmt.Errorf("hard link %q: %w", name, err)
		}
	case tar.TypeChar, tar.TypeBlock:
		e.Kind, e.Major, e.Minor = Char, uint32(h.Devmajor), uint32(h.Devminor)
		if h.Typeflag == tar.TypeBlock {
			e.Kind = Block
		}
		// Cut to 32 bits it would be another device.
		if int64(e.Major) != h.Devmajor || int64(e.Minor) != h.Devminor {
			return nil, &UnsafeError{Path: name, Reason: fmt.Sprintf("device %d:%d", h.Devmajor, h.Devminor)}
		}
	case tar.TypeFifo:
		e.Kind = Fifo
	default:
		return nil, fmt.Errorf("%q: unknown type %q of a tar entry", name, h.Typeflag)
	}
	return e, nil
}

func whiteout(dir, base string) (*Entry, error) {
	dir = strings.TrimSuffix(dir, "/")
	if base == whiteoutOpaque {
		if dir == "" {
			return nil, &UnsafeError{Path: base, Reason: "would delete the whole root"}
		}
		return &Entry{Path: dir, Kind: Opaque}, nil
	}
	if strings.HasPrefix(base, whiteoutOther) {
		return nil, nil
	}
	name := strings.TrimPrefix(base, whiteoutPrefix)
	if name == "" || name == "." || name == ".." {
		return nil, &UnsafeError{Path: path.Join(dir, base), Reason: "a whiteout of no name"}
	}
	return &Entry{Path: path.Join(dir, name), Kind: Delete}, nil
}

// cleanName makes a tar's name that of an Entry: "./a/" is "a"; "." is the root.
func cleanName(name string) (string, error) {
	if plain := strings.TrimSuffix(name, "/"); fs.ValidPath(plain) {
		return plain, nil
	}
	if path.IsAbs(name) {
		return "", &UnsafeError{Path: name, Reason: "an absolute name"}
	}
	for part := range strings.SplitSeq(name, "/") {
		if part == ".." {
			return "", &UnsafeError{Path: name, Reason: `".." in a name`}
		}
	}
	if name == "" {
		return "", &UnsafeError{Path: name, Reason: "an empty name"}
	}
	return path.Clean(name), nil
}
