package snapshot

import (
	"bytes"
	"context"
	"encoding/base64"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"

	"github.com/clayer/clayer/cache/snapshot/frames"
	"github.com/clayer/clayer/internal/golden"
)

type sized struct {
	path string
	size int64
}

// packages returns some packages of 1 kB to 2 MB, as site-packages and node_modules have
// them.
func packages(r *rand.Rand, n int) (all [][]sized) {
	for i := range n {
		var pkg []sized
		for j := range 1 + r.IntN(60) {
			size := int64(r.IntN(3000))
			if r.IntN(8) == 0 {
				size = int64(r.IntN(100_000))
			}
			if r.IntN(300) == 0 {
				size = int64(r.IntN(3 * frameSize))
			}
			pkg = append(pkg, sized{fmt.Sprintf("lib/%c%d/m%02d.js", 'a'+i%26, i, j), size})
		}
		all = append(all, pkg)
	}
	return all
}

// cuts returns the frames that entries are put in, as text.
func cuts(list []sized) (all []string) {
	var at []byte
	n := int64(0)
	end := func() {
		if len(at) > 0 {
			all = append(all, string(at))
		}
		at, n = at[:0], 0
	}
	for _, e := range list {
		total := 512 + padded(e.size)
		if e.size > largeFile || cutsBefore(e.path, n, total) {
			end()
		}
		n += total
		at = strconv.AppendInt(append(append(at, e.path...), ' '), e.size, 10)
		if e.size > largeFile {
			end()
		}
	}
	end()
	return all
}

// A package that is added, removed or changed changes the frames that it is in, and two or
// three after it until cuts are where they were.
func TestCutsAreWhereTheyWere(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 1))
	total, n, most := 0, 0, 0
	const rounds = 25
	for range rounds {
		pkgs := packages(r, 600)
		before := cuts(slices.Concat(pkgs...))
		at := r.IntN(len(pkgs))
		switch r.IntN(3) {
		case 0:
			pkgs = slices.Delete(pkgs, at, at+1)
		case 1:
			pkgs = slices.Insert(pkgs, at, []sized{{"lib/new/a", int64(r.IntN(50_000))}, {"lib/new/b", int64(r.IntN(5000))}})
		case 2:
			pkgs[at] = slices.Clone(pkgs[at])
			for i := range pkgs[at] {
				pkgs[at][i].size += int64(r.IntN(200))
			}
		}
		had := make(map[string]bool)
		for _, f := range before {
			had[f] = true
		}
		other := 0
		for _, f := range cuts(slices.Concat(pkgs...)) {
			if !had[f] {
				other++
			}
		}
		total += other
		n += len(before)
		most = max(most, other)
	}
	t.Logf("of %d frames on average, %.2f are others after a change of one package; %d at most", n/rounds, float64(total)/rounds, most)
	if mean := float64(total) / rounds; mean > 4 || most > 20 {
		t.Errorf("%.2f frames on average, and at most %d, are others after a change of one package", mean, most)
	}
}

// What is a cut is pinned: a blob that is made again has the same bytes. A change of the rule
// costs each store a whole transfer of all that it has.
func TestCutsGolden(t *testing.T) {
	var b strings.Builder
	sizes := []int64{512, 1024, 4096, 65536, 1 << 20}
	for _, path := range []string{"a", "usr/lib/python3/dist-packages/numpy/__init__.py", "node_modules/left-pad", "x/\xff\n"} {
		for _, n := range []int64{0, minCut - 512, minCut, frameSize - 512, frameSize, maxCut - 512} {
			for _, size := range sizes {
				fmt.Fprintf(&b, "%q %d %d %t\n", path, n, size, cutsBefore(path, n, size))
			}
		}
	}
	for i := range 3000 {
		if p := fmt.Sprintf("dir/file%d", i); cutsBefore(p, minCut, 1024) {
			fmt.Fprintf(&b, "%q %d %d true\n", p, minCut, 1024)
		}
	}
	golden.Check(t, "testdata/cuts.golden", b.String())
}

// vectors are entries of each kind, and enough of them for several frames.
func vectors() []*Entry {
	es := everything()
	es = append(es, &Entry{Path: "small", Kind: Dir, Mode: 0o755, ModTime: when})
	for i := range 700 {
		es = append(es, file(fmt.Sprintf("small/%03d", i), strings.Repeat("fifteen letters", 5*i)))
	}
	return append(es, file("tall", strings.Repeat("fifteen letters", 330_000)), file("last", "x"))
}

// The blobs in testdata were made by the first program that wrote their format. They
// are read for ever.
func TestVectors(t *testing.T) {
	if *golden.Update {
		blob, _ := pack(t, stream(vectors()...))
		if err := os.WriteFile("testdata/snapshot2.tar.zst", blob, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	var want strings.Builder
	for _, e := range vectors() {
		fmt.Fprintf(&want, "%d %q %d\n", e.Kind, e.Path, e.Size)
	}
	for _, name := range []string{"snapshot1.tar.zst", "snapshot2.tar.zst"} {
		blob, err := os.ReadFile("testdata/" + name)
		if err != nil {
			t.Fatal(err)
		}
		var got, listed, found strings.Builder
		list, err := readAll(Read(bytes.NewReader(blob)))
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		for _, e := range list {
			fmt.Fprintf(&got, "%d %q %d\n", e.Kind, e.Path, e.Size)
		}
		index := 0
		for l, err := range List(bytes.NewReader(blob), int64(len(blob))) {
			if err != nil {
				t.Errorf("%s: %v", name, err)
			}
			fmt.Fprintf(&listed, "%d %q %d\n", l.Kind, l.Path, l.Size)
			if index = max(index, l.Index); l.Path == "last" {
				fmt.Fprintf(&found, "%s: the last entry is in frame %d\n", name, l.Index)
			}
		}
		if got.String() != want.String() || listed.String() != want.String() {
			t.Errorf("%s: other entries, or another table", name)
		}
		all, err := frames.Scan(bytes.NewReader(blob))
		if err != nil {
			t.Fatal(err)
		}
		each, err := all.Of(int64(len(blob)))
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range each {
			fmt.Fprintf(&found, "%d %d %x\n", f.Offset, f.Size, f.Digest)
		}
		fmt.Fprintln(&found, base64.StdEncoding.EncodeToString(all))
		golden.Check(t, "testdata/"+name+".frames.golden", found.String())
	}
	// The tar is the same, however it is compressed and cut.
	one, two := must(os.ReadFile("testdata/snapshot1.tar.zst")), must(os.ReadFile("testdata/snapshot2.tar.zst"))
	blob, _ := pack(t, stream(vectors()...))
	if plain := plainOf(t, blob); !bytes.Equal(plainOf(t, one), plain) || !bytes.Equal(plainOf(t, two), plain) {
		t.Error("the same entries give another tar")
	}
}

// A frame begins with an entry and ends with one, or is a part of a large file, whose first
// begins with it, and whose last ends with it.
func TestFramesAreOfWholeEntries(t *testing.T) {
	es := append(many(t), file("again", noise(largeFile)), file("larger", noise(largeFile+1)), file("end", "x"))
	blob, p := pack(t, stream(es...))
	list, err := p.Frames.Of(p.Size)
	if err != nil {
		t.Fatal(err)
	}
	dec, _ := zstd.NewReader(nil)
	defer dec.Close()
	var left int64 // of a large file
	for i, f := range list[:len(list)-1] {
		plain, err := dec.DecodeAll(blob[f.Offset:f.Offset+f.Size], nil)
		if err != nil {
			t.Fatal(err)
		}
		if len(plain) > maxCut+4096 {
			t.Errorf("frame %d has %d bytes", i, len(plain))
		}
		c := chunk{data: plain}
		if left > 0 {
			if left -= int64(len(plain)); left < 0 {
				t.Errorf("frame %d has more than what is left of a large file", i)
			}
			continue
		}
		c.parse(func() {})
		if !c.whole || c.more > 0 && len(c.entries) != 1 {
			t.Errorf("frame %d is no run of entries", i)
		}
		if n := len(c.entries); n > 1 && c.entries[n-1].Size > largeFile {
			t.Errorf("frame %d has a large file among others", i)
		}
		if left = c.more - int64(len(plain)-c.tail); c.more == 0 {
			left = 0
		}
	}
	if got, err := frames.Scan(bytes.NewReader(blob)); err != nil || !bytes.Equal(got, p.Frames) {
		t.Errorf("scanned, there are other frames: %v", err)
	}
}

// The frames of a snapshot in which a package changed are those of before, but for a few.
func TestFramesStay(t *testing.T) {
	tree := func(version string) (p Packed) {
		var es []*Entry
		for i := range 40 {
			for j := range 50 {
				text := fmt.Sprintf("package %d, file %d", i, j)
				if i == 20 {
					text += version
				}
				es = append(es, file(fmt.Sprintf("p%02d/m%02d", i, j), strings.Repeat(text, 400)))
			}
		}
		p, err := Pack(context.Background(), io.Discard, stream(es...), PackOptions{})
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	one, two := tree("1.0"), tree("1.0.1")
	had := make(map[[32]byte]bool)
	for _, f := range mustFrames(t, one) {
		had[f.Digest] = true
	}
	others := 0
	for _, f := range mustFrames(t, two) {
		if !had[f.Digest] {
			others++
		}
	}
	// Its own, perhaps one before and after, and the table of contents.
	if n := len(mustFrames(t, two)); n < 8 || others > 5 {
		t.Errorf("%d of %d frames are others", others, n)
	}
}

func mustFrames(t *testing.T, p Packed) []frames.Frame {
	t.Helper()
	list, err := p.Frames.Of(p.Size)
	if err != nil {
		t.Fatal(err)
	}
	return list
}
