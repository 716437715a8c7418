package rootfs

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/clayer/clayer/cache/snapshot"
	"github.com/clayer/clayer/internal/treetest"
	"github.com/clayer/clayer/solver/internal/unpack"
)

// newDirs is a stream of several chunks that has directories of all sorts, most
// of them where nothing stands.
func newDirs(r *rand.Rand, links bool, n int) []*snapshot.Entry {
	es := []*snapshot.Entry{with(dirEntry("old"), func(e *snapshot.Entry) { e.Mode = 0o750 })}
	var files []string
	names := 0
	var grow func(dir string, depth int)
	grow = func(dir string, depth int) {
		if depth == 4 || r.IntN(10) > 0 { // else it is nobody's: those below need it
			es = append(es, with(dirEntry(dir), func(e *snapshot.Entry) {
				e.Mode = []uint32{0o755, 0o755, 0o700, 0o555, 0o2755, 0o1777}[r.IntN(6)]
				switch r.IntN(12) {
				case 0:
					e.Xattrs = map[string]string{"user.m": "x"}
				case 1:
					e.Implied = true
				}
			}))
			if r.IntN(8) == 0 {
				es = append(es, &snapshot.Entry{Path: dir, Kind: snapshot.Opaque})
			}
		}
		for range 3 + r.IntN(12) {
			names++
			p := path.Join(dir, fmt.Sprint("f", names))
			switch k := r.IntN(16); {
			case k == 0:
				es = append(es, symlink(p, "nowhere"))
			case k == 1:
				es = append(es, &snapshot.Entry{Path: p, Kind: snapshot.Fifo, Mode: 0o640, UID: os.Geteuid(), GID: os.Getegid(), ModTime: when})
			case k == 2:
				es = append(es, gone(p))
			case k < 5 && len(files) > 0 && links:
				es = append(es, &snapshot.Entry{Path: p, Kind: snapshot.Link, Target: files[r.IntN(len(files))]})
			default:
				es = append(es, with(file(p, fmt.Sprint(names)), func(e *snapshot.Entry) {
					e.Mode = []uint32{0o644, 0o600, 0o4755, 0o444}[r.IntN(4)]
					if r.IntN(5) == 0 {
						e.Content = nil // so that it is made by no worker
					}
				}))
				// A link to what something is in the way of depends on whether its target
				// is staged with it.
				if !strings.HasPrefix(p, "old/n7/d0/") {
					files = append(files, p)
				}
			}
		}
		for i := range r.IntN(5) {
			if depth > 0 {
				grow(fmt.Sprintf("%s/d%d", dir, i), depth-1)
			}
		}
	}
	for i := range n {
		grow(fmt.Sprintf("old/n%d", i), 4)
	}
	deep := "old/n999"
	for range 15 {
		es = append(es, dirEntry(deep), file(deep+"/f", "x"))
		deep += "/" + strings.Repeat("x", 250)
	}
	for i := range 5 {
		grow(fmt.Sprintf("through/m%d", i), 2)
	}
	return es
}

// Directories that are new come to the same by one rename as entry by entry, also
// where the rename can't be, and are rolled back as they are.
func TestApplyNewDirectories(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	tests := []struct {
		name string
		attr syscall.SysProcAttr
		// prepare changes a root before the stream is applied to it; meanwhile does
		// what somebody else does while the first chunk is on its way.
		prepare, meanwhile func(t *testing.T, root string)
	}{
		{name: "nothing in the way"},
		{name: "as nobody", attr: syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}},
		{name: "something in the way", meanwhile: func(t *testing.T, root string) {
			shell(t, root, "cd old; mkdir n1 n7 n8 n19; echo mine >n1/mine; echo 1 >n7/d0; echo 1 >n9; ln -s nowhere n10; mkdir -p n11/d0/f1; find n* -exec touch -h -d @1000000000 {} +")
		}},
		{name: "another mount", attr: syscall.SysProcAttr{Unshareflags: unix.CLONE_NEWNS}, prepare: func(t *testing.T, root string) {
			old := filepath.Join(root, "old")
			if err := unix.Mount(old, old, "", unix.MS_BIND, ""); err != nil {
				t.Fatal(err)
			}
		}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			alone(t, &test.attr, func() {
				es := newDirs(rand.New(rand.NewPCG(seed, 0)), test.prepare == nil, 25) // hard links are of one file system
				dir := fastDir(t)
				shell(t, dir, "mkdir -p root/old want/old root/var/lib want/var/lib; for d in root want; do ln -s old $d/through; echo x >$d/old/x; touch -h -d @1000000000 $d/old/* $d/old $d/through $d/var $d/var/lib $d; done")
				root, want := filepath.Join(dir, "root"), filepath.Join(dir, "want")
				before := treetest.Describe(t, root, nil)
				if test.prepare != nil {
					test.prepare(t, root)
				}
				l := lockOf(t, dir)
				hook := func(string, bool) error { return nil }
				disturbed := test.meanwhile != nil
				if test.meanwhile != nil {
					test.meanwhile(t, want)
					hook = func(name string, _ bool) error {
						if name == "rename" && test.meanwhile != nil {
							test.meanwhile(t, root)
							test.meanwhile = nil
						}
						return nil
					}
				}
				var got unpack.Result
				if err := hooked(l.root, hook, func() (err error) {
					got, err = l.Apply(t.Context(), step("1"), stream(es...))
					return err
				}); err != nil {
					t.Fatal(err)
				}
				commit(t, l)
				ref, err := unpack.Unpack(t.Context(), want, stream(es...), unpack.Options{})
				if err != nil {
					t.Fatal(err)
				}
				if len(got.Problems) != len(ref.Problems) || !disturbed && (got.Entries != ref.Entries || got.Bytes != ref.Bytes || got.Unprivileged != ref.Unprivileged) {
					t.Errorf("%d problems (%v), %d entries, %d bytes, %d unprivileged; want %d (%v), %d, %d, %d", len(got.Problems), got.Problems, got.Entries, got.Bytes, got.Unprivileged,
						len(ref.Problems), ref.Problems, ref.Entries, ref.Bytes, ref.Unprivileged)
				}
				treetest.Diff(t, treetest.Describe(t, want, nil), treetest.Describe(t, root, notOwn))
				undone, err := l.Undo(t.Context(), 0, false)
				if err != nil {
					t.Fatal(err)
				}
				if err := l.Commit("test", nil, nil); err != nil {
					t.Fatal(err)
				}
				if err := l.Unlock(); err != nil {
					t.Fatal(err)
				}
				if !disturbed {
					if len(undone.Preserved)+len(undone.Problems) > 0 {
						t.Errorf("kept %v, problems %v", undone.Preserved, undone.Problems)
					}
					treetest.Diff(t, before, treetest.Describe(t, root, nil))
				}
				if test.prepare != nil {
					unix.Unmount(filepath.Join(root, "old"), unix.MNT_DETACH)
				}
			})
		})
	}
}

// An apply, whole or cut off, leaves no file open and no goroutine.
func TestApplyLeavesNothingOpen(t *testing.T) {
	count := func() (files, goroutines int) {
		open, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Skip(err)
		}
		return len(open), runtime.NumGoroutine()
	}
	es := newDirs(rand.New(rand.NewPCG(2, 2)), true, 6)
	try := func(es []*snapshot.Entry, verified bool) {
		dir := fastDir(t)
		shell(t, dir, "mkdir root")
		l := lockOf(t, dir)
		ctx, cancel := context.WithCancel(t.Context())
		s := step("1")
		if !verified {
			s.Verified = make(chan struct{})
			cancel()
		}
		_, err := l.Apply(ctx, s, stream(es...))
		cancel()
		if (err == nil) != verified {
			t.Fatalf("error %v", err)
		}
		if err := errors.Join(l.Rollback(), l.Unlock()); err != nil {
			t.Fatal(err)
		}
	}
	try(es, true) // what is made once stays
	files, goroutines := count()
	for range 3 {
		try(es, true)
		try(es, false)
	}
	now, running := count()
	for range 100 {
		if running <= goroutines {
			break
		}
		time.Sleep(10 * time.Millisecond) // those that have done their work, and are about to end
		now, running = count()
	}
	if now > files || running > goroutines {
		t.Errorf("%d files and %d goroutines, before %d and %d", now, running, files, goroutines)
	}
}

// alone calls f, which is all that the test does, in a process of its own where
// attr asks for one.
func alone(t *testing.T, attr *syscall.SysProcAttr, f func()) {
	t.Helper()
	if attr.Credential == nil && attr.Unshareflags == 0 || os.Getenv(isAlone) == t.Name() {
		f()
		return
	}
	exe := filepath.Join(fastDir(t), "test")
	if out, err := exec.Command("cp", os.Args[0], exe).CombinedOutput(); err != nil {
		t.Fatalf("cp: %v\n%s", err, out)
	}
	if err := os.Chmod(filepath.Dir(exe), 0o755); err != nil {
		t.Fatal(err)
	}
	c := exec.Command(exe, "-test.run=^"+strings.ReplaceAll(t.Name(), "/", "$/^")+"$", "-test.v", "-test.timeout=5m")
	c.Env, c.Dir = append(os.Environ(), isAlone+"="+t.Name()), "/"
	c.SysProcAttr = attr
	out, err := c.CombinedOutput()
	switch {
	case os.Geteuid() != 0 && err != nil:
		t.Skipf("not permitted here: %v", err)
	case err != nil:
		t.Fatalf("%v\n%s", err, out)
	case !strings.Contains(string(out), "--- PASS: "+t.Name()):
		t.Skipf("%s", out)
	}
}

// A new directory after one that has to be announced again is rolled back with all that
// it brought, though it is there by the time that its files are announced.
func TestUndoNewDirectoryAfterOneInTheWay(t *testing.T) {
	dir := fastDir(t)
	shell(t, dir, "mkdir -p root/var/lib; touch -d @1000000000 root/var/lib root/var root")
	root := filepath.Join(dir, "root")
	l := lockOf(t, dir)
	var once sync.Once
	err := hooked(l.root, func(name string, _ bool) error {
		if name == "rename" {
			once.Do(func() { shell(t, root, "mkdir way; echo mine >way/mine") })
		}
		return nil
	}, func() error {
		_, err := l.Apply(t.Context(), step("1"), stream(file("first", "1"), dirEntry("way"), file("way/f", "1"),
			dirEntry("whole"), dirEntry("whole/d"), dirEntry("whole/d/e"), file("whole/d/e/f", "1")))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	commit(t, l)
	shell(t, root, "[ -f whole/d/e/f ] && [ -f way/f ] && [ -f way/mine ]")
	if undone, err := l.Undo(t.Context(), 0, false); err != nil || len(undone.Preserved)+len(undone.Problems) > 0 {
		t.Errorf("error %v, kept %v, problems %v", err, undone.Preserved, undone.Problems)
	}
	if err := errors.Join(l.Commit("test", nil, nil), l.Unlock()); err != nil {
		t.Fatal(err)
	}
	shell(t, root, `[ "$(find . -type f)" = ./way/mine ] && [ "$(ls -A)" = "var
way" ]`)
}

// Before it is known that a stream is verified, all of it may be staged, and nothing of
// the root is changed; if it turns out not to be, nothing was.
func TestApplyWaitsUntilItIsVerified(t *testing.T) {
	for _, verified := range []bool{true, false} {
		t.Run(fmt.Sprint("verified ", verified), func(t *testing.T) {
			r, l := testRoot(t)
			shell(t, r.Dir(), "mkdir old; echo 1 >old/f; echo >old/f0; touch -d @1000000000 old")
			skip := func(p string) bool { return p == "var" }
			before := treetest.Describe(t, r.Dir(), skip)
			es := newDirs(rand.New(rand.NewPCG(1, 1)), true, 4)
			es = append(es, file("old/f", "2"), gone("old/f0"))
			known, read := make(chan struct{}), make(chan struct{})
			s := step("1")
			s.Verified = known
			ctx, cancel := context.WithCancelCause(t.Context())
			defer cancel(nil)
			done := make(chan error, 1)
			go func() {
				_, err := l.Apply(ctx, s, func(yield func(*snapshot.Entry, error) bool) {
					defer close(read)
					stream(es...)(yield)
				})
				done <- err
			}()
			<-read
			treetest.Diff(t, before, treetest.Describe(t, r.Dir(), skip))
			if verified {
				close(known)
				if err := <-done; err != nil {
					t.Fatal(err)
				}
				shell(t, r.Dir(), "[ $(cat old/f) = 2 ] && [ ! -e old/f0 ] && [ -d old/n1 ]")
				return
			}
			lie := errors.New("another digest")
			cancel(lie)
			if err := <-done; !errors.Is(err, lie) {
				t.Errorf("error %v", err)
			}
			if err := l.Rollback(); err != nil {
				t.Fatal(err)
			}
			treetest.Diff(t, before, treetest.Describe(t, r.Dir(), skip))
		})
	}
}
