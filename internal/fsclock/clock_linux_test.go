package fsclock

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestAfter(t *testing.T) {
	dir := t.TempDir()
	f := filepath.Join(dir, "f")
	write := func(content string) time.Time {
		t.Helper()
		if err := os.WriteFile(f, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
		var st unix.Stat_t
		if err := unix.Stat(f, &st); err != nil {
			t.Fatal(err)
		}
		return time.Unix(st.Ctim.Unix())
	}
	for range 50 {
		before := write("a")
		if err := After(t.Context(), dir, before); err != nil {
			t.Fatal(err)
		}
		if after := write("b"); !after.After(before) {
			t.Fatalf("a change after the barrier has the ctime %v, before it %v", after, before)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := After(ctx, dir, time.Now().Add(1000*time.Second)); !errors.Is(err, context.Canceled) {
		t.Errorf("a clock that was set back: %v", err)
	}
}

// What is written, or given the time of the machine, during a span is in it.
func TestSpan(t *testing.T) {
	dir := t.TempDir()
	old := filepath.Join(dir, "old")
	if err := os.WriteFile(old, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	mtime := func(path string) time.Time {
		t.Helper()
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		return info.ModTime()
	}
	for range 20 {
		if err := After(t.Context(), dir, mtime(old)); err != nil {
			t.Fatal(err)
		}
		s, err := Begin(dir)
		if err != nil {
			t.Fatal(err)
		}
		written, touched := filepath.Join(dir, "written"), filepath.Join(dir, "touched")
		if err := errors.Join(os.WriteFile(written, nil, 0o644), os.WriteFile(touched, nil, 0o644)); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(touched, time.Time{}, time.Now()); err != nil {
			t.Fatal(err)
		}
		s.End()
		for path, want := range map[string]bool{old: false, written: true, touched: true} {
			if got := s.Holds(mtime(path)); got != want {
				t.Fatalf("%s, written at %v: in the span is %v", path, mtime(path), got)
			}
		}
		if cut := mtime(written).Truncate(time.Second); cut != mtime(written) && !s.Holds(cut) {
			t.Errorf("a time that was cut to seconds is not in the span")
		}
		if s.Holds(time.Now().Add(time.Hour)) || s.Holds(time.Now().Add(-time.Hour)) || s.Holds(time.Unix(0, 0)) {
			t.Errorf("the span holds times that are not of it")
		}
		if err := os.WriteFile(old, nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
}
