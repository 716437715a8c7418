package edit

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

func write(t *testing.T, path, text string, mode os.FileMode) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil {
		t.Fatal(err)
	}
}

func read(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func add(text string) func([]byte) ([]byte, error) {
	return func(src []byte) ([]byte, error) { return append(src, text...), nil }
}

func TestUpdatePreservesModeAndLink(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "Containerfile")
	write(t, path, "RUN a\n", 0o640)
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(path, link); err != nil {
		t.Fatal(err)
	}
	changed, err := Update(t.Context(), link, add("RUN b\n"))
	if err != nil || !changed {
		t.Fatal(changed, err)
	}
	if got := read(t, path); got != "RUN a\nRUN b\n" {
		t.Errorf("%q", got)
	}
	if info, _ := os.Stat(path); info.Mode() != 0o640 {
		t.Errorf("mode %v", info.Mode())
	}
	if info, _ := os.Lstat(link); info.Mode()&os.ModeSymlink == 0 {
		t.Error("the link is a file now")
	}
	if names, _ := os.ReadDir(dir); len(names) != 1 {
		t.Errorf("left over: %v", names)
	}
}

func TestUpdateThatChangesNothingWritesNothing(t *testing.T) {
	path := filepath.Join(t.TempDir(), "Containerfile")
	write(t, path, "RUN a\n", 0o644)
	before, _ := os.Stat(path)
	changed, err := Update(t.Context(), path, add(""))
	after, _ := os.Stat(path)
	if err != nil || changed || !os.SameFile(before, after) || before.ModTime() != after.ModTime() {
		t.Errorf("changed %v, %v", changed, err)
	}
}

func TestUpdateThatFailsLeavesAll(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "Containerfile")
	write(t, path, "RUN a\n", 0o644)
	no := errors.New("no")
	if _, err := Update(t.Context(), path, func([]byte) ([]byte, error) { return nil, no }); !errors.Is(err, no) {
		t.Error(err)
	}
	if err := os.Symlink("nowhere", filepath.Join(dir, "broken")); err != nil {
		t.Fatal(err)
	}
	for _, p := range []string{filepath.Join(dir, "broken"), filepath.Join(dir, "no", "Containerfile"), dir} {
		if _, err := Update(t.Context(), p, add("x")); err == nil {
			t.Errorf("%s: no error", p)
		}
	}
	if got := read(t, path); got != "RUN a\n" {
		t.Errorf("%q", got)
	}
}

func TestUpdateTakesOverWhatAKillLeft(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "Containerfile")
	write(t, filepath.Join(dir, ".Containerfile.clayer-new"), "half", 0o600)
	if _, err := Update(t.Context(), path, add("RUN a\n")); err != nil {
		t.Fatal(err)
	}
	if names, _ := os.ReadDir(dir); len(names) != 1 || read(t, path) != "RUN a\n" {
		t.Errorf("%v", names)
	}
}

func TestUpdateWaitsItsTurn(t *testing.T) {
	path := filepath.Join(t.TempDir(), "Containerfile")
	var wg sync.WaitGroup
	for i := range 20 {
		wg.Go(func() {
			in := Read([]string{"pip", "install", fmt.Sprint("p", i)}, Place{}).Install
			if _, err := Update(t.Context(), path, func(src []byte) ([]byte, error) {
				out, _, err := Capture(src, in, nil)
				return out, err
			}); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if n := strings.Count(read(t, path), "RUN pip install"); n != 20 {
		t.Errorf("%d of 20", n)
	}
	// One that is held for good ends with the context.
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	_, err := Update(t.Context(), path, func(src []byte) ([]byte, error) {
		_, err := Update(ctx, path, add("x"))
		return src, err
	})
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v", err)
	}
}
