package safefile

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestLock(t *testing.T) {
	root, dir, elsewhere := tree(t)
	first, err := TryLock(root, "lock", unix.LOCK_SH)
	if err != nil {
		t.Fatal(err)
	}
	second, err := TryLock(root, "lock", unix.LOCK_SH)
	if err != nil {
		t.Fatalf("two that share it: %v", err)
	}
	second.Close()
	if _, err := TryLock(root, "lock", unix.LOCK_EX); !errors.Is(err, ErrLocked) {
		t.Errorf("one that is held: %v, want ErrLocked", err)
	}
	stop := errors.New("interrupted")
	ctx, cancel := context.WithCancelCause(t.Context())
	time.AfterFunc(20*time.Millisecond, func() { cancel(stop) })
	if _, err := Lock(ctx, root, "lock", unix.LOCK_EX); !errors.Is(err, stop) {
		t.Errorf("interrupted: %v, want the cause", err)
	}
	time.AfterFunc(20*time.Millisecond, func() { first.Close() })
	f, err := Lock(t.Context(), root, "lock", unix.LOCK_EX)
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
	for _, name := range []string{"fifo", "link", "dangling", "sub"} {
		soon(t, func() {
			if f, err := Lock(t.Context(), root, name, unix.LOCK_EX); err == nil {
				f.Close()
				t.Errorf("%s was locked", name)
			}
		})
	}
	if _, err := os.Lstat(filepath.Join(elsewhere, "new")); err == nil {
		t.Error("a file was made through a link")
	}
	if data, err := os.ReadFile(filepath.Join(dir, "file")); err != nil || string(data) != "content" {
		t.Errorf("what a link names was changed: %q, %v", data, err)
	}
}
