package snapshot

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/klauspost/compress/zstd"
	"pgregory.net/rapid"
)

var when = time.Unix(1_600_000_000, 123456789)

func stream(es ...*Entry) Changes {
	return func(yield func(*Entry, error) bool) {
		for _, e := range es {
			if !yield(e, nil) {
				return
			}
		}
	}
}

func file(path, content string) *Entry {
	return &Entry{
		Path: path, Kind: File, Mode: 0o644, Size: int64(len(content)), ModTime: when,
		Open: func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(content)), nil },
	}
}

func pack(t testing.TB, changes Changes) ([]byte, Packed) {
	t.Helper()
	var b bytes.Buffer
	p, err := Pack(context.Background(), &b, changes, PackOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return b.Bytes(), p
}

// readEntry is an entry with its content, as far as it can be compared.
type readEntry struct {
	Entry
	Content string
}

// readAll reads a stream.
func readAll(changes Changes) ([]readEntry, error) {
	var list []readEntry
	for e, err := range changes {
		if err != nil {
			return list, err
		}
		one := readEntry{Entry: *e}
		if e.Kind == File {
			r, err := e.Open()
			if err != nil {
				return list, err
			}
			data, err := io.ReadAll(r)
			if err != nil {
				return list, err
			}
			r.Close()
			one.Content = string(data)
		}
		if e.Release != nil {
			e.Release()
		}
		one.Open, one.Entry.Content, one.Release = nil, nil, nil
		one.ModTime = one.ModTime.UTC()
		list = append(list, one)
	}
	return list, nil
}

// everything has an entry of each kind, and names that are hard to store.
func everything() []*Entry {
	sparse := file("sparse", strings.Repeat("\x00", 5000)+"data"+strings.Repeat("\x00", 100))
	sparse.Data = []Extent{{5000, 4}}
	hole := file("hole", strings.Repeat("\x00", 4096))
	hole.Data = []Extent{}
	attrs := file("attrs", "x")
	attrs.Mode, attrs.UID, attrs.GID = 0o6755, 1000, 3_000_000
	attrs.Xattrs = map[string]string{"user.binary": "a\x00b\n=\xff", "security.capability": "\x01\x00\x00\x02"}
	return []*Entry{
		{Path: "dir", Kind: Dir, Mode: 0o1777, ModTime: when},
		{Path: "dir", Kind: Opaque},
		file("dir/a", "content"),
		{Path: "dir/b", Kind: Link, Target: "dir/a"},
		{Path: "implied", Kind: Dir, Implied: true, Mode: 0o755, ModTime: when},
		{Path: "link", Kind: Symlink, Target: "/../no where\n", ModTime: when},
		{Path: "gone", Kind: Delete},
		{Path: "null", Kind: Char, Major: 1, Minor: 3, Mode: 0o666, ModTime: when},
		{Path: "disk", Kind: Block, Major: 259, Minor: 70000, Mode: 0o660, ModTime: when},
		{Path: "pipe", Kind: Fifo, Mode: 0o600, ModTime: time.Unix(-5, 1)},
		sparse, hole, attrs,
		file("new\nline", ""), file("\xff\xfe latin", "1"), file(strings.Repeat("n", 255), "2"),
		file(strings.Repeat("deep/", 200)+"f", "3"), file(" blank ", "4"), file("é/ü", "5"),
	}
}

func TestRoundTrip(t *testing.T) {
	es := everything()
	blob, p := pack(t, stream(es...))
	want, _ := readAll(stream(es...))
	for i := range want {
		// What a whiteout or a hard link has no room for.
		if k := want[i].Kind; k == Delete || k == Opaque {
			want[i].ModTime = time.Time{}.UTC()
		}
	}
	got, err := readAll(Read(bytes.NewReader(blob)))
	if err != nil {
		t.Fatal(err)
	}
	for i := range got {
		if got[i].Kind == Link {
			got[i].ModTime, got[i].Mode = want[i].ModTime, 0
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if p.Entries != len(es) || p.Size != int64(len(blob)) || p.Digest.String() != fmt.Sprintf("sha256:%x", sha256.Sum256(blob)) {
		t.Errorf("packed: %+v", p)
	}
	d, err := zstd.NewReader(bytes.NewReader(blob))
	if err != nil {
		t.Fatal(err)
	}
	plain, err := io.ReadAll(d)
	if err != nil {
		t.Fatal(err)
	}
	if p.DiffID.String() != fmt.Sprintf("sha256:%x", sha256.Sum256(plain)) {
		t.Error("DiffID is not the digest of the plain tar")
	}
}

func TestRoundTripOfAnything(t *testing.T) {
	name := rapid.StringMatching(`[a-c\n ]{1,3}`)
	rapid.Check(t, func(t *rapid.T) {
		var es []*Entry
		seen := make(map[string]bool)
		for range rapid.IntRange(0, 10).Draw(t, "n") {
			p := name.Draw(t, "name")
			if seen[p] {
				continue
			}
			seen[p] = true
			switch rapid.IntRange(0, 3).Draw(t, "kind") {
			case 0:
				e := file(p, rapid.String().Draw(t, "content"))
				e.ModTime = time.Unix(rapid.Int64Range(-1<<33, 1<<34).Draw(t, "s"), rapid.Int64Range(0, 999_999_999).Draw(t, "ns"))
				if rapid.Bool().Draw(t, "has an xattr") { // an empty one is not none
					e.Xattrs = map[string]string{"user.x": string(rapid.SliceOf(rapid.Byte()).Draw(t, "xattr"))}
				}
				es = append(es, e)
			case 1:
				es = append(es, &Entry{Path: p, Kind: Dir, Mode: uint32(rapid.IntRange(0, 0o7777).Draw(t, "mode")), ModTime: when})
			case 2:
				es = append(es, &Entry{Path: p, Kind: Symlink, Target: rapid.StringMatching(`[^\x00]{1,200}`).Draw(t, "target"), ModTime: when})
			case 3:
				es = append(es, &Entry{Path: p, Kind: Delete})
			}
		}
		var b bytes.Buffer
		if _, err := Pack(context.Background(), &b, stream(es...), PackOptions{}); err != nil {
			t.Fatal(err)
		}
		want, _ := readAll(stream(es...))
		got, err := readAll(Read(&b))
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Fatalf("(-want +got):\n%s", diff)
		}
	})
}

// The same entries give the same bytes, today and with the next version: blobs
// are known by their digests. The compressor may change; the tar must not.
func TestPackGolden(t *testing.T) {
	_, p := pack(t, stream(everything()...))
	const goldenDiffID = "sha256:7b20329d4b7f0575866fc7cb1f5cff95ad449b9d4e1e707f20c347543ba08671"
	if p.DiffID.String() != goldenDiffID {
		t.Errorf("DiffID = %s, want %s", p.DiffID, goldenDiffID)
	}
}

func TestConcurrencyChangesNoByte(t *testing.T) {
	var text strings.Builder
	for i := range 300_000 {
		fmt.Fprintf(&text, "line %d\n", i*i)
	}
	var first []byte
	for _, n := range []int{1, 2, 4} {
		var b bytes.Buffer
		if _, err := Pack(t.Context(), &b, stream(file("f", text.String()), file("g", text.String())), PackOptions{Concurrency: n}); err != nil {
			t.Fatal(err)
		}
		if first == nil {
			first = b.Bytes()
		}
		if !bytes.Equal(first, b.Bytes()) {
			t.Errorf("%d compressors give other bytes", n)
		}
	}
}

// holed is a file of ten bytes with data at these extents.
func holed(data ...Extent) *Entry {
	e := file("f", "0123456789")
	e.Data = data
	return e
}

func TestPackRefuses(t *testing.T) {
	grown := file("f", "content")
	grown.Size = 3
	shrunk := file("f", "content")
	shrunk.Size = 30
	closed := file("f", "x")
	closed.Open = func() (io.ReadCloser, error) { return nil, errors.New("vanished") }
	unopened := &Entry{Path: "f", Kind: File, Size: 1, Content: []byte("x")}
	tests := []struct {
		name string
		es   []*Entry
		want string
	}{
		{"a file that grew", []*Entry{grown}, `"f": the file grew`},
		{"a file that shrank", []*Entry{shrunk}, `"f": the file shrank`},
		{"a file that vanished", []*Entry{closed}, `"f": vanished`},
		{"content that cannot be opened", []*Entry{unopened}, `"f": it has content, and no Open`},
		{"a name of a whiteout", []*Entry{file("a/.wh.b", "x")}, `"a/.wh.b"`},
		{"two of a name", []*Entry{file("a", ""), file("a", "")}, "two entries"},
		{"below a file", []*Entry{file("a", ""), file("a/b", "")}, "not a directory"},
		{"a link to nothing", []*Entry{{Path: "a", Kind: Link, Target: "b"}}, "hard link"},
		{"an absolute name", []*Entry{file("/a", "")}, "absolute"},
		{"no kind", []*Entry{{Path: "a"}}, "kind 0"},
		{"the owner -1, which chown takes for none", []*Entry{{Path: "a", Kind: Dir, GID: -1}}, "owner 0:-1"},
		{"the owner -1 of 32 bits", []*Entry{{Path: "a", Kind: Dir, UID: 1<<32 - 1}}, "owner 4294967295:0"},
		{"extents out of order", []*Entry{holed(Extent{5, 3}, Extent{1, 2})}, "overlap"},
		{"an extent past the end", []*Entry{holed(Extent{5, 6})}, "beyond"},
		{"an extent before the beginning", []*Entry{holed(Extent{-1, 2})}, "overlap"},
		{"extents that overflow", []*Entry{holed(Extent{1<<63 - 1, 1<<63 - 1})}, "beyond"},
	}
	for _, tt := range tests {
		if _, err := Pack(t.Context(), io.Discard, stream(tt.es...), PackOptions{}); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: error = %v, want %q in it", tt.name, err, tt.want)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Pack(ctx, io.Discard, stream(file("a", "")), PackOptions{}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	if _, err := Pack(t.Context(), &full{}, stream(file("a", "x")), PackOptions{}); !errors.Is(err, errFull) {
		t.Errorf("a full disk: %v", err)
	}
}

var errFull = errors.New("no space left")

type full struct{}

func (full) Write([]byte) (int, error) { return 0, errFull }

// beforeTOC returns how much of a blob is before its table of contents: by itself
// a whole blob without one.
func beforeTOC(t testing.TB, blob []byte) int {
	t.Helper()
	_, n, _, err := openTOC(bytes.NewReader(blob), int64(len(blob)))
	if errors.Is(err, ErrNoTOC) {
		return -1
	}
	if err != nil {
		t.Fatal(err)
	}
	return int(n)
}

// Cut off at any byte, a blob is an error, never a shorter snapshot.
func TestTruncatedAtEveryByte(t *testing.T) {
	blob, _ := pack(t, stream(file("a", "content"), file("b", strings.Repeat("more", 50))))
	for n := range len(blob) {
		if _, err := readAll(Read(bytes.NewReader(blob[:n]))); err == nil && n != beforeTOC(t, blob) {
			t.Fatalf("%d of %d bytes: no error", n, len(blob))
		}
	}
	var plain bytes.Buffer
	w := tar.NewWriter(&plain)
	for _, name := range []string{"a", "b"} {
		if err := w.WriteHeader(&tar.Header{Name: name, Typeflag: tar.TypeReg, Size: 3}); err != nil {
			t.Fatal(err)
		}
		w.Write([]byte("abc"))
	}
	w.Close()
	for n := range plain.Len() {
		if _, err := readAll(Read(bytes.NewReader(plain.Bytes()[:n]))); err == nil {
			t.Fatalf("a tar, %d of %d bytes: no error", n, plain.Len())
		}
	}
	if list, err := readAll(Read(bytes.NewReader(plain.Bytes()))); err != nil || len(list) != 2 {
		t.Errorf("a whole tar: %v, %v", list, err)
	}
}

// A file of zeros looks like the end of a tar, when nothing follows it.
func TestTruncatedAfterZeros(t *testing.T) {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, name := range []string{"a", "b"} {
		if err := w.WriteHeader(&tar.Header{Name: name, Typeflag: tar.TypeReg, Size: 2048}); err != nil {
			t.Fatal(err)
		}
		w.Write(make([]byte, 2048))
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	whole := b.Bytes()
	for n := range len(whole) {
		if list, err := readAll(Read(bytes.NewReader(whole[:n]))); err == nil {
			t.Fatalf("%d of %d bytes: no error, %d entries", n, len(whole), len(list))
		}
	}
	for name, r := range map[string]io.Reader{
		"whole":                 bytes.NewReader(whole),
		"a byte at a time":      iotest.OneByteReader(bytes.NewReader(whole)),
		"the end with data":     iotest.DataErrReader(bytes.NewReader(whole)),
		"padded as tar pads":    bytes.NewReader(append(bytes.Clone(whole), make([]byte, 10240)...)),
		"compressed, and so on": compressed(t, whole),
	} {
		if list, err := readAll(Read(r)); err != nil || len(list) != 2 {
			t.Errorf("%s: %d entries, %v", name, len(list), err)
		}
	}
}

func compressed(t *testing.T, data []byte) io.Reader {
	t.Helper()
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	w.Write(data)
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return &b
}

func TestCompressedStreamsEndWhole(t *testing.T) {
	blob, _ := pack(t, stream(file("a", "content")))
	plain := must(io.ReadAll(foreign(t, &tar.Header{Name: "a", Typeflag: tar.TypeReg, Size: 7})))
	zipped := must(io.ReadAll(compressed(t, plain)))
	for name, whole := range map[string][]byte{"zstd": blob, "gzip": zipped} {
		for n := range len(whole) {
			if _, err := readAll(Read(bytes.NewReader(whole[:n]))); err == nil && n != beforeTOC(t, whole) {
				t.Errorf("%s: %d of %d bytes: no error", name, n, len(whole))
			}
		}
		if _, err := readAll(Read(bytes.NewReader(append(bytes.Clone(whole), "more"...)))); err == nil {
			t.Errorf("%s: no error for what is after the end", name)
		}
	}
	// As zstd's seekable format, and a table of contents of ours, have it.
	skippable := append([]byte{0x50, 0x2a, 0x4d, 0x18, 3, 0, 0, 0}, "toc"...)
	for name, r := range map[string][]byte{"after": append(bytes.Clone(blob), skippable...), "before": append(skippable, blob...)} {
		if list, err := readAll(Read(bytes.NewReader(r))); err != nil || len(list) != 1 {
			t.Errorf("a skippable frame %s: %d entries, %v", name, len(list), err)
		}
	}
}

func TestFlippedBytesAreFound(t *testing.T) {
	blob, _ := pack(t, stream(file("a", strings.Repeat("content ", 100))))
	want, _ := readAll(Read(bytes.NewReader(blob)))
	for i := range blob {
		bad := bytes.Clone(blob)
		bad[i] ^= 0x55
		if got, err := readAll(Read(bytes.NewReader(bad))); err == nil && !cmp.Equal(want, got) {
			t.Errorf("byte %d: no error, and another content", i)
		}
	}
}

// foreign makes a tar as others write it.
func foreign(t *testing.T, hs ...*tar.Header) io.Reader {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range hs {
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		io.CopyN(w, strings.NewReader(strings.Repeat("x", int(h.Size))), h.Size)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return &b
}

func TestForeign(t *testing.T) {
	tests := []struct {
		name string
		hs   []*tar.Header
		want string // paths, or the beginning of an error
	}{
		{"./ before names", []*tar.Header{{Name: "./", Typeflag: tar.TypeDir}, {Name: "./a/", Typeflag: tar.TypeDir}, {Name: "./a/b", Typeflag: tar.TypeReg, Size: 1}}, "a a/b"},
		{"Docker's whiteouts", []*tar.Header{{Name: "a/", Typeflag: tar.TypeDir}, {Name: "a/.wh..wh..opq", Typeflag: tar.TypeReg}, {Name: "a/.wh.b", Typeflag: tar.TypeReg}, {Name: ".wh..wh.aufs", Typeflag: tar.TypeReg}}, "a a a/b"},
		{"an absolute name", []*tar.Header{{Name: "/a", Typeflag: tar.TypeReg}}, `error: unsafe entry "/a"`},
		{"..", []*tar.Header{{Name: "a/../../b", Typeflag: tar.TypeReg}}, "error: unsafe entry"},
		{"a whiteout of the root", []*tar.Header{{Name: ".wh..wh..opq", Typeflag: tar.TypeReg}}, "error: unsafe entry"},
		{"a whiteout of ..", []*tar.Header{{Name: "a/.wh...", Typeflag: tar.TypeReg}}, "error: unsafe entry"},
		{"a hard link to outside", []*tar.Header{{Name: "a", Typeflag: tar.TypeLink, Linkname: "../b"}}, `error: hard link "a"`},
		{"a link, then a file through it", []*tar.Header{{Name: "a", Typeflag: tar.TypeSymlink, Linkname: "/"}, {Name: "a/b", Typeflag: tar.TypeReg}}, "error: unsafe entry"},
		{"extents that overlap", []*tar.Header{{Name: "a", Typeflag: tar.TypeReg, Size: 9, PAXRecords: map[string]string{"CLAYER.data": "0,5,3,2"}}}, `error: unsafe entry "a": extents`},
		{"extents past the end", []*tar.Header{{Name: "a", Typeflag: tar.TypeReg, Size: 9, PAXRecords: map[string]string{"CLAYER.data": "5,5"}}}, `error: unsafe entry "a": extents`},
		{"extents that are no numbers", []*tar.Header{{Name: "a", Typeflag: tar.TypeReg, Size: 9, PAXRecords: map[string]string{"CLAYER.data": "5,x"}}}, `error: unsafe entry "a": malformed`},
		{"the owner -1", []*tar.Header{{Name: "a", Typeflag: tar.TypeReg, Uid: -1, Format: tar.FormatGNU}}, `error: unsafe entry "a": the owner -1:0`},
		{"a device of more than 32 bits", []*tar.Header{{Name: "a", Typeflag: tar.TypeChar, Devmajor: 1<<32 + 1, Devminor: 3, Format: tar.FormatGNU}}, `error: unsafe entry "a": device 4294967297:3`},
	}
	for _, tt := range tests {
		list, err := readAll(Read(foreign(t, tt.hs...)))
		var paths []string
		for _, e := range list {
			paths = append(paths, e.Path)
		}
		got := strings.Join(paths, " ")
		if err != nil {
			got = "error: " + err.Error()
		}
		if got != tt.want && !(err != nil && strings.HasPrefix(got, tt.want)) {
			t.Errorf("%s: %s, want %s", tt.name, got, tt.want)
		}
	}
	for name, bytes_ := range map[string]string{"nothing": "", "zeros": strings.Repeat("\x00", 100), "text": "hello", "after the end": string(must(io.ReadAll(foreign(t)))) + "more"} {
		if list, err := readAll(Read(strings.NewReader(bytes_))); err == nil {
			t.Errorf("%s: no error, %d entries", name, len(list))
		}
	}
}

func must(b []byte, err error) []byte {
	if err != nil {
		panic(err)
	}
	return b
}

// GNU tar reads what we pack.
func TestTarReadsIt(t *testing.T) {
	if _, err := exec.LookPath("zstd"); err != nil {
		t.Skip("zstd is not installed")
	}
	blob, _ := pack(t, stream(everything()...))
	cmd := exec.Command("tar", "--zstd", "-tvf", "-")
	cmd.Stdin = bytes.NewReader(blob)
	out, err := cmd.CombinedOutput()
	if err != nil && !strings.Contains(string(out), "dir/a") {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, want := range []string{"dir/a", "dir/b link to dir/a", "dir/.wh..wh..opq", ".wh.gone", "1000/3000000"} {
		if !strings.Contains(string(out), want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
}

// A file of any size is packed and read in constant memory.
func TestMemoryIsConstant(t *testing.T) {
	if testing.Short() {
		t.Skip("-short: it moves 512 MiB")
	}
	const size = 512 << 20
	big := &Entry{Path: "big", Kind: File, Size: size, ModTime: when, Data: []Extent{{0, 1}}, Open: func() (io.ReadCloser, error) {
		return io.NopCloser(io.LimitReader(zeroReader{}, size)), nil
	}}
	r, w := io.Pipe()
	go func() {
		_, err := Pack(t.Context(), w, stream(big), PackOptions{})
		w.CloseWithError(err)
	}()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for e, err := range Read(r) {
		if err != nil {
			t.Fatal(err)
		}
		content, _ := e.Open()
		if n, err := io.Copy(io.Discard, content); n != size || err != nil {
			t.Errorf("%d bytes, %v", n, err)
		}
	}
	runtime.ReadMemStats(&after)
	if got := int64(after.TotalAlloc - before.TotalAlloc); got > 256<<20 {
		t.Errorf("%d MiB were allocated for %d MiB", got>>20, size>>20)
	}
}

type zeroReader struct{}

func (zeroReader) Read(p []byte) (int, error) { clear(p); return len(p), nil }

func TestFilter(t *testing.T) {
	tests := []struct {
		f        Filter
		skips    string
		captured string
	}{
		{Filter{}, "proc proc/1 sys dev/null run/x tmp tmp/a var/tmp/x var/cache/apt/archives/x.deb var/cache/apt/pkgcache.bin root/.cache/pip/x home/me/.cache/uv home/me/.npm/_cacache/a root/.cargo/registry/x var/lib/clayer/state.json root/.cache/go-build " +
			"var/log/dpkg.log var/log/apt/term.log var/cache/ldconfig/aux-cache root/.npm/_logs/x root/.npm/_update-notifier-last-checked tmp/node-compile-cache/x",
			"a usr/lib/x process tmpx var/cache/apt var/cache/apt/other root/.cache root/.cache/other root/.npm/x root/.cargo/bin/x srv/.cachepip var/log var/log/apt var/log/apt/other var/log/app.log var/cache/ldconfig"},
		{Filter{Include: []string{"/var/log"}}, "tmp/x", "var/log/dpkg.log var/log/apt/term.log"},
		{Filter{Include: []string{"/tmp/kept"}}, "tmp tmp/other run/x tmp/keptx", "tmp/kept tmp/kept/a"},
		{Filter{Include: []string{"/tmp/a/b", "/root/.cache/pip/http"}}, "tmp tmp/ab tmp/a/c root/.cache/pip/other", "tmp/a tmp/a/b/c root/.cache/pip root/.cache/pip/http/x"},
		{Filter{Include: []string{"/"}}, "proc/1 run/x var/lib/clayer", "tmp/x root/.cache/pip/x"},
		{Filter{Ignore: []string{"opt/logs", "**/*.log", "!opt/keep.log"}}, "opt/logs opt/logs/x a/b.log tmp/x", "opt opt/keep.log"},
	}
	for _, tt := range tests {
		m, err := tt.f.Compile()
		if err != nil {
			t.Fatal(err)
		}
		for p := range strings.FieldsSeq(tt.skips) {
			if !m.Skip(p) {
				t.Errorf("%s: %s is captured", tt.f, p)
			}
		}
		for p := range strings.FieldsSeq(tt.captured) {
			if m.Skip(p) {
				t.Errorf("%s: %s is left out", tt.f, p)
			}
			if m.Prune(p) {
				t.Errorf("%s: a walk does not enter %s", tt.f, p)
			}
		}
	}
	m, _ := Filter{Include: []string{"/tmp/a/b"}}.Compile()
	for p, want := range map[string]bool{"tmp": false, "tmp/a": false, "tmp/a/b": false, "tmp/c": true, "proc": true} {
		if m.Prune(p) != want {
			t.Errorf("Prune(%s) = %t, want %t", p, !want, want)
		}
	}
	if _, err := (Filter{Ignore: []string{"["}}).Compile(); err == nil {
		t.Error("a malformed pattern has no error")
	}
}

func TestLiftsExclusion(t *testing.T) {
	for p, want := range map[string]bool{
		"/tmp": true, "/tmp/x": true, "/": true, "/var": true, "/var/tmp": true, "/var/cache": true, "/root": true, "/home/me": true,
		"/root/.cache/pip": true, "/root/.cache": true, "/home/me/.cache/uv/x": true,
		"/opt/x": false, "/usr/lib/python3/dist-packages": false, "/srv": false, "/tmpx": false, "/root/project": false, "/var/lib/x": false,
	} {
		if got := LiftsExclusion(p); got != want {
			t.Errorf("LiftsExclusion(%s) = %t, want %t", p, got, want)
		}
	}
}

func FuzzRead(f *testing.F) {
	blob, _ := pack(f, stream(everything()...))
	f.Add(blob)
	d, _ := zstd.NewReader(nil)
	plain, _ := d.DecodeAll(blob, nil)
	f.Add(plain)
	f.Add([]byte{0x1f, 0x8b})
	f.Fuzz(func(t *testing.T, data []byte) {
		list, err := readAll(Read(io.LimitReader(bytes.NewReader(data), 1<<20)))
		for _, e := range list {
			if cerr := checkPath(e.Path); cerr != nil {
				t.Errorf("%v (%v)", cerr, err)
			}
		}
	})
}

func benchmark(b *testing.B, files int, content string, read bool) {
	var es []*Entry
	for i := range files {
		es = append(es, file(fmt.Sprintf("f%d", i), content))
	}
	blob, _ := pack(b, stream(es...))
	b.SetBytes(int64(files * len(content)))
	b.ReportAllocs()
	for b.Loop() {
		if !read {
			if _, err := Pack(context.Background(), io.Discard, stream(es...), PackOptions{}); err != nil {
				b.Fatal(err)
			}
			continue
		}
		for e, err := range Read(bytes.NewReader(blob)) {
			if err != nil {
				b.Fatal(err)
			}
			r, _ := e.Open()
			if _, err := io.Copy(io.Discard, r); err != nil {
				b.Fatal(err)
			}
		}
	}
}

var words = strings.Repeat("the quick brown fox jumps over the lazy dog; ", 100)

func BenchmarkPackSmall(b *testing.B) { benchmark(b, 2000, words, false) }
func BenchmarkPackLarge(b *testing.B) { benchmark(b, 1, strings.Repeat(words, 5000), false) }
func BenchmarkReadSmall(b *testing.B) { benchmark(b, 2000, words, true) }
func BenchmarkReadLarge(b *testing.B) { benchmark(b, 1, strings.Repeat(words, 5000), true) }

func BenchmarkFilterSkip(b *testing.B) {
	m, _ := Filter{Include: []string{"/tmp/x"}}.Compile()
	for b.Loop() {
		m.Skip("usr/local/lib/python3.11/dist-packages/numpy/core/_multiarray.so")
	}
}
