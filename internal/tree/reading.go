// Package tree reads the metadata of a tree, and reports what happened between
// two readings, of a root or of an overlay's upper directory, as a stream of
// entries.
//
// It writes to no tree.
package tree

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/clayer/clayer/cache/snapshot"
	"github.com/clayer/clayer/internal/wire"
)

// Options say what a reading covers.
type Options struct {
	// Prune, if set, is asked for every directory; where it says true the directory
	// and all below it is left out of the reading. It is called by several
	// goroutines at a time.
	Prune func(path string) bool

	// DirectoriesOnly, if set, is asked for every directory that is read; where it says
	// true, what is no directory is left out. It is called as Prune is.
	DirectoriesOnly func(path string) bool

	// Own, if set, leaves out files and directories by what they are, with all
	// below them: whatever their names are by now.
	Own map[ID]bool

	// Foreign, if not nil, has scratch directories read also where they are mounts of
	// their own, and leaves out the names in them, as paths, that it holds: those
	// of other programs.
	Foreign map[string]bool

	// Below restricts the reading to one path, slash-separated and relative
	// to the tree, what is below it, and the directories above it. "" means all.
	Below string

	// Ownerless records every owner as 0:0. It is for a user namespace that
	// maps a single id: a process there is root and can give nothing to
	// anyone else, and every other owner reads as 65534, which says nothing.
	Ownerless bool

	// Live is for a root that is in use: other mounts are reported as such and
	// not entered, and directories that may not be read are passed over.
	Live bool

	// Sums says of which files the content is read, too.
	Sums Sums

	// Previous is an earlier reading of the same tree. What has the same
	// ctime and inode as it had there is taken from it, without a look at
	// xattrs or content: not to be set where ctime can't be trusted.
	Previous *Reading

	// RereadXattrs looks at xattrs all the same: see Trust.
	RereadXattrs bool
}

// An ID distinguishes files and directories, whatever their names. 0 is none.
type ID uint64

// Sums says of which files a reading holds a digest of the content.
type Sums uint8

// The choices of Options.Sums.
const (
	SumNone   Sums = iota
	SumLinked      // of those with several names: a name that comes or goes changes the ctime of the others
	SumAll
)

// A Reading is the metadata of a tree at one time, held in memory: about 100
// bytes an entry. It is never changed after it was made.
type Reading struct {
	// Nodes by index, in blocks, so that growing copies nothing. Index 0 is the
	// tree's own directory; the children of a directory follow each other in byte
	// order of their names.
	blocks [][]node
	n      int32
	rare   map[int32]rare
	sums   map[int32]sum
}

const (
	blockBits = 12
	blockSize = 1 << blockBits
)

func (r *Reading) at(i int32) *node { return &r.blocks[i>>blockBits][i&(blockSize-1)] }

// add appends the nodes and returns the index of the first.
func (r *Reading) add(nodes []node) int32 {
	first := r.n
	for len(nodes) > 0 {
		if int(r.n>>blockBits) == len(r.blocks) {
			r.blocks = append(r.blocks, make([]node, blockSize))
		}
		c := copy(r.blocks[r.n>>blockBits][r.n&(blockSize-1):], nodes)
		r.n += int32(c)
		nodes = nodes[c:]
	}
	return first
}

// stamp is a time as the kernel gives it. Nanoseconds in an int64 end in 2262,
// where mtimes need not.
type stamp struct {
	Sec  int64
	Nsec int32
}

func (s stamp) time() time.Time { return time.Unix(s.Sec, int64(s.Nsec)) }

func (s stamp) before(t stamp) bool {
	return s.Sec < t.Sec || s.Sec == t.Sec && s.Nsec < t.Nsec
}

// node is one entry of a reading: 80 bytes.
type node struct {
	Name         string
	Ino          uint64 // see fileID
	Size         int64  // of a device: its number
	MSec, CSec   int64  // mtime and ctime, split so that no byte is lost to alignment
	MNsec, CNsec int32
	UID, GID     uint32
	Nlink        uint32
	Kids, Count  int32  // of a directory: the index of its first child, and how many there are
	Mode         uint16 // st_mode, type bits included
	Flags        flags
}

type flags uint16

const (
	whiteout flags = 1 << iota // an overlay's mark: the name is gone
	opaque                     // an overlay's mark: the lower directory of that name is hidden
	copiedUp                   // an overlay's mark: this was a file of the lower tree
	mount                      // another file system, or another mount, begins here
	closed                     // a directory that may not be read
	sparse                     // fewer blocks than its size needs
	hasRare                    // there is more about it in Reading.rare
	touched                    // a directory that got the time that it may have had: see Touched
)

// rare is what few nodes have.
type rare struct {
	Target string            // of a symlink
	Xattrs map[string]string // those that snapshots hold; nil if none
}

type sum [16]byte // of the content: the first half of its SHA-256

func (n *node) is(f flags) bool { return n.Flags&f != 0 }
func (n *node) kind() uint32    { return uint32(n.Mode) & unix.S_IFMT }
func (n *node) isDir() bool     { return n.kind() == unix.S_IFDIR }
func (n *node) isFile() bool    { return n.kind() == unix.S_IFREG && !n.is(whiteout) }
func (n *node) linked() bool    { return n.isFile() && n.Nlink > 1 }
func (n *node) nothing() bool   { return n.is(whiteout) || n.kind() == unix.S_IFSOCK }
func (n *node) mtime() stamp    { return stamp{n.MSec, n.MNsec} }
func (n *node) ctime() stamp    { return stamp{n.CSec, n.CNsec} }

// same reports whether nothing was done to a file between two readings, where
// ctime can be trusted: it moves with every change, and nothing sets it.
func (n *node) same(m *node) bool {
	return n.Ino == m.Ino && n.ctime() == m.ctime() && n.Mode == m.Mode &&
		n.Size == m.Size && n.mtime() == m.mtime() && n.UID == m.UID && n.GID == m.GID && n.Nlink == m.Nlink
}

// seen is a node with what is rare about it, detached from its reading.
type seen struct {
	node
	rare
	layer string // of the lower directories of an overlay, the one that it was seen in
}

// bare returns the node alone; nil for nil.
func (s *seen) bare() *node {
	if s == nil {
		return nil
	}
	return &s.node
}

func (r *Reading) seen(i int32) *seen {
	n := r.at(i)
	s := &seen{node: *n}
	if n.is(hasRare) {
		s.rare = r.rare[i]
	}
	return s
}

// sumOf returns the digest of the content at i, if there is one.
func (r *Reading) sumOf(i int32) (sum, bool) {
	if r == nil || i < 0 {
		return sum{}, false
	}
	x, ok := r.sums[i]
	return x, ok
}

// Len returns the number of entries, the tree's own directory not counted.
func (r *Reading) Len() int { return int(r.n) - 1 }

// Newest returns the latest ctime in the reading: the time of its last change,
// by the clock of its file system.
func (r *Reading) Newest() time.Time { return r.newest().time() }

func (r *Reading) newest() stamp {
	var s stamp
	for i := range r.n {
		if c := r.at(i).ctime(); s.before(c) {
			s = c
		}
	}
	return s
}

// Lookup returns what was at the path: existed, and of a directory its entry,
// else nil. What it could not look at counts as something.
func (r *Reading) Lookup(path string) (directory *snapshot.Entry, existed bool) {
	if r == nil {
		return nil, true
	}
	i := int32(0)
	for name := range strings.SplitSeq(path, "/") {
		if r.at(i).is(mount) || r.at(i).is(closed) {
			return nil, true
		}
		if i = r.child(i, name); i < 0 {
			return nil, false
		}
	}
	n := r.at(i)
	if !n.isDir() || n.is(mount) {
		return nil, !n.is(whiteout)
	}
	e, err := makeEntry(r, step{path, i, whole}, nil, nil)
	if err != nil {
		panic("tree: a directory without an entry")
	}
	return e, true
}

// Linked returns the files with several names, each with those of its names
// that the reading covers, in the order of the paths.
func (r *Reading) Linked() [][]string {
	names := make(map[uint64][]string)
	var order []uint64
	var walk func(at string, i int32)
	walk = func(at string, i int32) {
		for c := range r.children(i) {
			n := r.at(c)
			if n.isDir() {
				walk(join(at, n.Name), c)
			} else if n.linked() && !n.is(mount) {
				if names[n.Ino] == nil {
					order = append(order, n.Ino)
				}
				names[n.Ino] = append(names[n.Ino], join(at, n.Name))
			}
		}
	}
	walk("", 0)
	groups := make([][]string, 0, len(order))
	for _, ino := range order {
		groups = append(groups, names[ino])
	}
	return groups
}

// Files counts the regular files, and the bytes that they hold.
func (r *Reading) Files() (n int, bytes int64) {
	for i := range r.n {
		if f := r.at(i); f.isFile() && !f.is(mount) {
			n++
			if !f.is(sparse) {
				bytes += f.Size
			}
		}
	}
	return n, bytes
}

// Closed returns the directories that could not be read, at most so many.
func (r *Reading) Closed(most int) []string {
	var list []string
	var walk func(at string, i int32)
	walk = func(at string, i int32) {
		for c := range r.children(i) {
			n := r.at(c)
			if len(list) == most || !n.isDir() {
				continue
			}
			p := join(at, n.Name)
			if n.is(closed) {
				list = append(list, p)
			}
			walk(p, c)
		}
	}
	walk("", 0)
	return list
}

// children yields the indices of the direct children of the directory at i, in
// byte order of their names; none if i < 0.
func (r *Reading) children(i int32) func(yield func(int32) bool) {
	return func(yield func(int32) bool) {
		if i < 0 {
			return
		}
		n := r.at(i)
		for c := n.Kids; c < n.Kids+n.Count; c++ {
			if !yield(c) {
				return
			}
		}
	}
}

// child returns the index of the name in the directory at i, -1 if it is not there.
func (r *Reading) child(i int32, name string) int32 {
	if r == nil || i < 0 {
		return -1
	}
	n := r.at(i)
	lo, hi := n.Kids, n.Kids+n.Count
	for lo < hi {
		mid := (lo + hi) / 2
		if r.at(mid).Name < name {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	if lo < n.Kids+n.Count && r.at(lo).Name == name {
		return lo
	}
	return -1
}

// A reading as bytes: the number of its nodes; each with the length of its name, the name,
// and its other fields; and the rest as package wire has it.

// others is what few nodes have, by index.
type others struct {
	Rare map[int32]rare
	Sums map[int32]sum
}

// MarshalBinary encodes the reading for another process of the same build.
func (r *Reading) MarshalBinary() ([]byte, error) {
	b := binary.AppendUvarint(make([]byte, 0, int(r.n)*(nodeSize+16)), uint64(r.n))
	for i := range r.n {
		n := r.at(i)
		b = binary.AppendUvarint(b, uint64(len(n.Name)))
		b = n.append(append(b, n.Name...))
	}
	rest := bytes.NewBuffer(b)
	err := wire.NewEncoder(rest).Encode(others{r.rare, r.sums})
	return rest.Bytes(), err
}

// nodeSize is how many bytes append appends.
const nodeSize = 4*8 + 7*4 + 2*2

func (n *node) append(b []byte) []byte {
	le := binary.LittleEndian
	for _, v := range []uint64{n.Ino, uint64(n.Size), uint64(n.MSec), uint64(n.CSec)} {
		b = le.AppendUint64(b, v)
	}
	for _, v := range []uint32{uint32(n.MNsec), uint32(n.CNsec), n.UID, n.GID, n.Nlink, uint32(n.Kids), uint32(n.Count)} {
		b = le.AppendUint32(b, v)
	}
	return le.AppendUint16(le.AppendUint16(b, n.Mode), uint16(n.Flags))
}

// nodeOf reads what append appends.
func nodeOf(name string, b []byte) node {
	le := binary.LittleEndian
	long := func(i int) uint64 { return le.Uint64(b[8*i:]) }
	word := func(i int) uint32 { return le.Uint32(b[32+4*i:]) }
	return node{
		Name: name, Ino: long(0), Size: int64(long(1)), MSec: int64(long(2)), CSec: int64(long(3)),
		MNsec: int32(word(0)), CNsec: int32(word(1)), UID: word(2), GID: word(3), Nlink: word(4), Kids: int32(word(5)), Count: int32(word(6)),
		Mode: le.Uint16(b[60:]), Flags: flags(le.Uint16(b[62:])),
	}
}

// UnmarshalBinary is the inverse of MarshalBinary.
func (r *Reading) UnmarshalBinary(p []byte) error {
	number := func() (int, bool) {
		v, n := binary.Uvarint(p)
		if n <= 0 || v > math.MaxInt32 {
			return 0, false
		}
		p = p[n:]
		return int(v), true
	}
	damaged := fmt.Errorf("decode reading: %w", syscall.EINVAL)
	count, ok := number()
	if !ok || count == 0 {
		return damaged
	}
	read := Reading{}
	for range count {
		size, ok := number()
		if !ok || len(p) < size+nodeSize {
			return damaged
		}
		read.add([]node{nodeOf(string(p[:size]), p[size:])})
		p = p[size+nodeSize:]
	}
	var rest others
	if err := wire.NewDecoder(bytes.NewReader(p)).Decode(&rest); err != nil {
		return fmt.Errorf("decode reading: %w", err)
	}
	read.rare, read.sums = rest.Rare, rest.Sums
	*r = read
	return nil
}
