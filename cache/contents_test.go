package cache_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/clayer/clayer/cache"
	"github.com/clayer/clayer/cache/snapshot"
)

func TestContents(t *testing.T) {
	file := func(path, content string) *snapshot.Entry {
		return &snapshot.Entry{Path: path, Kind: snapshot.File, Mode: 0o644, Size: int64(len(content)), Open: func() (io.ReadCloser, error) {
			return io.NopCloser(strings.NewReader(content)), nil
		}}
	}
	pack := func(entries ...*snapshot.Entry) ([]byte, cache.Descriptor) {
		t.Helper()
		var b bytes.Buffer
		p, err := snapshot.Pack(context.Background(), &b, func(yield func(*snapshot.Entry, error) bool) {
			for _, e := range entries {
				if !yield(e, nil) {
					return
				}
			}
		}, snapshot.PackOptions{})
		if err != nil {
			t.Fatal(err)
		}
		return b.Bytes(), cache.Descriptor{Digest: p.Digest, Size: p.Size, Entries: p.Entries, Bytes: p.Bytes}
	}
	blob, desc := pack(file("a", "aaa"), &snapshot.Entry{Path: "d", Kind: snapshot.Dir, Mode: 0o755}, file("d/b", "bb"))
	empty, emptyDesc := pack()
	with := func(entries int, bytes int64) cache.Descriptor {
		d := desc
		d.Entries, d.Bytes = entries, bytes
		return d
	}
	// The frames of one blob, and the table of contents of another.
	table := func(b []byte) int { return len(b) - int(binary.LittleEndian.Uint64(b[len(b)-16:])) }
	mixed := func(d cache.Descriptor, frames, of []byte) ([]byte, cache.Descriptor) {
		b := append(bytes.Clone(frames[:table(frames)]), of[table(of):]...)
		d.Digest, d.Size = digest.FromBytes(b), int64(len(b))
		return b, d
	}
	longer, _ := pack(file("a name that is longer than the other", "aaa"))
	unfit, unfitDesc := mixed(desc, blob, longer)
	var lies []byte
	var liesDesc cache.Descriptor
	for c := 'c'; lies == nil && c <= 'z'; c++ { // whose frames are as large
		if other, _ := pack(file("a", "aaa"), &snapshot.Entry{Path: "d", Kind: snapshot.Dir, Mode: 0o755}, file("d/"+string(c), "bb")); table(other) == table(blob) {
			lies, liesDesc = mixed(desc, blob, other)
		}
	}
	for _, tt := range []struct {
		name string
		desc cache.Descriptor
		blob []byte
		n    int    // entries that are handed on
		want string // of the error; "" for none
	}{
		{"as it was packed", desc, blob, 3, ""},
		{"without entries", emptyDesc, empty, 0, ""},
		{"more entries than told", with(2, 5), blob, 2, "3 entries"},
		{"fewer entries than told", with(4, 5), blob, 3, "its descriptor says 4 in 5 bytes"},
		{"more bytes than told", with(3, 4), blob, 2, "its descriptor says 3 in 4 bytes"},
		{"fewer bytes than told", with(3, 6), blob, 3, "its descriptor says 3 in 6 bytes"},
		{"another table of contents", liesDesc, lies, 3, "its table of contents lists others"},
		{"a table of contents that does not fit", unfitDesc, unfit, 3, "table of contents: "},
		{"no snapshot", desc, []byte("no snapshot"), 0, "read snapshot"},
		{"cut off", desc, blob[:20], 0, "read snapshot"},
	} {
		c := cache.NewContents(tt.desc)
		n := 0
		var err error
		for e, eerr := range c.Entries(snapshot.Read(bytes.NewReader(tt.blob))) {
			if err = eerr; err != nil {
				break
			}
			if n++; e.Kind == snapshot.File && e.Content == nil {
				t.Errorf("%s: %s is not in memory", tt.name, e.Path)
			}
		}
		if err == nil {
			err = c.CheckTable(bytes.NewReader(tt.blob))
		}
		var invalid *cache.InvalidError
		switch {
		case n != tt.n:
			t.Errorf("%s: %d entries, want %d", tt.name, n, tt.n)
		case tt.want == "" && err != nil:
			t.Errorf("%s: %v", tt.name, err)
		case tt.want != "" && (!errors.As(err, &invalid) || !errors.Is(err, cache.ErrNotCached) || !strings.Contains(err.Error(), tt.want)):
			t.Errorf("%s: %v, want %q", tt.name, err, tt.want)
		}
	}
}
