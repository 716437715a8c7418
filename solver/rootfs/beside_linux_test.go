package rootfs

import (
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/clayer/clayer/cache/snapshot"
	"github.com/clayer/clayer/dag/key"
	"github.com/clayer/clayer/internal/treetest"
	"github.com/clayer/clayer/solver/internal/record"
)

// What an apply made on another mount below the root is taken away by an undo, and
// killed at any call, all of it is there, or nothing.
func TestUndoOnAnotherMount(t *testing.T) {
	mounting(t, func() {
		for n := 1; ; n++ {
			dir := fastDir(t)
			shell(t, dir, "mkdir -p root/mnt root/var/lib; touch -d @1000000000 root/var/lib root/var root/mnt root")
			mnt := filepath.Join(dir, "root/mnt")
			if err := unix.Mount("mnt", mnt, "tmpfs", 0, ""); err != nil {
				t.Logf("nothing can be mounted here: %v", err)
				return
			}
			shell(t, mnt, "echo x > theirs; ln theirs link; touch -d @1000000000 theirs .")
			root := filepath.Dir(mnt)
			original := treetest.Describe(t, root, nil)
			l := lockOf(t, dir)
			applyAll(t, l, "1", file("mnt/f", "1"), dirEntry("mnt/d"), file("mnt/d/g", "1"),
				&snapshot.Entry{Path: "mnt/d/h", Kind: snapshot.Link, Target: "mnt/d/g"}, symlink("mnt/d/l", "g"), file("here", "1"))
			commit(t, l)
			l.close()
			was := treetest.Describe(t, root, notOwn)

			l = lockOf(t, dir)
			problems, killed, dead := 0, false, killedAt(n)
			err := hooked(l.root, func(name string, reads bool) error {
				err := dead(name, reads)
				killed = killed || err != nil
				return err
			}, func() error {
				undone, err := l.Undo(t.Context(), 0, false)
				if err != nil {
					return err
				}
				problems = len(undone.Problems) + len(undone.Preserved)
				if err := l.Commit("test", nil, nil); err != nil {
					return err
				}
				return l.Unlock()
			})
			if l.tx != nil {
				l.tx.journal.Close()
			}
			done := err == nil
			if !done {
				l.close()
				l = lockOf(t, dir)
				if l.state.Pristine() {
					done, err = true, l.Unlock()
				} else {
					err = l.close()
				}
				if err != nil {
					t.Error(err)
				}
			}
			switch {
			case !killed:
				treetest.Diff(t, original, treetest.Describe(t, root, nil))
			case done: // an empty directory of clayer's may be left
				treetest.Diff(t, original, treetest.Describe(t, root, notOwn))
			default:
				treetest.Diff(t, was, treetest.Describe(t, root, notOwn))
			}
			if problems > 0 {
				t.Errorf("%d problems", problems)
			}
			if err := unix.Unmount(mnt, unix.MNT_DETACH); err != nil {
				t.Error(err)
			}
			if t.Failed() || !killed {
				t.Logf("at call %d", n)
				return
			}
		}
	})
}

// What an undo takes away on another mount, and an apply makes again, is what it was
// after a kill at any call, also of the recovery itself.
func TestMadeAgainOnAnotherMount(t *testing.T) {
	mounting(t, func() {
		mnt := filepath.Join(fastDir(t), "mnt")
		shell(t, filepath.Dir(mnt), "mkdir mnt")
		if err := unix.Mount("mnt", mnt, "tmpfs", 0, ""); err != nil {
			t.Logf("nothing can be mounted here: %v", err)
			return
		}
		if err := unix.Unmount(mnt, 0); err != nil {
			t.Fatal(err)
		}
		before := func(t testing.TB, dir string) {
			unix.Unmount(mnt, unix.MNT_DETACH) // that of the round before
			shell(t, dir, "mkdir -p root/mnt root/var/lib; touch -d @1000000000 root/var/lib root/var root/mnt root")
			mnt = filepath.Join(dir, "root/mnt")
			if err := unix.Mount("mnt", mnt, "tmpfs", 0, ""); err != nil {
				t.Fatal(err)
			}
			shell(t, mnt, "touch -d @1000000000 .")
			l := lockOf(t, dir)
			applyAll(t, l, "1", file("mnt/f", "1"), dirEntry("mnt/d"), file("mnt/d/g", "1"), dirEntry("mnt/empty"))
			commit(t, l)
			if err := l.Unlock(); err != nil {
				t.Fatal(err)
			}
		}
		again := func(l *Lock) (bool, error) {
			undone, err := l.Undo(t.Context(), 0, false)
			if err != nil {
				return false, err
			}
			res, err := l.Apply(t.Context(), step("2"), stream(file("mnt/f", "2"), file("mnt/d/g", "2"), file("mnt/empty/new", "2"), symlink("mnt/l", "f")))
			if err != nil {
				return false, err
			}
			return len(undone.Problems)+len(res.Problems) > 0, l.Commit("test", []record.LayerKeys{{Name: "base", Steps: []key.Key{keyOf("2")}}}, nil)
		}
		killedAtEach(t, operation{"again", again}, before)
		unix.Unmount(mnt, unix.MNT_DETACH)
	})
}
