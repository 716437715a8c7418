package safefile

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

func TestNamedFilesAreRegularOnes(t *testing.T) {
	_, dir, _ := tree(t)
	for name, want := range map[string]error{"file": nil, "link": nil, "inside/file": nil, "fifo": ErrNotRegular, "sub": ErrNotRegular, "none": os.ErrNotExist} {
		soon(t, func() {
			if _, err := ReadInput(t.Context(), filepath.Join(dir, name), 100); !errors.Is(err, want) {
				t.Errorf("%s: %v, want %v", name, err, want)
			}
		})
	}
	if _, err := Read(filepath.Join(dir, "file"), 3); !errors.Is(err, ErrTooLarge) {
		t.Errorf("%v, want ErrTooLarge", err)
	}
}

// A pipe that a shell hands over is read to its end, however late that comes; the
// wait ends with the context.
func TestInputFromAPipe(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	name := fmt.Sprintf("/dev/fd/%d", r.Fd())
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		w.WriteString("half ")
		cancel()
	}()
	soon(t, func() {
		if _, err := ReadInput(ctx, name, 100); !errors.Is(err, context.Canceled) {
			t.Errorf("%v, want that it was cancelled", err)
		}
	})
	w.Close()

	if r, w, err = os.Pipe(); err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	go func() { // more than a pipe holds
		w.Write(make([]byte, 200_000))
		w.Close()
	}()
	soon(t, func() {
		data, err := ReadInput(t.Context(), fmt.Sprintf("/proc/self/fd/%d", r.Fd()), 200_000)
		if err != nil || len(data) != 200_000 {
			t.Errorf("%d bytes, %v", len(data), err)
		}
	})
}

// The limit holds for what has no size too.
func TestInputIsBounded(t *testing.T) {
	zero, err := os.Open("/dev/zero")
	if err != nil {
		t.Fatal(err)
	}
	defer zero.Close()
	soon(t, func() {
		if _, err := ReadInput(t.Context(), fmt.Sprintf("/dev/fd/%d", zero.Fd()), 1<<20); !errors.Is(err, ErrTooLarge) {
			t.Errorf("%v, want ErrTooLarge", err)
		}
	})
}

func TestIsInput(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	defer r.Close()
	file, err := os.Open(os.Args[0])
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	closed, err := unix.Dup(int(r.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	unix.Close(closed)
	for path, want := range map[string]bool{
		"-":                                     true,
		fmt.Sprintf("/dev/fd/%d", r.Fd()):       true,
		fmt.Sprintf("/dev//fd/./%d", r.Fd()):    true,
		fmt.Sprintf("/proc/self/fd/%d", r.Fd()): true,
		fmt.Sprintf("/dev/fd/%d", file.Fd()):    false, // a file like any other
		fmt.Sprintf("/dev/fd/%d", closed):       false,
		"/dev/fd/-1":                            false,
		"/dev/fd/x":                             false,
		"./-":                                   false,
		"Containerfile":                         false,
	} {
		if _, got := IsInput(path); got != want {
			t.Errorf("IsInput(%q) = %v", path, got)
		}
	}
}
