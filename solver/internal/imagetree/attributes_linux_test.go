package imagetree

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/clayer/clayer/frontend"
	"github.com/clayer/clayer/internal/ocitest"
	"github.com/clayer/clayer/solver/internal/filelist"
)

// TestFilesHaveWhatTheImageSays has files that a plain user unpacked: they are his, he can read
// them all, and they have no attributes.
func TestFilesHaveWhatTheImageSays(t *testing.T) {
	tree, err := Read(t.Context(), layersOf(ocitest.Tar(`dir d 0500 12:34
file d/f 0644 text 1234:1235
file d/sudo 4111 text
file d/zero 0000 text
link d/other d/zero
symlink d/to f
xattr d/x user.a value
xattr d/y security.selinux label`)))
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if _, err := tree.Unpack(t.Context(), dir, nil); err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(filepath.Join(dir, "d"))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		at := filepath.Join(dir, "d", e.Name())
		_ = os.Lchown(at, os.Getuid(), os.Getgid())
		if e.Type().IsRegular() {
			data, err := os.ReadFile(at)
			if err := errors.Join(err, os.Chmod(at, 0o600), os.WriteFile(at, data, 0o600)); err != nil {
				t.Fatal(err)
			}
		}
	}
	list, err := filelist.ReadStage(t.Context(), filelist.Stage{Dir: dir, Says: tree.Attributes}, &frontend.Copy{Sources: []string{"d"}, Dest: "/d"})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, it := range append(list.Items, list.Top) {
		got = append(got, fmt.Sprintf("%s %o %d:%d %v", it.Rel, it.Mode, it.UID, it.GID, it.Xattrs))
	}
	want := []string{"f 644 1234:1235 map[]", "other 0 0:0 map[]", "sudo 4111 0:0 map[]", "to 777 0:0 map[]", "x 644 0:0 map[user.a:value]", "y 644 0:0 map[]", "zero 0 0:0 map[]", " 500 12:34 map[]"}
	if !slices.Equal(got, want) {
		t.Errorf("the files are\n%q, want\n%q", got, want)
	}
}
