package snapshot

import (
	"archive/tar"
	"context"
	"crypto/sha256"
	"fmt"
	"hash"
	"hash/crc32"
	"io"
	"path"
	"runtime"
	"strconv"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/clayer/clayer/cache/snapshot/frames"
	"github.com/clayer/clayer/cache/snapshot/internal/tarheader"
)

// MediaType is what a blob is to OCI.
const MediaType = "application/vnd.oci.image.layer.v1.tar+zstd"

// Names of OCI whiteouts (image-spec, layer.md).
const (
	whiteoutPrefix = ".wh."
	whiteoutOpaque = ".wh..wh..opq"
	whiteoutOther  = ".wh..wh." // AUFS's own; of no meaning to others
)

// PAX records of ours. Others that read the tar ignore them.
const (
	recordImplied = "CLAYER.implied"
	recordData    = "CLAYER.data"
	recordXattr   = "SCHILY.xattr." // as star, GNU tar, bsdtar and Docker have it
)

// maxExtents bounds the CLAYER.data record; a file in more pieces is packed as
// one without holes.
const maxExtents = 1000

// PackOptions are how to pack. The zero value is the default.
type PackOptions struct {
	Level       int // zstd level; 0 means DefaultLevel
	Concurrency int // frames compressed at a time; 0 means GOMAXPROCS. The bytes don't depend on it
}

// DefaultLevel is the zstd level of snapshots; docs/performance.md says why.
const DefaultLevel = 3

// Packed says what was packed.
type Packed struct {
	Digest  digest.Digest // of the blob
	Size    int64         // bytes of the blob
	CRC32C  uint32        // of the blob (Castagnoli)
	DiffID  digest.Digest // of the uncompressed tar
	Entries int
	Bytes   int64 // of file content

	// Frames lists the frames of the blob, the table of contents included.
	Frames frames.List
}

// Pack writes the changes to w as one blob: a tar in independent zstd frames,
// cut at entries, and a table of contents. The same changes give the same
// bytes, and changes nearly the same nearly the same frames. Reading, hashing, compressing and writing go on at the same time. It
// needs constant memory. When it fails, what was written is no blob.
func Pack(ctx context.Context, w io.Writer, changes Changes, opt PackOptions) (Packed, error) {
	if opt.Level == 0 {
		opt.Level = DefaultLevel
	}
	if opt.Concurrency == 0 {
		opt.Concurrency = runtime.GOMAXPROCS(0)
	}
	blob := &counter{w: w, digest: digest.Canonical.Digester(), crc: crc32.New(castagnoli)}
	f := newFramer(ctx, blob, opt)
	p := packer{ctx: f.ctx, framer: f}
	err := p.all(changes)
	if ferr := f.close(); err == nil || ferr != nil {
		err = ferr // the writer's is the reason of the other
	}
	if err != nil {
		return Packed{}, err
	}
	toc, err := f.toc.close()
	if err == nil {
		_, err = blob.Write(toc)
	}
	if err != nil {
		return Packed{}, fmt.Errorf("pack: %w", err)
	}
	if len(toc) > 0 {
		f.list = f.list.Append(int64(len(toc)), sha256.Sum256(toc))
	}
	return Packed{
		Digest: blob.digest.Digest(), Size: blob.n, CRC32C: blob.crc.Sum32(),
		DiffID: f.diffID.Digest(), Entries: p.entries, Bytes: p.bytes, Frames: f.list.OrNone(),
	}, nil
}

// counter counts and hashes what it hands on.
type counter struct {
	w      io.Writer
	digest digest.Digester
	crc    hash.Hash32
	n      int64
}

func (c *counter) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.n += int64(n)
	c.digest.Hash().Write(p[:n])
	c.crc.Write(p[:n])
	return n, err
}

type packer struct {
	ctx     context.Context
	framer  *framer
	header  tar.Header // of the current entry
	head    []byte     // its bytes
	entries int
	bytes   int64
}

func (p *packer) all(changes Changes) error {
	for e, err := range Validate(changes) {
		if err == nil {
			err = context.Cause(p.ctx)
		}
		if err == nil {
			err = p.entry(e)
		}
		if err != nil {
			return err
		}
	}
	if err := p.framer.open(); err != nil {
		return err
	}
	p.framer.cur.plain = append(p.framer.cur.plain, zeroBlock[:]...)
	return nil
}

func (p *packer) entry(e *Entry) error {
	err := header(&p.header, e)
	if err != nil {
		return err
	}
	size := int64(0)
	if e.Kind == File {
		size = e.Size
	}
	if p.head, err = tarheader.Append(p.head[:0], &p.header); err != nil {
		return fmt.Errorf("pack %q: %w", e.Path, err)
	}
	if err := p.framer.begin(e.Path, p.head, size); err != nil {
		return err
	}
	if size > 0 {
		if err := p.content(e); err != nil {
			return err
		}
	}
	p.framer.end(e, size)
	p.entries++
	p.bytes += size
	return nil
}

// content copies exactly Size bytes: a file that grew or shrank meanwhile
// would otherwise be stored truncated, or padded, silently.
func (p *packer) content(e *Entry) (err error) {
	if e.Open == nil {
		return fmt.Errorf("pack %q: it has content, and no Open that returns it", e.Path)
	}
	r, err := e.Open()
	if err != nil {
		return fmt.Errorf("pack %q: %w", e.Path, err)
	}
	defer func() {
		if cerr := r.Close(); err == nil && cerr != nil {
			err = fmt.Errorf("pack %q: %w", e.Path, cerr)
		}
	}()
	var n int64
	for {
		if err := context.Cause(p.ctx); err != nil {
			return err
		}
		if err := p.framer.next(e.Size, n); err != nil {
			return err
		}
		// Not beyond the next cut; by one byte more than there should be, to see it.
		space := p.framer.space(min(e.Size-n+1, frameSize-n%frameSize))
		k, err := r.Read(space)
		n += int64(k)
		if n > e.Size {
			return fmt.Errorf("pack %q: the file grew while it was read: more than %d bytes", e.Path, e.Size)
		}
		p.framer.cur.plain = p.framer.cur.plain[:len(p.framer.cur.plain)+k]
		if err == io.EOF {
			break
		}
		if err != nil {
			return fmt.Errorf("pack %q: %w", e.Path, err)
		}
	}
	if n < e.Size {
		return fmt.Errorf("pack %q: the file shrank while it was read: %d of %d bytes", e.Path, n, e.Size)
	}
	return nil
}

// header makes the tar header of an entry. PAX records are written only for
// what the plain header cannot say.
func header(h *tar.Header, e *Entry) error {
	if base := e.Path[strings.LastIndexByte(e.Path, '/')+1:]; strings.HasPrefix(base, whiteoutPrefix) {
		return fmt.Errorf("pack %q: a file's name must not begin with %s, which marks deleted files in a layer", e.Path, whiteoutPrefix)
	}
	*h = tar.Header{Name: e.Path, ModTime: time.Unix(0, 0)}
	switch e.Kind {
	case Delete:
		dir, base := path.Split(e.Path)
		h.Typeflag, h.Name = tar.TypeReg, dir+whiteoutPrefix+base
		return nil
	case Opaque:
		h.Typeflag, h.Name = tar.TypeReg, e.Path+"/"+whiteoutOpaque
		return nil
	}
	h.Mode, h.Uid, h.Gid, h.ModTime = int64(e.Mode&0o7777), e.UID, e.GID, e.ModTime
	for name, value := range e.Xattrs {
		if h.PAXRecords == nil {
			h.PAXRecords = make(map[string]string)
		}
		h.PAXRecords[recordXattr+name] = value
	}
	record := func(name, value string) {
		if h.PAXRecords == nil {
			h.PAXRecords = make(map[string]string)
		}
		h.PAXRecords[name] = value
	}
	switch e.Kind {
	case File:
		h.Typeflag, h.Size = tar.TypeReg, e.Size
		if e.Data != nil && len(e.Data) <= maxExtents {
			record(recordData, formatExtents(e.Data))
		}
	case Dir:
		h.Typeflag, h.Name = tar.TypeDir, e.Path+"/"
		if e.Implied {
			record(recordImplied, "1")
		}
	case Symlink:
		h.Typeflag, h.Linkname = tar.TypeSymlink, e.Target
	case Link:
		h.Typeflag, h.Linkname = tar.TypeLink, e.Target
	case Char:
		h.Typeflag, h.Devmajor, h.Devminor = tar.TypeChar, int64(e.Major), int64(e.Minor)
	case Block:
		h.Typeflag, h.Devmajor, h.Devminor = tar.TypeBlock, int64(e.Major), int64(e.Minor)
	case Fifo:
		h.Typeflag = tar.TypeFifo
	default:
		return fmt.Errorf("pack %q: unknown kind %d", e.Path, e.Kind)
	}
	return nil
}

// formatExtents writes "offset,length,offset,length"; "" is a file of holes alone.
func formatExtents(list []Extent) string {
	var b strings.Builder
	for i, x := range list {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString(strconv.FormatInt(x.Offset, 10) + "," + strconv.FormatInt(x.Length, 10))
	}
	if len(list) == 0 {
		return "0,0" // PAX has no records with empty values
	}
	return b.String()
}

// parseExtents reads what formatExtents wrote. Whether the extents make sense
// is for Validate to say.
func parseExtents(s string) ([]Extent, error) {
	fields := strings.Split(s, ",")
	if len(fields)%2 != 0 || len(fields) > 2*maxExtents {
		return nil, fmt.Errorf("malformed %s", recordData)
	}
	list := make([]Extent, 0, len(fields)/2)
	for i := 0; i < len(fields); i += 2 {
		off, err1 := strconv.ParseInt(fields[i], 10, 64)
		n, err2 := strconv.ParseInt(fields[i+1], 10, 64)
		if err1 != nil || err2 != nil {
			return nil, fmt.Errorf("malformed %s", recordData)
		}
		if n != 0 {
			list = append(list, Extent{off, n})
		}
	}
	return list, nil
}
