package dir

import (
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/clayer/clayer/internal/safefile"
)

// A process that begins to write sweeps what others have left in tmp/: not what one
// has just linked there.
func TestSweepLeavesWhatIsBeingLinked(t *testing.T) {
	d := open(t, Options{})
	put(t, d, "a", "content")
	root, err := d.root()
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	fd, err := unix.Open(d.tmp(), unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC, 0o600)
	if err != nil {
		t.Skip("no files without a name here:", err)
	}
	f := os.NewFile(uintptr(fd), "nameless")
	defer f.Close()
	temp, err := linkTemp(root, f)
	if err != nil {
		t.Fatal(err)
	}
	sweep := func() {
		if _, err := safefile.Sweep(root, tmpName, isTemp); err != nil {
			t.Error(err)
		}
	}
	sweep()
	if !exists(root, temp) {
		t.Error("it is gone")
	}
	f.Close()
	sweep()
	if exists(root, temp) {
		t.Error("what was left behind stays")
	}
}
