package rootfs

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/clayer/clayer/internal/durability"
	"github.com/clayer/clayer/internal/rounds"
	"github.com/clayer/clayer/internal/treetest"
	"github.com/clayer/clayer/solver/internal/unsynced"
	"github.com/clayer/clayer/solver/rootfs/drift"
)

// otherBoot makes the mark of a root, if there is one, that of a machine which has
// restarted since.
func otherBoot(t *testing.T, dir string) (marked bool) {
	t.Helper()
	name := filepath.Join(dir, "root/var/lib/clayer", unsynced.Name)
	text, err := os.ReadFile(name)
	if os.IsNotExist(err) {
		return false
	}
	if err == nil {
		err = os.WriteFile(name, []byte(strings.Replace(string(text), durability.Boot(), "before", 1)), 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	return true
}

// After a loss of power in a root that is not synced in between, the content of new files
// and the end of the log may be missing. The next command finds the old root or the new
// one; or it says what is lost, and then the machine's own files are there, or set aside.
func TestPowerLostWithoutSyncs(t *testing.T) {
	for _, op := range operations {
		t.Run(op.name, func(t *testing.T) {
			t.Parallel()
			was, is, calls, _ := reference(t, op, before)
			reported := 0
			for n := 1; n <= calls; n += rounds.Of(9, 3, 1) {
				dir := dirFor(t, durability.AtEnd+durability.Setting(n%2))
				before(t, dir)
				os.Remove(filepath.Join(dir, "root/var/lib/clayer", unsynced.Name)) // all of that was on the disk
				old := inodes(t, dir)
				kill(t, dir, op, n)
				if otherBoot(t, dir) {
					loseWithoutSync(t, dir, old, n)
				}
				l := lockOf(t, dir)
				got := outcomeOf(t, dir)
				switch {
				case got == was, got == is:
				case l.Lost != nil:
					reported++
					machineFilesAreThere(t, dir)
				default:
					t.Errorf("power lost at call %d of %d: recovered %q, transaction %d, and nothing is reported as lost", n, calls, l.Recovered, got.tx)
					treetest.Diff(t, was.tree, got.tree)
				}
				if _, err := applySteps(l, 0); err != nil { // all of it can be undone
					t.Errorf("power lost at call %d of %d: undo: %v", n, calls, err)
				}
				if err := l.Unlock(); err != nil {
					t.Error(err)
				}
				removeAllModes(dir)
				if t.Failed() {
					return
				}
			}
			t.Logf("%d losses were reported", reported)
		})
	}
}

// loseWithoutSync empties new files, and cuts off the log of the transaction, also when
// that was committed. That state.json is not lost is for the file system to see to: it
// takes the place of another file.
func loseWithoutSync(t *testing.T, dir string, old map[uint64]bool, n int) {
	t.Helper()
	state := filepath.Join(dir, "root/var/lib/clayer/state.json")
	data, err := os.ReadFile(state)
	if err != nil {
		t.Fatal(err)
	}
	loseContent(t, dir, old)
	if err := os.WriteFile(state, data, 0o644); err != nil {
		t.Fatal(err)
	}
	loseEnd(t, filepath.Join(dir, "root/var/lib/clayer/log/000002"), 0, n)
}

// machineFilesAreThere checks that each content that a file of the machine had before the
// operation is somewhere, be it in the state.
func machineFilesAreThere(t *testing.T, dir string) {
	t.Helper()
	var all []string
	err := filepath.WalkDir(dir, func(p string, d os.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			data, err := os.ReadFile(p)
			all = append(all, string(data))
			return err
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"conf\n", "deep\n", "x\n", "1\n"} {
		if !slices.Contains(all, want) {
			t.Errorf("nothing has the content %q any more", want)
		}
	}
}

// When a command has ended, all of it is on the disk, as a host sees that which copies the
// disk then: the copy of an ext4 that is still mounted verifies.
func TestDiskIsWholeAfterTheEnd(t *testing.T) {
	mounting(t, func() {
		mkfs, err := exec.LookPath("mkfs.ext4")
		if err != nil {
			t.Skip("no mkfs.ext4")
		}
		dir := dirFor(t, durability.AtEnd)
		disk, copied := filepath.Join(dir, "disk"), filepath.Join(dir, "copy")
		attach := func(file, at string) {
			out, err := exec.Command("mount", "-o", "loop", file, at).CombinedOutput()
			if err != nil {
				t.Skipf("mount: %v\n%s", err, out)
			}
			t.Cleanup(func() { unix.Unmount(at, unix.MNT_DETACH) })
		}
		shell(t, dir, fmt.Sprintf("mkdir a b; truncate -s 64M disk; %s -q disk", mkfs))
		a, b := filepath.Join(dir, "a"), filepath.Join(dir, "b")
		attach(disk, a)
		before(t, a)
		l := lockOf(t, a)
		if _, err := applySteps(l, 2, "3", "4", "big"); err != nil {
			t.Fatal(err)
		}
		if err := l.Unlock(); err != nil {
			t.Fatal(err)
		}
		if err := copyFile(disk, copied); err != nil {
			t.Fatal(err)
		}
		attach(copied, b)
		r, err := openRoot(filepath.Join(b, "root"))
		if err != nil {
			t.Fatal(err)
		}
		otherBoot(t, b)
		if l, err = lockRoot(r); err != nil || l.Recovered != NothingCutOff || l.Lost != nil {
			t.Fatalf("lock the copy: %v; %+v", err, l)
		}
		defer l.close()
		if there, err := r.state.Exists(unsynced.Name); there || err != nil {
			t.Errorf("the mark is there: %t, %v", there, err)
		}
		files, err := drift.Verify(t.Context(), r.dir, r.state, nil)
		if err != nil || len(files) < 500 {
			t.Fatalf("verify: %d files, %v", len(files), err)
		}
		for _, f := range files {
			if f.State != drift.AsApplied {
				t.Errorf("%s is %s: %q", f.Path, f.State, f.What)
			}
		}
	})
}

func copyFile(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.Create(to)
	if err != nil {
		return err
	}
	defer out.Close()
	_, err = io.Copy(out, in)
	return err
}
