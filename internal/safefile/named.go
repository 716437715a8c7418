package safefile

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Open opens a file that the user named, to read it: links are followed. It must be
// a regular one, and opening it waits for nothing.
func Open(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = &fs.PathError{Op: "open", Path: path, Err: fmt.Errorf("%s: %w", kind(info.Mode()), ErrNotRegular)}
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// Read reads a file that has at most limit bytes, as Open opens it.
func Read(path string, limit int64) ([]byte, error) {
	f, err := Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return ReadAll(f, limit)
}

// ReadInput is Read for an argument of the command line, which may also be "-" or
// name a descriptor of this process, as "<(command)" of a shell does. Such a
// pipe or terminal can be read once. The wait for it ends with ctx.
func ReadInput(ctx context.Context, path string, limit int64) ([]byte, error) {
	fd, ok := IsInput(path)
	if !ok {
		return Read(path, limit)
	}
	// A duplicate: a pipe's name opened again would wait for a writer.
	own, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	f := os.NewFile(uintptr(own), path)
	type answer struct {
		data []byte
		err  error
	}
	read := make(chan answer, 1)
	go func() { // it outlives a wait that was given up: a terminal's read can't be interrupted
		defer f.Close()
		data, err := ReadAll(f, limit)
		read <- answer{data, err}
	}()
	select {
	case a := <-read:
		return a.data, a.err
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// IsInput reports whether an argument is "-" or names a descriptor of this
// process that is not a regular file, and which.
func IsInput(path string) (fd int, ok bool) {
	if path == "-" {
		return 0, true
	}
	path = filepath.Clean(path)
	if path == "/dev/stdin" {
		path = "/dev/fd/0"
	}
	for _, dir := range []string{"/dev/fd/", "/proc/self/fd/"} {
		number, found := strings.CutPrefix(path, dir)
		if !found {
			continue
		}
		fd, err := strconv.Atoi(number)
		if err != nil || fd < 0 {
			return 0, false
		}
		var st unix.Stat_t
		if err := unix.Fstat(fd, &st); err != nil {
			return 0, false
		}
		return fd, st.Mode&unix.S_IFMT != unix.S_IFREG && st.Mode&unix.S_IFMT != unix.S_IFDIR
	}
	return 0, false
}

// ReadAll reads a file to its end, which is at most limit bytes away.
func ReadAll(f *os.File, limit int64) ([]byte, error) {
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if info.Size() > limit { // known without reading it
		return nil, tooLarge(f.Name(), limit)
	}
	// One read for the file, and one that finds its end. The size is no more than a
	// hint: a file of /proc says 0.
	var data bytes.Buffer
	data.Grow(int(info.Size()) + bytes.MinRead)
	if _, err := data.ReadFrom(io.LimitReader(f, limit+1)); err != nil {
		return nil, err
	}
	if int64(data.Len()) > limit {
		return nil, tooLarge(f.Name(), limit)
	}
	return data.Bytes(), nil
}
