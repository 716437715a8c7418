package cache

import (
	"errors"
	"fmt"
	"hash/maphash"
	"io"

	"github.com/opencontainers/go-digest"

	"github.com/clayer/clayer/cache/snapshot"
)

// An InvalidError says that a blob has the bytes that its descriptor says, and that
// what is in it contradicts the descriptor, or itself, or is no snapshot at all. It
// wraps ErrNotCached: such a blob is as good as none.
type InvalidError struct {
	Digest digest.Digest
	Err    error
}

func (e *InvalidError) Error() string { return fmt.Sprintf("invalid snapshot %s: %v", e.Digest, e.Err) }

// Unwrap returns both what it is and why.
func (e *InvalidError) Unwrap() []error { return []error{ErrNotCached, e.Err} }

// Contents are the entries of a blob as they are read.
type Contents struct {
	desc  Descriptor
	seen  tally
	whole bool // all entries were read
}

// NewContents begins to read the entries of the blob of d.
func NewContents(d Descriptor) *Contents {
	c := &Contents{desc: d}
	c.seen.hash.SetSeed(maphash.MakeSeed())
	return c
}

// Entries hands on the entries that are read from the blob. Where they are not as
// many, or not as large, as the descriptor says, or the stream makes no sense, it
// ends with an *InvalidError; so does reading the content of a file.
func (c *Contents) Entries(changes snapshot.Changes) snapshot.Changes {
	return func(yield func(*snapshot.Entry, error) bool) {
		for e, err := range changes {
			if err != nil {
				yield(nil, c.invalid(err))
				return
			}
			c.seen.add(e.Path, e.Kind, e.Size)
			if c.seen.entries > c.desc.Entries || c.seen.bytes > c.desc.Bytes {
				break
			}
			if e.Kind == snapshot.File && e.Content == nil && e.Open != nil {
				open := e.Open
				e.Open = func() (io.ReadCloser, error) {
					f, err := open()
					if err != nil {
						return nil, c.invalid(err)
					}
					return &content{f, c}, nil
				}
			}
			if !yield(e, nil) {
				return
			}
		}
		if c.seen.entries != c.desc.Entries || c.seen.bytes != c.desc.Bytes {
			yield(nil, c.invalid(fmt.Errorf("it holds %s, and its descriptor says %d in %d bytes", &c.seen, c.desc.Entries, c.desc.Bytes)))
			return
		}
		c.whole = true
	}
}

// CheckTable compares what Entries handed on with the blob's table of contents, if
// it has one: nil before all entries were read. The error is an *InvalidError.
func (c *Contents) CheckTable(blob io.ReaderAt) error {
	if !c.whole {
		return nil
	}
	var listed tally
	listed.hash.SetSeed(c.seen.hash.Seed())
	for l, err := range snapshot.List(blob, c.desc.Size) {
		if errors.Is(err, snapshot.ErrNoTOC) {
			return nil
		}
		if err != nil {
			return c.invalid(err)
		}
		listed.add(l.Path, l.Kind, l.Size)
	}
	if listed.hash.Sum64() != c.seen.hash.Sum64() {
		return c.invalid(fmt.Errorf("it holds %s, and its table of contents lists others: %s", &c.seen, &listed))
	}
	return nil
}

func (c *Contents) invalid(err error) error {
	var known *InvalidError
	if errors.As(err, &known) {
		return err
	}
	return &InvalidError{c.desc.Digest, err}
}

// content is that of a file in a blob.
type content struct {
	io.ReadCloser
	c *Contents
}

func (f *content) Read(p []byte) (int, error) {
	n, err := f.ReadCloser.Read(p)
	if err != nil && err != io.EOF {
		err = f.c.invalid(err)
	}
	return n, err
}

// A tally counts entries, and hashes what they are.
type tally struct {
	hash    maphash.Hash
	entries int
	bytes   int64
}

func (t *tally) add(path string, kind snapshot.Kind, size int64) {
	if kind != snapshot.File {
		size = 0
	}
	t.entries++
	t.bytes += size
	var b [10]byte
	b[0] = byte(kind)
	for i := range 8 {
		b[i+1] = byte(size >> (8 * i))
	}
	t.hash.Write(b[:])
	t.hash.WriteString(path)
}

func (t *tally) String() string { return fmt.Sprintf("%d entries in %d bytes", t.entries, t.bytes) }
