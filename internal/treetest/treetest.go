//go:build linux

// Package treetest describes trees as text, for tests to compare: all that a
// snapshot has to keep.
package treetest

import (
	"crypto/sha256"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// Describe returns a line for each file below dir, sorted: type, mode, owner,
// size, time, device, link target, extended attributes, the first name of its
// hard links, and the digest of its content. skip leaves out paths relative to
// dir, and nil none. The directory dir itself has no line.
func Describe(t testing.TB, dir string, skip func(path string) bool) string {
	t.Helper()
	lines, err := Lines(dir, skip)
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join(lines, "\n") + "\n"
}

// Lines is Describe for callers that expect errors: a line for each file, sorted.
func Lines(dir string, skip func(path string) bool) ([]string, error) {
	var lines []string
	first := make(map[[2]uint64]string)
	var leave []func()
	defer func() {
		for _, f := range slices.Backward(leave) {
			f()
		}
	}()
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(dir, path)
		if err != nil || rel == "." {
			return err
		}
		if skip != nil && skip(rel) {
			if d.IsDir() {
				return fs.SkipDir
			}
			return nil
		}
		line, err := describe(path, rel, first, &leave)
		lines = append(lines, line)
		return err
	})
	slices.Sort(lines)
	return lines, err
}

// Enter lets this user read, enter and change a directory of his until leave is called,
// which returns to the mode that it had. A directory that is gone then is left alone.
func Enter(path string, st *unix.Stat_t) (leave func(), err error) {
	if st.Mode&unix.S_IFMT != unix.S_IFDIR || st.Mode&0o700 == 0o700 || os.Geteuid() == 0 {
		return func() {}, nil
	}
	leave = func() {
		var now unix.Stat_t
		if unix.Lstat(path, &now) == nil && now.Ino == st.Ino && now.Mode == st.Mode|0o700 {
			_ = unix.Chmod(path, st.Mode&0o7777)
		}
	}
	return leave, unix.Chmod(path, st.Mode&0o7777|0o700)
}

func describe(path, rel string, first map[[2]uint64]string, leave *[]func()) (string, error) {
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		return "", err
	}
	f, err := Enter(path, &st)
	if err != nil {
		return "", err
	}
	*leave = append(*leave, f)
	kind := map[uint32]string{
		unix.S_IFREG: "file", unix.S_IFDIR: "dir", unix.S_IFLNK: "symlink",
		unix.S_IFCHR: "char", unix.S_IFBLK: "block", unix.S_IFIFO: "fifo", unix.S_IFSOCK: "socket",
	}[st.Mode&unix.S_IFMT]
	line := fmt.Sprintf("%q %s %04o %d:%d %d.%09d", rel, kind, st.Mode&0o7777, st.Uid, st.Gid, st.Mtim.Sec, st.Mtim.Nsec)
	switch kind {
	case "file":
		sum, err := digestOf(path)
		if err != nil {
			return "", err
		}
		line += fmt.Sprintf(" %d %s", st.Size, sum)
	case "symlink":
		target, err := os.Readlink(path)
		if err != nil {
			return "", err
		}
		line += fmt.Sprintf(" -> %q", target)
	case "char", "block":
		line += fmt.Sprintf(" %d:%d", unix.Major(st.Rdev), unix.Minor(st.Rdev))
	}
	if st.Nlink > 1 && kind != "dir" {
		id := [2]uint64{st.Dev, st.Ino}
		if _, ok := first[id]; !ok {
			first[id] = rel // WalkDir goes in order
		}
		line += fmt.Sprintf(" link=%q", first[id])
	}
	xattrs, err := xattrs(path)
	return line + xattrs, err
}

func digestOf(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", err
	}
	return fmt.Sprintf("%x", h.Sum(nil)[:12]), nil
}

func xattrs(path string) (string, error) {
	buf := make([]byte, 64<<10)
	n, err := unix.Llistxattr(path, buf)
	if err == unix.ENOTSUP || err == unix.EPERM || n == 0 {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	names := strings.Split(strings.TrimRight(string(buf[:n]), "\x00"), "\x00")
	slices.Sort(names)
	var b strings.Builder
	for _, name := range names {
		value := make([]byte, 64<<10)
		n, err := unix.Lgetxattr(path, name, value)
		if err != nil {
			return "", err
		}
		fmt.Fprintf(&b, " %s=%q", name, value[:n])
	}
	return b.String(), nil
}

// Diff reports the lines in which two descriptions differ.
func Diff(t testing.TB, want, got string) {
	t.Helper()
	if want == got {
		return
	}
	diff := cmp.Diff(strings.Split(want, "\n"), strings.Split(got, "\n"))
	const most = 8000
	if len(diff) > most {
		diff = diff[:most] + "\n…"
	}
	t.Errorf("trees differ (-want +got):\n%s", diff)
}
