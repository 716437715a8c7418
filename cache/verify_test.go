package cache_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"

	"golang.org/x/sys/unix"

	"github.com/clayer/clayer/cache"
	"github.com/clayer/clayer/cache/storetest"
	"github.com/clayer/clayer/internal/ctxio"
)

// remote is a store whose blobs come as streams.
type remote struct {
	cache.Store
	temp string
	open func() io.Reader
}

func (r remote) Fetch(ctx context.Context, d cache.Descriptor, b *cache.Blob) error {
	return b.Fill(r.temp, d, func(w cache.Writer) error {
		_, err := io.Copy(io.NewOffsetWriter(w, 0), ctxio.Reader(ctx, r.open()))
		if errors.Is(err, io.ErrUnexpectedEOF) {
			return nil
		}
		return err
	})
}

func TestFetch(t *testing.T) {
	d, _ := storetest.Step("a", "content")
	broken := errors.New("connection reset")
	tests := []struct {
		name    string
		blob    io.Reader
		want    error // nil: it is opened
		corrupt bool
	}{
		{name: "whole", blob: strings.NewReader("content")},
		{name: "a byte at a time", blob: iotest.OneByteReader(strings.NewReader("content"))},
		{name: "the end with data", blob: iotest.DataErrReader(strings.NewReader("content"))},
		{name: "other bytes", blob: strings.NewReader("CONTENT"), want: cache.ErrNotCached, corrupt: true},
		{name: "cut off", blob: strings.NewReader("cont"), want: cache.ErrNotCached, corrupt: true},
		{name: "cut off, and told so", blob: io.MultiReader(strings.NewReader("cont"), iotest.ErrReader(io.ErrUnexpectedEOF)), want: cache.ErrNotCached, corrupt: true},
		{name: "nothing", blob: strings.NewReader(""), want: cache.ErrNotCached, corrupt: true},
		{name: "more behind it", blob: strings.NewReader("content and more"), want: cache.ErrNotCached, corrupt: true},
		{name: "without an end", blob: endless{}, want: cache.ErrNotCached, corrupt: true},
		{name: "an error on the way", blob: io.MultiReader(strings.NewReader("cont"), iotest.ErrReader(broken)), want: broken},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			var b cache.Blob
			defer b.Close()
			err := cache.Fetch(t.Context(), remote{temp: dir, open: func() io.Reader { return tt.blob }}, d, &b)
			if left, _ := os.ReadDir(dir); len(left) > 0 {
				t.Errorf("left behind: %v", left)
			}
			if tt.want != nil {
				var ce *cache.CorruptError
				if !errors.Is(err, tt.want) || errors.As(err, &ce) != tt.corrupt || errors.Is(err, cache.ErrNotCached) != tt.corrupt {
					t.Errorf("error = %v, want %v; corrupt: %t", err, tt.want, tt.corrupt)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if data, err := io.ReadAll(io.NewSectionReader(&b, 0, d.Size)); err != nil || string(data) != "content" {
				t.Errorf("%q, %v", data, err)
			}
		})
	}
	t.Run("cancelled", func(t *testing.T) {
		ctx, cancel := context.WithCancelCause(t.Context())
		stop := errors.New("interrupted")
		cancel(stop)
		if err := cache.Fetch(ctx, remote{temp: t.TempDir(), open: func() io.Reader { return endless{} }}, d, &cache.Blob{}); !errors.Is(err, stop) {
			t.Errorf("error = %v, want the cause", err)
		}
	})
	noDir := func(t *testing.T) string {
		file := filepath.Join(t.TempDir(), "file")
		if err := os.WriteFile(file, nil, 0o644); err != nil {
			t.Fatal(err)
		}
		return file + "/missing"
	}
	t.Run("no room for it where it should go", func(t *testing.T) {
		var b cache.Blob
		defer b.Close()
		if err := cache.Fetch(t.Context(), remote{temp: noDir(t), open: func() io.Reader { return strings.NewReader("content") }}, d, &b); err != nil {
			t.Fatalf("the system's directory was not taken: %v", err)
		}
	})
	t.Run("no room for it", func(t *testing.T) {
		t.Setenv("TMPDIR", noDir(t))
		err := cache.Fetch(t.Context(), remote{temp: noDir(t), open: func() io.Reader { return bytes.NewReader(nil) }}, d, &cache.Blob{})
		if err == nil || errors.Is(err, cache.ErrNotCached) {
			t.Errorf("error = %v: want one that blames no blob", err)
		}
	})
}

type endless struct{}

func (endless) Read(p []byte) (int, error) { return copy(p, "more"), nil }

func TestFillWhereTheDiskIsFull(t *testing.T) {
	d, _ := storetest.Step("a", "content")
	full := &os.PathError{Op: "write", Path: "x", Err: unix.ENOSPC}
	for _, tt := range []struct {
		name  string
		errs  []error // of each time that it is filled
		want  error
		times int
	}{
		{"at once", []error{nil}, nil, 1},
		{"elsewhere, where the disk is full", []error{full, nil}, nil, 2},
		{"nowhere", []error{full, full, nil}, full, 2},
		{"an error that another disk does not mend", []error{io.ErrUnexpectedEOF, nil}, io.ErrUnexpectedEOF, 1},
	} {
		dir, times := t.TempDir(), 0
		var b cache.Blob
		err := b.Fill(dir, d, func(w cache.Writer) error {
			if _, err := w.WriteAt([]byte("content"[:3+4*times]), 0); err != nil {
				t.Error(err)
			}
			times++
			if tt.errs[times-1] == nil {
				_, err := w.WriteAt([]byte("content"), 0)
				return err
			}
			return tt.errs[times-1]
		})
		if !errors.Is(err, tt.want) || times != tt.times {
			t.Errorf("%s: %v, filled %d times", tt.name, err, times)
		}
		if err == nil {
			if err := b.Verify(t.Context(), d); err != nil {
				t.Errorf("%s: %v", tt.name, err)
			}
		}
		b.Close()
		if left, _ := os.ReadDir(dir); len(left) > 0 {
			t.Errorf("%s: left behind: %v", tt.name, left)
		}
	}
}
