// Package archive unpacks what a FETCH has downloaded: tar, compressed in several ways,
// and zip. Archives come from anywhere: names are judged, and nothing is written.
package archive

import (
	"archive/tar"
	"bufio"
	"bytes"
	"cmp"
	"compress/bzip2"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/url"
	"path"
	"strings"
	"time"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"

	"github.com/clayer/clayer/cache/snapshot"
	"github.com/clayer/clayer/internal/ctxio"
)

// Kind is how an archive is read.
type Kind uint8

const (
	None Kind = iota
	Tar
	TarGzip
	TarXz
	TarBzip2
	TarZstd
	Zip
)

var magics = []struct {
	magic string
	kind  Kind
}{
	{"\x1f\x8b", TarGzip},
	{"\xfd7zXZ\x00", TarXz},
	{"BZh", TarBzip2},
	{"\x28\xb5\x2f\xfd", TarZstd},
	{"PK\x03\x04", Zip},
	{"PK\x05\x06", Zip}, // an empty one
}

// detect determines the kind by the first bytes, never by a name. A compressed file
// is an archive only if a tar is inside.
func Detect(r io.ReaderAt, size int64) (Kind, error) {
	head := make([]byte, 512)
	n, err := r.ReadAt(head, 0)
	if err != nil && err != io.EOF {
		return None, err
	}
	head = head[:n]
	for _, m := range magics {
		if !bytes.HasPrefix(head, []byte(m.magic)) {
			continue
		}
		if m.kind == Zip {
			return Zip, nil
		}
		inner, err := m.kind.decompress(io.NewSectionReader(r, 0, size))
		if err != nil {
			return None, nil // it only began like one
		}
		defer inner.Close()
		block := make([]byte, 512)
		if _, err := io.ReadFull(inner, block); err == nil && isTarHeader(block) {
			return m.kind, nil
		}
		return None, nil
	}
	if isTarHeader(head) {
		return Tar, nil
	}
	return None, nil
}

// DetectTar is Detect for what ADD unpacks: a tar, whatever compresses it, as BuildKit finds
// it. zstd may begin with a skippable frame.
func DetectTar(r io.ReaderAt, size int64) (Kind, error) {
	kind, err := Detect(r, size)
	if kind == Zip {
		kind = None
	}
	if kind != None || err != nil {
		return kind, err
	}
	var head [4]byte
	if _, err := r.ReadAt(head[:], 0); err != nil || head[0]&0xf0 != 0x50 || string(head[1:]) != "\x2a\x4d\x18" {
		return None, nil
	}
	inner, err := TarZstd.decompress(io.NewSectionReader(r, 0, size))
	if err != nil {
		return None, nil
	}
	defer inner.Close()
	block := make([]byte, 512)
	if _, err := io.ReadFull(inner, block); err == nil && isTarHeader(block) {
		return TarZstd, nil
	}
	return None, nil
}

// isTarHeader reports whether a block is the header of a tar's first member.
// The checksum decides, and not "ustar" at 257, which an old v7 tar lacks.
func isTarHeader(b []byte) bool {
	if len(b) < 512 || b[0] == 0 {
		return false
	}
	const from, to = 148, 156 // the checksum, which counts itself as blanks
	var unsigned, signed int64
	for i, c := range b[:512] {
		if i >= from && i < to {
			c = ' '
		}
		unsigned += int64(c)
		signed += int64(int8(c)) // as some old tars sum up
	}
	var sum int64
	field := bytes.Trim(b[from:to], " \x00")
	if len(field) == 0 {
		return false
	}
	for _, c := range field {
		if c < '0' || c > '7' {
			return false
		}
		sum = sum<<3 | int64(c-'0')
	}
	return sum == unsigned || sum == signed
}

// UsedAsZip reports whether a URL names a format that is a zip inside, but used
// as the one file that it is.
func UsedAsZip(source string) bool {
	u, err := url.Parse(source)
	if err != nil {
		return false
	}
	switch strings.ToLower(path.Ext(u.Path)) {
	case ".jar", ".war", ".ear", ".aar", ".apk", ".xpi", ".vsix", ".crx", // programs
		".whl", ".egg", ".nupkg", // packages, which their managers unpack
		".docx", ".xlsx", ".pptx", ".odt", ".ods", ".odp", ".epub", // documents
		".npz", ".pt", ".pth", ".keras": // arrays and models
		return true
	}
	return false
}

// decompress returns the tar stream of a kind of tar.
func (k Kind) decompress(r io.Reader) (io.ReadCloser, error) {
	r = bufio.NewReaderSize(r, 256<<10)
	switch k {
	case Tar:
		return io.NopCloser(r), nil
	case TarGzip:
		return gzip.NewReader(r)
	case TarXz:
		x, err := xz.NewReader(r)
		return io.NopCloser(x), err
	case TarBzip2:
		return io.NopCloser(bzip2.NewReader(r)), nil
	case TarZstd:
		z, err := zstd.NewReader(r, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true))
		if err != nil {
			return nil, err
		}
		return z.IOReadCloser(), nil
	}
	panic("archive: no tar")
}

// epoch is the time of what has none: see package source.
var epoch = time.Unix(315532800, 0).UTC() // 1980-01-01

// A Blob is an open download.
type Blob struct {
	io.ReaderAt
	io.Closer
	Size int64

	// Verify returns what reads the bytes of a tar and, at the latest with the last one, fails
	// if they are not those that the archive is known by; nil for what nobody else changes.
	Verify func(io.Reader) io.Reader
}

// An Archive is a download that is unpacked.
type Archive struct {
	Name string // for errors
	Kind Kind
	Open func() (Blob, error)

	// Whole says that owners, extended attributes, devices and pipes are unpacked too, and
	// that a leading slash of a name is of no account, as ADD has it.
	Whole bool
}

// A member is one entry of an archive, not yet judged.
type member struct {
	name    string        // as the archive has it
	kind    snapshot.Kind // Dir, File, Symlink or Link; of a Whole one also Char, Block or Fifo
	mode    uint32
	size    int64
	modTime time.Time
	target  string
	open    func() (io.ReadCloser, error) // of a File; good until the next member

	uid, gid     int
	major, minor uint32 // of a device
	xattrs       map[string]string
}

// members yields all members in the archive's order, which is the same each
// time. Memory is that of one member, and for zip that of the directory.
func (a *Archive) members(ctx context.Context) iter.Seq2[member, error] {
	return func(yield func(member, error) bool) {
		b, err := a.Open()
		if err != nil {
			yield(member{}, err)
			return
		}
		defer b.Close()
		inner := a.tarMembers(ctx, b)
		if a.Kind == Zip {
			inner = zipMembers(ctx, b)
		}
		for m, err := range inner {
			if err != nil {
				err = fmt.Errorf("%s: %w", a.Name, err)
			}
			if !yield(m, err) || err != nil {
				return
			}
		}
	}
}

func (a *Archive) tarMembers(ctx context.Context, b Blob) iter.Seq2[member, error] {
	return func(yield func(member, error) bool) {
		all := io.Reader(io.NewSectionReader(b, 0, b.Size))
		if b.Verify != nil {
			all = b.Verify(all)
			inner := yield
			yield = func(m member, err error) bool {
				if err != nil { // which another file may have
					err = cmp.Or(rest(ctx, all), err)
				}
				return inner(m, err)
			}
		}
		stream, err := a.Kind.decompress(all)
		if err != nil {
			yield(member{}, err)
			return
		}
		defer stream.Close()
		// Next skips content within one call, and may have a terabyte of zeros
		// to skip.
		tr := tar.NewReader(ctxio.Reader(ctx, stream))
		for {
			h, err := tr.Next()
			if err == io.EOF {
				if b.Verify == nil {
					return
				}
				if err := rest(ctx, all); err != nil {
					yield(member{}, err)
				}
				return
			}
			if err != nil && !errors.Is(err, tar.ErrInsecurePath) { // names are judged by cleanName
				yield(member{}, notEOF(err))
				return
			}
			m := member{
				name: h.Name, size: h.Size, modTime: memberTime(h.ModTime),
				mode: uint32(h.Mode) & 0o7777, target: h.Linkname,
			}
			if a.Whole {
				m.name = strings.TrimLeft(m.name, "/")
				m.uid, m.gid, m.xattrs = h.Uid, h.Gid, xattrsOf(h)
				m.major, m.minor = uint32(h.Devmajor), uint32(h.Devminor)
				if h.Typeflag == tar.TypeLink {
					m.target = strings.TrimLeft(m.target, "/")
				}
			}
			switch kind, special := specials[h.Typeflag]; {
			case special && a.Whole:
				m.kind = kind
				if !yield(m, nil) {
					return
				}
				continue
			case special:
				yield(member{}, fmt.Errorf("%q is a device or a pipe, which FETCH does not make", h.Name))
				return
			}
			switch h.Typeflag {
			case tar.TypeReg, '\x00', tar.TypeCont, tar.TypeGNUSparse:
				m.kind = snapshot.File
				m.open = func() (io.ReadCloser, error) { return io.NopCloser(tr), nil }
			case tar.TypeDir:
				m.kind = snapshot.Dir
			case tar.TypeSymlink:
				m.kind = snapshot.Symlink
			case tar.TypeLink:
				m.kind = snapshot.Link
			case tar.TypeXGlobalHeader, 'V': // a commit in a comment; a volume's label
				continue
			default:
				yield(member{}, fmt.Errorf("%q: unknown type %q", h.Name, h.Typeflag))
				return
			}
			if !yield(m, nil) {
				return
			}
		}
	}
}

// rest reads what is left of a file: a tar ends before it.
func rest(ctx context.Context, r io.Reader) error {
	_, err := io.Copy(io.Discard, ctxio.Reader(ctx, r))
	return err
}

var specials = map[byte]snapshot.Kind{tar.TypeChar: snapshot.Char, tar.TypeBlock: snapshot.Block, tar.TypeFifo: snapshot.Fifo}

// xattrsOf returns the extended attributes of a member, but for those by which overlayfs
// would take it for something else.
func xattrsOf(h *tar.Header) map[string]string {
	var all map[string]string
	for key, value := range h.PAXRecords {
		name, ok := strings.CutPrefix(key, "SCHILY.xattr.")
		if !ok || name == "" || strings.HasPrefix(name, "trusted.overlay.") || strings.HasPrefix(name, "user.overlay.") {
			continue
		}
		if all == nil {
			all = make(map[string]string)
		}
		all[name] = value
	}
	return all
}

// notEOF is for places where the end of a stream is a cut.
func notEOF(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

// memberTime returns t in whole seconds, and epoch for what is no time that a
// file can have: zip's zero, or one out of bounds (a tar may claim any).
func memberTime(t time.Time) time.Time {
	s := t.Unix()
	if t.IsZero() || s < 0 || s >= 1<<33 {
		return epoch
	}
	return time.Unix(s, 0).UTC()
}
