package tree

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/clayer/clayer/cache/snapshot"
)

// A file that is something else by the time that it is opened is refused, at once, and none
// of what is there instead is captured.
func TestFilesThatAreSwapped(t *testing.T) {
	swap := func(path string, with func() error) func() error {
		return func() error { return errors.Join(os.Remove(path), with()) }
	}
	dir := t.TempDir()
	at := filepath.Join(dir, "d", "f")
	for name, change := range map[string]func() error{
		"a FIFO":                swap(at, func() error { return unix.Mkfifo(at, 0o644) }),
		"a link to a file":      swap(at, func() error { return os.Symlink("/etc/passwd", at) }),
		"a directory":           swap(at, func() error { return os.Mkdir(at, 0o755) }),
		"a larger file":         func() error { return os.WriteFile(at, []byte("content, and more"), 0o644) },
		"a link as its parent":  func() error { return errors.Join(os.RemoveAll(filepath.Dir(at)), os.Symlink("/etc", filepath.Dir(at))) },
		"nothing":               func() error { return os.Remove(at) },
		"nothing of its parent": func() error { return os.RemoveAll(filepath.Dir(at)) },
	} {
		if err := errors.Join(os.RemoveAll(filepath.Dir(at)), os.MkdirAll(filepath.Dir(at), 0o755), os.WriteFile(at, []byte("content"), 0o644)); err != nil {
			t.Fatal(err)
		}
		r, err := Read(t.Context(), dir, Options{})
		if err != nil {
			t.Fatal(err)
		}
		if err := change(); err != nil {
			t.Fatal(err)
		}
		w := Whole{Reading: r, Dir: dir}
		if _, err := snapshot.Pack(context.Background(), io.Discard, w.Changes(), snapshot.PackOptions{}); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

// A directory that another took the place of is opened again, and none stays open after the
// stream.
func TestSourceHoldsOneDirectory(t *testing.T) {
	dir := t.TempDir()
	put := func(name, content string) {
		t.Helper()
		p := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(p), 0o755), os.WriteFile(p, []byte(content), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	put("d/a", "first")
	put("d/b", "second")
	s := newSource(nil, dir)
	read := func(name string) string {
		t.Helper()
		f, err := s.file(name)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		content, err := io.ReadAll(f)
		if err != nil {
			t.Fatal(err)
		}
		return string(content)
	}
	if got := read("d/a") + read("d/b"); got != "firstsecond" {
		t.Error(got)
	}
	if err := os.Rename(filepath.Join(dir, "d"), filepath.Join(dir, "old")); err != nil {
		t.Fatal(err)
	}
	put("d/c", "third")
	if got := read("d/c"); got != "third" {
		t.Error(got)
	}
	s.close()
	fds, err := filepath.Glob("/proc/self/fd/*")
	if err != nil || len(fds) == 0 {
		t.Fatal(err)
	}
	for _, fd := range fds {
		if to, err := os.Readlink(fd); err == nil && strings.HasPrefix(to, dir) {
			t.Errorf("%s is open", to)
		}
	}
	if got := read("d/c"); got != "third" { // by who has an entry of a stream that has ended
		t.Error(got)
	}
	s.close()
}

// A file ends where it does, not where its size was: one that grows or shrinks while it is
// read shows it.
func TestOpenedFilesEnd(t *testing.T) {
	at := filepath.Join(t.TempDir(), "f")
	if err := os.WriteFile(at, []byte("content"), 0o644); err != nil {
		t.Fatal(err)
	}
	s := newSource(nil, filepath.Dir(at))
	defer s.close()
	f, err := s.file("f")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	buf := make([]byte, 8)
	if n, err := f.Read(buf[:7]); n != 7 || err != nil {
		t.Errorf("as many as are there: %d, %v", n, err)
	}
	if n, err := f.Read(buf); n != 0 || err != io.EOF {
		t.Errorf("the end: %d, %v", n, err)
	}
	g, err := s.file("f")
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	if err := os.WriteFile(at, []byte("content, and more"), 0o644); err != nil {
		t.Fatal(err)
	}
	if all, err := io.ReadAll(g); string(all) != "content, and more" || err != nil {
		t.Errorf("grown: %q, %v", all, err)
	}
}
