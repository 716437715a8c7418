package record

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/clayer/clayer/internal/inroot"
)

// stateDir returns a state directory that is open.
func stateDir(t *testing.T) Dir {
	t.Helper()
	d := DirIn("", filepath.Join(t.TempDir(), "state"))
	if err := d.Make(); err != nil {
		t.Fatal(err)
	}
	d, err := d.Open()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	if err := d.MkdirAll("log", 0o700); err != nil {
		t.Fatal(err)
	}
	return d
}

// journalOf writes a log of changes, and returns where each of them ends.
func journalOf(t *testing.T, d Dir, tx int, changes ...*Change) (ends []int64) {
	t.Helper()
	j, err := d.NewJournal(tx)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range changes {
		if err := j.Add(c); err != nil {
			t.Fatal(err)
		}
		ends = append(ends, j.End())
	}
	if err := errors.Join(j.Sync(), j.Close()); err != nil {
		t.Fatal(err)
	}
	if j.Durable() != j.End() || !j.Began() {
		t.Errorf("after a sync %d of %d bytes are durable, began %t", j.Durable(), j.End(), j.Began())
	}
	return ends
}

// The text of a log is read by the next version of clayer too: it is pinned.
func TestLineOfLogIsPinned(t *testing.T) {
	sum := uint32(7)
	when := time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC)
	changes := []*Change{
		{Seq: 1, Path: []byte("f"), Kind: KindFile, N: 1, Now: &Meta{Mode: 0o644, Size: 3, ModTime: when, Sum: &sum}},
		{Seq: 1, Path: []byte("d"), Kind: KindDir, N: 2, Was: &Meta{Mode: 0o700, ModTime: when}, Now: &Meta{Mode: 0o755, ModTime: when}, Again: 1},
		{Seq: 1, Path: []byte("n"), Kind: KindDir, N: 3, Now: &Meta{Mode: 0o755, ModTime: when}, Whole: true},
		{Seq: 1, Path: []byte("n/l"), Kind: KindLink, N: 4, Now: &Meta{Mode: 0o644, ModTime: when, Type: KindFile}, With: 3, Again: 1},
		{Seq: 1, Path: []byte("s"), Kind: KindSymlink, N: 5, Now: &Meta{Mode: 0o777, ModTime: when, Target: []byte("f")}, Preserved: true},
		{Seq: 1, Path: []byte("gone"), Kind: KindGone, N: 6},
		{Kind: KindTime, Path: []byte("."), Was: &Meta{Mode: 0o755, ModTime: when}},
		{Seq: 1, Kind: KindTemp, Path: []byte(TempName(1, 7))},
		{Kind: KindUndo, Path: []byte("f"), In: "originals/000001/1", Out: "trash/1-1"},
	}
	want := `cc1a439b {"seq":1,"path":"Zg==","kind":"file","n":1,"now":{"mode":420,"uid":0,"gid":0,"size":3,"mtime":"2026-01-02T03:04:05.000000006Z","sum":7}}
cd687c35 {"seq":1,"path":"ZA==","kind":"dir","n":2,"was":{"mode":448,"uid":0,"gid":0,"mtime":"2026-01-02T03:04:05.000000006Z"},"now":{"mode":493,"uid":0,"gid":0,"mtime":"2026-01-02T03:04:05.000000006Z"},"again":1}
a722f441 {"seq":1,"path":"bg==","kind":"dir","n":3,"now":{"mode":493,"uid":0,"gid":0,"mtime":"2026-01-02T03:04:05.000000006Z"},"whole":true}
f4e662c5 {"seq":1,"path":"bi9s","kind":"link","n":4,"now":{"mode":420,"uid":0,"gid":0,"mtime":"2026-01-02T03:04:05.000000006Z","type":"file"},"with":3,"again":1}
90d53fcd {"seq":1,"path":"cw==","kind":"symlink","n":5,"now":{"mode":511,"uid":0,"gid":0,"mtime":"2026-01-02T03:04:05.000000006Z","target":"Zg=="},"kept":true}
0b03992e {"seq":1,"path":"Z29uZQ==","kind":"gone","n":6}
380cea15 {"path":"Lg==","kind":"time","was":{"mode":493,"uid":0,"gid":0,"mtime":"2026-01-02T03:04:05.000000006Z"}}
7eb11261 {"seq":1,"path":"LmNsYXllci1uZXctMS03","kind":"temp"}
37316882 {"path":"Zg==","kind":"undo","in":"originals/000001/1","out":"trash/1-1"}
`
	d := stateDir(t)
	journalOf(t, d, 1, changes...)
	text, err := os.ReadFile(d.Path(LogName(1)))
	if err != nil {
		t.Fatal(err)
	}
	if string(text) != want {
		t.Errorf("the log is\n%s\nwant\n%s", text, want)
	}
}

// paths returns the paths of the changes that a reader yields.
func paths(t *testing.T, changes iter.Seq2[Change, error]) (all []string, err error) {
	t.Helper()
	for c, err := range changes {
		if err != nil {
			return all, err
		}
		all = append(all, string(c.Path))
	}
	return all, nil
}

func TestReadLog(t *testing.T) {
	d := stateDir(t)
	long := strings.Repeat("x", 100_000) // longer than the reader's buffer
	ends := journalOf(t, d, 1, &Change{Path: []byte("a")}, &Change{Path: []byte(long)}, &Change{Path: []byte("b")})
	name := d.Path(LogName(1))
	whole, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name     string
		content  []byte
		from, to int64
		want     []string
		verified int64
	}{
		{"all", whole, 0, -1, []string{"a", long, "b"}, ends[2]},
		{"a range", whole, ends[0], ends[1], []string{long}, ends[1] - ends[0]},
		{"a line that is cut off", whole[:ends[2]-1], 0, -1, []string{"a", long}, ends[1]},
		{"a line with another sum", bytes.Replace(whole, []byte("eHh4"), []byte("eHh5"), 1), 0, -1, []string{"a"}, ends[0]},
		{"zeros at the end", append(whole[:ends[1]:ends[1]], make([]byte, 200)...), 0, -1, []string{"a", long}, ends[1]},
		{"an empty file", nil, 0, -1, nil, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if err := os.WriteFile(name, tt.content, 0o600); err != nil {
				t.Fatal(err)
			}
			var verified int64
			got, err := paths(t, ReadLog(d, LogName(1), tt.from, tt.to, &verified))
			if err != nil || !slices.Equal(got, tt.want) || verified != tt.verified {
				t.Errorf("read %d changes, %d bytes verified, error %v; want %d changes, %d bytes", len(got), verified, err, len(tt.want), tt.verified)
			}
			verified = 0
			got, err = paths(t, ReadBackward(d, LogName(1), tt.from, tt.to, &verified))
			slices.Reverse(got)
			if err != nil || !slices.Equal(got, tt.want) || verified != tt.verified {
				t.Errorf("backward %d changes, %d bytes verified, error %v; want %d changes, %d bytes", len(got), verified, err, len(tt.want), tt.verified)
			}
		})
	}
	var verified int64
	if got, err := paths(t, ReadLog(d, LogName(2), 0, -1, &verified)); len(got) > 0 || err != nil {
		t.Errorf("a log that is missing: %v, %v", got, err)
	}
}

func TestChangesOfEvent(t *testing.T) {
	d := stateDir(t)
	ends := journalOf(t, d, 3,
		&Change{Seq: 1, Path: []byte("of another apply"), Kind: KindFile, N: 1},
		&Change{Path: []byte("time"), Kind: KindTime},
		&Change{Seq: 2, Path: []byte("done"), Kind: KindFile, N: 1},
		&Change{Seq: 2, Path: []byte("not done"), Kind: KindFile, N: 2},
		&Change{Seq: 2, Path: []byte("superseded"), Kind: KindFile, N: 3},
		&Change{Seq: 2, Path: []byte("again"), Kind: KindFile, N: 3, Again: 1},
		&Change{Seq: 2, Path: []byte("temp"), Kind: KindTemp},
		&Change{Seq: 2, Path: []byte("left"), Kind: KindFile, N: 3, Left: true},
	)
	ev := Event{Seq: 2, Tx: 3, To: ends[len(ends)-1], Not: []int{2}, Again: map[int]int{3: 1}}
	want := []string{"done", "again", "left"}
	if got, err := paths(t, d.Changes(ev)); err != nil || !slices.Equal(got, want) {
		t.Errorf("changes %q, %v; want %q", got, err, want)
	}
	slices.Reverse(want)
	if got, err := paths(t, d.ChangesBackward(ev)); err != nil || !slices.Equal(got, want) {
		t.Errorf("changes backward %q, %v; want %q", got, err, want)
	}
	ev.To += 10
	for _, changes := range []iter.Seq2[Change, error]{d.Changes(ev), d.ChangesBackward(ev)} {
		if got, err := paths(t, changes); err == nil || len(got) != 3 {
			t.Errorf("of a log that ends early: %q, %v; want an error after all that can be read", got, err)
		}
	}
}

// The log of a transaction is never overwritten, and a directory is announced once.
func TestJournal(t *testing.T) {
	d := stateDir(t)
	j, err := d.NewJournal(1)
	if err != nil {
		t.Fatal(err)
	}
	defer j.Close()
	if _, err := d.NewJournal(1); !errors.Is(err, fs.ErrExist) {
		t.Errorf("the same log once more: %v", err)
	}
	if err := j.Sync(); err != nil || j.Began() {
		t.Errorf("a sync of nothing: %v, began %t", err, j.Began())
	}
	asked := 0
	j.Reserve = func() error {
		if asked++; asked > 1 {
			return errors.New("no space")
		}
		return nil
	}
	var id inroot.FileID
	was := func() *Meta { return &Meta{Mode: 0o755} }
	for range 2 {
		if err := j.AddDir(id, "d", was); err != nil {
			t.Fatal(err)
		}
	}
	one := j.End()
	if err := j.Sync(); err != nil || j.Durable() != one {
		t.Errorf("sync: %v, %d of %d bytes are durable", err, j.Durable(), one)
	}
	if err := j.Add(&Change{Seq: 1, Kind: KindGone, Path: []byte("d/f"), N: 1}); err != nil {
		t.Fatal(err)
	}
	if err := j.Sync(); err == nil || j.Durable() != one {
		t.Errorf("a sync without space to undo: %v, %d bytes are durable, want %d", err, j.Durable(), one)
	}
	if need := j.Needs(); need.Bytes < 4096 {
		t.Errorf("a deletion takes %v to undo, less than a block for the name that comes back", need)
	}
	var verified int64
	if got, err := paths(t, ReadLog(d, LogName(1), 0, -1, &verified)); fmt.Sprint(got, err) != "[d] <nil>" {
		t.Errorf("the log has %q, %v", got, err)
	}
}

// Paths reads less of a line than Changes, and finds the same.
func TestPathsAreThoseOfChanges(t *testing.T) {
	d := stateDir(t)
	meta := &Meta{Mode: 0o644, ModTime: time.Unix(1, 0), Target: []byte("x")}
	ends := journalOf(t, d, 1,
		&Change{Kind: KindTime, Path: []byte("."), Was: meta},
		&Change{Seq: 1, Path: []byte("a"), Kind: KindFile, N: 1, Now: meta},
		&Change{Seq: 1, Path: []byte("a \" \xff"), Kind: KindDir, N: 2, Was: meta, Now: meta},
		&Change{Seq: 1, Path: []byte("gone"), Kind: KindGone, N: 3},
		&Change{Seq: 1, Path: []byte("not"), Kind: KindFile, N: 4, Now: meta},
		&Change{Seq: 1, Path: []byte("first"), Kind: KindFile, N: 5, Now: meta},
		&Change{Seq: 1, Path: []byte("again"), Kind: KindFile, N: 5, Now: meta, Again: 1},
		&Change{Seq: 2, Path: []byte("other"), Kind: KindFile, N: 1, Now: meta},
		&Change{Seq: 1, Path: []byte("left"), Kind: KindFile, N: 6, Now: meta, Left: true, Again: 7},
		&Change{Seq: 1, Path: []byte("undone"), Kind: KindUndo, N: 1, In: "x"},
	)
	ev := Event{Seq: 1, Tx: 1, To: ends[len(ends)-1], Not: []int{4}, Again: map[int]int{5: 1}}
	want, err := paths(t, d.Changes(ev))
	if err != nil || len(want) != 5 {
		t.Fatal(want, err)
	}
	if got, err := d.Paths(ev); err != nil || !slices.Equal(got, want) {
		t.Errorf("Paths = %q, %v, want %q", got, err, want)
	}
	ev.To += 10
	if _, err := d.Paths(ev); err == nil {
		t.Error("a log that ends early gives no error")
	}
}
