package sandbox_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/clayer/clayer/solver/sandbox"
	"golang.org/x/sys/unix"
)

// What a command leaves in a directory that goes with it must not take the machine
// along: a mount of its home there, a link in the place of a directory.
func TestMountStubsTakeNothingElseAlong(t *testing.T) {
	if os.Getenv(placeVariable) != "other mounts in the root" {
		t.Skip("run by internal/places")
	}
	tests := []struct {
		name   string
		mounts []sandbox.Mount
		do     func(root, home string) error
	}{
		{"a bind mount in a tmpfs", []sandbox.Mount{{Target: "/build", Tmpfs: true}}, func(root, home string) error {
			at := filepath.Join(root, "build/chroot")
			return errors.Join(os.Mkdir(at, 0o755), unix.Mount(home, at, "", unix.MS_BIND, ""))
		}},
		{"a mount over a tmpfs", []sandbox.Mount{{Target: "/build", Tmpfs: true}}, func(root, home string) error {
			return unix.Mount(home, filepath.Join(root, "build"), "", unix.MS_BIND, "")
		}},
		{"a bind mount in a cache that was lent", []sandbox.Mount{{Target: "/w/e", Tmpfs: true}}, func(root, home string) error {
			at := filepath.Join(root, "w/e/deep/er")
			return errors.Join(os.MkdirAll(at, 0o755), unix.Mount(home, at, "", unix.MS_BIND, ""))
		}},
		{"a link in the place of the directory above", []sandbox.Mount{{Target: "/build/src", Tmpfs: true}}, func(root, home string) error {
			return errors.Join(os.RemoveAll(filepath.Join(root, "build")), os.MkdirAll(filepath.Join(root, "home/me/src"), 0o755),
				os.WriteFile(filepath.Join(root, "home/me/src/precious"), []byte("x"), 0o644), os.Symlink("/home/me", filepath.Join(root, "build")))
		}},
		{"another directory of the name", []sandbox.Mount{{Target: "/build", Tmpfs: true}}, func(root, home string) error {
			return errors.Join(os.Remove(filepath.Join(root, "build")), os.MkdirAll(filepath.Join(root, "build/mine"), 0o755))
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			v, root := newPlace(t, sandbox.CompareCTime)
			home := t.TempDir()
			if err := os.WriteFile(filepath.Join(home, "precious"), []byte("x"), 0o644); err != nil {
				t.Fatal(err)
			}
			// The command says that it has begun, and waits until its mess is made.
			out := &sawLine{want: "ready", seen: make(chan struct{})}
			made := make(chan error, 1)
			go func() {
				<-out.seen
				made <- errors.Join(tt.do(root, home), os.WriteFile(filepath.Join(root, "tmp/done"), nil, 0o644))
			}()
			_, err := v.Run(context.Background(), sandbox.Command{
				Argv: []string{"/bin/sh", "-c", `echo ready; while ! test -e /tmp/done; do sleep 0.01; done; exit 7`}, Env: testEnv, Dir: "/", Mounts: tt.mounts, Output: out})
			if merr := <-made; merr != nil {
				t.Fatal(merr)
			}
			var exit *sandbox.ExitError
			if !errors.As(err, &exit) || exit.Code != 7 {
				t.Errorf("error %v, want exit code 7", err)
			}
			for _, dir := range []string{home, filepath.Join(root, "home/me/src")} {
				if _, err := os.Stat(filepath.Join(dir, "precious")); err != nil && (dir == home || strings.Contains(tt.name, "link")) {
					t.Errorf("%s: %v", dir, err)
				}
			}
			if strings.Contains(tt.name, "another") {
				if _, err := os.Stat(filepath.Join(root, "build/mine")); err != nil {
					t.Error(err)
				}
			} else if left, _ := os.ReadDir(filepath.Join(root, "build")); len(left) > 0 && !strings.Contains(tt.name, "link") {
				t.Errorf("left: %v", left)
			}
		})
	}
}
