package snapshot

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/google/go-cmp/cmp"
	"github.com/klauspost/compress/zstd"
	"pgregory.net/rapid"

	"github.com/clayer/clayer/cache/snapshot/frames"
)

// plainOf returns the tar of a blob, decoded by the library alone.
func plainOf(t testing.TB, blob []byte) []byte {
	t.Helper()
	d, err := zstd.NewReader(bytes.NewReader(blob))
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	plain, err := io.ReadAll(d)
	if err != nil {
		t.Fatal(err)
	}
	return plain
}

func noise(n int) string {
	b := make([]byte, n)
	r := rand.NewChaCha8([32]byte{1})
	r.Read(b)
	return string(b)
}

// many has small files, files of several frames, one that is a tar, and one
// that can't be compressed.
func many(t testing.TB) []*Entry {
	var es []*Entry
	for i := range 3000 {
		es = append(es, file(fmt.Sprintf("small/%04d", i), strings.Repeat(fmt.Sprint(i), i%900)))
	}
	inner, _ := pack(t, stream(es[:2500]...))
	es = append(es,
		file("tar", string(plainOf(t, inner))),
		file("noise", noise(3*frameSize+1)),
		file("zeros", strings.Repeat("\x00", 2*frameSize)),
		file("text", strings.Repeat("a line of text\n", frameSize/4)),
		&Entry{Path: "twin", Kind: Link, Target: "text"},
		file("exact", noise(frameSize)),
		file("nothing", ""),
	)
	return es
}

func TestFramesRoundTrip(t *testing.T) {
	es := many(t)
	blob, _ := pack(t, stream(es...))
	want, err := readAll(stream(es...))
	if err != nil {
		t.Fatal(err)
	}
	got, err := readAll(Read(bytes.NewReader(blob)))
	if err != nil {
		t.Fatal(err)
	}
	if len(got) != len(want) {
		t.Fatalf("%d entries of %d", len(got), len(want))
	}
	for i := range want {
		if got[i].Path != want[i].Path || got[i].Content != want[i].Content {
			t.Errorf("%q came as %q, %d bytes of %d", want[i].Path, got[i].Path, len(got[i].Content), len(want[i].Content))
		}
	}
	// Content that isn't opened is stepped over.
	n := 0
	for _, err := range Read(bytes.NewReader(blob)) {
		if err != nil {
			t.Fatal(err)
		}
		n++
	}
	if n != len(es) {
		t.Errorf("%d entries, stepped over, of %d", n, len(es))
	}
}

// The bytes depend on nothing but the entries.
func TestCoresChangeNoByte(t *testing.T) {
	es := many(t)
	want, _ := pack(t, stream(es...))
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(0))
	for _, n := range []int{1, 3, 8} {
		runtime.GOMAXPROCS(n)
		if got, _ := pack(t, stream(es...)); !bytes.Equal(got, want) {
			t.Errorf("%d cores give other bytes", n)
		}
	}
}

// What was guessed of a frame never changes what is read: however a tar is cut
// into frames, it is the same tar.
func TestHoweverItIsCut(t *testing.T) {
	inner, _ := pack(t, stream(file("x", "inner"), file("y", strings.Repeat("z", 2000))))
	blob, _ := pack(t, stream(append(everything(), file("tar", string(plainOf(t, inner))), file("end", noise(3000)))...))
	plain := plainOf(t, blob)
	want, err := readAll(Read(bytes.NewReader(plain)))
	if err != nil {
		t.Fatal(err)
	}
	enc, _ := zstd.NewWriter(nil)
	rapid.Check(t, func(t *rapid.T) {
		var cut bytes.Buffer
		for rest := plain; len(rest) > 0; {
			n := rapid.IntRange(1, len(rest)).Draw(t, "bytes")
			if rapid.Bool().Draw(t, "at a block") {
				n = min(len(rest), (n+511)&^511)
			}
			if rapid.Bool().Draw(t, "of unknown size") {
				w, _ := zstd.NewWriter(&cut)
				w.Write(rest[:n])
				w.Close()
			} else {
				cut.Write(enc.EncodeAll(rest[:n], nil))
			}
			rest = rest[n:]
		}
		got, err := readAll(Read(&cut))
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Fatalf("(-plain +cut):\n%s", diff)
		}
	})
}

// Frames that lie about their size, or have blocks that can't be, are errors,
// found before memory is taken for them.
func TestFramesThatLie(t *testing.T) {
	head := func(size uint32) []byte {
		return binary.LittleEndian.AppendUint32([]byte{0x28, 0xb5, 0x2f, 0xfd, 0xa0}, size)
	}
	for name, blob := range map[string][]byte{
		"a block of 2 MiB":        append(head(maxFrame), 0xff, 0xff, 0xff),
		"no block":                head(100),
		"more than it says":       append(append(head(10), 0x07, 0x00, 0x08), 'a'), // 64 KiB of a
		"less than it says":       append(append(head(4096), 0x0b, 0x00, 0x00), 'a'),
		"a skippable one, cut":    {0x50, 0x2a, 0x4d, 0x18, 0xff, 0xff, 0xff, 0xff, 1},
		"more blocks than it can": append(head(0), bytes.Repeat(append([]byte{0x00, 0x00, 0x08}, make([]byte, 64<<10)...), 4)...),
	} {
		if _, err := readAll(Read(bytes.NewReader(blob))); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

// TestReadLeavesNoGoroutine works in a bubble, which ends when its goroutines
// have, and panics when one of them waits for ever.
func TestReadLeavesNoGoroutine(t *testing.T) {
	blob, _ := pack(t, stream(many(t)...))
	large, _ := pack(t, stream(file("a", strings.Repeat("abc", 1<<20)), file("b", strings.Repeat("q", 1<<22))))
	entries := many(t)
	synctest.Test(t, func(t *testing.T) {
		for range Read(bytes.NewReader(blob)) {
			break
		}
		for e := range Read(bytes.NewReader(large)) {
			r, err := e.Open()
			if err != nil {
				t.Fatal(err)
			}
			io.ReadFull(r, make([]byte, 10))
			break
		}
		for range Read(bytes.NewReader(blob[:len(blob)/2])) {
		}
		if _, err := Pack(t.Context(), full{}, stream(entries...), PackOptions{}); !errors.Is(err, errFull) {
			t.Errorf("packed: %v", err)
		}
	})
}

// Memory is used again when all that is in it was released, and not before; what is
// never released stays.
func TestRelease(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(2)) // with many, all frames are read ahead
	var es []*Entry
	for i := range 400 { // some 20 frames
		es = append(es, file(fmt.Sprint(i), strings.Repeat(fmt.Sprint(i, " "), 3)+noise(100<<10+i)), file(fmt.Sprint(i, "t"), strings.Repeat(fmt.Sprint(i), 100)))
	}
	want := make(map[string]string)
	for _, e := range es {
		r, _ := e.Open()
		content, _ := io.ReadAll(r)
		want[e.Path] = string(content)
	}
	blob, _ := pack(t, stream(es...))
	type held struct {
		path    string
		content []byte
		release func()
	}
	holding := make(chan held, 100)
	var wg sync.WaitGroup
	check := func(h held) {
		if string(h.content) != want[h.path] {
			t.Errorf("%q: it has changed", h.path)
		}
	}
	for range 3 {
		wg.Go(func() {
			for h := range holding {
				check(h)
				h.release()
			}
		})
	}
	var retained []held
	memory := make(map[*byte]int)
	for e, err := range Read(bytes.NewReader(blob)) {
		if err != nil {
			t.Fatal(err)
		}
		if e.Content == nil {
			continue // it goes on in another frame
		}
		memory[&e.Content[0]]++
		h := held{e.Path, e.Content, e.Release}
		if len(retained) < 5 && strings.HasSuffix(e.Path, "50") {
			retained = append(retained, h)
			continue
		}
		holding <- h
	}
	close(holding)
	wg.Wait()
	for _, h := range retained {
		check(h)
	}
	again := 0
	for _, n := range memory {
		again += n - 1
	}
	if again == 0 {
		t.Error("no memory was used again")
	}
}

func TestPackStopsWhenTheWriterFails(t *testing.T) {
	endless := func(yield func(*Entry, error) bool) {
		for i := 0; yield(file(fmt.Sprint(i), noise(100<<10)), nil); i++ {
		}
	}
	if _, err := Pack(t.Context(), full{}, endless, PackOptions{}); !errors.Is(err, errFull) {
		t.Errorf("got %v", err)
	}
}

func TestNoiseIsStored(t *testing.T) {
	blob, p := pack(t, stream(file("noise", noise(8<<20))))
	if over := int64(len(blob)) - p.Bytes; over > 8<<10 {
		t.Errorf("%d bytes more than the content", over)
	}
}

func TestList(t *testing.T) {
	es := many(t)
	blob, _ := pack(t, stream(es...))
	i := 0
	for l, err := range List(bytes.NewReader(blob), int64(len(blob))) {
		if err != nil {
			t.Fatal(err)
		}
		e := es[i]
		if l.Path != e.Path || l.Kind != e.Kind || l.Size != e.Size {
			t.Fatalf("%+v for %q", l, e.Path)
		}
		i++
	}
	if i != len(es) {
		t.Errorf("%d entries of %d", i, len(es))
	}
	for _, err := range List(bytes.NewReader(blob), int64(beforeTOC(t, blob))) {
		if !errors.Is(err, ErrNoTOC) {
			t.Errorf("a blob without a table: %v", err)
		}
	}
}

var encoder = sync.OnceValue(func() *zstd.Encoder {
	e, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithWindowSize(1<<20))
	if err != nil {
		panic(err)
	}
	return e
})

// withTable returns a blob with these records as its table of contents, of the first
// format or today's.
func withTable(records []byte, before int, magic string) []byte {
	packed := encoder().EncodeAll(records, nil)
	b := make([]byte, before)
	b = binary.LittleEndian.AppendUint32(b, frames.Skippable)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(packed)+tocFooter))
	b = append(b, packed...)
	b = binary.LittleEndian.AppendUint64(b, uint64(len(packed)+tocExtra))
	return append(b, magic...)
}

func TestTablesThatLie(t *testing.T) {
	num := binary.AppendUvarint
	frame := func(size, plain uint64) []byte { return num(num([]byte{recordF}, size), plain) }
	join := func(list ...[]byte) []byte { return bytes.Join(list, nil) }
	entry1 := func(index, offset, size uint64, path string) []byte {
		b := num(num(num([]byte{recordE, byte(File)}, index), offset), size)
		b = append(b, make([]byte, 32)...)
		return append(num(b, uint64(len(path))), path...)
	}
	entry := func(back, size uint64, path string) []byte {
		b := num(num([]byte{recordE, byte(File)}, back), size)
		return append(num(b, uint64(len(path))), path...)
	}
	for _, tt := range []struct {
		magic string
		good  []byte
		bad   map[string][]byte
	}{
		{tocMagic1, entry1(0, 512, 4488, "a"), map[string][]byte{
			"an entry before all frames":    join(entry1(0, 0, 0, "a"), frame(100, 1)),
			"an entry of a frame not there": join(frame(100, 5000), entry1(1, 0, 0, "a")),
			"an offset beyond":              join(frame(100, 5000), entry1(0, 5001, 0, "a")),
			"a size beyond":                 join(frame(100, 5000), entry1(0, 512, 4489, "a")),
			"a size that overflows":         join(frame(100, 5000), entry1(0, 512, 1<<64-512, "a")),
			"a name that leads out":         join(frame(100, 5000), entry1(0, 512, 1, "../a")),
			"a name without an end":         join(frame(100, 5000), entry1(0, 512, 1, "abc")[:40]),
			"a digest without an end":       join(frame(100, 5000), entry1(0, 512, 1, "abc")[:20]),
		}},
		{tocMagic, entry(0, 5000, "a"), map[string][]byte{
			"a frame beyond the blob":       frame(101, 5000),
			"frames that end before":        frame(99, 5000),
			"a frame of nothing":            join(frame(0, 1), frame(100, 1)),
			"frames whose sum overflows":    join(frame(50, maxPlain), frame(50, maxPlain)),
			"a frame of more than all":      frame(100, 1<<63),
			"an entry before all frames":    join(entry(0, 0, "a"), frame(100, 1)),
			"an entry of a frame not there": join(frame(100, 5000), entry(1, 0, "a")),
			"a size beyond":                 join(frame(100, 5000), entry(0, 5001, "a")),
			"a size that overflows":         join(frame(100, 5000), entry(0, 1<<64-1, "a")),
			"a name that leads out":         join(frame(100, 5000), entry(0, 1, "../a")),
			"an absolute name":              join(frame(100, 5000), entry(0, 1, "/a")),
			"a name without an end":         join(frame(100, 5000), entry(0, 1, "abc")[:6]),
			"a long name":                   join(frame(100, 5000), entry(0, 1, strings.Repeat("a", maxPath+1))),
			"an unknown record":             join(frame(100, 5000), []byte{'X'}),
			"an unknown kind":               join(frame(100, 5000), []byte{recordE, 99}),
			"half a number":                 {recordF, 0x80},
		}},
	} {
		if !listed0(withTable(join(frame(100, 5000), tt.good), 100, tt.magic)) {
			t.Fatal(tt.magic, "one that is sound is refused")
		}
		for name, records := range tt.bad {
			if listed0(withTable(records, 100, tt.magic)) {
				t.Errorf("%s: %s: no error", tt.magic, name)
			}
		}
	}
	for name, change := range map[string]func(b []byte){
		"a footer of the whole blob": func(b []byte) { binary.LittleEndian.PutUint64(b[len(b)-16:], uint64(len(b))) },
		"a footer beyond the blob":   func(b []byte) { binary.LittleEndian.PutUint64(b[len(b)-16:], 1<<63) },
		"a footer of nothing":        func(b []byte) { binary.LittleEndian.PutUint64(b[len(b)-16:], 0) },
		"a head of another size":     func(b []byte) { b[104]++ },
	} {
		b := withTable(frame(100, 5000), 100, tocMagic)
		change(b)
		if listed0(b) {
			t.Errorf("%s: no error", name)
		}
	}
}

// listed0 reports whether a blob's table of contents is sound.
func listed0(blob []byte) bool {
	for _, err := range List(bytes.NewReader(blob), int64(len(blob))) {
		if err != nil {
			return false
		}
	}
	return true
}

func FuzzList(f *testing.F) {
	blob, _ := pack(f, stream(everything()...))
	d, _ := zstd.NewReader(nil)
	n := beforeTOC(f, blob)
	records, err := d.DecodeAll(blob[n+8:len(blob)-tocFooter], nil)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(records, n, false)
	f.Fuzz(func(t *testing.T, records []byte, before int, first bool) {
		if before < 0 || before > 1<<20 {
			return
		}
		magic := tocMagic
		if first {
			magic = tocMagic1
		}
		blob := withTable(records, before, magic)
		for l, err := range List(bytes.NewReader(blob), int64(len(blob))) {
			if err != nil {
				return
			}
			if err := checkPath(l.Path); err != nil || l.Size < 0 || l.Index < 0 {
				t.Errorf("%+v: %v", l, err)
			}
		}
	})
}

// zstd, and tar with it, read a blob of many frames.
func TestTarReadsFrames(t *testing.T) {
	if _, err := exec.LookPath("zstd"); err != nil {
		t.Skip("no zstd here")
	}
	es := many(t)
	blob, _ := pack(t, stream(es...))
	c := exec.Command("tar", "--zstd", "-tf", "-")
	c.Stdin = bytes.NewReader(blob)
	out, err := c.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if n := strings.Count(string(out), "\n"); n != len(es) {
		t.Errorf("tar lists %d entries of %d", n, len(es))
	}
}
