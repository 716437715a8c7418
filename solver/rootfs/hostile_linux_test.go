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
	"strings"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/clayer/clayer/cache/snapshot"
	"github.com/clayer/clayer/solver/rootfs/treetest"
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
		if undone, err := l.Undo(t.Context(), 0, false); err != nil || len(undone.Kept) > 0 {
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

// What there is no room for is refused before it is written, with both sizes.
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

// The memory of an apply does not grow with the number of entries: what is
// remembered of each is its hash, and where its line is.
func TestApplyManyEntries(t *testing.T) {
	if testing.Short() {
		t.Skip("slow")
	}
	r, err := Open(filepath.Join(fastDir(t), "root"), Options{})
	if err != nil {
		t.Fatal(err)
	}
	l, err := r.Lock(t.Context(), false, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Unlock()
	const n = 100_000
	var most uint64
	changes := func(yield func(*snapshot.Entry, error) bool) {
		for i := range n {
			if i%20_000 == 0 {
				var m runtime.MemStats
				runtime.GC()
				runtime.ReadMemStats(&m)
				most = max(most, m.HeapAlloc)
			}
			if !yield(&snapshot.Entry{Path: fmt.Sprintf("d%d/l%d", i/1000, i), Kind: snapshot.Symlink, Target: "x", ModTime: when}, nil) {
				return
			}
		}
	}
	if res, err := l.Apply(t.Context(), step("1"), changes); err != nil || len(res.Problems) > 0 {
		t.Fatal(err, res.Problems)
	}
	commit(t, l)
	if most > 64<<20 {
		t.Errorf("%d MB are in use for %d entries", most>>20, n)
	}
	undone, err := l.Undo(t.Context(), 0, false)
	if err != nil || len(undone.Kept)+len(undone.Problems) > 0 {
		t.Fatal(err, len(undone.Kept), len(undone.Problems))
	}
	commit(t, l)
	shell(t, r.Dir(), `[ "$(ls)" = var ]`)
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
	f.Add(pack(folderEntry("d"), file("d/f", "x"), symlink("l", "/etc"), gone("keep")))
	f.Add(pack(file("a", "x"), &snapshot.Entry{Path: "b", Kind: snapshot.Link, Target: "a"}))
	f.Add(pack(folderEntry("dir"), &snapshot.Entry{Path: "dir", Kind: snapshot.Opaque}, file("dir/n", "x")))
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
			if undone, err := l.Undo(t.Context(), 0, false); err != nil || len(undone.Kept)+len(undone.Problems) > 0 {
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
