package tree

import (
	"errors"
	"fmt"
	"io"
	"os"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/clayer/clayer/cache/snapshot"
	"github.com/clayer/clayer/internal/beneath"
)

// A source opens the files of a stream: below a directory, of which it holds the one open in
// which the last file is, or, without one, by a function.
type source struct {
	open func(path string) (*os.File, error)

	mu      sync.Mutex
	parents beneath.Parents
}

func newSource(open func(path string) (*os.File, error), dir string) *source {
	return &source{open: open, parents: beneath.Parents{Dir: dir}}
}

// close closes the directory. A file can still be opened.
func (s *source) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.parents.Close()
}

// file opens a file for reading, and follows no link. It does not wait for the writer of a
// FIFO that is there instead.
func (s *source) file(name string) (*opened, error) {
	o := &opened{name: name}
	if s.parents.Dir == "" {
		f, err := s.open(name)
		if err != nil {
			return nil, err
		}
		o.own, o.fd = f, int(f.Fd())
	} else {
		s.mu.Lock()
		fd, err := s.parents.File(name)
		s.mu.Unlock()
		if err != nil {
			return nil, err
		}
		o.fd = fd
	}
	var err error
	if o.state, err = o.now(); err != nil {
		o.Close()
		return nil, err
	}
	return o, nil
}

// An opened file is read by system calls alone: an os.File takes some more, and a file of a
// stream is open for one read.
type opened struct {
	fd    int
	own   *os.File // that it is of; nil for a descriptor of its own
	name  string
	state fileState // when it was opened
	read  int64
}

// Read reads as io.Reader has it. What it read up to the size of the file, and got less than
// it asked for, is all: there is no call more to be told so.
func (o *opened) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	for {
		n, err := unix.Read(o.fd, p)
		switch {
		case err == unix.EINTR:
			continue
		case err != nil:
			return 0, &os.PathError{Op: "read", Path: o.name, Err: err}
		}
		o.read += int64(n)
		if n == 0 || n < len(p) && o.read == o.state.size {
			return n, io.EOF
		}
		return n, nil
	}
}

// now returns what the file is by now.
func (o *opened) now() (fileState, error) {
	var st unix.Stat_t
	if err := unix.Fstat(o.fd, &st); err != nil {
		return fileState{}, &os.PathError{Op: "stat", Path: o.name, Err: err}
	}
	return fileState{
		st.Mode, st.Uid, st.Gid, st.Size,
		stamp{int64(st.Mtim.Sec), int32(st.Mtim.Nsec)}, stamp{int64(st.Ctim.Sec), int32(st.Ctim.Nsec)},
	}, nil
}

func (o *opened) Close() error {
	if o.own != nil {
		return o.own.Close()
	}
	if err := unix.Close(o.fd); err != nil {
		return &os.PathError{Op: "close", Path: o.name, Err: err}
	}
	return nil
}

// fillFrom is for a tree that no other process changes: a file that is not what was
// read is an error that wraps ErrBusy.
func fillFrom(from *source) filler {
	return func(n *node, path string, e *snapshot.Entry) error {
		size := n.Size
		as := func() (*opened, error) {
			f, err := from.file(path)
			if errors.Is(err, unix.ELOOP) || err == nil && (f.state.mode&unix.S_IFMT != unix.S_IFREG || f.state.size != size) {
				if err == nil {
					err = fmt.Errorf("%d bytes, now %d", size, f.state.size)
					f.Close()
				}
				return nil, fmt.Errorf("%q %w: %w", path, ErrBusy, err)
			}
			return f, err
		}
		e.Open = func() (io.ReadCloser, error) {
			f, err := as()
			if err != nil {
				return nil, err
			}
			return f, nil
		}
		if !n.is(sparse) {
			return nil
		}
		f, err := as()
		if err != nil {
			return err
		}
		defer f.Close()
		return holes(f, e)
	}
}

// holes notes where a file has none.
func holes(f *opened, e *snapshot.Entry) error {
	data, err := beneath.Data(f.fd, e.Size)
	if err != nil {
		return fmt.Errorf("find the holes of %q: %w", f.name, err)
	}
	if data != nil { // nil: it has no holes
		e.Data = make([]snapshot.Extent, len(data))
	}
	for i, x := range data {
		e.Data[i] = snapshot.Extent(x)
	}
	return nil
}
