package frames

import (
	"bytes"
	"io"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"
)

func TestListsThatLie(t *testing.T) {
	sum := [32]byte{1}
	good := List(nil).Append(10, sum).Append(300, sum)
	if list, err := good.Of(310); err != nil || len(list) != 2 || list[1].Offset != 10 || list[1].Size != 300 || list[1].Digest != sum {
		t.Errorf("%+v, %v", list, err)
	}
	for name, f := range map[string]List{
		"too few bytes":   List(nil).Append(309, sum),
		"too many bytes":  List(nil).Append(311, sum),
		"no list":         nil,
		"half a digest":   good[:20],
		"half a number":   append(slices.Clone(good), 0x80),
		"an empty frame":  List(nil).Append(0, sum).Append(310, sum),
		"a huge frame":    List(nil).Append(-1, sum),
		"a long list":     make(List, maxList+1),
		"a number of ten": append(bytes.Repeat([]byte{0xff}, 10), 1),
	} {
		if _, err := f.Of(310); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	var f List
	for _, text := range []string{`"x"`, `7`, `{}`, `[1]`, `null`, `""`, `"AAE"`, `"` + strings.Repeat("A", 3<<20) + `"`} {
		if err := f.UnmarshalJSON([]byte(text)); err != nil || f != nil {
			t.Errorf("%.20s: %d bytes, %v", text, len(f), err)
		}
	}
	data, err := good.MarshalJSON()
	if err != nil || f.UnmarshalJSON(data) != nil || !bytes.Equal(f, good) {
		t.Errorf("%s: %v, %v", data, f, err)
	}
}

// A blob of another tool has frames too; what is no zstd stream, or ends early, has none.
func TestScanOthers(t *testing.T) {
	var b bytes.Buffer
	w, _ := zstd.NewWriter(&b)
	io.Copy(w, io.LimitReader(rand.NewChaCha8([32]byte{1}), 1<<20))
	w.Close()
	whole := b.Bytes()
	list, err := Scan(bytes.NewReader(whole))
	if err != nil {
		t.Fatal(err)
	}
	if each, err := list.Of(int64(len(whole))); err != nil || len(each) != 1 {
		t.Errorf("%d frames, %v", len(each), err)
	}
	for _, n := range []int{1, 4, 5, 6, 20, 1000, len(whole) - 1} {
		if _, err := Scan(bytes.NewReader(whole[:n])); err == nil {
			t.Errorf("%d bytes of it: no error", n)
		}
	}
	if _, err := Scan(strings.NewReader("a tar, or a text")); err == nil {
		t.Error("a text: no error")
	}
	if list, err := Scan(strings.NewReader("")); err != nil || list != nil {
		t.Errorf("nothing: %v, %v", list, err)
	}
}

func FuzzScan(f *testing.F) {
	for _, name := range []string{"snapshot1", "snapshot2"} {
		blob, err := os.ReadFile("../testdata/" + name + ".tar.zst")
		if err != nil {
			f.Fatal(err)
		}
		f.Add(blob)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		list, err := Scan(bytes.NewReader(data))
		if err != nil {
			return
		}
		if _, err := list.Of(int64(len(data))); err != nil {
			t.Error(err)
		}
	})
}
