package archive

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/clayer/clayer/cache/snapshot"
)

func tarOf(t testing.TB, headers ...tar.Header) *Archive {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range headers {
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(make([]byte, h.Size)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return &Archive{Name: "a.tar", Kind: Tar, Whole: true, Open: func() (Blob, error) {
		return Blob{ReaderAt: bytes.NewReader(b.Bytes()), Closer: io.NopCloser(nil), Size: int64(b.Len())}, nil
	}}
}

func TestWholeArchive(t *testing.T) {
	a := tarOf(t,
		tar.Header{Name: "/d/", Typeflag: tar.TypeDir, Mode: 0o700, Uid: 1, Gid: 2},
		tar.Header{Name: "d/pipe", Typeflag: tar.TypeFifo, Mode: 0o600},
		tar.Header{Name: "d/null", Typeflag: tar.TypeChar, Mode: 0o666, Devmajor: 1, Devminor: 3},
		tar.Header{Name: "/d/f", Typeflag: tar.TypeReg, Mode: 0o4755, Size: 3, Uid: 3, PAXRecords: map[string]string{
			"SCHILY.xattr.user.a": "x", "SCHILY.xattr.trusted.overlay.opaque": "y",
		}},
		tar.Header{Name: "d/l", Typeflag: tar.TypeLink, Linkname: "/d/f"},
		tar.Header{Name: "e/f", Typeflag: tar.TypeReg, Mode: 0o644},
		tar.Header{Name: "e/gone", Typeflag: tar.TypeReg, Mode: 0o644},
	)
	l, err := a.Layout(t.Context(), Trim{})
	if err != nil {
		t.Fatal(err)
	}
	l.Drop(func(name string) bool { return name == "e/gone" || name == "d/f" })
	var got strings.Builder
	for _, e := range l.Directories("x") {
		fmt.Fprintf(&got, "%s %o %d:%d %t\n", e.Path, e.Mode, e.UID, e.GID, e.Implied)
	}
	for e, err := range a.Unpack(t.Context(), l, "x", func(*snapshot.Entry) {}) {
		if err != nil {
			t.Fatal(err)
		}
		if e.Kind != snapshot.Dir {
			fmt.Fprintf(&got, "%s kind %d %o %d:%d %d,%d %v\n", e.Path, e.Kind, e.Mode, e.UID, e.GID, e.Major, e.Minor, e.Xattrs)
		}
	}
	want := fmt.Sprintf(`x/d 700 1:2 false
x/e 755 0:0 true
x/d/pipe kind %d 600 0:0 0,0 map[]
x/d/null kind %d 666 0:0 1,3 map[]
x/d/l kind %d 4755 3:0 0,0 map[user.a:x]
x/e/f kind %d 644 0:0 0,0 map[]
`, snapshot.Fifo, snapshot.Char, snapshot.File, snapshot.File)
	if got.String() != want {
		t.Errorf("got\n%swant\n%s", got.String(), want)
	}
	a.Whole = false
	if _, err := a.Layout(t.Context(), Trim{}); err == nil {
		t.Error("a name that begins with a slash is accepted of a FETCH")
	}
}

// A bomb has a member that is larger than any disk, or more members than memory: the first is
// refused by who writes it, and reading either ends with its context.
func TestArchiveThatEndsEarly(t *testing.T) {
	a := tarOf(t, tar.Header{Name: "f", Typeflag: tar.TypeReg, Mode: 0o644, Size: 2000})
	b, err := a.Open()
	if err != nil {
		t.Fatal(err)
	}
	a.Open = func() (Blob, error) { b.Size = 1000; return b, nil }
	if _, err := a.Layout(t.Context(), Trim{}); err == nil || !strings.Contains(err.Error(), "a.tar: unexpected EOF") {
		t.Errorf("error = %v", err)
	}
}

func TestDetectTar(t *testing.T) {
	a := tarOf(t, tar.Header{Name: "f", Typeflag: tar.TypeReg, Mode: 0o644})
	b, err := a.Open()
	if err != nil {
		t.Fatal(err)
	}
	if kind, err := DetectTar(b, b.Size); kind != Tar || err != nil {
		t.Errorf("a tar is %d, %v", kind, err)
	}
	for name, content := range map[string]string{
		"a zip": "PK\x05\x06" + strings.Repeat("\x00", 18), "nothing": "", "zeros": strings.Repeat("\x00", 1024),
		"a frame of zstd that is skipped, alone": "\x50\x2a\x4d\x18\x04\x00\x00\x00skip", "the beginning of one": "\x50\x2a\x4d\x18",
		"gzip of nothing": "\x1f\x8b\x08", "text": strings.Repeat("text ", 200),
	} {
		if kind, err := DetectTar(strings.NewReader(content), int64(len(content))); kind != None || err != nil {
			t.Errorf("%s is %d, %v", name, kind, err)
		}
	}
}
