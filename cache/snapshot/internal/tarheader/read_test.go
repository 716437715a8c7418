package tarheader

import (
	"archive/tar"
	"bytes"
	"io"
	"reflect"
	"strings"
	"testing"
	"time"
)

// records are those of snapshots.
func records(key string) bool {
	return strings.HasPrefix(key, "CLAYER.") || strings.HasPrefix(key, "SCHILY.xattr.")
}

// headers returns tars that begin with all sorts of headers.
func headers(t testing.TB) map[string][]byte {
	at := time.Unix(1_600_000_000, 123456789)
	list := map[string]*tar.Header{
		"file":          {Typeflag: tar.TypeReg, Name: "a/b", Size: 3, Mode: 0o4755, Uid: 1, Gid: 2, ModTime: at},
		"whole seconds": {Typeflag: tar.TypeReg, Name: "a/b", Size: 3, Mode: 0o644, ModTime: time.Unix(1_600_000_000, 0)},
		"large":         {Typeflag: tar.TypeReg, Name: "a", Size: 1 << 36, ModTime: at},
		"directory":     {Typeflag: tar.TypeDir, Name: "a/", Mode: 0o1777, ModTime: at, PAXRecords: map[string]string{"CLAYER.implied": "1"}},
		"symlink":       {Typeflag: tar.TypeSymlink, Name: "a", Linkname: "b/c", ModTime: at},
		"long names":    {Typeflag: tar.TypeLink, Name: strings.Repeat("d/", 400) + "a", Linkname: strings.Repeat("e/", 300), ModTime: at},
		"a prefix":      {Typeflag: tar.TypeReg, Name: strings.Repeat("d", 90) + "/" + strings.Repeat("e", 90), Format: tar.FormatUSTAR, ModTime: time.Unix(1, 0)},
		"not UTF-8":     {Typeflag: tar.TypeReg, Name: "a\xff", ModTime: at},
		"attributes":    {Typeflag: tar.TypeReg, Name: "a", ModTime: at, PAXRecords: map[string]string{"SCHILY.xattr.user.x": "1=2\n", "SCHILY.xattr.security.capability": "\x01\x00", "CLAYER.data": "0,1"}},
		"a large owner": {Typeflag: tar.TypeReg, Name: "a", Uid: 1 << 31, ModTime: at},
		"GNU":           {Typeflag: tar.TypeReg, Name: strings.Repeat("g", 150), Format: tar.FormatGNU, Uid: 1 << 31},
		"before 1970":   {Typeflag: tar.TypeReg, Name: "a", ModTime: time.Unix(-5, 5)},
		"a device":      {Typeflag: tar.TypeChar, Name: "a", Devmajor: 1, Devminor: 3, ModTime: at},
		"access time":   {Typeflag: tar.TypeReg, Name: "a", ModTime: at, AccessTime: at, Format: tar.FormatPAX},
		"global":        {Typeflag: tar.TypeXGlobalHeader, PAXRecords: map[string]string{"comment": "x"}},
	}
	all := make(map[string][]byte)
	for name, h := range list {
		var b bytes.Buffer
		if h.Format == tar.FormatUnknown {
			h.Format = tar.FormatPAX
		}
		if err := tar.NewWriter(&b).WriteHeader(h); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		all[name] = b.Bytes()
	}
	return all
}

// sameHeader compares Read with archive/tar, where it says anything.
func sameHeader(t testing.TB, data []byte) bool {
	got, n, ok := Read(data, records)
	if !ok {
		return false
	}
	r := bytes.NewReader(data)
	want, err := tar.NewReader(r).Next()
	if err != nil {
		t.Fatalf("is %+v, and archive/tar says %v\n%q", got, err, data)
	}
	if read := len(data) - r.Len(); n != read {
		t.Errorf("takes %d bytes, want %d", n, read)
	}
	own := make(map[string]string)
	for k, v := range want.PAXRecords {
		if k != "path" && k != "linkpath" && k != "mtime" && k != "size" {
			own[k] = v
		}
	}
	clean := tar.Header{
		Typeflag: want.Typeflag, Name: want.Name, Linkname: want.Linkname, Size: want.Size, Mode: want.Mode,
		Uid: want.Uid, Gid: want.Gid, ModTime: want.ModTime, PAXRecords: got.PAXRecords,
	}
	if !reflect.DeepEqual(got, clean) || len(own) != len(got.PAXRecords) {
		t.Errorf("is   %+v\nwant %+v\n%q", got, clean, data)
	}
	for k, v := range own {
		if got.PAXRecords[k] != v {
			t.Errorf("record %q is %q, want %q", k, got.PAXRecords[k], v)
		}
	}
	return true
}

// Read says what archive/tar says, or nothing; and it knows what Append writes
// nearly always.
func TestRead(t *testing.T) {
	known := map[string]bool{"file": true, "whole seconds": true, "large": true, "directory": true, "symlink": true, "long names": true, "a prefix": true, "not UTF-8": true}
	for name, data := range headers(t) {
		t.Run(name, func(t *testing.T) {
			if ok := sameHeader(t, data); ok != known[name] {
				t.Errorf("known: %t, want %t", ok, known[name])
			}
			for i := range data {
				sameHeader(t, data[:i])
				changed := bytes.Clone(data)
				changed[i] ^= 0x5a
				sameHeader(t, changed)
			}
		})
	}
}

func FuzzRead(f *testing.F) {
	for _, data := range headers(f) {
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		sameHeader(t, data)
		// Of a header whose sum is made right more is looked at.
		for at := 0; at+blockSize <= len(data); at += blockSize {
			b := data[at : at+blockSize]
			copy(b[sumAt:], "        ")
			sum := 0
			for _, c := range b {
				sum += int(c)
			}
			copy(b[sumAt:], []byte{'0', byte('0' + sum>>12&7), byte('0' + sum>>9&7), byte('0' + sum>>6&7), byte('0' + sum>>3&7), byte('0' + sum&7), 0, ' '})
			copy(b[257:], "ustar\x0000")
		}
		sameHeader(t, data)
	})
}

func BenchmarkRead(b *testing.B) {
	data := headers(b)["file"]
	b.Run("quick", func(b *testing.B) {
		for b.Loop() {
			Read(data, records)
		}
	})
	b.Run("archive/tar", func(b *testing.B) {
		for b.Loop() {
			if _, err := tar.NewReader(bytes.NewReader(data)).Next(); err != nil && err != io.EOF {
				b.Fatal(err)
			}
		}
	})
}
