package rootfs

import (
	"errors"
	"io/fs"
	"path/filepath"
	"strings"
	"testing"

	"github.com/clayer/clayer/internal/inroot"
	"github.com/clayer/clayer/internal/treetest"
	"github.com/clayer/clayer/solver/rootfs/drift"
)

// Directories that their owner may not enter are compared too, and keep their modes: also
// where the command that looks is killed.
func TestVerifyWhatIsLocked(t *testing.T) {
	nobody := users[1]
	alone(t, &nobody.attr, func() {
		dir := fastDir(t)
		shell(t, dir, "mkdir -p root/var/lib")
		l := lockOf(t, dir)
		applyAll(t, l, "1", closed("d"), closed("d/e"), file("d/e/f", "1"), file("d/g", "1"))
		commit(t, l)
		root := l.root.Dir()
		shell(t, dir, "chmod 700 root/d; echo 2 >root/d/g; chmod 0 root/d")
		look := func(locked inroot.Locked) error {
			files, err := drift.Verify(t.Context(), l.root.Dir(), l.root.StateDir(), locked)
			changed := 0
			for _, f := range files {
				if f.State == drift.Changed && f.Path == "d/g" {
					changed++
				} else if f.State != drift.AsApplied {
					t.Errorf("%s: %s %v", f.Path, f.State, f.What)
				}
			}
			if err == nil && (changed != 1 || len(files) != 4) {
				t.Errorf("not all is compared: %v", files)
			}
			return err
		}
		if err := look(nil); !errors.Is(err, fs.ErrPermission) {
			t.Fatalf("nothing is locked: %v", err)
		}
		for n := 1; ; n++ {
			err := hooked(l.root, killedAt(n), func() error { return l.Look(look) })
			if l.tx != nil {
				l.tx.journal.Close()
			}
			l.close()
			l = lockOf(t, dir)
			shell(t, filepath.Join(dir, "root"), `[ $(stat -c %a d) = 0 ] && chmod 700 d && [ $(stat -c %a d/e) = 0 ] && chmod 0 d`)
			if err == nil {
				break
			}
			if n > 500 {
				t.Fatal(err)
			}
		}
		if _, err := l.Undo(t.Context(), 0, true); err != nil {
			t.Fatal(err)
		}
		commit(t, l)
		if err := l.Unlock(); err != nil {
			t.Fatal(err)
		}
		if got := treetest.Describe(t, root, nil); strings.Contains(got, `"d"`) {
			t.Errorf("not undone:\n%s", got)
		}
	})
}
