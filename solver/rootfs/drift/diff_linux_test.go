package drift_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/clayer/clayer/solver/internal/record"
	"github.com/clayer/clayer/solver/rootfs/drift"
)

// write makes a file of the root, and what it is in.
func write(t *testing.T, root, path, content string) {
	t.Helper()
	file := filepath.Join(root, path)
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

// now returns the time by the clock of the directory's file system, which moves in
// ticks: what is written afterwards is later.
func now(t *testing.T, dir string) time.Time {
	t.Helper()
	stamp := func() time.Time {
		file := filepath.Join(dir, "clock")
		if err := os.WriteFile(file, nil, 0o644); err != nil {
			t.Fatal(err)
		}
		var st unix.Stat_t
		if err := unix.Lstat(file, &st); err != nil {
			t.Fatal(err)
		}
		return time.Unix(st.Ctim.Unix())
	}
	at := stamp()
	for !stamp().After(at) {
		time.Sleep(time.Millisecond)
	}
	return at
}

func diffSince(t *testing.T, root string, since time.Time) string {
	t.Helper()
	list, err := drift.DiffSince(t.Context(), root, record.DirIn(root, filepath.Join(root, "var/lib/clayer")), since, nil)
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	for _, f := range list {
		fmt.Fprintf(&b, "%s %s", f.State, f.Path)
		if f.Dir {
			b.WriteString("/")
		} else {
			fmt.Fprintf(&b, " %d", f.Size)
		}
		b.WriteString("\n")
	}
	return b.String()
}

// A root that clayer never changed: what is new since, what changed, and nothing
// of what was there, is passed through, or is never captured.
func TestDiffSinceOfAnyRoot(t *testing.T) {
	root := t.TempDir()
	var st unix.Statx_t
	if err := unix.Statx(unix.AT_FDCWD, root, 0, unix.STATX_BTIME, &st); err != nil || st.Mask&unix.STATX_BTIME == 0 {
		t.Skip("the file system has no times of birth")
	}
	for _, p := range []string{"etc/old", "etc/changed", "etc/gone", "etc/mode", "opt/tool/old", "srv/quiet/old"} {
		write(t, root, p, "old")
	}
	since := now(t, t.TempDir())
	write(t, root, "etc/changed", "longer")
	if err := os.Chmod(filepath.Join(root, "etc/mode"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(root, "etc/gone")); err != nil {
		t.Fatal(err)
	}
	write(t, root, "opt/tool/new", "12345")
	write(t, root, "opt/other/a/b", "1")
	write(t, root, "tmp/x", "never captured")
	write(t, root, "var/lib/clayer/mine", "clayer's own")
	// An archive's times say nothing.
	write(t, root, "usr/unpacked", "x")
	long := time.Unix(1_000_000_000, 0)
	if err := os.Chtimes(filepath.Join(root, "usr/unpacked"), long, long); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/nowhere", filepath.Join(root, "link")); err != nil {
		t.Fatal(err)
	}
	const want = `changed etc/changed 6
changed etc/mode 3
new link 8
new opt/other/
new opt/other/a/
new opt/other/a/b 1
new opt/tool/new 5
new usr/
new usr/unpacked 1
`
	got := slices.DeleteFunc(strings.SplitAfter(diffSince(t, root, since), "\n"), func(l string) bool {
		return strings.HasPrefix(l, "new var") || strings.HasPrefix(l, "new tmp") // empty, without what is in them
	})
	if text := strings.Join(got, ""); text != want {
		t.Errorf("since then:\n%swant:\n%s", text, want)
	}
	if text := diffSince(t, root, now(t, t.TempDir())); text != "" {
		t.Errorf("since now:\n%s", text)
	}
}

// A directory that an overlay copied up was born just now, and is not new: what it
// holds shows it. To take it for new would capture all of /opt for one file in it.
func TestDiffSinceOnAnOverlay(t *testing.T) {
	dir, err := os.MkdirTemp("/dev/shm", "clayer-test-")
	if err != nil {
		t.Skip(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	write(t, dir, "lower/opt/old/x", "old")
	write(t, dir, "lower/opt/y", "old")
	for _, d := range []string{"upper", "work", "root"} {
		if err := os.Mkdir(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	root := filepath.Join(dir, "root")
	options := fmt.Sprintf("lowerdir=%[1]s/lower,upperdir=%[1]s/upper,workdir=%[1]s/work", dir)
	if err := unix.Mount("overlay", root, "overlay", 0, options); err != nil {
		t.Skipf("no overlay can be mounted here: %v", err)
	}
	t.Cleanup(func() { _ = unix.Unmount(root, unix.MNT_DETACH) })
	since := now(t, dir)
	write(t, root, "opt/new", "1")
	write(t, root, "opt/old/new/a", "1")
	if got, want := diffSince(t, root, since), "new opt/new 1\nnew opt/old/new/\nnew opt/old/new/a 1\n"; got != want {
		t.Errorf("since then:\n%swant:\n%s", got, want)
	}
}
