package record

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/klauspost/compress/zstd"
)

// What comes with a new directory is announced by one line for up to maxTree changes, in
// place of one for each: the new directory alone is moved, and what is in it is only known
// for undo, verify and diff. The line is
//
//	{"kind":"tree","n":"<base64 of a zstd frame>"}
//
// of which an earlier clayer says that it cannot be read. In the frame stand, after a
// version, the number of changes, their Seq and With, one column after the other, each
// preceded by its length: equal things are near each other, and a change takes some 25
// bytes.

const (
	treePrefix  = `{"kind":"tree","n":"`
	treeSuffix  = `"}`
	treeVersion = 1
	maxTree     = 1024
	maxColumns  = 64 << 20 // bytes of a frame's content
)

// The columns.
const (
	columnPath   = iota // how much is shared with the path before, and the rest
	columnKind          // of treeKinds; the Type of a link is in the upper half
	columnMode          //
	columnOwner         // UID and GID
	columnNumber        // N, less that of the change before
	columnSize          //
	columnTime          // seconds, less those of the change before
	columnNanos         //
	columnSum           // CRC-32C, and before it whether there is one
	columnTarget        //
	columns
)

var treeKinds = []Kind{"", KindFile, KindDir, KindSymlink, KindLink, KindDevice, KindFifo, KindSocket}

func indexOf(k Kind) int {
	for i, x := range treeKinds {
		if x == k {
			return i
		}
	}
	return -1
}

// A treeWriter gathers changes for one line.
type treeWriter struct {
	n         int
	seq, with int
	columns   [columns][]byte
	path      []byte // of the change before
	number    int    // N, likewise
	seconds   int64
}

// fits reports whether a change can stand in such a line, after those that are there.
func (w *treeWriter) fits(c *Change) bool {
	if c.With <= 0 || c.Seq <= 0 || c.N <= 0 || c.Now == nil || w.n > 0 && (w.n == maxTree || c.Seq != w.seq || c.With != w.with) {
		return false
	}
	m := c.Now
	is := Change{Seq: c.Seq, Path: c.Path, Kind: c.Kind, N: c.N, Now: m, With: c.With, End: c.End}
	return c.Was == nil && c.Records == nil && c.From == nil && is.same(c) && len(m.Xattrs) == 0 && m.Rdev == 0 && m.Size >= 0 && m.UID >= 0 && m.GID >= 0 &&
		indexOf(c.Kind) > 0 && indexOf(m.Type) >= 0 && m.ModTime.Location() == time.UTC
}

// same reports whether two changes have the same flags and places.
func (c *Change) same(o *Change) bool {
	return c.Preserved == o.Preserved && c.Lost == o.Lost && c.Whole == o.Whole && c.In == o.In && c.Out == o.Out && c.Left == o.Left && c.Again == o.Again && c.Beside == o.Beside
}

func (w *treeWriter) add(c *Change) {
	w.seq, w.with = c.Seq, c.With
	w.n++
	m := c.Now
	shared := 0
	for shared < len(w.path) && shared < len(c.Path) && w.path[shared] == c.Path[shared] {
		shared++
	}
	w.uint(columnPath, uint64(shared))
	w.bytes(columnPath, c.Path[shared:])
	w.path = append(w.path[:shared], c.Path[shared:]...)
	w.columns[columnKind] = append(w.columns[columnKind], byte(indexOf(c.Kind)|indexOf(m.Type)<<4))
	w.uint(columnMode, uint64(m.Mode))
	w.uint(columnOwner, uint64(m.UID))
	w.uint(columnOwner, uint64(m.GID))
	w.int(columnNumber, int64(c.N-w.number))
	w.number = c.N
	w.uint(columnSize, uint64(m.Size))
	seconds := m.ModTime.Unix()
	w.int(columnTime, seconds-w.seconds)
	w.seconds = seconds
	w.uint(columnNanos, uint64(m.ModTime.Nanosecond()))
	if m.Sum == nil {
		w.columns[columnSum] = append(w.columns[columnSum], 0)
	} else {
		w.columns[columnSum] = binary.LittleEndian.AppendUint32(append(w.columns[columnSum], 1), *m.Sum)
	}
	w.bytes(columnTarget, m.Target)
}

func (w *treeWriter) uint(column int, n uint64) {
	w.columns[column] = binary.AppendUvarint(w.columns[column], n)
}

func (w *treeWriter) int(column int, n int64) {
	w.columns[column] = binary.AppendVarint(w.columns[column], n)
}

func (w *treeWriter) bytes(column int, data []byte) {
	w.uint(column, uint64(len(data)))
	w.columns[column] = append(w.columns[column], data...)
}

// appendLine appends the JSON of what was gathered, and forgets it.
func (w *treeWriter) appendLine(b []byte) ([]byte, error) {
	var all []byte
	for _, n := range []int{treeVersion, w.n, w.seq, w.with} {
		all = binary.AppendUvarint(all, uint64(n))
	}
	for i, c := range w.columns {
		all = append(binary.AppendUvarint(all, uint64(len(c))), c...)
		w.columns[i] = c[:0]
	}
	*w = treeWriter{columns: w.columns, path: w.path[:0]}
	codec, err := treeCodec()
	if err != nil {
		return nil, err
	}
	b = base64.StdEncoding.AppendEncode(append(b, treePrefix...), codec.enc.EncodeAll(all, nil))
	return append(b, treeSuffix...), nil
}

type codec struct {
	enc *zstd.Encoder
	dec *zstd.Decoder
}

// treeCodec returns what compresses and decompresses: little at a time.
var treeCodec = sync.OnceValues(func() (c codec, err error) {
	c.enc, err = zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1), zstd.WithWindowSize(128<<10), zstd.WithLowerEncoderMem(true))
	if err == nil {
		c.dec, err = zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(maxColumns), zstd.WithDecoderLowmem(true))
	}
	return c, err
})

var errTree = errors.New("the list of a new directory is damaged")

// readTree reads the changes of a line, and says whether it is one of a new directory.
func readTree(text []byte) (list []Change, is bool, err error) {
	data, is := bytes.CutPrefix(text, []byte(treePrefix))
	if !is {
		return nil, false, nil
	}
	data, ended := bytes.CutSuffix(data, []byte(treeSuffix))
	frame, err := base64.StdEncoding.AppendDecode(nil, data)
	if err != nil || !ended {
		return nil, true, errTree
	}
	codec, err := treeCodec()
	if err != nil {
		return nil, true, err
	}
	all, err := codec.dec.DecodeAll(frame, nil)
	if err != nil {
		return nil, true, fmt.Errorf("%w: %w", errTree, err)
	}
	r := column{rest: all}
	version, n, seq, with := r.uint(), r.uint(), r.uint(), r.uint()
	if version != treeVersion || n > maxTree {
		return nil, true, fmt.Errorf("%w: version %d, %d changes", errTree, version, n)
	}
	var cols [columns]column
	for i := range cols {
		cols[i].rest = r.bytes()
	}
	bad := r.bad
	list = make([]Change, n)
	metas := make([]Meta, n)
	sums := make([]uint32, n)
	var last []byte
	number, seconds := int64(0), int64(0)
	for i := range list {
		c, m := &list[i], &metas[i]
		c.Seq, c.With, c.Now = int(seq), int(with), m
		shared, rest := cols[columnPath].uint(), cols[columnPath].bytes()
		if shared > uint64(len(last)) {
			return nil, true, errTree
		}
		c.Path = append(append(make([]byte, 0, int(shared)+len(rest)), last[:shared]...), rest...)
		last = c.Path
		kind := cols[columnKind].byte()
		if int(kind&15) >= len(treeKinds) || int(kind>>4) >= len(treeKinds) {
			return nil, true, errTree
		}
		c.Kind, m.Type = treeKinds[kind&15], treeKinds[kind>>4]
		m.Mode = uint32(cols[columnMode].uint())
		m.UID, m.GID = int(cols[columnOwner].uint()), int(cols[columnOwner].uint())
		number += cols[columnNumber].int()
		c.N = int(number)
		m.Size = int64(cols[columnSize].uint())
		seconds += cols[columnTime].int()
		m.ModTime = time.Unix(seconds, int64(cols[columnNanos].uint())).UTC()
		if cols[columnSum].byte() == 1 {
			sums[i] = cols[columnSum].sum()
			m.Sum = &sums[i]
		}
		if target := cols[columnTarget].bytes(); len(target) > 0 {
			m.Target = target
		}
	}
	for i := range cols {
		bad = bad || cols[i].bad || len(cols[i].rest) > 0
	}
	if bad {
		return nil, true, errTree
	}
	return list, true, nil
}

// A column is read from its beginning.
type column struct {
	rest []byte
	bad  bool // it ended too soon
}

func (r *column) uint() uint64 {
	n, k := binary.Uvarint(r.rest)
	r.skip(k)
	return n
}

func (r *column) int() int64 {
	n, k := binary.Varint(r.rest)
	r.skip(k)
	return n
}

func (r *column) skip(k int) {
	if k <= 0 || k > len(r.rest) {
		r.bad, r.rest = true, nil
		return
	}
	r.rest = r.rest[k:]
}

func (r *column) byte() (b byte) {
	if len(r.rest) > 0 {
		b = r.rest[0]
	}
	r.skip(1)
	return b
}

func (r *column) sum() (n uint32) {
	if len(r.rest) >= 4 {
		n = binary.LittleEndian.Uint32(r.rest)
	}
	r.skip(4)
	return n
}

func (r *column) bytes() []byte {
	n := r.uint()
	if n > uint64(len(r.rest)) {
		r.bad, r.rest = true, nil
		return nil
	}
	b := r.rest[:n:n]
	r.rest = r.rest[n:]
	return b
}
