package tree

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/clayer/clayer/cache/snapshot"
)

// Of a root that is in use, files up to smallFile are read whole before a byte
// is passed on, and so can be read again when they change meanwhile.
const (
	smallFile = 1 << 20
	retries   = 3
	pause     = 20 * time.Millisecond
)

// fillStill is for a root that is in use: others than the RUN may write there,
// a daemon its log. A file is captured as it stands, as long as it stands still
// for the time that reading it takes; if not, the error wraps ErrBusy and names
// it. When the stream is read once more, what changed since the reading is reported
// as it is by then.
func fillStill(from *source) filler {
	tried := make(map[string]bool)
	return func(n *node, path string, e *snapshot.Entry) error {
		want := stateOf(n)
		if tried[path] || n.is(sparse) {
			f, err := openState(from, path)
			if errors.Is(err, fs.ErrNotExist) && tried[path] {
				*e = snapshot.Entry{Path: path, Kind: snapshot.Delete} // it has gone since
				return nil
			}
			if err != nil {
				return err
			}
			defer f.Close()
			st := f.state
			if st != want && !tried[path] {
				tried[path] = true
				return busy(path)
			}
			want = st
			e.Mode, e.UID, e.GID, e.Size, e.ModTime = st.mode&0o7777, int(st.uid), int(st.gid), st.size, st.mtime.time()
			if n.is(sparse) {
				if err := holes(f, e); err != nil {
					return err
				}
			}
		}
		tried[path] = true
		e.Open = func() (io.ReadCloser, error) {
			var err error
			for i := range retries {
				if i > 0 {
					time.Sleep(pause)
				}
				var r io.ReadCloser
				if r, err = readStill(from, path, want); err == nil || !errors.Is(err, ErrBusy) {
					return r, err
				}
			}
			return nil, err
		}
		return nil
	}
}

// fileState is what changes when a file does.
type fileState struct {
	mode, uid, gid uint32
	size           int64
	mtime, ctime   stamp
}

func stateOf(n *node) fileState {
	return fileState{uint32(n.Mode), n.UID, n.GID, n.Size, n.mtime(), n.ctime()}
}

func openState(from *source, path string) (*opened, error) {
	f, err := from.file(path)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ELOOP) {
		return nil, fmt.Errorf("%w: %w", busy(path), err)
	}
	if err == nil && f.state.mode&unix.S_IFMT != unix.S_IFREG {
		f.Close()
		err = busy(path)
	}
	if err != nil {
		return nil, err
	}
	return f, nil
}

func busy(path string) error { return fmt.Errorf("%q %w%s", path, ErrBusy, writers(path)) }

func readStill(from *source, path string, want fileState) (io.ReadCloser, error) {
	f, err := openState(from, path)
	if err != nil {
		return nil, err
	}
	if f.state != want {
		f.Close()
		return nil, busy(path)
	}
	s := &stillFile{Reader: io.LimitReader(f, want.size), f: f, want: want}
	if want.size > smallFile {
		return s, nil
	}
	content := make([]byte, want.size)
	_, err = io.ReadFull(s, content)
	if err == io.EOF || err == io.ErrUnexpectedEOF {
		err = busy(path)
	}
	if err := errors.Join(err, s.Close()); err != nil {
		return nil, err
	}
	return io.NopCloser(bytes.NewReader(content)), nil
}

// stillFile is a file that must not change until it is closed.
type stillFile struct {
	io.Reader
	f    *opened
	want fileState
}

func (s *stillFile) Close() error {
	st, err := s.f.now()
	err = errors.Join(err, s.f.Close())
	if err == nil && st != s.want {
		err = busy(s.f.name)
	}
	return err
}

// writers names a process that has the file open, if that can be seen.
func writers(path string) string {
	procs, err := os.ReadDir("/proc")
	if err != nil {
		return ""
	}
	for _, p := range procs {
		fds, err := os.ReadDir("/proc/" + p.Name() + "/fd")
		if err != nil {
			continue
		}
		for _, fd := range fds {
			at, err := os.Readlink("/proc/" + p.Name() + "/fd/" + fd.Name())
			if err != nil || at != "/"+path && !hasPathSuffix(at, path) || p.Name() == fmt.Sprint(os.Getpid()) {
				continue
			}
			comm, _ := os.ReadFile("/proc/" + p.Name() + "/comm")
			return fmt.Sprintf(" (process %s, %s, has it open)", p.Name(), bytes.TrimSpace(comm))
		}
	}
	return ""
}

func hasPathSuffix(at, path string) bool {
	return len(at) > len(path) && at[len(at)-len(path)-1:] == "/"+path
}
