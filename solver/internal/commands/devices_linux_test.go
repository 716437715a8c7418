package commands

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/clayer/clayer/frontend"
	"github.com/clayer/clayer/solver/internal/filelist"
)

// A mount of all of a stage has its pipes and devices, but for what this user may not make, and
// no sockets.
func TestMountOfDevices(t *testing.T) {
	from := t.TempDir()
	at := func(name string) string { return filepath.Join(from, name) }
	if err := os.WriteFile(at("hello"), []byte("hello"), 0o644); err != nil {
		t.Fatal(err)
	}
	for name, mode := range map[string]uint32{"pipe": unix.S_IFIFO | 0o640, "socket": unix.S_IFSOCK | 0o600} {
		if err := unix.Mknod(at(name), mode, 0); err != nil {
			t.Fatal(err)
		}
	}
	device := unix.Mknod(at("null"), unix.S_IFCHR|0o600, int(unix.Mkdev(1, 3))) == nil
	c := filelist.Mounted(&frontend.Run{}, &frontend.Mount{})
	fs, err := filelist.ReadStage(t.Context(), filelist.Stage{Name: "stage dev", Dir: from}, c)
	if err != nil {
		t.Fatal(err)
	}
	top, err := copyTo(t.Context(), fs, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]os.FileMode{"hello": 0o644, "pipe": os.ModeNamedPipe | 0o640, "null": os.ModeDevice | os.ModeCharDevice | 0o600} {
		info, err := os.Lstat(filepath.Join(top, name))
		if name == "null" && !device {
			continue
		}
		if err != nil || info.Mode()&^0o022 != want {
			t.Errorf("%s: %v, %v, want %v", name, info, err, want)
		}
	}
	if _, err := os.Lstat(filepath.Join(top, "socket")); !os.IsNotExist(err) {
		t.Errorf("the socket: %v", err)
	}
}
