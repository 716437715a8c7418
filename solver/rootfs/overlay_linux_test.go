package rootfs

import (
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/clayer/clayer/internal/treetest"
)

// On an overlay, as the roots of containers are, a directory of the layer below
// can't be renamed. It is moved file by file, and rolled back after a kill at any
// call.
func TestApplyOnAnOverlay(t *testing.T) {
	mounting(t, func() {
		for n := 0; ; n++ { // 0: no kill
			dir := fastDir(t)
			shell(t, dir, `mkdir -p lower/d/sub/deep lower/keep upper work root; echo 1 > lower/d/f; echo 2 > lower/d/sub/deep/g; chmod 750 lower/d/sub
				setfattr -n user.x -v 1 lower/d/sub 2>/dev/null || true; touch -d @1000000000 lower/d/f lower/d/sub/deep/g lower/d/sub/deep lower/d/sub lower/d lower`)
			opts := fmt.Sprintf("lowerdir=%[1]s/lower,upperdir=%[1]s/upper,workdir=%[1]s/work,redirect_dir=off", dir)
			root := filepath.Join(dir, "root")
			if err := unix.Mount("overlay", root, "overlay", 0, opts); err != nil {
				t.Logf("no overlay here: %v", err)
				return
			}
			skip := func(p string) bool { return p == "var" }
			before := treetest.Describe(t, root, skip)
			l := lockOf(t, dir)
			at := n
			if n == 0 {
				at = math.MaxInt
			}
			err := hooked(l.root, killedAt(at), func() error {
				res, err := l.Apply(t.Context(), step("1"), stream(gone("d/sub"), file("d/f", "new")))
				if err == nil && len(res.Problems) > 0 {
					err = res.Problems[0].Err
				}
				if err == nil {
					res, err = l.Apply(t.Context(), step("2"), stream(file("d", "a file")))
				}
				if err == nil && len(res.Problems) > 0 {
					err = res.Problems[0].Err
				}
				return err
			})
			end := n > 0 && err == nil
			switch {
			case n > 0 && !end:
				if !errors.Is(err, errDead) {
					t.Errorf("killed at call %d: %v", n, err)
				}
				if l.tx != nil {
					l.tx.journal.Close()
				}
				l.close()
				l = lockOf(t, dir)
			case err != nil:
				t.Error(err)
			default:
				commit(t, l)
				if data, err := os.ReadFile(filepath.Join(root, "d")); err != nil || string(data) != "a file" {
					t.Errorf("d is %q, %v", data, err)
				}
				if undone, err := l.Undo(t.Context(), 0, false); err != nil || len(undone.Preserved)+len(undone.Problems) > 0 {
					t.Error(err, undone)
				}
				commit(t, l)
			}
			treetest.Diff(t, before, treetest.Describe(t, root, skip))
			l.close()
			if err := unix.Unmount(root, unix.MNT_DETACH); err != nil {
				t.Error(err)
			}
			if end || t.Failed() {
				t.Logf("%d calls", n)
				return
			}
		}
	})
}
