package tree

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	"pgregory.net/rapid"

	"github.com/clayer/clayer/cache/snapshot"
	"github.com/clayer/clayer/internal/beneath"
	"github.com/clayer/clayer/internal/fsclock"
)

// make builds a tree from lines: "dir p", "file p text", "link p target",
// "hard p old", "gone p" (a whiteout), "opaque p", "sock p", "mode p 0700".
func build(t testing.TB, dir string, lines ...string) string {
	t.Helper()
	for _, l := range lines {
		f := strings.SplitN(l, " ", 3)
		p, arg := filepath.Join(dir, f[1]), ""
		if len(f) > 2 {
			arg = f[2]
		}
		var err error
		switch f[0] {
		case "dir":
			err = os.MkdirAll(p, 0o755)
		case "file":
			err = errors.Join(os.MkdirAll(filepath.Dir(p), 0o755), os.WriteFile(p, []byte(arg), 0o644))
		case "link":
			err = os.Symlink(arg, p)
		case "hard":
			err = os.Link(filepath.Join(dir, arg), p)
		case "gone":
			err = unix.Mknod(p, unix.S_IFCHR, 0)
		case "opaque":
			err = errors.Join(os.MkdirAll(p, 0o755), unix.Setxattr(p, "user.overlay.opaque", []byte("y"), 0))
		case "rm":
			err = os.RemoveAll(p)
		default:
			t.Fatalf("what is %q?", l)
		}
		if errors.Is(err, unix.ENOTSUP) || errors.Is(err, unix.EPERM) {
			t.Skipf("%s: %v", l, err)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	// One time for all, so that the cases tell of what they mean alone.
	_ = filepath.WalkDir(dir, func(p string, _ fs.DirEntry, err error) error {
		if err == nil {
			ts := []unix.Timespec{{Sec: 1}, {Sec: 1}}
			err = unix.UtimesNanoAt(unix.AT_FDCWD, p, ts, unix.AT_SYMLINK_NOFOLLOW)
		}
		return err
	})
	return dir
}

func read(t testing.TB, dir string, opt Options) *Reading {
	t.Helper()
	r, err := Read(context.Background(), dir, opt)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func text(t testing.TB, ch snapshot.Changes) string {
	t.Helper()
	names := map[snapshot.Kind]string{
		snapshot.File: "file", snapshot.Dir: "dir", snapshot.Symlink: "symlink", snapshot.Link: "link",
		snapshot.Delete: "delete", snapshot.Opaque: "opaque", snapshot.Fifo: "fifo",
	}
	var b strings.Builder
	for e, err := range snapshot.Validate(ch) {
		if err != nil {
			t.Fatal(err)
		}
		if e.Implied {
			b.WriteString("implied ")
		}
		fmt.Fprintf(&b, "%s %s", names[e.Kind], e.Path)
		if e.Target != "" {
			b.WriteString(" -> " + e.Target)
		}
		b.WriteByte('\n')
	}
	return b.String()
}

func trim(s string) string {
	var b strings.Builder
	for l := range strings.Lines(s) {
		if l = strings.TrimSpace(l); l != "" {
			b.WriteString(l + "\n")
		}
	}
	return b.String()
}

func paths(r *Reading) []string {
	var l []string
	var walk func(at string, i int32)
	walk = func(at string, i int32) {
		for c := range r.children(i) {
			p := join(at, r.at(c).Name)
			l = append(l, p)
			walk(p, c)
		}
	}
	walk("", 0)
	return l
}

func TestRead(t *testing.T) {
	dir := build(t, t.TempDir(), "file b/x 1", "dir a/q", "file c.d 2", "file c/y 3", "link l nowhere", "link loop loop", "dir z")
	all := []string{"a", "a/q", "b", "b/x", "c", "c/y", "c.d", "l", "loop", "z"}
	tests := []struct {
		name string
		opt  Options
		want []string
	}{
		{"all, directories before what they hold", Options{}, all},
		{"pruned", Options{Prune: func(p string) bool { return p == "b" || p == "c/y" }}, []string{"a", "a/q", "c", "c/y", "c.d", "l", "loop", "z"}},
		{"one path", Options{Below: "b"}, []string{"b", "b/x"}},
		{"one file", Options{Below: "c/y"}, []string{"c", "c/y"}},
	}
	for _, tt := range tests {
		r := read(t, dir, tt.opt)
		if got := paths(r); !slices.Equal(got, tt.want) || r.Len() != len(tt.want) {
			t.Errorf("%s: %q, want %q", tt.name, got, tt.want)
		}
	}
	for _, below := range []string{"none", "b/none", "l/x", "b/x/y"} {
		if _, err := Read(context.Background(), dir, Options{Below: below}); err == nil {
			t.Errorf("below %s: no error", below)
		}
	}
	if _, err := Read(context.Background(), filepath.Join(dir, "none"), Options{}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("missing: %v", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := Read(ctx, dir, Options{}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

func TestReadingSurvivesTheWire(t *testing.T) {
	r := read(t, build(t, t.TempDir(), "file bad\xff/x\ny 1", "link l to", "dir e"), Options{})
	b, err := r.MarshalBinary()
	if err != nil {
		t.Fatal(err)
	}
	var got Reading
	if err := got.UnmarshalBinary(b); err != nil {
		t.Fatal(err)
	}
	for i := range r.n {
		if g, w := fmt.Sprint(got.seen(i)), fmt.Sprint(r.seen(i)); g != w {
			t.Errorf("got %v\nwant %v", g, w)
		}
	}
	if err := got.UnmarshalBinary(b[:len(b)/2]); err == nil {
		t.Error("half a reading was taken for one")
	}
}

// upper lists the changes of an upper directory over a lower one.
func upper(t testing.TB, lower, dir string, before *Reading) (snapshot.Changes, error) {
	t.Helper()
	u := Upper{
		Before: before, After: read(t, dir, Options{}), Lower: []string{lower},
		Open:      func(p string) (*os.File, error) { return beneath.Open(dir, p, unix.O_RDONLY) },
		OpenLower: func(dir, p string) (*os.File, error) { return beneath.Open(dir, p, unix.O_RDONLY) },
	}
	return u.Changes(context.Background())
}

func TestUpper(t *testing.T) {
	lower := []string{"file d/a a", "file d/b b", "file f hello", "dir e", "link l f", "file h1 1", "hard h2 h1"}
	tests := []struct {
		name          string
		before, after []string // done to the upper directory
		want          string
	}{
		{name: "nothing"},
		{name: "copied up without a change", after: []string{"file d/a a", "file f hello", "link l f", "dir e"}},
		{name: "same size, same time, other bytes", after: []string{"file f HELLO"}, want: "file f"},
		{name: "whiteouts", after: []string{"gone f", "dir d", "gone d/a"}, want: "delete d/a\ndelete f"},
		{name: "a whiteout of nothing", after: []string{"gone none"}},
		{name: "a whiteout that was there", before: []string{"gone f"}},
		{name: "back after a whiteout, and the same as in the lower tree", before: []string{"gone f"}, after: []string{"rm f", "file f hello"}, want: "file f"},
		{name: "opaque", after: []string{"opaque d", "file d/a a"}, want: "delete d/b"},
		{name: "opaque since before", before: []string{"opaque d", "file d/a a"}, after: []string{"file d/c c"}, want: "file d/c"},
		{name: "a new inode for a directory that was opaque", before: []string{"opaque d", "file d/a a", "file d/c c"},
			after: []string{"rm d", "opaque d", "file d/c c"}, want: "delete d/a\nfile d/c"},
		{name: "opaque over nothing", after: []string{"opaque n", "file n/x x"}, want: "dir n\nfile n/x"},
		{name: "gone from the upper directory", before: []string{"file n/x x"}, after: []string{"rm n"}, want: "delete n"},
		{name: "directory to file, and what was below", after: []string{"file d x"}, want: "file d"},
		{name: "file to directory", after: []string{"opaque f", "file f/x x"}, want: "dir f\nfile f/x"},
		{name: "a group, from its first name", before: []string{"file n1 1", "hard n2 n1"}, after: []string{"hard m n2"}, want: "file m\nlink n1 -> m\nlink n2 -> m"},
		{name: "a new name for a file that was copied up", after: []string{"file h1 1", "hard n h1"}, want: "file h1\nlink n -> h1"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			low, up := build(t, t.TempDir(), lower...), build(t, t.TempDir(), tt.before...)
			before := read(t, up, Options{})
			if err := fsclock.After(context.Background(), t.TempDir(), before.Newest()); err != nil {
				t.Fatal(err)
			}
			// Only what the case names may get another ctime.
			if tt.after != nil {
				build(t, up, tt.after...)
				before = refreshed(before, read(t, up, Options{}), tt.after)
			}
			ch, err := upper(t, low, up, before)
			if err != nil {
				t.Fatal(err)
			}
			if got := text(t, ch); got != trim(tt.want) {
				t.Errorf("got:\n%swant:\n%s", got, trim(tt.want))
			}
		})
	}
}

// refreshed gives files that the lines don't name the ctime that build's own
// setting of times gave them.
func refreshed(before, now *Reading, lines []string) *Reading {
	ctimes := make(map[uint64]stamp)
	for i := range now.n {
		ctimes[now.at(i).Ino] = now.at(i).ctime()
	}
	r := &Reading{rare: before.rare, sums: before.sums}
	for i := range before.n {
		r.add([]node{*before.at(i)})
		n := r.at(i)
		named := slices.ContainsFunc(lines, func(l string) bool {
			return slices.Contains(strings.FieldsFunc(l, func(r rune) bool { return r == ' ' || r == '/' }), n.Name)
		})
		if c, ok := ctimes[n.Ino]; ok && !named {
			n.CSec, n.CNsec = c.Sec, c.Nsec
		}
	}
	return r
}

func TestUpperDirectoryChangedByOthers(t *testing.T) {
	tests := []struct {
		name          string
		before, after []string
		want          string
	}{
		{"a whiteout was removed", []string{"gone f"}, []string{"rm f"}, "without a whiteout"},
		{"an opaque mark was removed", []string{"opaque d"}, []string{"rm d", "dir d"}, "shows through"},
	}
	for _, tt := range tests {
		low, up := build(t, t.TempDir(), "file d/a a", "file f x"), build(t, t.TempDir(), tt.before...)
		before := read(t, up, Options{})
		build(t, up, tt.after...)
		if _, err := upper(t, low, up, before); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: error %v", tt.name, err)
		}
	}
}

func TestAFileThatChangesWhileItIsRead(t *testing.T) {
	low, up := t.TempDir(), t.TempDir()
	before := read(t, up, Options{})
	build(t, up, "file f hello")
	ch, err := upper(t, low, up, before)
	if err != nil {
		t.Fatal(err)
	}
	for _, change := range [][]string{{"file f more than that"}, {"rm f", "link f /etc/passwd"}, {"rm f"}} {
		build(t, up, change...)
		for e, err := range ch {
			if err != nil {
				t.Fatal(err)
			}
			if r, err := e.Open(); err == nil {
				r.Close()
				t.Errorf("%q: opened", change)
			} else if !strings.Contains(err.Error(), "f") {
				t.Errorf("%q: %v", change, err)
			}
		}
	}
}

// A file that somebody writes to each time that it is looked at is named, however
// often it is tried.
func TestAFileThatNeverStandsStill(t *testing.T) {
	dir := t.TempDir()
	before := read(t, dir, Options{Live: true})
	build(t, dir, "file f hello")
	b := Between{Before: before, After: read(t, dir, Options{Live: true}), Trusted: true, Open: func(p string) (*os.File, error) {
		f, err := os.OpenFile(filepath.Join(dir, p), os.O_WRONLY|os.O_APPEND, 0)
		if err != nil {
			return nil, err
		}
		_, err = f.WriteString("more")
		if err = errors.Join(err, f.Close()); err != nil {
			return nil, err
		}
		return beneath.Open(dir, p, unix.O_RDONLY)
	}}
	ch, err := b.Changes(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	for range 4 {
		var err error
		for e, eerr := range ch {
			if err = eerr; err != nil {
				break
			}
			if e.Kind == snapshot.File {
				var r io.ReadCloser
				if r, err = e.Open(); err == nil {
					r.Close()
				}
			}
		}
		if !errors.Is(err, ErrBusy) || !strings.Contains(err.Error(), `"f"`) {
			t.Fatalf("error %v", err)
		}
	}
}

// TestUpperOverLayers has two directories below the upper one, as --dest has.
func TestUpperOverLayers(t *testing.T) {
	high := []string{"file d/a A", "file f hello", "dir e", "file x x", "link l f", "dir y", "file y/n n"}
	low := []string{"file d/a a", "file d/b b", "file f howdy", "file e/g g", "dir x", "file x/z z", "file l/m m", "file y y", "file t/a a", "file t/b b"}
	for _, tt := range []struct {
		name          string
		below         map[string]int // of the top-level names; nil: all
		before, after []string
		want          string
	}{
		{name: "nothing"},
		{name: "copied up from the high one", after: []string{"file d/a A", "file f hello", "file x x", "link l f", "file y/n n"}},
		{name: "copied up from the low one", after: []string{"file d/b b", "file e/g g", "file t/a a"}},
		{name: "what the low one has, where the high one has another", after: []string{"file d/a a", "file f howdy"}, want: "file d/a\nfile f"},
		{name: "whiteouts", after: []string{"dir d", "gone d/a", "gone d/b", "gone x", "dir y", "gone y/n"}, want: "delete d/a\ndelete d/b\ndelete x\ndelete y/n"},
		{name: "nothing of a directory shows below a file", after: []string{"dir x"}, want: "dir x"},
		{name: "a file again as the low one has it", after: []string{"file y y"}, want: "file y"},
		{name: "deleted and made again with less", after: []string{"opaque d", "file d/b b"}, want: "delete d/a"},
		{name: "a top that lies over nothing", below: map[string]int{}, after: []string{"file t/a a"}, want: "dir t\nfile t/a"},
		{name: "a top that lies over the high one alone", below: map[string]int{"d": 1}, after: []string{"file d/a A", "file d/b b"}, want: "file d/b"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dirs := []string{build(t, t.TempDir(), high...), build(t, t.TempDir(), low...)}
			up := build(t, t.TempDir(), tt.before...)
			before := read(t, up, Options{})
			build(t, up, tt.after...)
			open := func(dir, p string) (*os.File, error) { return beneath.Open(dir, p, unix.O_RDONLY) }
			u := Upper{Before: before, After: read(t, up, Options{}), Lower: dirs, OpenLower: open,
				Open: func(p string) (*os.File, error) { return open(up, p) }}
			if tt.below != nil {
				u.Below = func(top string) int { return tt.below[top] }
			}
			ch, err := u.Changes(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if got := strings.TrimSpace(text(t, ch)); got != tt.want {
				t.Errorf("got:\n%s\nwant:\n%s", got, tt.want)
			}
		})
	}
}

type filterAll struct{ skip, prune string }

func (k filterAll) Skip(p string) bool {
	return p == k.skip || p == k.prune || strings.HasPrefix(p, k.prune+"/")
}
func (k filterAll) Prune(p string) bool { return p == k.prune }

func TestDirectoriesAboveWhatIsCaptured(t *testing.T) {
	low, up := t.TempDir(), t.TempDir()
	before := read(t, up, Options{})
	build(t, up, "file a/b/c c", "file a/p/q q", "file x/y y")
	u := Upper{Before: before, After: read(t, up, Options{}), Lower: []string{low}, Filter: filterAll{skip: "a", prune: "a/p"},
		Hide: func(p string) bool { return p == "x" },
		Open: func(p string) (*os.File, error) { return beneath.Open(up, p, unix.O_RDONLY) }}
	ch, err := u.Changes(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	if got, want := text(t, ch), "implied dir a\ndir a/b\nfile a/b/c\n"; got != want {
		t.Errorf("got:\n%swant:\n%s", got, want)
	}
}

func TestWhole(t *testing.T) {
	dir := build(t, t.TempDir(), "file a/b/c c", "file a/b/d d", "file a/x x", "hard a/b/e a/b/d")
	up := build(t, t.TempDir(), "file a/b/c c")
	whole := Whole{Reading: read(t, dir, Options{Below: "a/b"}), Below: "a/b",
		Open: func(p string) (*os.File, error) { return beneath.Open(dir, p, unix.O_RDONLY) }}
	if got, want := text(t, whole.Changes()), "implied dir a\ndir a/b\nfile a/b/c\nfile a/b/d\nlink a/b/e -> a/b/d\n"; got != want {
		t.Errorf("got:\n%swant:\n%s", got, want)
	}
	whole.Except = read(t, up, Options{})
	if got, want := text(t, whole.Changes()), "file a/b/d\nlink a/b/e -> a/b/d\n"; got != want {
		t.Errorf("beside the upper directory:\n%swant:\n%s", got, want)
	}
}

func TestOpenFollowsNothing(t *testing.T) {
	dir := build(t, t.TempDir(), "file d/f x", "link l d", "link d/g f")
	for p, ok := range map[string]bool{"d/f": true, "l/f": false, "d/g": false, "d/none": false} {
		f, err := beneath.Open(dir, p, unix.O_RDONLY)
		if (err == nil) != ok {
			t.Errorf("%s: %v", p, err)
		}
		if err == nil {
			f.Close()
		}
	}
}

func TestSparseFilesRetainTheirHoles(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		f, err := os.CreateTemp("", "holes-*")
		if err != nil {
			t.Fatal(err)
		}
		defer os.Remove(f.Name())
		defer f.Close()
		size := rapid.Int64Range(0, 1<<20).Draw(t, "size")
		if err := f.Truncate(size); err != nil {
			t.Fatal(err)
		}
		for range rapid.IntRange(0, 4).Draw(t, "writes") {
			at := rapid.Int64Range(0, max(size-1, 0)).Draw(t, "at")
			if _, err := f.WriteAt([]byte("data")[:min(4, size-at)], at); err != nil {
				t.Fatal(err)
			}
		}
		data, err := beneath.Data(int(f.Fd()), size)
		if err != nil {
			t.Fatal(err)
		}
		if data == nil {
			return
		}
		want, err := io.ReadAll(f)
		if err != nil || int64(len(want)) != size {
			t.Fatalf("extents moved the file's offset: %d bytes, %v", len(want), err)
		}
		got := make([]byte, size)
		end := int64(0)
		for _, x := range data {
			if x.Offset < end || x.Length <= 0 {
				t.Fatalf("extents %v", data)
			}
			end = x.Offset + x.Length
			copy(got[x.Offset:end], want[x.Offset:end])
		}
		if string(got) != string(want) {
			t.Fatalf("extents %v leave data out", data)
		}
	})
}

// The tree is large enough that a walk of it takes a while: 200,000 files in
// 2,000 directories. find(1) of the same tree is beside it, with what it prints.
func BenchmarkRead(b *testing.B) {
	dir := b.TempDir()
	if _, err := os.Stat("/dev/shm"); err == nil {
		if dir, err = os.MkdirTemp("/dev/shm", "walk-*"); err != nil {
			b.Fatal(err)
		}
		defer os.RemoveAll(dir)
	}
	for i := range 2000 {
		d := filepath.Join(dir, fmt.Sprint(i))
		if err := os.Mkdir(d, 0o755); err != nil {
			b.Fatal(err)
		}
		for j := range 100 {
			if err := os.WriteFile(filepath.Join(d, fmt.Sprint("file", j)), nil, 0o644); err != nil {
				b.Fatal(err)
			}
		}
	}
	var r *Reading
	b.Run("walk", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			r = read(b, dir, Options{Live: true, Sums: SumLinked})
		}
		b.ReportMetric(heap()/1e6, "heap-MB")
	})
	b.Run("walk again", func(b *testing.B) {
		for b.Loop() {
			read(b, dir, Options{Live: true, Sums: SumLinked, Previous: r})
		}
	})
	b.Run("find", func(b *testing.B) {
		for b.Loop() {
			if out, err := exec.Command("find", dir, "-printf", "%C@ %i %m %U %G %s %T@ %p\\n").Output(); err != nil || len(out) == 0 {
				b.Skip(err)
			}
		}
	})
	b.Run("difference", func(b *testing.B) {
		for b.Loop() {
			d := Between{Before: r, After: r, Trusted: true}
			if _, err := d.Changes(context.Background()); err != nil {
				b.Fatal(err)
			}
		}
	})
	runtime.KeepAlive(r)
}

// heap is what is in use, after a collection.
func heap() float64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	return float64(m.HeapInuse)
}
