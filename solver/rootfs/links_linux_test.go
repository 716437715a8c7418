package rootfs

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/clayer/clayer/dag/key"
	"github.com/clayer/clayer/internal/errhint"
	"github.com/clayer/clayer/internal/treetest"
	"github.com/clayer/clayer/solver/internal/record"
)

// Whatever name of the state directory somebody made a link of, and to whatever, nothing
// outside of it is written, truncated or removed.
func TestNoLinkOfTheStateIsFollowed(t *testing.T) {
	names := []string{
		"", "lock", "state.json", "state.new", "made", "running.json", "running.reading",
		"log", "log/000001", "log/000002", "log/rolled-back", "originals", "originals/000001", "originals/000002",
		"stage", "stage/1", "stage/2", "trash", "reserve", "reserve/0", "work",
	}
	for _, fresh := range []bool{true, false} {
		for _, name := range names {
			for _, target := range []string{"file", "dir", "none"} {
				dir := fastDir(t)
				shell(t, dir, `mkdir -p root/etc root/var/lib elsewhere/dir/sub; cd root; echo old > etc/conf; cd ../elsewhere
					echo precious > file; for i in 0 1 2 000001 000002 lock state.json; do echo precious > dir/$i; done; echo precious > dir/sub/file`)
				if !fresh {
					l := lockOf(t, dir)
					applyAll(t, l, "1", file("etc/conf", "1"))
					commit(t, l)
					if err := l.Unlock(); err != nil {
						t.Fatal(err)
					}
				}
				at := filepath.Join(dir, "root/var/lib/clayer", name)
				if err := errors.Join(os.RemoveAll(at), os.MkdirAll(filepath.Dir(at), 0o755), os.Symlink(filepath.Join(dir, "elsewhere", target), at)); err != nil {
					t.Fatal(err)
				}
				was := treetest.Describe(t, filepath.Join(dir, "elsewhere"), nil)
				err := solveAndUndo(t, dir)
				if got := treetest.Describe(t, filepath.Join(dir, "elsewhere"), nil); got != was {
					t.Errorf("%q is a link to %s, fresh %t: %v", name, target, fresh, err)
					treetest.Diff(t, was, got)
				}
				if top, _, below := strings.Cut(name, "/"); err == nil && !below {
					t.Errorf("%q is a link to %s, and no error", top, target)
				} else if err != nil && !below && !(strings.Contains(err.Error(), "is not safe: ") && errhint.Of(err) != nil) {
					t.Errorf("%q is a link to %s: %v", name, target, err)
				}
				removeAllModes(dir)
			}
		}
	}
}

func solveAndUndo(t *testing.T, dir string) error {
	t.Helper()
	r, err := Open(filepath.Join(dir, "root"), Options{})
	if err != nil {
		return err
	}
	for _, undo := range []bool{false, true} {
		l, err := r.Lock(t.Context(), false, nil)
		if err != nil {
			return err
		}
		if undo {
			_, err = l.Undo(t.Context(), 0, true)
		} else {
			_, err = l.Apply(t.Context(), step("2"), stream(file("etc/conf", "2"), file("etc/new", "2")))
		}
		if err == nil {
			var layers []record.LayerKeys
			if !undo {
				layers = []record.LayerKeys{{Name: "base", Steps: append(keysOf(l.state.Log), keyOf("2"))}}
			}
			err = l.Commit("test", layers, nil)
		}
		if err = errors.Join(err, l.Unlock()); err != nil {
			return err
		}
	}
	return nil
}

func keysOf(log []record.Event) (keys []key.Key) {
	for _, ev := range log {
		keys = append(keys, ev.Key)
	}
	return keys
}

// A state directory that others can change is not used, nor is one with something
// in it that they can.
func TestStateOfOthers(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("gives files to other users, which needs root")
	}
	for _, tt := range []struct {
		change string
		sudo   string
		want   string // of the error; "" for none
	}{
		{"chmod 777 .", "", "other users can write to it (mode 0777)\nhint: chmod go-w "},
		{"chmod 775 .; chgrp 12 .", "", "other users can write to it"},
		{"chown 12:12 .", "", "it belongs to another user (uid 12)\nhint: run clayer as that user"},
		{"chown 12:12 .", "12", ""},
		{"chown -R 12:12 .", "12", ""},
		{"chown 12 state.json", "", "state.json: it belongs to another user (uid 12)"},
		{"chmod 666 state.json", "", "state.json: other users can write to it"},
		{"chmod 777 log", "", "log: other users can write to it"},
		{"chown 12 lock", "", "lock: it belongs to another user"},
		{"mkfifo made", "", "made"},
		{"chmod 700 .", "", ""},
	} {
		dir := fastDir(t)
		t.Setenv("SUDO_UID", tt.sudo)
		shell(t, dir, "mkdir -p root/var/lib root/etc")
		l := lockOf(t, dir)
		applyAll(t, l, "1", file("etc/conf", "1"))
		commit(t, l)
		if err := l.Unlock(); err != nil {
			t.Fatal(err)
		}
		shell(t, filepath.Join(dir, "root/var/lib/clayer"), tt.change)
		r, err := Open(filepath.Join(dir, "root"), Options{})
		if err != nil {
			t.Fatal(err)
		}
		_, err = r.State()
		_, lerr := lockIn(filepath.Join(dir, "root"))
		for _, err := range []error{err, lerr} {
			if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(errhint.Text(err), tt.want)) {
				t.Errorf("%s, SUDO_UID=%s: %v, want %q", tt.change, tt.sudo, err, tt.want)
			}
		}
	}
}
