package rootfs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/clayer/clayer/cache/snapshot"
	"github.com/clayer/clayer/internal/rounds"
	"github.com/clayer/clayer/internal/treetest"
)

// A program that runs is replaced, and put back, without an instant in which its
// name leads to nothing.
func TestApplyOverWhatIsInUse(t *testing.T) {
	r, l := testRoot(t)
	sleep, err := exec.LookPath("sleep")
	if err != nil {
		t.Fatal(err)
	}
	prog := filepath.Join(r.Dir(), "prog")
	shell(t, r.Dir(), "cp "+sleep+" prog")
	before := treetest.Describe(t, r.Dir(), func(p string) bool { return p == "var" })
	cmd := exec.Command(prog, "60")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()
	defer cmd.Process.Kill()
	var stop atomic.Bool
	missing := make(chan int)
	go func() {
		n := 0
		for !stop.Load() {
			if _, err := os.Lstat(prog); err != nil {
				n++
			}
		}
		missing <- n
	}()
	for i := range 50 {
		applyAll(t, l, fmt.Sprint(i), with(file("prog", "new"), func(e *snapshot.Entry) { e.Mode = 0o755 }))
		commit(t, l)
		if undone, err := l.Undo(t.Context(), 0, false); err != nil || len(undone.Preserved) > 0 {
			t.Fatal(err, undone)
		}
		commit(t, l)
	}
	stop.Store(true)
	if n := <-missing; n > 0 {
		t.Errorf("%d times there was no file of that name", n)
	}
	treetest.Diff(t, before, treetest.Describe(t, r.Dir(), func(p string) bool { return p == "var" }))
	if err := cmd.Process.Signal(unix.Signal(0)); err != nil {
		t.Errorf("the program ended: %v", err)
	}
}

// What there is no space for is refused before it is written, with both sizes.
func TestApplyATerabyteOfZeros(t *testing.T) {
	r, l := testRoot(t)
	huge := with(file("huge", ""), func(e *snapshot.Entry) {
		e.Size = 1 << 60
		e.Content, e.Open = nil, func() (io.ReadCloser, error) {
			t.Error("it was opened")
			return nil, errors.New("opened")
		}
	})
	_, err := l.Apply(t.Context(), step("1"), stream(file("a", "x"), huge))
	if !errors.Is(err, unix.ENOSPC) || !strings.Contains(err.Error(), fmt.Sprint(1<<60)) {
		t.Errorf("error = %v, want ENOSPC and the size", err)
	}
	if err := l.Rollback(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(filepath.Join(r.Dir(), "a")); err == nil {
		t.Error("a is there")
	}
}

// A million entries take 50 to 220 MB, by the entry, and no more: of each its hash is
// remembered, and where its line is; of a directory its path too, until it has its
// time. It is the same for those that are refused.
func TestApplyManyEntries(t *testing.T) {
	n := rounds.Of(10_000, 30_000, 100_000) // ROOTFS_TEST_ENTRIES=1000000 takes minutes
	if s := os.Getenv("ROOTFS_TEST_ENTRIES"); s != "" {
		var err error
		if n, err = strconv.Atoi(s); err != nil {
			t.Fatal(err)
		}
	}
	entry := func(path string) *snapshot.Entry {
		return &snapshot.Entry{Path: path, Kind: snapshot.Symlink, Target: "x", ModTime: when, UID: os.Geteuid(), GID: os.Getegid()}
	}
	for _, tt := range []struct {
		name    string
		perItem int // bytes of memory
		entry   func(i int) *snapshot.Entry
	}{
		{"links", 60, func(i int) *snapshot.Entry { return entry(fmt.Sprintf("d%d/l%d", i/1000, i)) }},
		{"directories", 300, func(i int) *snapshot.Entry { return dirEntry(fmt.Sprintf("f%d", i)) }},
		{"problems", 150, func(i int) *snapshot.Entry { return entry(fmt.Sprintf("file/l%d", i)) }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r, err := Open(filepath.Join(fastDir(t), "root"), Options{})
			if err != nil {
				t.Fatal(err)
			}
			l, err := r.Lock(t.Context(), false, nil)
			if err != nil {
				t.Fatal(err)
			}
			defer l.Unlock()
			shell(t, r.Dir(), "echo > file")
			var most uint64
			look := func() {
				var m runtime.MemStats
				runtime.GC()
				runtime.ReadMemStats(&m)
				most = max(most, m.HeapAlloc)
			}
			changes := func(yield func(*snapshot.Entry, error) bool) {
				for i := range n {
					if i%100_000 == 99_999 || i == n-1 {
						look()
					}
					if !yield(tt.entry(i), nil) {
						return
					}
				}
			}
			res, err := l.Apply(t.Context(), step("1"), changes)
			if err != nil || res.Entries+len(res.Problems) != n {
				t.Fatal(err, res.Entries, len(res.Problems))
			}
			look()
			commit(t, l)
			undone, err := l.Undo(t.Context(), 0, false)
			if err != nil || len(undone.Preserved)+len(undone.Problems) > 0 {
				t.Fatal(err, len(undone.Preserved), len(undone.Problems))
			}
			look()
			commit(t, l)
			t.Logf("%d MB for %d entries", most>>20, n)
			if bound := uint64(64<<20 + n*tt.perItem); most > bound {
				t.Errorf("%d MB are in use for %d entries, more than %d", most>>20, n, bound>>20)
			}
			shell(t, r.Dir(), `[ "$(ls)" = "file
var" ]`)
		})
	}
}

// Whatever a blob holds, it is applied inside the root or refused, and undone to
// what was there.
func FuzzApply(f *testing.F) {
	pack := func(es ...*snapshot.Entry) []byte {
		var b bytes.Buffer
		if _, err := snapshot.Pack(context.Background(), &b, stream(es...), snapshot.PackOptions{}); err != nil {
			f.Fatal(err)
		}
		return b.Bytes()
	}
	f.Add(pack(dirEntry("d"), file("d/f", "x"), symlink("l", "/etc"), gone("keep")))
	f.Add(pack(file("a", "x"), &snapshot.Entry{Path: "b", Kind: snapshot.Link, Target: "a"}))
	f.Add(pack(dirEntry("dir"), &snapshot.Entry{Path: "dir", Kind: snapshot.Opaque}, file("dir/n", "x")))
	f.Add(tarOf(f, "--transform=s,^,../,", "keep"))
	f.Add(tarOf(f, "--absolute-names", "keep"))
	f.Add(tarOf(f, "--no-recursion", "."))
	f.Fuzz(func(t *testing.T, blob []byte) {
		if len(blob) > 1<<20 {
			return
		}
		dir := fastDir(t)
		defer os.RemoveAll(dir)
		in := func(p string) string { return filepath.Join(dir, p) }
		err := errors.Join(
			os.MkdirAll(in("root/dir/sub"), 0o755), os.Mkdir(in("outside"), 0o755), os.Symlink("../outside", in("root/out")),
			os.WriteFile(in("root/keep"), []byte("k"), 0o644), os.WriteFile(in("root/dir/old"), []byte("o"), 0o644), os.WriteFile(in("outside/f"), []byte("o"), 0o644))
		if err != nil {
			t.Fatal(err)
		}
		outside := treetest.Describe(t, filepath.Join(dir, "outside"), nil)
		before := treetest.Describe(t, filepath.Join(dir, "root"), nil)
		r, err := Open(filepath.Join(dir, "root"), Options{})
		if err != nil {
			t.Fatal(err)
		}
		l, err := r.Lock(t.Context(), false, nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := l.Apply(t.Context(), step("1"), snapshot.Read(bytes.NewReader(blob))); err == nil {
			commit(t, l)
			if undone, err := l.Undo(t.Context(), 0, false); err != nil || len(undone.Preserved)+len(undone.Problems) > 0 {
				t.Fatal(err, undone)
			}
			if err := l.Commit("test", nil, nil); err != nil {
				t.Fatal(err)
			}
		}
		if err := l.Unlock(); err != nil {
			t.Fatal(err)
		}
		treetest.Diff(t, before, treetest.Describe(t, filepath.Join(dir, "root"), nil))
		treetest.Diff(t, outside, treetest.Describe(t, filepath.Join(dir, "outside"), nil))
	})
}

// tarOf is a tar of a file, made by tar.
func tarOf(f *testing.F, args ...string) []byte {
	dir := f.TempDir()
	shell(f, dir, "echo x > keep")
	cmd := exec.Command("tar", append([]string{"-cf", "-"}, args...)...)
	cmd.Dir = dir
	out, err := cmd.Output()
	if err != nil {
		f.Skip("no tar: ", err)
	}
	return out
}
