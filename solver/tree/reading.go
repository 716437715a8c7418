// Package tree reads the metadata of a tree, and tells what happened between
// two readings of an overlay's upper folder as a stream of entries.
//
// It writes to no tree, but for the probe file of Barrier.
package tree

import (
	"bytes"
	"encoding/gob"
	"fmt"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Options say what a reading covers.
type Options struct {
	// Prune, if set, is asked for every path; where it says true the path
	// and all below it is left out of the reading.
	Prune func(path string) bool

	// Below restricts the reading to one path, slash-separated and relative
	// to the tree, what is below it, and the folders above it. "" means all.
	Below string

	// Ownerless records every owner as 0:0. It is for a user namespace that
	// maps a single id: whoever runs there is root and can give nothing to
	// anyone else, and every other owner reads as 65534, which says nothing.
	Ownerless bool
}

// A Reading is the metadata of a tree at one time, held in memory: about 150
// bytes an entry. It is never changed after it was made.
type Reading struct {
	// nodes in the order of the walk: a folder before what it holds, names
	// of one folder in byte order. The first is the tree's own folder.
	nodes []node
}

// stamp is a time as the kernel gives it. time.Time would be three times as
// large, and nanoseconds in an int64 end in 2262, where mtimes need not.
type stamp struct {
	Sec  int64
	Nsec int32
}

func (s stamp) time() time.Time { return time.Unix(s.Sec, int64(s.Nsec)) }

func (s stamp) before(t stamp) bool {
	return s.Sec < t.Sec || s.Sec == t.Sec && s.Nsec < t.Nsec
}

// node is one entry of a reading. Its fields are exported for gob.
type node struct {
	Name     string
	End      int32  // the index behind the last node below this one
	Mode     uint32 // st_mode, type bits included
	UID, GID uint32
	Nlink    uint32
	Ino      uint64
	Rdev     uint64
	Size     int64
	Blocks   int64 // of 512 bytes
	MTime    stamp
	CTime    stamp
	Target   string            // of a symlink
	Xattrs   map[string]string // those that snapshots keep; nil if none
	Whiteout bool              // an overlay's mark: the name is gone
	Opaque   bool              // an overlay's mark: the lower folder of that name is hidden
}

func (n *node) kind() uint32  { return n.Mode & unix.S_IFMT }
func (n *node) isDir() bool   { return n.kind() == unix.S_IFDIR }
func (n *node) isFile() bool  { return n.kind() == unix.S_IFREG && !n.Whiteout }
func (n *node) linked() bool  { return n.isFile() && n.Nlink > 1 }
func (n *node) nothing() bool { return n.Whiteout || n.kind() == unix.S_IFSOCK }

// Len returns the number of entries, the tree's own folder not counted.
func (r *Reading) Len() int { return len(r.nodes) - 1 }

// Newest returns the latest ctime in the reading: the time of its last change,
// by the clock of its file system.
func (r *Reading) Newest() time.Time { return r.newest().time() }

func (r *Reading) newest() stamp {
	var s stamp
	for i := range r.nodes {
		if s.before(r.nodes[i].CTime) {
			s = r.nodes[i].CTime
		}
	}
	return s
}

// list returns the indices of the direct children of the folder at i; none if i < 0.
func (r *Reading) list(i int32) []int32 {
	if i < 0 {
		return nil
	}
	var l []int32
	for c := i + 1; c < r.nodes[i].End; c = r.nodes[c].End {
		l = append(l, c)
	}
	return l
}

// MarshalBinary encodes the reading for another process of the same build.
func (r *Reading) MarshalBinary() ([]byte, error) {
	var b bytes.Buffer
	err := gob.NewEncoder(&b).Encode(r.nodes)
	return b.Bytes(), err
}

// UnmarshalBinary is the inverse of MarshalBinary.
func (r *Reading) UnmarshalBinary(p []byte) error {
	r.nodes = nil
	if err := gob.NewDecoder(bytes.NewReader(p)).Decode(&r.nodes); err != nil {
		return fmt.Errorf("decode reading: %w", err)
	}
	if len(r.nodes) == 0 {
		return fmt.Errorf("decode reading: %w", syscall.EINVAL)
	}
	return nil
}
