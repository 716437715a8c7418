package record

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"reflect"
	"slices"
	"testing"
	"time"
)

// inTree returns changes of a new directory, as a restore makes them.
func inTree(n int) (list []*Change) {
	when := time.Unix(1_700_000_000, 0).UTC()
	r := rand.New(rand.NewPCG(1, 2))
	for i := range n {
		m := &Meta{Mode: 0o644, Size: r.Int64N(5000), ModTime: when.Add(time.Duration(r.Int64N(1e9)))}
		sum := r.Uint32()
		m.Sum = &sum
		c := &Change{Seq: 2, Path: fmt.Appendf(nil, "opt/tree/pkg%d/sub/module_%d.py", i/50, i), Kind: KindFile, N: i + 2, Now: m, With: 1}
		switch i % 50 {
		case 0:
			c.Kind, m.Sum, m.Size, m.Mode = KindDir, nil, 0, 0o755
		case 1:
			c.Kind, m.Sum, m.Target = KindSymlink, nil, []byte("module_2.py")
		case 2:
			c.Kind, m.Type = KindLink, KindFile
		}
		list = append(list, c)
	}
	return list
}

func all(t *testing.T, changes func(func(Change, error) bool)) (list []*Change) {
	t.Helper()
	for c, err := range changes {
		if err != nil {
			t.Fatal(err)
		}
		c.End = 0
		list = append(list, &c)
	}
	return list
}

// What a new directory holds is read as it was written, in both directions, whatever stands
// between, in at most 60 bytes an entry.
func TestTreeIsReadAsItWasWritten(t *testing.T) {
	d := stateDir(t)
	want := inTree(5000)
	want[17].Preserved = true                                // a line of its own
	want[1500].Now.Xattrs = map[string][]byte{"user.a": nil} // likewise
	want[1500].Now.Xattrs["user.a"] = []byte("b")
	want = slices.Insert(want, 2000, &Change{Kind: KindTime, Path: []byte("."), Was: &Meta{ModTime: time.Unix(1, 0).UTC()}})
	j, err := d.NewJournal(1)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range want {
		if err := j.Add(c); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(j.Sync(), j.Close()); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(d.Path(LogName(1)))
	if err != nil {
		t.Fatal(err)
	}
	if each := info.Size() / int64(len(want)); each > 60 {
		t.Errorf("%d bytes an entry", each)
	}
	t.Logf("%.1f bytes an entry", float64(info.Size())/float64(len(want)))
	var verified int64
	if got := all(t, ReadLog(d, LogName(1), 0, -1, &verified)); !reflect.DeepEqual(got, want) || verified != info.Size() {
		t.Errorf("read %d changes, %d bytes", len(got), verified)
	}
	got := all(t, ReadBackward(d, LogName(1), 0, -1, &verified))
	slices.Reverse(got)
	if !reflect.DeepEqual(got, want) {
		t.Errorf("read %d changes backward", len(got))
	}
	ev := Event{Seq: 2, Tx: 1, To: info.Size(), Not: []int{want[3].N}}
	paths, err := d.Paths(ev)
	if err != nil || len(paths) != 4999 || paths[0] != string(want[0].Path) {
		t.Errorf("%d paths, %v", len(paths), err)
	}
	wanted := string(want[100].Path)
	few := all(t, d.ChangesOf(ev, func(p string) bool { return p == wanted }))
	if len(few) != 1 || !reflect.DeepEqual(few[0], want[100]) {
		t.Errorf("of one path: %v", few)
	}
}

// The lines of this version are read by the next: one of each kind is pinned.
func TestLinesOfTreesArePinned(t *testing.T) {
	when := time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC)
	want := Change{Seq: 1, Path: []byte("n/l"), Kind: KindLink, N: 4, Now: &Meta{Mode: 0o644, ModTime: when, Type: KindFile}, With: 3}
	list, is, err := readTree([]byte(`{"kind":"tree","n":"KLUv/QQAEQEAAQEBAwUAA24vbAEUAqQDAgAAAQgBAAXK1rmVDQEGAQABACCx76s="}`))
	if err != nil || !is || len(list) != 1 || !reflect.DeepEqual(list[0], want) {
		t.Errorf("%+v, %v; want %+v", list, err, want)
	}
	before, err := parseChange("", []byte(`{"seq":1,"path":"bi9s","kind":"link","n":4,"now":{"mode":420,"uid":0,"gid":0,"mtime":"2026-01-02T03:04:05.000000006Z","type":"file"},"with":3}`))
	if err != nil || !reflect.DeepEqual(before, want) {
		t.Errorf("of a version before: %+v, %v", before, err)
	}
}

// A line that is damaged is an error, and nothing else.
func FuzzTree(f *testing.F) {
	var w treeWriter
	for _, c := range inTree(100) {
		w.add(c)
	}
	line, err := w.appendLine(nil)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(line, 0, byte(0))
	f.Fuzz(func(t *testing.T, text []byte, at int, b byte) {
		if len(text) > 0 {
			text[uint(at)%uint(len(text))] ^= b
		}
		list, is, err := readTree(text)
		if !is || err != nil {
			return
		}
		var w treeWriter
		for i := range list {
			if !w.fits(&list[i]) {
				return // it says what nobody writes
			}
			w.add(&list[i])
		}
		if len(list) == 0 {
			return
		}
		again, err := w.appendLine(nil)
		if err != nil {
			t.Fatal(err)
		}
		if same, _, err := readTree(again); err != nil || !reflect.DeepEqual(same, list) {
			t.Errorf("%v, read again %v, %v", list, same, err)
		}
	})
}

func TestDamagedTree(t *testing.T) {
	for _, text := range []string{`{"kind":"tree","n":"`, `{"kind":"tree","n":"!"}`, `{"kind":"tree","n":"AAAA"}`, `{"kind":"tree","n":""}`} {
		if _, is, err := readTree([]byte(text)); !is || !errors.Is(err, errTree) {
			t.Errorf("%s: %t, %v", text, is, err)
		}
	}
}

func BenchmarkTree(b *testing.B) {
	list := inTree(maxTree)
	var line []byte
	b.Run("write", func(b *testing.B) {
		for b.Loop() {
			var w treeWriter
			for _, c := range list {
				if w.fits(c) {
					w.add(c)
				}
			}
			line, _ = w.appendLine(line[:0])
		}
		b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*len(list)), "ns/entry")
	})
	b.Run("read", func(b *testing.B) {
		for b.Loop() {
			if _, _, err := readTree(line); err != nil {
				b.Fatal(err)
			}
		}
		b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*len(list)), "ns/entry")
	})
}
