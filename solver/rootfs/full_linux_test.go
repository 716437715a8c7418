package rootfs

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/clayer/clayer/cache/snapshot"
	"github.com/clayer/clayer/internal/treetest"
	"github.com/clayer/clayer/solver/internal/record"
)

// takesSpace has the calls that a full disk may refuse.
var takesSpace = map[string]bool{
	"create": true, "write": true, "mkdir": true, "symlink": true, "link": true, "mknod": true, "open": true, "allocate": true,
}

// fullFrom is a seam of a disk that is full from the n-th call on that takes space.
func fullFrom(n int) func(name string, reads bool) error {
	calls := 0
	return func(name string, reads bool) error {
		if reads || !takesSpace[name] {
			return nil
		}
		if calls++; calls >= n {
			return unix.ENOSPC
		}
		return nil
	}
}

// To roll back takes no new file, directory, link or byte: on a disk that stays
// full, the command that failed does it, and so does the one after a kill.
func TestRollbackNeedsNoSpace(t *testing.T) {
	for _, op := range operations {
		t.Run(op.name, func(t *testing.T) {
			t.Parallel()
			was, is, calls, _ := reference(t, op, before)
			for n, full := 1, true; full; n++ {
				dir := fastDir(t)
				before(t, dir)
				l := lockOf(t, dir)
				disk := fullFrom(n)
				var rollback error
				err := hooked(l.root, disk, func() error {
					_, err := op.do(l)
					rollback = l.Rollback()
					return err
				})
				if full = err != nil; rollback != nil {
					t.Fatalf("full from call %d on: roll back: %v, after %v", n, rollback, err)
				}
				l.close()
				recovered(t, dir, was, is, fmt.Sprintf("full from call %d on: %v", n, err))
				removeAllModes(dir)
			}
			for n := 1; n <= calls; n += 3 {
				dir := fastDir(t)
				before(t, dir)
				kill(t, dir, op, n)
				r, err := openRoot(filepath.Join(dir, "root"))
				if err != nil {
					t.Fatal(err)
				}
				err = hooked(r, fullFrom(1), func() error {
					l, err := lockRoot(r)
					if err == nil {
						err = l.close()
					}
					return err
				})
				if err != nil {
					t.Fatalf("killed at call %d of %d, then full: %v", n, calls, err)
				}
				recovered(t, dir, was, is, fmt.Sprintf("killed at call %d of %d, then full", n, calls))
				removeAllModes(dir)
			}
		})
	}
}

// A disk is a file system in memory of a limited size.
type disk struct {
	t   *testing.T
	dir string
}

// newDisk mounts one at dir/disk.
func newDisk(t *testing.T, dir string) *disk {
	t.Helper()
	d := &disk{t, filepath.Join(dir, "disk")}
	if err := os.Mkdir(d.dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("disk", d.dir, "tmpfs", 0, "size=64m,nr_inodes=10000"); err != nil {
		t.Fatal(err)
	}
	return d
}

func (d *disk) unmount() {
	if err := errors.Join(unix.Unmount(d.dir, unix.MNT_DETACH), os.Remove(d.dir)); err != nil {
		d.t.Error(err)
	}
}

// leave limits what is free; -1 is no limit.
func (d *disk) leave(inodes, pages int) {
	d.t.Helper()
	fs := d.stat()
	var opts []string
	if inodes >= 0 {
		opts = append(opts, fmt.Sprintf("nr_inodes=%d", fs.Files-fs.Ffree+uint64(inodes)))
	}
	if pages >= 0 {
		opts = append(opts, fmt.Sprintf("size=%d", (fs.Blocks-fs.Bfree+uint64(pages))*uint64(fs.Bsize)))
	}
	if err := unix.Mount("disk", d.dir, "tmpfs", unix.MS_REMOUNT, strings.Join(opts, ",")); err != nil {
		d.t.Fatalf("%v: %v", opts, err)
	}
}

func (d *disk) stat() (fs unix.Statfs_t) {
	d.t.Helper()
	if err := unix.Statfs(d.dir, &fs); err != nil {
		d.t.Fatal(err)
	}
	return fs
}

// fill leaves neither a byte nor an inode free.
func (d *disk) fill() {
	d.t.Helper()
	d.leave(0, 0)
	if fs := d.stat(); fs.Ffree != 0 || fs.Bfree != 0 {
		d.t.Fatalf("%d inodes and %d pages are free", fs.Ffree, fs.Bfree)
	}
}

// diskOperations are what is stopped by a disk that is full.
var diskOperations = append([]operation{
	{"first", func(l *Lock) (bool, error) { return applySteps(l, 0, "3", "4") }},
	{"many", func(l *Lock) (bool, error) {
		var es []*snapshot.Entry
		for i := range 20 {
			es = append(es, file(fmt.Sprintf("etc/many%d", i), strings.Repeat("x", 5000)), file(fmt.Sprintf("etc/conf%d", i), "new"))
		}
		res, err := l.Apply(context.Background(), step("many"), stream(es...))
		if err != nil {
			return false, err
		}
		layer := record.LayerKeys{Name: "base"}
		for _, ev := range l.tx.next.Log {
			layer.Steps = append(layer.Steps, ev.Key)
		}
		return len(res.Problems) > 0, l.Commit("test", []record.LayerKeys{layer}, nil)
	}},
}, operations...)

// prepared makes the root of an operation, to be copied to disks, and returns what it
// was before clayer came.
func prepared(t *testing.T, dir string, op operation) (bare string) {
	t.Helper()
	shell(t, dir, `mkdir -p root/etc root/d; for i in $(seq 0 19); do echo old > root/etc/conf$i; done
		setfattr -n user.large -v "$(head -c 3000 /dev/zero | tr '\0' x)" root/d`)
	if op.name == "first" {
		shell(t, dir, `mkdir -p root/tree/sub root/var/lib; echo conf > root/etc/conf; echo 1 > root/d/1; mkfifo root/pipe`)
		return treetest.Describe(t, filepath.Join(dir, "root"), notOwn)
	}
	before(t, dir)
	shell(t, dir, `cp -a root undone`)
	l, err := lockIn(filepath.Join(dir, "undone"))
	if err != nil {
		t.Fatal(err)
	}
	undoAll(t, l, false)
	return treetest.Describe(t, filepath.Join(dir, "undone"), notOwn)
}

// copyFrom copies the root that was prepared to the disk.
func (d *disk) copyFrom(dir string) {
	d.t.Helper()
	shell(d.t, d.dir, `cp -a --sparse=never `+dir+`/root .`) // the reserve must have no holes
}

// undoAll undoes all, and gives the lock back.
func undoAll(t *testing.T, l *Lock, force bool) {
	t.Helper()
	undone, err := l.Undo(t.Context(), 0, force)
	if err == nil {
		err = l.Commit("test", nil, nil)
	}
	if err != nil || len(undone.Preserved)+len(undone.Problems) > 0 {
		t.Fatalf("undo: %v, %v", err, undone)
	}
	if err := l.Unlock(); err != nil {
		t.Fatal(err)
	}
}

// Whichever file, directory, link or byte a disk has no space for any more: the root
// is what it was, the next command works, and undo gives the machine back on a
// disk on which nothing at all is free.
func TestEachAllocationFails(t *testing.T) {
	mounting(t, func() {
		dir := t.TempDir()
		for _, op := range diskOperations {
			ready := fastDir(t)
			bare := prepared(t, ready, op)
			for _, what := range []string{"inodes", "pages"} {
				t.Run(op.name+"/"+what, func(t *testing.T) {
					failed := 0
					for n, full := 0, true; full; n++ {
						d := newDisk(t, dir)
						d.copyFrom(ready)
						was := outcomeOf(t, d.dir)
						if what == "inodes" {
							d.leave(n, -1)
						} else {
							d.leave(-1, n)
						}
						func() {
							defer d.unmount()
							full = !d.tryOn(op, was, bare, fmt.Sprintf("%d %s are free", n, what))
						}()
						if full {
							failed++
						}
						if t.Failed() {
							return
						}
					}
					t.Logf("failed %d times", failed)
					if failed == 0 && op.name != "undo" {
						t.Error("it was never full")
					}
				})
			}
		}
	})
}

// tryOn does an operation on a disk that may be too full for it, and then undoes all
// on one that is. It reports whether the operation succeeded.
func (d *disk) tryOn(op operation, was outcome, bare, what string) bool {
	t := d.t
	t.Helper()
	root := filepath.Join(d.dir, "root")
	r, err := Open(root, Options{})
	if err != nil {
		t.Fatal(err)
	}
	l, err := lockRoot(r)
	if err == nil {
		_, err = op.do(l)
		if uerr := l.Unlock(); uerr != nil {
			t.Fatalf("%s: unlock after %v: %v", what, err, uerr)
		}
	}
	if err != nil {
		if !errors.Is(err, unix.ENOSPC) || strings.Contains(err.Error(), "partially changed") {
			t.Fatalf("%s: %v", what, err)
		}
		if got := outcomeOf(t, d.dir); got != was {
			t.Errorf("%s: %v", what, err)
			treetest.Diff(t, was.tree, got.tree)
			return false
		}
		if _, err := os.Lstat(r.state.Path()); was.tx == 0 && !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s: the state directory is left: %v", what, err)
		}
	}
	if outcomeOf(t, d.dir).tx == 0 {
		return err == nil // nothing to undo
	}
	d.fill()
	if l, uerr := lockRoot(r); uerr != nil {
		t.Errorf("%s, %v; then none: %v", what, err, uerr)
	} else {
		undoAll(t, l, false)
	}
	treetest.Diff(t, bare, treetest.Describe(t, root, notOwn))
	if t.Failed() {
		t.Logf("%s, %v", what, err)
	}
	return err == nil
}

// After a kill on a disk that is full then, the root is what it was or was to be,
// and undo gives the machine back.
func TestKilledOnAFullDisk(t *testing.T) {
	mounting(t, func() {
		dir := t.TempDir()
		for _, op := range diskOperations {
			t.Run(op.name, func(t *testing.T) {
				ready := fastDir(t)
				bare := prepared(t, ready, op)
				for n, killed := 1, true; killed; n += 3 {
					d := newDisk(t, dir)
					d.copyFrom(ready)
					was := outcomeOf(t, d.dir)
					if l, err := lockIn(filepath.Join(d.dir, "root")); err != nil {
						t.Fatal(err)
					} else {
						dead := killedAt(n)
						killed = hooked(l.root, dead, func() error {
							_, err := op.do(l)
							return err
						}) != nil
						if l.tx != nil {
							l.tx.journal.Close()
						}
						l.close()
					}
					d.fill()
					l, err := lockIn(filepath.Join(d.dir, "root"))
					if err != nil {
						t.Fatalf("killed at call %d, then full: %v", n, err)
					}
					if got := outcomeOf(t, d.dir); got.tx == was.tx {
						treetest.Diff(t, was.tree, got.tree)
					}
					d.fill()
					undoAll(t, l, false)
					treetest.Diff(t, bare, treetest.Describe(t, filepath.Join(d.dir, "root"), notOwn))
					d.unmount()
					if t.Failed() {
						t.Fatalf("killed at call %d", n)
					}
				}
			})
		}
	})
}

func lockIn(root string) (*Lock, error) {
	r, err := openRoot(root)
	if err != nil {
		return nil, err
	}
	return lockRoot(r)
}
