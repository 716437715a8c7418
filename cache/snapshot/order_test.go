package snapshot

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"strings"
	"sync"
	"testing"
)

func TestValidateOrder(t *testing.T) {
	dir, opaque := &Entry{Path: "a", Kind: Dir}, &Entry{Path: "a", Kind: Opaque}
	bad := file("d", "0123456789")
	bad.Data = []Extent{{5, 3}, {0, 2}}
	tail := file("d", "0123456789")
	tail.Data = []Extent{{5, 6}}
	tests := []struct {
		name string
		es   []*Entry
		want string // of the error; "": none
	}{
		{"a directory, opaque, what it holds", []*Entry{dir, opaque, file("a/b", "")}, ""},
		{"opaque, its directory", []*Entry{opaque, dir, file("a/b", "")}, ""},
		{"what a directory holds, the directory", []*Entry{file("a/b", ""), dir, file("a/c", "")}, ""},
		{"opaque after what the directory holds", []*Entry{dir, file("a/b", ""), opaque}, "after what it holds"},
		{"opaque after what a directory of no entry holds", []*Entry{file("a/b/c", ""), opaque}, "after what it holds"},
		{"a directory twice about its opaque", []*Entry{dir, opaque, dir}, "two entries"},
		{"opaque twice", []*Entry{dir, opaque, opaque}, "opaque, but not a directory"},
		{"a link over a directory that holds something", []*Entry{file("a/b", "x"), {Path: "a", Kind: Symlink, Target: "/etc"}}, "after entries below it"},
		{"a link further up", []*Entry{file("a/b/c", "x"), {Path: "a", Kind: Symlink, Target: "/etc"}, {Path: "h", Kind: Link, Target: "a/b/c"}}, "after entries below it"},
		{"a directory deleted after what it holds", []*Entry{file("a/b", "x"), {Path: "a", Kind: Delete}}, "after entries below it"},
		{"extents out of order", []*Entry{bad}, "extents"},
		{"extents outside", []*Entry{tail}, "extents"},
	}
	for _, tt := range tests {
		_, err := readAll(Validate(stream(tt.es...)))
		if tt.want == "" && err != nil {
			t.Errorf("%s: %v", tt.name, err)
		}
		var unsafe *UnsafeError
		if tt.want != "" && (!errors.As(err, &unsafe) || !strings.Contains(err.Error(), tt.want)) {
			t.Errorf("%s: error = %v, want %q in it", tt.name, err, tt.want)
		}
	}
}

// The zeros that a file ends with are not the end of its tar.
func TestTarCutOffAfterZeros(t *testing.T) {
	var plain bytes.Buffer
	w := tar.NewWriter(&plain)
	for _, size := range []int64{2048, 5000, 3} {
		if err := w.WriteHeader(&tar.Header{Name: strings.Repeat("z", int(size%97)+1), Typeflag: tar.TypeReg, Size: size}); err != nil {
			t.Fatal(err)
		}
		io.CopyN(w, zeroReader{}, size)
	}
	w.Close()
	for n := range plain.Len() - 1 {
		if _, err := readAll(Read(bytes.NewReader(plain.Bytes()[:n]))); err == nil {
			t.Errorf("%d of %d bytes: no error", n, plain.Len())
		}
	}
	// As it comes, byte for byte and all at once, with padding to a record after it.
	plain.Write(make([]byte, 10240))
	for _, r := range []io.Reader{bytes.NewReader(plain.Bytes()), oneByte{bytes.NewReader(plain.Bytes())}} {
		if list, err := readAll(Read(r)); err != nil || len(list) != 3 {
			t.Errorf("whole: %d entries, %v", len(list), err)
		}
	}
}

type oneByte struct{ r io.Reader }

func (o oneByte) Read(p []byte) (int, error) { return o.r.Read(p[:min(1, len(p))]) }

func TestFilterOnTheWayToWhatIsNamed(t *testing.T) {
	m, err := Filter{Include: []string{"/tmp/a/b", "/root/.cache/pip/http"}}.Compile()
	if err != nil {
		t.Fatal(err)
	}
	for p, want := range map[string]bool{
		"tmp": true, "tmp/a": false, "tmp/a/b": false, "tmp/a/b/c": false, "tmp/a/c": true, "tmp/c": true,
		"root/.cache/pip": false, "root/.cache/pip/http": false, "root/.cache/pip/wheels": true,
	} {
		if got := m.Skip(p); got != want {
			t.Errorf("Skip(%s) = %t, want %t", p, got, want)
		}
	}
}

func TestMatcherIsSafeForConcurrentUse(t *testing.T) {
	for range 20 {
		m, err := Filter{Ignore: []string{"a/**/b*", "!x/?", "*.log"}}.Compile()
		if err != nil {
			t.Fatal(err)
		}
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() { m.Skip("a/q/bc") })
		}
		wg.Wait()
	}
}
