package tarheader

import (
	"archive/tar"
	"bytes"
	"math"
	"strings"
	"testing"
	"time"
)

// asTar compares Append with archive/tar, and returns whether it has a quick way.
func asTar(t testing.TB, h *tar.Header) bool {
	t.Helper()
	var b bytes.Buffer
	c := *h
	c.Format = tar.FormatPAX
	werr := tar.NewWriter(&b).WriteHeader(&c)
	got, err := Append([]byte("before"), h)
	if (err != nil) != (werr != nil) {
		t.Fatalf("%+v: %v, and archive/tar says %v", h, err, werr)
	}
	if err == nil && string(got) != "before"+b.String() {
		t.Fatalf("%+v\nis   %.400q\nwant %.400q", h, got[6:], b.Bytes())
	}
	_, quick := appendQuick(nil, h)
	return quick
}

func TestAppend(t *testing.T) {
	at, whole := time.Unix(1_600_000_000, 123456000), time.Unix(315619200, 0)
	deep := func(n int) string { return strings.Repeat("d/", n/2) + "name" }
	for name, tt := range map[string]struct {
		h     tar.Header
		quick bool
	}{
		"a file":                     {tar.Header{Typeflag: tar.TypeReg, Name: "usr/bin/x", Mode: 0o4755, Uid: 1000, Gid: 100, Size: 12345, ModTime: at}, true},
		"one of whole seconds":       {tar.Header{Typeflag: tar.TypeReg, Name: "usr/bin/x", Mode: 0o644, ModTime: whole}, true},
		"no time":                    {tar.Header{Typeflag: tar.TypeReg, Name: "x"}, true},
		"a directory":                {tar.Header{Typeflag: tar.TypeDir, Name: "usr/bin/", Mode: 0o1777, ModTime: at}, true},
		"a symlink":                  {tar.Header{Typeflag: tar.TypeSymlink, Name: "x", Linkname: "../y", Mode: 0o777, ModTime: at}, true},
		"a hard link":                {tar.Header{Typeflag: tar.TypeLink, Name: "x", Linkname: "y", ModTime: whole}, true},
		"the largest fields":         {tar.Header{Typeflag: tar.TypeReg, Name: strings.Repeat("n", 100), Uid: maxID, Gid: maxID, Size: maxNumber, ModTime: time.Unix(maxNumber, 999999999)}, true},
		"a name in two parts":        {tar.Header{Typeflag: tar.TypeReg, Name: deep(200), ModTime: whole}, true},
		"one with a finer time":      {tar.Header{Typeflag: tar.TypeReg, Name: deep(200), ModTime: at}, true},
		"a long name":                {tar.Header{Typeflag: tar.TypeReg, Name: deep(2000), ModTime: whole}, true},
		"a long directory":           {tar.Header{Typeflag: tar.TypeDir, Name: deep(120) + "/", ModTime: whole}, true},
		"a name of no two parts":     {tar.Header{Typeflag: tar.TypeReg, Name: strings.Repeat("n", 101), ModTime: whole}, true},
		"a slash at the end of 100":  {tar.Header{Typeflag: tar.TypeReg, Name: strings.Repeat("n", 99) + "/" + strings.Repeat("m", 120), ModTime: whole}, true},
		"a long target":              {tar.Header{Typeflag: tar.TypeSymlink, Name: "x", Linkname: deep(200), ModTime: at}, false},
		"a larger owner":             {tar.Header{Typeflag: tar.TypeReg, Name: "x", Uid: maxID + 1, ModTime: at}, false},
		"a larger file":              {tar.Header{Typeflag: tar.TypeReg, Name: "x", Size: maxNumber + 1, ModTime: at}, false},
		"before 1970":                {tar.Header{Typeflag: tar.TypeReg, Name: "x", ModTime: time.Unix(-5, 1)}, false},
		"far in the future":          {tar.Header{Typeflag: tar.TypeReg, Name: "x", ModTime: time.Unix(math.MaxInt64/2, 0)}, false},
		"not ASCII":                  {tar.Header{Typeflag: tar.TypeReg, Name: "\xff", ModTime: at}, false},
		"a device":                   {tar.Header{Typeflag: tar.TypeChar, Name: "x", Devmajor: 1, Devminor: 3, ModTime: at}, false},
		"an attribute":               {tar.Header{Typeflag: tar.TypeReg, Name: "x", ModTime: at, PAXRecords: map[string]string{"SCHILY.xattr.user.x": "1"}}, false},
		"a file called a directory":  {tar.Header{Typeflag: tar.TypeReg, Name: "x/", ModTime: at}, false},
		"a NUL, which is no error":   {tar.Header{Typeflag: tar.TypeSymlink, Name: "x", Linkname: "a\x00", ModTime: at}, false},
		"a directory with content":   {tar.Header{Typeflag: tar.TypeDir, Name: "x/", Size: 5, ModTime: at}, false},
		"a time of a few nanosecond": {tar.Header{Typeflag: tar.TypeReg, Name: "x", ModTime: time.Unix(0, 10)}, true},
	} {
		t.Run(name, func(t *testing.T) {
			if quick := asTar(t, &tt.h); quick != tt.quick {
				t.Errorf("quick: %t", quick)
			}
		})
	}
	// Each length of a name, and of what precedes it.
	for n := range 300 {
		for _, at := range []int{n / 2, n - 1, 100, 154, 155, 156} {
			if name := strings.Repeat("n", n); at > 0 && at < n {
				asTar(t, &tar.Header{Typeflag: tar.TypeReg, Name: name[:at] + "/" + name[at:], ModTime: whole})
				asTar(t, &tar.Header{Typeflag: tar.TypeDir, Name: name[:at] + "/" + name[at:] + "/", ModTime: time.Unix(1, 1)})
			}
		}
	}
}

func FuzzAppend(f *testing.F) {
	f.Add(byte('0'), "a/b", "", int64(0o644), 1, 2, int64(3), int64(1_600_000_000), int64(123456789))
	f.Add(byte('5'), strings.Repeat("d/", 70), "", int64(0o755), 0, 0, int64(0), int64(1), int64(0))
	f.Add(byte('2'), "a", "b", int64(0o777), 0, 0, int64(0), int64(-1), int64(5))
	f.Fuzz(func(t *testing.T, kind byte, name, target string, mode int64, uid, gid int, size, sec, nsec int64) {
		h := &tar.Header{Typeflag: kind, Name: name, Linkname: target, Mode: mode, Uid: uid, Gid: gid, Size: size, ModTime: time.Unix(sec, nsec%1e9)}
		if kind == tar.TypeXGlobalHeader || kind == 0 {
			return // never in a snapshot
		}
		// The name of a PAX header is made clean, and those in snapshots are.
		if _, quick := appendQuick(nil, h); quick && (strings.Contains("/"+name+"/", "/./") || strings.Contains("/"+name+"/", "/../") || strings.Contains(name, "//") || strings.HasPrefix(name, "/")) {
			return
		}
		asTar(t, h)
	})
}

func BenchmarkAppend(b *testing.B) {
	h := &tar.Header{Typeflag: tar.TypeReg, Name: "usr/lib/python3/dist-packages/x.py", Mode: 0o644, Size: 5, ModTime: time.Unix(1_600_000_000, 123456789), Format: tar.FormatPAX}
	b.Run("quick", func(b *testing.B) {
		var buf []byte
		for b.Loop() {
			buf, _ = Append(buf[:0], h)
		}
	})
	b.Run("archive/tar", func(b *testing.B) {
		var buf bytes.Buffer
		for b.Loop() {
			buf.Reset()
			if err := tar.NewWriter(&buf).WriteHeader(h); err != nil {
				b.Fatal(err)
			}
		}
	})
}
