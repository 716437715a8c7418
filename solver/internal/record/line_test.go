package record

import (
	"bytes"
	"encoding/json"
	"reflect"
	"testing"
	"time"
)

// byJSON is what encoding/json writes for a change.
func byJSON(t *testing.T, c *Change) []byte {
	t.Helper()
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(c); err != nil {
		t.Skip(err)
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n"))
}

// A line is what encoding/json writes, and is read as encoding/json reads it.
func FuzzLineOfChange(f *testing.F) {
	f.Add(1, []byte("etc/passwd"), "file", 2, uint32(0o644), 0, 0, int64(17), int64(1_600_000_000), int64(5), []byte("x"), "trash/1-1", uint8(0xff))
	f.Add(0, []byte(nil), "undo", 0, uint32(0), -1, 65534, int64(-3), int64(-62135596801), int64(999_999_999), []byte{0xff}, "a\"<&>\u2028", uint8(0b10101010))
	f.Add(-5, []byte{0, '"', '\\'}, "\x00", 1<<40, uint32(1<<31), 1<<60, 1, int64(1)<<62, int64(253402300800), int64(1), []byte("l"), "", uint8(1))
	f.Fuzz(func(t *testing.T, seq int, path []byte, kind string, n int, mode uint32, uid, gid int, size, sec, nsec int64, target []byte, out string, bits uint8) {
		bit := func(i int) bool { return bits>>i&1 == 1 }
		now := &Meta{Mode: mode, UID: uid, GID: gid, Size: size, ModTime: time.Unix(sec, nsec).UTC(), Target: target, Rdev: uint64(n), Type: Kind(kind)}
		if bit(0) {
			now.Sum = &mode
		}
		if bit(1) {
			now.Xattrs = map[string][]byte{"user.a": path, "b": nil}
		}
		c := &Change{Seq: seq, Path: path, Kind: Kind(kind), N: n, Now: now, Preserved: bit(2), Lost: bit(3), Whole: bit(4), With: uid, From: target, Out: out, Left: bit(5), Again: gid, Beside: bit(6)}
		if bit(7) {
			c.Was, c.In = &Meta{ModTime: now.ModTime, Mode: mode}, out
		}
		want := byJSON(t, c)
		got, err := appendChange([]byte("before"), c)
		if err != nil || string(got) != "before"+string(want) {
			t.Fatalf("wrote %s, %v\n want %s", got, err, want)
		}
		sameReading(t, want)
		for _, i := range []int{n, gid, seq} { // and something like it
			if len(want) > 0 {
				other := bytes.Clone(want)
				at := int(uint(i) % uint(len(other)))
				other[at] = out0(out)
				sameReading(t, other)
				sameReading(t, append(other[:at:at], other[min(at+1, len(other)):]...))
			}
		}
	})
}

func out0(s string) byte {
	if s == "" {
		return '0'
	}
	return s[0]
}

func sameReading(t *testing.T, text []byte) {
	t.Helper()
	got, ok := quickChange(text)
	if !ok {
		return
	}
	var want Change
	if err := json.Unmarshal(text, &want); err != nil || !reflect.DeepEqual(got, want) {
		t.Fatalf("read %+v of %s\nwant %+v, %v", got, text, want, err)
	}
}

// What a restore writes is read without encoding/json.
func TestLinesOfRestoreAreReadQuickly(t *testing.T) {
	sum := uint32(7)
	when := time.Unix(1_700_000_000, 5).UTC()
	for _, c := range []*Change{
		{Seq: 1, Path: []byte("f"), Kind: KindFile, N: 1, Now: &Meta{Mode: 0o644, Size: 3, ModTime: when, Sum: &sum}, With: 3},
		{Seq: 1, Path: []byte("d"), Kind: KindDir, N: 2, Was: &Meta{Mode: 0o700, ModTime: when}, Now: &Meta{Mode: 0o755, ModTime: when}, Again: 1},
		{Kind: KindTime, Path: []byte("."), Was: &Meta{Mode: 0o755, ModTime: when}},
		{Kind: KindUndo, Path: []byte("f"), In: "originals/000001/1", Out: "trash/1-1"},
	} {
		text := byJSON(t, c)
		if _, ok := quickChange(text); !ok {
			t.Errorf("%s is left to encoding/json", text)
		}
	}
}

func BenchmarkLine(b *testing.B) {
	sum := uint32(7)
	c := &Change{Seq: 1, Path: []byte("opt/tree/package/file.py"), Kind: KindFile, N: 1, Now: &Meta{Mode: 0o644, Size: 3, ModTime: time.Unix(1_700_000_000, 5).UTC(), Sum: &sum}, With: 3}
	var buf []byte
	b.Run("write", func(b *testing.B) {
		for b.Loop() {
			buf, _ = appendChange(buf[:0], c)
		}
	})
	b.Run("read", func(b *testing.B) {
		for b.Loop() {
			if _, ok := quickChange(buf); !ok {
				b.Fatal("not read")
			}
		}
	})
	b.Run("read by encoding/json", func(b *testing.B) {
		for b.Loop() {
			var c Change
			if err := json.Unmarshal(buf, &c); err != nil {
				b.Fatal(err)
			}
		}
	})
}
