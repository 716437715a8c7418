package source

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"
	"github.com/ulikunitz/xz"

	"github.com/clayer/clayer/cache/snapshot"
	"github.com/clayer/clayer/cache/transfer"
	"github.com/clayer/clayer/frontend"
	"github.com/clayer/clayer/solver/internal/archive"
	"github.com/clayer/clayer/solver/internal/names"
)

// site is a server of files by path that counts requests.
type site struct {
	*httptest.Server
	mu       sync.Mutex
	files    map[string][]byte
	requests atomic.Int32
	sent     atomic.Int32 // answers with content
}

func newSite(t testing.TB, files map[string][]byte) *site {
	s := &site{files: files}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.requests.Add(1)
		s.mu.Lock()
		b, ok := s.files[r.URL.Path]
		s.mu.Unlock()
		if !ok {
			http.NotFound(w, r)
			return
		}
		tag := `"` + digest.FromBytes(b).Encoded() + `"`
		if r.Header.Get("If-None-Match") != tag {
			s.sent.Add(1)
		}
		w.Header().Set("ETag", tag)
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(b))
	}))
	t.Cleanup(s.Close)
	return s
}

func (s *site) put(name string, b []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.files[name] = b
}

func newResolver(t testing.TB) *Resolver {
	tr := transfer.NewTransport()
	tr.Proxy = nil
	t.Cleanup(tr.CloseIdleConnections)
	return &Resolver{
		Client:    transfer.New(transfer.Options{Transport: tr, Retries: -1}),
		Downloads: &Downloads{Path: filepath.Join(t.TempDir(), "downloads")},
	}
}

// text writes a stream as text, a line per entry, and checks the rules of
// snapshot.Entry on the way.
func text(t testing.TB, changes snapshot.Changes) (string, error) {
	t.Helper()
	var b strings.Builder
	seen := map[string]snapshot.Kind{}
	for e, err := range changes {
		if err != nil {
			return b.String(), err
		}
		if _, ok := seen[e.Path]; ok {
			t.Errorf("%q comes twice", e.Path)
		}
		if e.Path != path.Clean(e.Path) || e.Path == "." || path.IsAbs(e.Path) || strings.HasPrefix(e.Path, "..") {
			t.Errorf("%q is no path of an entry", e.Path)
		}
		for up := path.Dir(e.Path); up != "."; up = path.Dir(up) {
			if k, ok := seen[up]; ok && k != snapshot.Dir {
				t.Errorf("%q lies below %q, which is not a directory", e.Path, up)
			}
		}
		seen[e.Path] = e.Kind
		own := ""
		if e.UID != 0 || e.GID != 0 {
			own = fmt.Sprintf(" %d:%d", e.UID, e.GID)
		}
		when := ""
		if e.ModTime != epoch {
			when = " @" + fmt.Sprint(e.ModTime.Unix())
		}
		switch e.Kind {
		case snapshot.Dir:
			kind := "D"
			if e.Implied {
				kind = "d"
			}
			fmt.Fprintf(&b, "%s %04o%s %s%s\n", kind, e.Mode, own, e.Path, when)
		case snapshot.Symlink:
			fmt.Fprintf(&b, "l%s %s -> %s%s\n", own, e.Path, e.Target, when)
		case snapshot.Link:
			if seen[e.Target] != snapshot.File {
				t.Errorf("%q links to %q, which is no file before it", e.Path, e.Target)
			}
			fmt.Fprintf(&b, "h %s => %s\n", e.Path, e.Target)
		case snapshot.File:
			rc, err := e.Open()
			if err != nil {
				return b.String(), err
			}
			content := make([]byte, e.Size)
			_, err = io.ReadFull(rc, content) // by size, as a packer reads
			rc.Close()
			if err != nil {
				return b.String(), err
			}
			fmt.Fprintf(&b, "f %04o%s %s %q%s\n", e.Mode, own, e.Path, content, when)
		}
	}
	return b.String(), nil
}

func want(s string) string {
	var out []string
	for _, l := range strings.Split(strings.TrimSpace(s), "\n") {
		if l = strings.TrimSpace(l); l != "" {
			out = append(out, l+"\n")
		}
	}
	return strings.Join(out, "")
}

// tarOf makes a tar of lines: "d 0755 name", "f 0644 name content",
// "l name target", "h name target", and other types by their letter.
func tarOf(lines ...string) []byte {
	var b bytes.Buffer
	tw := tar.NewWriter(&b)
	for _, l := range lines {
		f := strings.SplitN(l, " ", 4)
		h := &tar.Header{ModTime: time.Unix(1e9, 0), Uid: 1234, Gid: 1234, Uname: "builder", Mode: 0o644}
		content := ""
		switch f[0] {
		case "d", "f":
			fmt.Sscanf(f[1], "%o", &h.Mode)
			h.Name, h.Typeflag = f[2], tar.TypeDir
			if f[0] == "f" {
				h.Typeflag, content = tar.TypeReg, f[3]
				h.Size = int64(len(content))
			}
		case "l", "h":
			h.Name, h.Linkname, h.Typeflag = f[1], f[2], tar.TypeSymlink
			if f[0] == "h" {
				h.Typeflag = tar.TypeLink
			}
		case "g":
			h = &tar.Header{Typeflag: tar.TypeXGlobalHeader, PAXRecords: map[string]string{"comment": "commit"}}
		default:
			h.Name, h.Typeflag = f[1], f[0][0]
		}
		if err := tw.WriteHeader(h); err != nil {
			panic(err)
		}
		io.WriteString(tw, content)
	}
	tw.Close()
	return b.Bytes()
}

func compressed(kind archive.Kind, b []byte) []byte {
	var out bytes.Buffer
	var w io.WriteCloser
	switch kind {
	case archive.TarGzip:
		w = gzip.NewWriter(&out)
	case archive.TarXz:
		w, _ = xz.NewWriter(&out)
	case archive.TarZstd:
		w, _ = zstd.NewWriter(&out)
	}
	w.Write(b)
	w.Close()
	return out.Bytes()
}

// bzipped is `d 0755 d` and `f 0644 d/f hello` as tar.bz2: the standard library
// has no writer for it.
const bzipped = `QlpoOTFBWSZTWfb2W8EAAI57gMmAAAhAAN+AAANnRJ4ACAggAHISlNNGgDQaZNqeoJJTymjKbRM0TINO+Ma0UJAdSSQiMvZo9AxMnuMBCGEy9GjgnGEQMBbeAHGNrV3LqtMvKXvaRIiZOBxhagpJq+OqoowwxmIgfi7kinChIe3st4I=`

func zipOf(t testing.TB, members func(add func(h zip.FileHeader, content string))) []byte {
	var b bytes.Buffer
	zw := zip.NewWriter(&b)
	members(func(h zip.FileHeader, content string) {
		if h.Modified.IsZero() {
			h.Modified = time.Unix(1e9, 0).UTC()
		}
		w, err := zw.CreateHeader(&h)
		if err != nil {
			t.Fatal(err)
		}
		io.WriteString(w, content)
	})
	zw.Close()
	return b.Bytes()
}

func simpleZip(t testing.TB) []byte {
	return zipOf(t, func(add func(zip.FileHeader, string)) {
		add(zip.FileHeader{Name: "d/", CreatorVersion: madeOnUnix, ExternalAttrs: 0o40755 << 16}, "")
		add(zip.FileHeader{Name: "d/f", CreatorVersion: madeOnUnix, ExternalAttrs: 0o100644 << 16}, "hello")
	})
}

func TestArchiveFormats(t *testing.T) {
	plain := tarOf("d 0755 d", "f 0644 d/f hello")
	bz, err := base64.StdEncoding.DecodeString(bzipped)
	if err != nil {
		t.Fatal(err)
	}
	v7 := asV7(bytes.Clone(plain))
	const unpacked = `
		d 0755 opt/x
		d 0755 opt/x/d @1000000000
		f 0644 opt/x/d/f "hello" @1000000000`
	stored := func(name string, b []byte) string {
		return fmt.Sprintf("d 0755 opt/x\nf 0644 opt/x/%s %q", name, b)
	}
	two := append(compressed(archive.TarGzip, plain[:700]), compressed(archive.TarGzip, plain[700:])...)
	tests := []struct {
		name    string
		file    string
		body    []byte
		extract frontend.Extract
		want    string
		err     string
	}{
		{name: "tar", file: "a.tar", body: plain, want: unpacked},
		{name: "a tar without ustar", file: "a.tar", body: v7, want: unpacked},
		{name: "gzip", file: "a.tar.gz", body: compressed(archive.TarGzip, plain), want: unpacked},
		{name: "gzip of two members", file: "a.tgz", body: two, want: unpacked},
		{name: "xz", file: "a.tar.xz", body: compressed(archive.TarXz, plain), want: unpacked},
		{name: "bzip2", file: "a.tar.bz2", body: bz, want: unpacked},
		{name: "zstd", file: "a.tar.zst", body: compressed(archive.TarZstd, plain), want: unpacked},
		{name: "zip", file: "a.zip", body: simpleZip(t), want: unpacked},
		{name: "the name doesn't matter", file: "download", body: compressed(archive.TarGzip, plain), want: unpacked},
		{name: "nor a wrong one", file: "a.zip", body: compressed(archive.TarXz, plain), want: unpacked},
		{name: "an archive may stay packed", file: "a.tar", body: plain[:1024], extract: "false", want: stored("a.tar", plain[:1024])},
		{name: "a gzip that is no tar", file: "a.gz", body: compressed(archive.TarGzip, []byte("hello")), want: stored("a.gz", compressed(archive.TarGzip, []byte("hello")))},
		{name: "a name is no archive", file: "a.tar.gz", body: []byte("hello"), want: stored("a.tar.gz", []byte("hello"))},
		{name: "an empty file", file: "a.tar.gz", body: nil, want: stored("a.tar.gz", nil)},
		{name: "a broken gzip is stored", file: "a.gz", body: []byte("\x1f\x8b!"), want: stored("a.gz", []byte("\x1f\x8b!"))},
		{name: "a wheel is a file", file: "a.whl", body: simpleZip(t), want: stored("a.whl", simpleZip(t))},
		{name: "unless --extract says otherwise", file: "a.whl", body: simpleZip(t), extract: "true", want: unpacked},
		{name: "what must be an archive and is none", file: "a.gz", body: []byte("hello"), extract: "true", err: "is not an archive"},
		{name: "a cut archive", file: "a.tar.gz", body: compressed(archive.TarGzip, plain[:1026]), err: "unexpected EOF"},
		{name: "a corrupt zip", file: "a.zip", body: simpleZip(t)[:50], err: "zip: not a valid zip file"},
		{name: "percent-encoded", file: "a%20b+c", body: []byte("x"), want: stored("a b+c", []byte("x"))},
		{name: "a slash in the name", file: "a%2Fb", body: []byte("x"), err: "is no file name"},
		{name: "dots as a name", file: "%2E%2E", body: []byte("x"), err: "is no file name"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := newSite(t, map[string][]byte{})
			u, err := url.Parse(s.URL + "/dir/" + tt.file)
			if err != nil {
				t.Fatal(err)
			}
			s.put(u.Path, tt.body)
			r := newResolver(t)
			f := &frontend.Fetch{Source: s.URL + "/dir/" + tt.file + "?q=1/2", Dest: "/opt/x", Extract: tt.extract}
			check(t, r, f, tt.want, tt.err)
			if n := s.requests.Load(); n != 1 {
				t.Errorf("%d requests, want 1", n)
			}
		})
	}
	t.Run("no name", func(t *testing.T) {
		s := newSite(t, map[string][]byte{"/": []byte("x"), "/d/": []byte("x")})
		for _, u := range []string{s.URL, s.URL + "/", s.URL + "/d/?name=x"} {
			check(t, newResolver(t), &frontend.Fetch{Source: u, Dest: "/opt/x"}, "", "has no file name")
		}
	})
}

// check fetches f and compares its entries, or its error. The stream is read
// twice: it must give the same.
func check(t *testing.T, r *Resolver, f *frontend.Fetch, wanted, wantErr string) {
	t.Helper()
	ctx := t.Context()
	pin, err := r.Fetch(ctx, f)
	var changes snapshot.Changes
	if err == nil {
		var place Placer
		if place, err = r.FetchChanges(ctx, f, pin); err == nil {
			changes, err = place(names.New(t.TempDir(), ""))
		}
	}
	var got string
	if err == nil {
		got, err = text(t, changes)
	}
	if wantErr != "" {
		if err == nil || !strings.Contains(err.Error(), wantErr) {
			t.Errorf("error = %v, want %q\n%s", err, wantErr, got)
		}
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	if got != want(wanted) {
		t.Errorf("got\n%swant\n%s", got, want(wanted))
	}
	if again, err := text(t, changes); err != nil || again != got {
		t.Errorf("read again: %v\n%s", err, again)
	}
}

// asV7 turns the headers of a small tar into those of the first tars.
func asV7(b []byte) []byte {
	for at := 0; at+512 <= len(b); at += 512 {
		h := b[at : at+512]
		if string(h[257:262]) != "ustar" {
			continue
		}
		clear(h[257:])
		if h[156] == '0' {
			h[156] = 0
		}
		copy(h[148:156], "        ")
		sum := 0
		for _, c := range h {
			sum += int(c)
		}
		copy(h[148:156], fmt.Sprintf("%06o\x00 ", sum))
	}
	return b
}

// unpackings are archives, and the entries that a FETCH of them yields.
var unpackings = []struct {
	name  string
	tar   []string
	strip int
	owner frontend.Ownership
	dest  string // "/" unless given
	want  string
	err   string
}{
	{
		name: "directories that the archive leaves out are implied",
		tar:  []string{"f 0755 a/b/c x"},
		want: `
			d 0755 a
			d 0755 a/b
			f 0755 a/b/c "x" @1000000000`,
	},
	{
		name: "a directory that comes after what it holds",
		tar:  []string{"f 0644 a/b x", "d 0700 a"},
		want: `
			d 0700 a @1000000000
			f 0644 a/b "x" @1000000000`,
	},
	{
		name: "of two of a name, the later",
		tar:  []string{"f 0644 a old", "f 0644 b x", "f 0600 a new", "d 0700 d", "d 0711 d"},
		want: `
			f 0644 b "x" @1000000000
			f 0600 a "new" @1000000000
			d 0711 d @1000000000`,
	},
	{
		name: "the archive's top is dest",
		dest: "/opt/x",
		tar:  []string{"d 0700 ./", "f 0644 ./a x", "f 0644 b//./c x"},
		want: `
			d 0755 opt/x
			f 0644 opt/x/a "x" @1000000000
			d 0755 opt/x/b
			f 0644 opt/x/b/c "x" @1000000000`,
	},
	{
		name: "strip", strip: 1, dest: "/opt/x",
		tar: []string{"g", "d 0755 top", "f 0644 README x", "f 0644 top/a x", "h top/b top/a", "l top/c a"},
		want: `
			d 0755 opt/x
			f 0644 opt/x/a "x" @1000000000
			h opt/x/b => opt/x/a
			l opt/x/c -> a @1000000000`,
	},
	{
		name: "strip all", strip: 5, dest: "/opt/x",
		tar:  []string{"f 0644 a/b x"},
		want: `d 0755 opt/x`,
	},
	{
		name: "a link to what strip drops is the file", strip: 1,
		tar: []string{"f 0640 a x", "h d/b a", "h d/c a"},
		want: `
			f 0640 b "x" @1000000000
			h c => b`,
	},
	{
		name: "a link retains what a later member replaces",
		tar:  []string{"f 0644 a old", "h b a", "f 0644 a new"},
		want: `
			f 0644 b "old" @1000000000
			f 0644 a "new" @1000000000`,
	},
	{
		name: "a link to a link, and to a symlink",
		tar:  []string{"f 0644 a x", "h b a", "h c b", "l s a", "h z s"},
		want: `
			f 0644 a "x" @1000000000
			h b => a
			h c => a
			l s -> a @1000000000
			l z -> a @1000000000`,
	},
	{name: "a link to nothing", tar: []string{"h b a"}, err: `"b": hard link to "a", which is not before it`},
	{name: "a link to what comes later", tar: []string{"h b a", "f 0644 a x"}, err: "not before it"},
	{name: "a link to a directory", tar: []string{"d 0755 a", "h b a"}, err: `hard link to the directory "a"`},
	{name: "a link out of the archive", tar: []string{"h b ../../etc/shadow"}, err: "leaves the archive's directory"},
	{name: "a link to an absolute name", tar: []string{"h b /etc/shadow"}, err: "is an absolute name"},
	{name: "dots", tar: []string{"f 0644 ../a x"}, err: `"../a" leaves the archive's directory`},
	{name: "dots further in", tar: []string{"f 0644 a/../../b x"}, err: `"a/../../b" leaves the archive's directory`},
	{name: "dots that strip would drop", strip: 1, tar: []string{"f 0644 ../a x"}, err: "leaves the archive's directory"},
	{name: "dots that stay inside", tar: []string{"f 0644 a/../b x"}, want: `f 0644 b "x" @1000000000`},
	{name: "an absolute name", tar: []string{"f 0644 /etc/passwd x"}, err: `"/etc/passwd" is an absolute name`},
	{name: "a symlink anywhere is text", tar: []string{"l a /etc/passwd", "l b ../../x"}, want: `
			l a -> /etc/passwd @1000000000
			l b -> ../../x @1000000000`},
	{name: "a file through a symlink", tar: []string{"l a /etc", "f 0644 a/passwd x"}, err: `"a/passwd" lies below "a", which is not a directory`},
	{name: "a file through a symlink that comes later", tar: []string{"f 0644 a/passwd x", "l a /etc"}, err: "is not a directory"},
	{name: "a file below a file", tar: []string{"f 0644 a x", "f 0644 a/b x"}, err: "is not a directory"},
	{name: "a symlink that becomes a directory", tar: []string{"l a /etc", "d 0755 a", "f 0644 a/b x"}, want: `
			d 0755 a @1000000000
			f 0644 a/b "x" @1000000000`},
	{name: "a device", tar: []string{"3 null"}, err: `"null" is a device`},
	{name: "a pipe", tar: []string{"6 pipe"}, err: `"pipe" is a device or a pipe`},
	{
		name: "chown and chmod", owner: frontend.Ownership{Chown: "7:8", Chmod: "640"}, dest: "/x",
		tar: []string{"d 0777 d", "f 0755 d/f x", "l d/l f"},
		want: `
			d 0755 7:8 x
			d 0750 7:8 x/d @1000000000
			f 0640 7:8 x/d/f "x" @1000000000
			l 7:8 x/d/l -> f @1000000000`,
	},
	{name: "setuid stays", tar: []string{"f 4755 su x"}, want: `f 4755 su "x" @1000000000`},
}

func TestUnpacking(t *testing.T) {
	for _, tt := range unpackings {
		t.Run(tt.name, func(t *testing.T) {
			s := newSite(t, map[string][]byte{"/a.tar": tarOf(tt.tar...)})
			dest := tt.dest
			if dest == "" {
				dest = "/"
			}
			f := &frontend.Fetch{Source: s.URL + "/a.tar", Dest: dest, Strip: tt.strip, Owner: tt.owner, Extract: "true"}
			check(t, newResolver(t), f, tt.want, tt.err)
			if tt.err != "" {
				_, err := newResolver(t).FetchChanges(t.Context(), f, Pin{Digest: digest.FromBytes(tarOf(tt.tar...))})
				if err == nil || !strings.Contains(err.Error(), s.URL) {
					t.Errorf("the error doesn't name the archive: %v", err)
				}
			}
		})
	}
}

func TestZip(t *testing.T) {
	const unix = madeOnUnix
	tests := []struct {
		name string
		zip  func(add func(zip.FileHeader, string))
		edit func([]byte) []byte
		want string
		err  string
	}{
		{
			name: "without modes, and with backslashes",
			zip: func(add func(zip.FileHeader, string)) {
				add(zip.FileHeader{Name: `a\b.txt`}, "x")
				add(zip.FileHeader{Name: `c/d\e`}, "y")
				add(zip.FileHeader{Name: `e\`}, "")
			},
			want: `
				d 0755 a
				f 0644 a/b.txt "x" @1000000000
				d 0755 c
				f 0644 c/d\e "y" @1000000000
				d 0755 e @1000000000`,
		},
		{
			name: "Unix modes, a symlink, a backslash that is one",
			zip: func(add func(zip.FileHeader, string)) {
				add(zip.FileHeader{Name: "a", CreatorVersion: unix, ExternalAttrs: 0o104755 << 16, Method: zip.Deflate}, strings.Repeat("x", 20))
				add(zip.FileHeader{Name: "l", CreatorVersion: unix, ExternalAttrs: 0o120777 << 16}, "a")
				add(zip.FileHeader{Name: `b\c`, CreatorVersion: unix, ExternalAttrs: 0o600 << 16}, "x")
				add(zip.FileHeader{Name: "d", CreatorVersion: unix}, "x")
			},
			want: `
				f 4755 a "xxxxxxxxxxxxxxxxxxxx" @1000000000
				l l -> a @1000000000
				f 0600 b\c "x" @1000000000
				f 0644 d "x" @1000000000`,
		},
		{
			name: "dots by backslashes",
			zip:  func(add func(zip.FileHeader, string)) { add(zip.FileHeader{Name: `..\..\x`}, "x") },
			err:  "leaves the archive's directory",
		},
		{
			name: "an absolute name",
			zip:  func(add func(zip.FileHeader, string)) { add(zip.FileHeader{Name: "/x"}, "x") },
			err:  "is an absolute name",
		},
		{
			name: "a zero byte",
			zip:  func(add func(zip.FileHeader, string)) { add(zip.FileHeader{Name: "x\x00y"}, "x") },
			err:  "holds a zero byte",
		},
		{
			name: "encrypted",
			zip:  func(add func(zip.FileHeader, string)) { add(zip.FileHeader{Name: "x", Flags: 0x1}, "x") },
			err:  "is encrypted",
		},
		{
			name: "a device",
			zip: func(add func(zip.FileHeader, string)) {
				add(zip.FileHeader{Name: "x", CreatorVersion: unix, ExternalAttrs: 0o20666 << 16}, "")
			},
			err: "is a device",
		},
		{
			name: "a symlink of a megabyte",
			zip: func(add func(zip.FileHeader, string)) {
				add(zip.FileHeader{Name: "x", CreatorVersion: unix, ExternalAttrs: 0o120777 << 16}, strings.Repeat("x", 1<<20))
			},
			err: "too long",
		},
		{
			name: "a changed byte is found though no reader asks for the end",
			zip:  func(add func(zip.FileHeader, string)) { add(zip.FileHeader{Name: "x"}, "hello") },
			edit: func(b []byte) []byte { return bytes.Replace(b, []byte("hello"), []byte("hellO"), 1) },
			err:  "checksum error",
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b := zipOf(t, tt.zip)
			if tt.edit != nil {
				b = tt.edit(b)
			}
			s := newSite(t, map[string][]byte{"/a.zip": b})
			check(t, newResolver(t), &frontend.Fetch{Source: s.URL + "/a.zip", Dest: "/"}, tt.want, tt.err)
		})
	}
}

func TestStoredFile(t *testing.T) {
	s := newSite(t, map[string][]byte{"/tool": []byte("#!")})
	for dest, wanted := range map[string]string{
		"/":              `f 0755 7:7 tool "#!"`,
		"/usr/local/bin": "d 0755 7:7 usr/local/bin\nf 0755 7:7 usr/local/bin/tool \"#!\"",
	} {
		f := &frontend.Fetch{Source: s.URL + "/tool", Dest: dest, Owner: frontend.Ownership{Chown: "7", Chmod: "755"}}
		check(t, newResolver(t), f, wanted, "")
	}
}

// hello is what most of these requests fetch, and helloSum its digest.
var (
	hello    = []byte("hello")
	helloSum = digest.FromBytes(hello)
)

func TestURLIsRequestedOnce(t *testing.T) {
	s := newSite(t, map[string][]byte{"/a": hello})
	r := newResolver(t)
	var wg sync.WaitGroup
	for range 10 {
		wg.Go(func() {
			f := &frontend.Fetch{Source: s.URL + "/a", Dest: "/"}
			pin, err := r.Fetch(t.Context(), f)
			if err != nil || pin != (Pin{Digest: helloSum, Size: 5}) {
				t.Errorf("pin %+v, error %v", pin, err)
			}
			if _, err := r.FetchChanges(t.Context(), f, pin); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if n := s.requests.Load(); n != 1 {
		t.Errorf("%d requests", n)
	}
}

func TestChecksumTakesNoRequest(t *testing.T) {
	s := newSite(t, map[string][]byte{"/a": hello})
	r := newResolver(t)
	f := &frontend.Fetch{Source: s.URL + "/a", Dest: "/", Checksum: helloSum}
	pin, err := r.Fetch(t.Context(), f)
	if err != nil || pin.Digest != helloSum || s.requests.Load() != 0 {
		t.Fatalf("pin %+v, error %v, %d requests", pin, err, s.requests.Load())
	}
	check(t, r, f, `f 0644 a "hello"`, "")
	if n := s.requests.Load(); n != 1 {
		t.Errorf("%d requests", n)
	}
	// A later session has the bytes.
	later := newResolver(t)
	later.Downloads.Path = r.Downloads.Path
	check(t, later, f, `f 0644 a "hello"`, "")
	if n := s.requests.Load(); n != 1 {
		t.Errorf("%d requests", n)
	}
}

func TestChecksumThatDiffers(t *testing.T) {
	s := newSite(t, map[string][]byte{"/a": []byte("other")})
	r := newResolver(t)
	f := &frontend.Fetch{Source: s.URL + "/a?token=hunter2", Dest: "/opt/x", Checksum: helloSum}
	f.Pos = frontend.Pos{File: "Containerfile.mojo", Line: 4}
	f.Word, f.Text = "FETCH", "FETCH ..."
	_, err := r.FetchChanges(t.Context(), f, Pin{Digest: helloSum})
	var mismatch *transfer.ChecksumError
	if !errors.As(err, &mismatch) || mismatch.Got != digest.FromString("other") {
		t.Fatalf("error = %v", err)
	}
	var fault *Fault
	if !errors.As(err, &fault) {
		t.Fatalf("error = %v", err)
	}
	wanted := fmt.Sprintf(`Containerfile.mojo:4: FETCH: checksum mismatch for %s/a?...
  4 | FETCH ...
      want %s  got %s   nothing was written to /opt/x
hint: if the file was meant to change, put the new checksum into line 4`, s.URL, helloSum, digest.FromString("other"))
	if got := fault.At(&f.Meta).Error(); got != wanted {
		t.Errorf("got\n%s\nwant\n%s", got, wanted)
	}
}

func TestPlanStoresNothing(t *testing.T) {
	s := newSite(t, map[string][]byte{"/a": hello})
	r := newResolver(t)
	r.Downloads = nil
	f := &frontend.Fetch{Source: s.URL + "/a", Dest: "/"}
	pin, err := r.Fetch(t.Context(), f)
	if err != nil || pin.Digest != helloSum {
		t.Fatalf("pin %+v, error %v", pin, err)
	}
	if _, err := r.FetchChanges(t.Context(), f, pin); err == nil {
		t.Error("entries without a directory")
	}
	ro := newResolver(t)
	ro.Downloads.ReadOnly = true
	if _, err := ro.Fetch(t.Context(), f); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(ro.Downloads.Path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a read-only directory was made: %v", err)
	}
}

func TestUnchangedURLIsNotSentAgain(t *testing.T) {
	s := newSite(t, map[string][]byte{"/a": hello})
	r := newResolver(t)
	f := &frontend.Fetch{Source: s.URL + "/a", Dest: "/"}
	check(t, r, f, `f 0644 a "hello"`, "")
	for _, readOnly := range []bool{false, true} {
		later := newResolver(t)
		later.Downloads = &Downloads{Path: r.Downloads.Path, ReadOnly: readOnly}
		pin, err := later.Fetch(t.Context(), f)
		if err != nil || pin != (Pin{Digest: helloSum, Size: 5}) {
			t.Errorf("pin %+v, error %v", pin, err)
		}
	}
	if s.sent.Load() != 1 || s.requests.Load() != 3 {
		t.Errorf("%d of %d requests were answered with content", s.sent.Load(), s.requests.Load())
	}
	s.put("/a", []byte("new"))
	later := newResolver(t)
	later.Downloads.Path = r.Downloads.Path
	check(t, later, f, `f 0644 a "new"`, "")
}

func TestRottenBytesAreFetchedAgain(t *testing.T) {
	s := newSite(t, map[string][]byte{"/a": hello})
	r := newResolver(t)
	f := &frontend.Fetch{Source: s.URL + "/a", Dest: "/"}
	check(t, r, f, `f 0644 a "hello"`, "")
	if err := os.WriteFile(filepath.Join(r.Downloads.Path, "sha256", helloSum.Encoded()), []byte("hellO"), 0o644); err != nil {
		t.Fatal(err)
	}
	later := newResolver(t)
	later.Downloads.Path = r.Downloads.Path
	check(t, later, f, `f 0644 a "hello"`, "")
	if s.sent.Load() != 2 {
		t.Errorf("content was sent %d times", s.sent.Load())
	}
}

func TestURLThatChangedSinceItWasPinned(t *testing.T) {
	s := newSite(t, map[string][]byte{"/a": []byte("new")})
	f := &frontend.Fetch{Source: s.URL + "/a", Dest: "/"}
	_, err := newResolver(t).FetchChanges(t.Context(), f, Pin{Digest: helloSum})
	if err == nil || !strings.Contains(err.Error(), "changed since it was resolved") {
		t.Errorf("error = %v", err)
	}
}

func TestHTTPErrorLeavesNothing(t *testing.T) {
	s := newSite(t, nil)
	r := newResolver(t)
	_, err := r.Fetch(t.Context(), &frontend.Fetch{Source: s.URL + "/a", Dest: "/"})
	var status *transfer.StatusError
	if !errors.As(err, &status) || status.Code != 404 {
		t.Errorf("error = %v", err)
	}
	list, _ := os.ReadDir(r.Downloads.Path)
	if len(list) > 0 {
		t.Errorf("left %v", list)
	}
}

func TestSourcesOfOtherKinds(t *testing.T) {
	r := newResolver(t)
	for source, wanted := range map[string]string{
		"github:owner":     "want owner/repo",
		"ftp://u:p@host/x": "neither a URL nor github:",
		"x.tar.gz":         "neither a URL nor github:",
	} {
		f := &frontend.Fetch{Source: source, Dest: "/x"}
		_, err := r.Fetch(t.Context(), f)
		var fault *Fault
		if !errors.As(err, &fault) || !strings.Contains(err.Error(), wanted) || fault.Hint == "" {
			t.Errorf("%s: error = %v", source, err)
		}
		if _, err := r.FetchChanges(t.Context(), f, Pin{}); !errors.As(err, &fault) {
			t.Errorf("%s: error = %v", source, err)
		}
	}
	for _, sum := range []digest.Digest{"sha256:12ab", "md5:d41d8cd98f00b204e9800998ecf8427e", digest.SHA512.FromString("")} {
		if _, err := r.Fetch(t.Context(), &frontend.Fetch{Source: "https://host/x", Checksum: sum}); err == nil {
			t.Errorf("checksum %s is accepted", sum)
		}
	}
}

func TestOwners(t *testing.T) {
	root := t.TempDir()
	makeTree(t, root, "etc/passwd root:x:0:0::/:/bin/sh\nbroken\napp:x:1001:50:::\n", "etc/group root:x:0:\nstaff:x:50:app")
	for chown, wanted := range map[string]string{
		"": "0 0", "5": "5 5", "5:6": "5 6", "app": "1001 50", "1001": "1001 1001", "app:staff": "1001 50", "7:staff": "7 50", "app:9": "1001 9",
		"nobody": "user nobody: not in /etc/passwd", "app:none": "group none: not in /etc/group",
		":5": "0 5", "5:": "5 5", ":": "0 0", "app:": "1001 50", ":staff": "0 50", "99999999999": "not in /etc/passwd",
	} {
		s, err := styleIn(names.New(root, ""), frontend.Ownership{Chown: chown})
		got := fmt.Sprint(s.uid, " ", s.gid)
		if err != nil {
			got = err.Error()
		}
		if !strings.Contains(got, wanted) {
			t.Errorf("--chown=%s: %s, want %s", chown, got, wanted)
		}
	}
	// A user whom a step before has made.
	at := names.New(root, "")
	passwd := []byte("bob:x:1002:1002:::\n")
	err := at.Add(func(yield func(*snapshot.Entry, error) bool) {
		yield(&snapshot.Entry{Path: "etc/passwd", Kind: snapshot.File, Size: int64(len(passwd)), Content: passwd}, nil)
	})
	if err != nil {
		t.Fatal(err)
	}
	if s, err := styleIn(at, frontend.Ownership{Chown: "bob"}); err != nil || s.uid != 1002 {
		t.Errorf("bob is %d, %v", s.uid, err)
	}
}

func TestWorkdir(t *testing.T) {
	root := t.TempDir()
	makeTree(t, root, "d/e/", "l -> d/e", "f x", "loop -> loop")
	for dir, want := range map[string]string{
		"/a/b": "d 0755 a/b\n", "/": "", "/l/x": "d 0755 d/e/x\n", "/l": "d 0755 d/e\n",
		"/f": "/f is a file", "/f/x": "/f is a file", "/loop/x": "links in a circle",
	} {
		changes, err := WorkdirChanges(&frontend.Workdir{Path: dir})(names.New(root, ""))
		got := ""
		if err == nil {
			got, err = text(t, changes)
		}
		if err != nil {
			got = err.Error()
		}
		if got != want && (err == nil || !strings.Contains(got, want)) {
			t.Errorf("%s: %s, want %s", dir, got, want)
		}
	}
}

// TestWorkdirOfUser makes directories that are a user's, by the rules of --chown.
func TestWorkdirOfUser(t *testing.T) {
	root := t.TempDir()
	makeTree(t, root, "etc/", "d/")
	for name, content := range map[string]string{"passwd": "root:x:0:0::/root:\napp:x:7:8::/:\n", "group": "staff:x:50:\n"} {
		if err := os.WriteFile(filepath.Join(root, "etc", name), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	at := names.New(root, "")
	for user, want := range map[string]string{
		"": "0:0", "app": "7:8", "app:staff": "7:50", "app:": "7:8", "9": "9:9", "9:staff": "9:50", "root": "0:0", "root:staff": "0:50",
		"nosuch": "USER nosuch: user nosuch: not in /etc/passwd", "app:nosuch": "USER app:nosuch: group nosuch: not in /etc/group",
	} {
		w := &frontend.Workdir{Path: "/d/a/b", User: user}
		changes, err := WorkdirChanges(w)(at)
		got := ""
		if err != nil {
			got = err.Error()
		} else {
			for e := range changes {
				if user != "" || e.Path == "d/a/b" { // root's parents are made by the way
					got += fmt.Sprintf("%s %d:%d ", e.Path, e.UID, e.GID)
				}
			}
			want = "d/a/b " + want + " "
			if user != "" {
				want = strings.Replace(want, "/b", "", 1) + want
			}
			if expected, err := ExpectWorkdir(w, at, true); err != nil {
				t.Error(err)
			} else {
				for _, err := range expected(changes) {
					if err != nil {
						t.Errorf("USER %s: its own snapshot: %v", user, err)
					}
				}
			}
		}
		if got != want {
			t.Errorf("USER %s: %s, want %s", user, got, want)
		}
	}
}

// madeOnUnix is the version of a zip member that Unix made.
const madeOnUnix = 3 << 8

// FuzzArchive reads hostile bytes as each kind of archive: it may fail, but not
// panic, and what it yields obeys the rules of snapshot.Entry.
func FuzzArchive(f *testing.F) {
	plain := tarOf("g", "d 0755 d", "f 0644 d/f hello", "h d/h d/f", "l d/l f", "f 0644 d/f again")
	f.Add(plain, 0)
	f.Add(asV7(bytes.Clone(plain)), 1)
	f.Add(compressed(archive.TarGzip, plain), 1)
	f.Add(compressed(archive.TarZstd, plain), 0)
	f.Add(compressed(archive.TarXz, plain), 0)
	f.Add(simpleZip(f), 1)
	bz, _ := base64.StdEncoding.DecodeString(bzipped)
	f.Add(bz, 0)
	f.Fuzz(func(t *testing.T, b []byte, strip int) {
		kind, err := archive.Detect(bytes.NewReader(b), int64(len(b)))
		if err != nil || kind == archive.None {
			return
		}
		a := &archive.Archive{Name: "fuzz", Kind: kind, Open: func() (archive.Blob, error) {
			return archive.Blob{ReaderAt: bytes.NewReader(b), Closer: io.NopCloser(nil), Size: int64(len(b))}, nil
		}}
		l, err := a.Layout(t.Context(), archive.Trim{Strip: strip & 7})
		if err != nil {
			return
		}
		for e, err := range a.Unpack(t.Context(), l, "x", func(*snapshot.Entry) {}) {
			if err != nil {
				return
			}
			if e.Kind == snapshot.File && e.Size > 1<<20 {
				return
			}
		}
		text(t, a.Unpack(t.Context(), l, "x", func(*snapshot.Entry) {}))
	})
}
