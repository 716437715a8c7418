// Package snapshot packs the changes that one step made into one blob, and
// reads them back. A blob is a tar stream with OCI whiteouts, compressed with
// zstd: a valid OCI layer (application/vnd.oci.image.layer.v1.tar+zstd).
//
// The package never touches a root: it turns entries into bytes and bytes into
// entries.
package snapshot

import (
	"io"
	"iter"
	"time"
)

// Kind says what an Entry does to its path.
type Kind uint8

// The kinds of entries.
const (
	File    Kind = iota + 1 // a regular file; Size and Open
	Dir                     // a directory; its content is in other entries
	Symlink                 // Target is the text of the link
	Link                    // a hard link; Target is the Path of an earlier File of the same stream
	Char                    // a character device; Major and Minor
	Block                   // a block device; Major and Minor
	Fifo                    // a named pipe
	Delete                  // the path, and all below it, is gone (an OCI whiteout)
	Opaque                  // all that the directory at Path held before this stream is gone (an OCI opaque whiteout); follows the Dir of that path
)

// An Entry is one change of a root. Entries of a stream stand in this order:
// a directory before what it holds; an Opaque directly after its Dir; a Link
// after its target. A path has one entry, besides a Dir and its Opaque.
// The directory of the root itself has no entry.
type Entry struct {
	// Path is relative to the root, slash-separated, clean, and names
	// something below the root: never "", ".", "/x", "x/", "x/../y".
	// It may hold any other bytes; UTF-8 is not required.
	Path string
	Kind Kind

	// Implied marks a directory that is made if nothing, or not a directory (directly
	// or through a symlink), stands there, and is otherwise left as it is:
	// what WORKDIR and the dest of FETCH ask for.
	Implied bool

	Mode    uint32 // permission bits with setuid, setgid and sticky: mode & 0o7777
	UID     int
	GID     int
	Size    int64 // bytes of a File
	ModTime time.Time
	Target  string // see Symlink and Link
	Major   uint32 // see Char and Block
	Minor   uint32
	Xattrs  map[string]string // extended attributes by full name, security.capability and POSIX ACLs included

	// Data lists where a sparse File has data, in order and without overlap;
	// the rest of it reads as zeros and takes no space. nil: not sparse.
	Data []Extent

	// Open returns the content of a File, Size bytes of it (holes read as
	// zeros). The caller closes it. An entry that was read from a stream can
	// be opened once, and only until the next entry is asked for.
	Open func() (io.ReadCloser, error)

	// Content is what Open returns, where it is in memory; nil where it is not.
	// It must not be changed, and stays good, in memory, while it is referred to.
	Content []byte

	// Release, where it is not nil, is to be called once by who needs Content, and
	// Open, no more: the memory is used for entries to come. It may be left out.
	Release func()
}

// An Extent is a run of bytes in a file.
type Extent struct{ Offset, Length int64 }

// Changes is a stream of entries: the one currency between what finds changes,
// what finds them, what carries them and what applies them. An error ends the
// stream; what came before it must not be taken for the whole.
type Changes = iter.Seq2[*Entry, error]
