package rootfs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"pgregory.net/rapid"

	"github.com/clayer/clayer/cache/snapshot"
	"github.com/clayer/clayer/dag/key"
	"github.com/clayer/clayer/internal/inroot"
	"github.com/clayer/clayer/internal/treetest"
	"github.com/clayer/clayer/solver/internal/record"
	"github.com/clayer/clayer/solver/internal/unpack"
)

var when = time.Unix(1_600_000_000, 123456789)

func file(path, content string) *snapshot.Entry {
	return &snapshot.Entry{
		Path: path, Kind: snapshot.File, Mode: 0o644, UID: os.Geteuid(), GID: os.Getegid(), Size: int64(len(content)), ModTime: when,
		Open:    func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(content)), nil },
		Content: []byte(content), // so that it is made by a worker
	}
}

func dirEntry(path string) *snapshot.Entry {
	return &snapshot.Entry{Path: path, Kind: snapshot.Dir, Mode: 0o755, UID: os.Geteuid(), GID: os.Getegid(), ModTime: when}
}

func symlink(path, target string) *snapshot.Entry {
	return &snapshot.Entry{Path: path, Kind: snapshot.Symlink, Target: target, UID: os.Geteuid(), GID: os.Getegid(), ModTime: when}
}

func gone(path string) *snapshot.Entry {
	return &snapshot.Entry{Path: path, Kind: snapshot.Delete}
}

func stream(es ...*snapshot.Entry) snapshot.Changes {
	return func(yield func(*snapshot.Entry, error) bool) {
		for _, e := range es {
			if !yield(e, nil) {
				return
			}
		}
	}
}

// both runs a test with openat2 and without.
func both(t *testing.T, f func(t *testing.T, opt unpack.Options)) {
	for _, without := range []bool{false, true} {
		t.Run(fmt.Sprintf("without openat2 %t", without), func(t *testing.T) { f(t, unpack.Options{Sys: inroot.Sys{WithoutOpenat2: without}}) })
	}
}

// shell prepares a tree.
func shell(t testing.TB, dir, script string) {
	t.Helper()
	cmd := exec.Command("sh", "-ec", script)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", script, err, out)
	}
}

func TestUnpackTransitions(t *testing.T) {
	tests := []struct {
		name    string
		before  string
		entries []*snapshot.Entry
		check   string // a shell test
	}{
		{"a new file", "true", []*snapshot.Entry{file("a", "x")}, `[ "$(cat a)" = x ] && [ $(stat -c %a a) = 644 ]`},
		{"a file with missing directories", "true", []*snapshot.Entry{file("a/b/c", "x")}, `[ -f a/b/c ] && [ $(stat -c %Y a) = 315532800 ] && [ $(stat -c %Y a/b) = 315532800 ]`},
		{"a file over a file", "echo old > a", []*snapshot.Entry{file("a", "new")}, `[ "$(cat a)" = new ]`},
		{"a file over a directory", "mkdir -p a/b/c; echo > a/b/c/d", []*snapshot.Entry{file("a", "new")}, `[ -f a ]`},
		{"a file over a symlink", "echo keep > t; ln -s t a", []*snapshot.Entry{file("a", "new")}, `[ ! -L a ] && [ "$(cat t)" = keep ]`},
		{"a directory over a file", "echo > a", []*snapshot.Entry{dirEntry("a"), file("a/b", "x")}, `[ -f a/b ]`},
		{"a directory over a symlink to a directory", "mkdir t; echo > t/keep; ln -s t a", []*snapshot.Entry{dirEntry("a")}, `[ -d a ] && [ ! -L a ] && [ -f t/keep ]`},
		{"a directory over a directory keeps what is in it", "mkdir -m 700 a; echo > a/keep", []*snapshot.Entry{dirEntry("a")}, `[ -f a/keep ] && [ $(stat -c %a a) = 755 ]`},
		{"a symlink over a directory", "mkdir a; echo > a/x", []*snapshot.Entry{symlink("a", "elsewhere")}, `[ "$(readlink a)" = elsewhere ]`},
		{"a file below a symlinked directory", "mkdir -p usr/lib; ln -s usr/lib lib", []*snapshot.Entry{file("lib/x", "x")}, `[ -L lib ] && [ -f usr/lib/x ]`},
		{"a file below an absolute symlink ends inside", "mkdir -p usr/lib; ln -s /usr/lib lib", []*snapshot.Entry{file("lib/inside", "x")}, `[ -f usr/lib/inside ] && [ ! -e /usr/lib/inside ]`},
		{"a file below a link with .. ends inside", "mkdir -p etc; ln -s ../../../../etc up", []*snapshot.Entry{file("up/x", "x")}, `[ -f etc/x ]`},
		{"an implied directory that is there", "mkdir -m 1777 a", []*snapshot.Entry{{Path: "a", Kind: snapshot.Dir, Implied: true, Mode: 0o755, ModTime: when}}, `[ $(stat -c %a a) = 1777 ]`},
		{"an implied directory through a symlink", "mkdir t; ln -s t a", []*snapshot.Entry{{Path: "a", Kind: snapshot.Dir, Implied: true, Mode: 0o755, ModTime: when}}, `[ -L a ]`},
		{"an implied directory that is missing", "true", []*snapshot.Entry{{Path: "a", Kind: snapshot.Dir, Implied: true, Mode: 0o755, ModTime: when}}, `[ -d a ]`},
		{"a deleted tree", "mkdir -p a/b; echo > a/b/c; ln -s /nowhere a/l", []*snapshot.Entry{gone("a")}, `[ ! -e a ]`},
		{"a deleted link leaves its target", "mkdir t; echo > t/keep; ln -s t a", []*snapshot.Entry{gone("a")}, `[ ! -L a ] && [ -f t/keep ]`},
		{"deleting what is not there", "true", []*snapshot.Entry{gone("a"), gone("b/c")}, `[ ! -e b ]`},
		{"an opaque directory", "mkdir a; echo > a/old; mkdir a/olddir", []*snapshot.Entry{dirEntry("a"), {Path: "a", Kind: snapshot.Opaque}, file("a/new", "x")}, `[ "$(ls a)" = new ]`},
		{"hard links", "true", []*snapshot.Entry{file("a", "x"), {Path: "b", Kind: snapshot.Link, Target: "a"}}, `[ a -ef b ]`},
		{"a hard link over a link of the same file", "echo > a; ln a b", []*snapshot.Entry{file("a", "x"), {Path: "b", Kind: snapshot.Link, Target: "a"}}, `[ a -ef b ] && [ "$(ls -A)" = "a
b" ]`},
		{"setuid survives", "true", []*snapshot.Entry{func() *snapshot.Entry { e := file("a", "x"); e.Mode = 0o4755; return e }()}, `[ $(stat -c %a a) = 4755 ]`},
		{"a directory without an entry keeps its time", "mkdir a; touch -d @1000000000 a", []*snapshot.Entry{file("a/b", "x")}, `[ $(stat -c %Y a) = 1000000000 ]`},
		{"the root keeps its time", "touch -d @1000000000 .", []*snapshot.Entry{file("b", "x")}, `[ $(stat -c %Y .) = 1000000000 ]`},
		{"a pipe", "true", []*snapshot.Entry{{Path: "p", Kind: snapshot.Fifo, Mode: 0o640, UID: os.Geteuid(), GID: os.Getegid(), ModTime: when}}, `[ -p p ] && [ $(stat -c %a p) = 640 ]`},
	}
	both(t, func(t *testing.T, opt unpack.Options) {
		for _, tt := range tests {
			t.Run(tt.name, func(t *testing.T) {
				dir := t.TempDir()
				shell(t, dir, tt.before)
				res, err := unpack.Unpack(t.Context(), dir, stream(tt.entries...), opt)
				if err != nil || len(res.Problems) > 0 {
					t.Fatalf("error %v, problems %v", err, res.Problems)
				}
				shell(t, dir, tt.check)
				if left, _ := filepath.Glob(filepath.Join(dir, ".clayer-*")); left != nil {
					t.Errorf("left behind: %v", left)
				}
			})
		}
	})
}

func TestUnpackHostile(t *testing.T) {
	outside := t.TempDir()
	shell(t, outside, "echo secret > file")
	tests := []struct {
		name    string
		entries []*snapshot.Entry
	}{
		{"..", []*snapshot.Entry{file("../x", "x")}},
		{".. within", []*snapshot.Entry{file("a/../../x", "x")}},
		{"an absolute name", []*snapshot.Entry{file("/x", "x")}},
		{"a link, then a file through it", []*snapshot.Entry{symlink("l", outside), file("l/x", "x")}},
		{"a hard link to outside", []*snapshot.Entry{{Path: "h", Kind: snapshot.Link, Target: "../" + filepath.Base(outside) + "/file"}}},
		{"a hard link to an absolute name", []*snapshot.Entry{{Path: "h", Kind: snapshot.Link, Target: outside + "/file"}}},
		{"a whiteout of the root", []*snapshot.Entry{gone(".")}},
		{"an opaque root", []*snapshot.Entry{{Path: ".", Kind: snapshot.Opaque}}},
		{"two entries of one name", []*snapshot.Entry{file("a", "x"), symlink("a", outside)}},
		{"an empty name", []*snapshot.Entry{file("", "x")}},
		{"a file that is shorter than it says", []*snapshot.Entry{func() *snapshot.Entry { e := file("a", "x"); e.Size = 10; return e }()}},
	}
	both(t, func(t *testing.T, opt unpack.Options) {
		for _, tt := range tests {
			dir := filepath.Join(t.TempDir(), "root")
			shell(t, filepath.Dir(dir), "mkdir root; echo > root/keep")
			if _, err := unpack.Unpack(t.Context(), dir, stream(tt.entries...), opt); err == nil {
				t.Errorf("%s: no error", tt.name)
			}
			shell(t, dir, "[ -f keep ]")
			if n, _ := os.ReadDir(filepath.Dir(dir)); len(n) != 1 {
				t.Errorf("%s: something was written beside the root: %v", tt.name, n)
			}
		}
	})
	shell(t, outside, `[ "$(ls)" = file ] && [ "$(cat file)" = secret ]`)
}

// A directory that is swapped for a link out of the root, again and again, while
// files are made in it: none ends outside.
func TestUnpackWhileLinksAreSwapped(t *testing.T) {
	both(t, func(t *testing.T, opt unpack.Options) {
		base := t.TempDir()
		dir, outside := filepath.Join(base, "root"), filepath.Join(base, "outside")
		shell(t, base, "mkdir root root/d outside; ln -s ../../outside root/out")
		stop := make(chan struct{})
		var wg sync.WaitGroup
		wg.Go(func() {
			d, out := filepath.Join(dir, "d"), filepath.Join(dir, "out")
			for {
				select {
				case <-stop:
					return
				default:
					_ = unix.Renameat2(unix.AT_FDCWD, d, unix.AT_FDCWD, out, unix.RENAME_EXCHANGE)
				}
			}
		})
		for i := range 300 {
			_, err := unpack.Unpack(t.Context(), dir, stream(file(fmt.Sprintf("d/f%d", i), "x")), opt)
			var unsafe *snapshot.UnsafeError
			if errors.As(err, &unsafe) {
				t.Fatal(err)
			}
		}
		close(stop)
		wg.Wait()
		if names, _ := os.ReadDir(outside); len(names) > 0 {
			t.Errorf("%d files were made outside of the root", len(names))
		}
	})
}

func TestUnpackAttributes(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("not root: owners and capabilities can't be set")
	}
	dir := t.TempDir()
	capability := "\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"
	f := file("f", "x")
	f.UID, f.GID, f.Mode = 12, 34, 0o4755
	f.Xattrs = map[string]string{"user.note": "a\x00b", "security.capability": capability}
	d := dirEntry("d")
	d.Xattrs = map[string]string{"user.new": "1"}
	shell(t, dir, "mkdir d")
	if err := unix.Setxattr(filepath.Join(dir, "d"), "user.old", []byte("x"), 0); err != nil {
		t.Skipf("no extended attributes here: %v", err)
	}
	dev := &snapshot.Entry{Path: "null", Kind: snapshot.Char, Major: 1, Minor: 3, Mode: 0o666, ModTime: when}
	l := symlink("l", "f")
	l.UID = 7
	res, err := unpack.Unpack(t.Context(), dir, stream(f, d, dev, l), unpack.Options{})
	if err != nil || len(res.Problems) > 0 {
		t.Fatalf("error %v, problems %v", err, res.Problems)
	}
	got := treetest.Describe(t, dir, nil)
	for _, want := range []string{
		`"f" file 4755 12:34 1600000000.123456789 1 `, `user.note="a\x00b"`, "security.capability=",
		`"d" dir 0755 0:0 1600000000.123456789 user.new="1"`, `"null" char 0666 0:0 1600000000.123456789 1:3`, `"l" symlink 0777 7:0`,
	} {
		if !strings.Contains(got, want) {
			t.Errorf("no %s in\n%s", want, got)
		}
	}
}

func TestUnpackSparse(t *testing.T) {
	dir := t.TempDir()
	content := strings.Repeat("\x00", 1<<20) + "data" + strings.Repeat("\x00", 1<<20)
	e := file("s", content)
	e.Data = []snapshot.Extent{{Offset: 1 << 20, Length: 4}}
	hole := file("hole", strings.Repeat("\x00", 1<<20))
	hole.Data = []snapshot.Extent{}
	if _, err := unpack.Unpack(t.Context(), dir, stream(e, hole), unpack.Options{}); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(filepath.Join(dir, "s"))
	if err != nil || string(got) != content {
		t.Errorf("the content is another, %v", err)
	}
	for _, name := range []string{"s", "hole"} {
		var st unix.Stat_t
		if err := unix.Stat(filepath.Join(dir, name), &st); err != nil || st.Blocks*512 > 128<<10 {
			t.Errorf("%s takes %d bytes of the disk, %v", name, st.Blocks*512, err)
		}
	}
}

// A program that runs is replaced without an error, and goes on.
func TestUnpackOverARunningProgram(t *testing.T) {
	dir := t.TempDir()
	shell(t, dir, `cp "$(command -v sleep)" prog`)
	cmd := exec.Command(filepath.Join(dir, "prog"), "60")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { cmd.Process.Kill(); cmd.Wait() }()
	if res, err := unpack.Unpack(t.Context(), dir, stream(file("prog", "new")), unpack.Options{}); err != nil || len(res.Problems) > 0 {
		t.Errorf("error %v, problems %v", err, res.Problems)
	}
	if err := cmd.Process.Signal(unix.Signal(0)); err != nil {
		t.Errorf("the running program ended: %v", err)
	}
}

func TestUnpackCancelledLeavesNothingHalfDone(t *testing.T) {
	dir := t.TempDir()
	ctx, cancel := context.WithCancel(t.Context())
	big := file("big", strings.Repeat("x", 1<<20))
	big.Content, big.Open = nil, func() (io.ReadCloser, error) {
		cancel()
		return io.NopCloser(strings.NewReader(strings.Repeat("x", 1<<20))), nil
	}
	if _, err := unpack.Unpack(ctx, dir, stream(big), unpack.Options{}); !errors.Is(err, context.Canceled) {
		t.Errorf("error = %v", err)
	}
	if names, _ := os.ReadDir(dir); len(names) > 0 {
		t.Errorf("left behind: %v", names)
	}
}

func testRoot(t *testing.T) (*Root, *Lock) {
	t.Helper()
	r, err := Open(filepath.Join(t.TempDir(), "root"), Options{})
	if err != nil {
		t.Fatal(err)
	}
	l, err := r.Lock(t.Context(), false, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Unlock() })
	return r, l
}

func keyOf(s string) key.Key { return key.Sum("test", func(w key.Writer) { w.Field("s", s) }) }

func TestApplyPreservesOriginals(t *testing.T) {
	r, l := testRoot(t)
	shell(t, r.Dir(), "echo old > replaced; mkdir -p tree/sub; echo deep > tree/sub/f; touch -d @1000000000 tree; mkdir -m 700 d; echo x > gone; chmod 4711 gone")
	before := treetest.Describe(t, r.Dir(), func(p string) bool { return p == "var" })
	step := record.Applied{Key: keyOf("1"), Layer: "base", Digest: "sha256:x", Text: "RUN x"}
	res, err := l.Apply(t.Context(), step, stream(file("replaced", "new"), file("tree", "a file now"), dirEntry("d"), gone("gone"), file("d/new", "x")))
	if err != nil || len(res.Problems) > 0 {
		t.Fatalf("error %v, problems %v", err, res.Problems)
	}
	shell(t, r.Dir(), `[ "$(cat replaced)" = new ] && [ -f tree ] && [ ! -e gone ] && [ -f d/new ]`)

	// Undone, the root is what it was, as it stands and after a commit.
	commit(t, l)
	n := 0
	for _, err := range r.state.Changes(l.State().Log[0]) {
		if err != nil {
			t.Fatal(err)
		}
		n++
	}
	if n != 5 {
		t.Errorf("%d changes are recorded, want 5", n)
	}
	undone, err := l.Undo(t.Context(), 0, false)
	if err != nil || len(undone.Preserved)+len(undone.Problems) > 0 {
		t.Fatal(err, undone)
	}
	commit(t, l)
	treetest.Diff(t, before, treetest.Describe(t, r.Dir(), func(p string) bool { return p == "var" }))
}

// commit commits what was applied as one layer.
func commit(t testing.TB, l *Lock) {
	t.Helper()
	var keys []key.Key
	if l.tx != nil {
		for _, ev := range l.tx.next.Log {
			keys = append(keys, ev.Key)
		}
	}
	if err := l.Commit("test", []record.LayerKeys{{Name: "base", Steps: keys}}, nil); err != nil {
		t.Fatal(err)
	}
}

// Laid over the root, the reverted changes of the last applies give back what
// it was before them, whatever they did to each other's files.
func TestRevert(t *testing.T) {
	r, l := testRoot(t)
	shell(t, r.Dir(), "echo old > a; mkdir -p tree/sub; echo deep > tree/sub/f; ln -s a link; mkdir -m 700 d; echo x > d/x; ln d/x d/y; ln d/x z; echo p > p; ln p q; touch -d @1000000000 d tree/sub tree")
	skip := func(p string) bool { return p == "var" }
	want := []string{treetest.Describe(t, r.Dir(), skip)}
	steps := [][]*snapshot.Entry{
		{file("a", "1"), dirEntry("new"), file("new/f", "1"), file("tree/sub/f", "1")},
		{file("a", "2"), file("new/f", "2"), file("new/g", "2"), gone("link"), dirEntry("d"), gone("d/x")},
		{file("tree", "a file"), gone("new"), file("d/x", "3"), symlink("a", "d")},
		{dirEntry("a"), dirEntry("a/b"), file("a/b/f", "4"), dirEntry("tree"), file("tree/f", "4"), file("new", "4"), file("p", "4"), file("q", "4"), file("z", "4")},
	}
	for i, es := range steps {
		step := record.Applied{Key: keyOf(fmt.Sprint(i)), Layer: "base", Digest: "sha256:x"}
		if res, err := l.Apply(t.Context(), step, stream(es...)); err != nil || len(res.Problems) > 0 {
			t.Fatal(err, res.Problems)
		}
		commit(t, l)
		want = append(want, treetest.Describe(t, r.Dir(), skip))
	}
	for m := range len(steps) {
		over := filepath.Join(t.TempDir(), "copy")
		if out, err := exec.Command("cp", "-a", r.Dir(), over).CombinedOutput(); err != nil {
			t.Fatalf("cp: %v\n%s", err, out)
		}
		changes, err := r.Revert(l.state.Log[:m], l.state.Log[m:])
		if err != nil {
			t.Fatal(err)
		}
		if res, err := unpack.Unpack(t.Context(), over, changes, unpack.Options{}); err != nil || len(res.Problems) > 0 {
			t.Fatal(err, res.Problems)
		}
		treetest.Diff(t, want[m], treetest.Describe(t, over, skip))
	}
}

func TestApplyRefusesItsOwnDirectory(t *testing.T) {
	_, l := testRoot(t)
	step := record.Applied{Key: keyOf("1"), Layer: "base", Digest: "sha256:x"}
	if _, err := l.Apply(t.Context(), step, stream(file("var/lib/clayer/state.json", "{}"))); err == nil {
		t.Error("no error")
	}
}

func TestStateRoundTrip(t *testing.T) {
	r, l := testRoot(t)
	if s, err := r.State(); err != nil || len(s.Layers) != 0 {
		t.Fatalf("a new root has state %v, %v", s, err)
	}
	for _, name := range []string{"1", "2", "3"} {
		step := record.Applied{Key: keyOf(name), Layer: "base", Digest: "sha256:x", Text: "RUN " + name}
		if _, err := l.Apply(t.Context(), step, stream(file("f"+name, name))); err != nil {
			t.Fatal(err)
		}
	}
	layers := []record.LayerKeys{{Name: "base", Steps: []key.Key{keyOf("1"), keyOf("2"), keyOf("3")}}}
	for _, platform := range []string{"first", "second"} {
		if err := l.Commit(platform, layers, []record.Var{{Name: "A", Value: "1"}}); err != nil {
			t.Fatal(err)
		}
	}
	s, err := r.State()
	if err != nil {
		t.Fatal(err)
	}
	if s.Platform != "first" || len(s.Log) != 3 || len(s.Layers) != 1 || len(s.Layers[0].Steps) != 3 || s.Env[0].Value != "1" {
		t.Errorf("state = %+v", s)
	}

	for name, text := range map[string]string{"damaged": "{", "newer": `{"version": 99}`} {
		if err := os.WriteFile(r.StateDir().Path("state.json"), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		if _, err := r.State(); err == nil {
			t.Errorf("a %s state has no error", name)
		}
	}
}

func TestLock(t *testing.T) {
	r, l := testRoot(t)
	if _, err := r.Lock(t.Context(), false, nil); !errors.Is(err, ErrLocked) || !strings.Contains(err.Error(), fmt.Sprint(os.Getpid())) {
		t.Errorf("a second lock: %v, want ErrLocked with the process", err)
	}
	waits := make(chan string, 1)
	got := make(chan error, 1)
	go func() {
		l2, err := r.Lock(context.Background(), true, func(h string) { waits <- h })
		if err == nil {
			err = l2.Unlock()
		}
		got <- err
	}()
	if h := <-waits; !strings.Contains(h, fmt.Sprint(os.Getpid())) {
		t.Errorf("waits for %q", h)
	}
	l.Unlock()
	if err := <-got; err != nil {
		t.Error(err)
	}
}

// Any tree can be turned into any other by a stream that says so.
func TestUnpackAnyTree(t *testing.T) {
	names := []string{"a", "b", "c", "\xff\n"}
	rapid.Check(t, func(t *rapid.T) {
		base, err := os.MkdirTemp("", "rootfs-")
		if err != nil {
			t.Fatal(err)
		}
		defer os.RemoveAll(base)
		want, got := filepath.Join(base, "want"), filepath.Join(base, "got")
		grow(t, want, names, 3)
		grow(t, got, names, 3)
		// Delete all that is there, then make all that should be.
		var es []*snapshot.Entry
		top, _ := os.ReadDir(got)
		for _, d := range top {
			if _, err := os.Lstat(filepath.Join(want, d.Name())); err != nil {
				es = append(es, gone(d.Name()))
			}
		}
		es = append(es, entriesOf(t, want, "")...)
		without := rapid.Bool().Draw(t, "without openat2")
		if res, err := unpack.Unpack(context.Background(), got, stream(es...), unpack.Options{Sys: inroot.Sys{WithoutOpenat2: without}}); err != nil || len(res.Problems) > 0 {
			t.Fatalf("error %v, problems %v", err, res.Problems)
		}
		tb := &testing.T{}
		if w, g := treetest.Describe(tb, want, nil), treetest.Describe(tb, got, nil); w != g {
			t.Fatalf("want\n%sgot\n%s", w, g)
		}
	})
}

func grow(t *rapid.T, dir string, names []string, depth int) {
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, n := range names {
		path := filepath.Join(dir, n)
		var err error
		kind := rapid.IntRange(0, 4).Draw(t, "kind")
		switch {
		case kind == 1 || kind == 4 && depth == 0:
			err = os.WriteFile(path, []byte(rapid.StringN(0, 5, 20).Draw(t, "content")), os.FileMode(rapid.SampledFrom([]int{0o600, 0o755}).Draw(t, "mode")))
		case kind == 2:
			err = os.Symlink(rapid.SampledFrom([]string{"a", "../b", "/"}).Draw(t, "target"), path)
		case kind == 3:
			err = unix.Mkfifo(path, 0o644)
		case kind == 4:
			grow(t, path, names, depth-1)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	at := time.Unix(int64(rapid.IntRange(0, 1<<31).Draw(t, "time")), 5)
	if err := os.Chtimes(dir, at, at); err != nil {
		t.Fatal(err)
	}
}

// entriesOf reads a small tree as a stream; every directory is opaque.
func entriesOf(t *rapid.T, dir, at string) (es []*snapshot.Entry) {
	list, err := os.ReadDir(filepath.Join(dir, at))
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range list {
		p := filepath.Join(at, d.Name())
		var st unix.Stat_t
		if err := unix.Lstat(filepath.Join(dir, p), &st); err != nil {
			t.Fatal(err)
		}
		e := &snapshot.Entry{Path: p, Mode: st.Mode & 0o7777, UID: int(st.Uid), GID: int(st.Gid), ModTime: time.Unix(st.Mtim.Unix())}
		es = append(es, e)
		switch st.Mode & unix.S_IFMT {
		case unix.S_IFREG:
			data, err := os.ReadFile(filepath.Join(dir, p))
			if err != nil {
				t.Fatal(err)
			}
			e.Kind, e.Size = snapshot.File, st.Size
			e.Content, e.Open = nil, func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(data)), nil }
		case unix.S_IFLNK:
			e.Kind = snapshot.Symlink
			e.Target, _ = os.Readlink(filepath.Join(dir, p))
		case unix.S_IFIFO:
			e.Kind = snapshot.Fifo
		case unix.S_IFDIR:
			e.Kind = snapshot.Dir
			es = append(es, &snapshot.Entry{Path: p, Kind: snapshot.Opaque})
			es = append(es, entriesOf(t, dir, p)...)
		}
	}
	return es
}

func benchmarkUnpack(b *testing.B, files int, content string) {
	var es []*snapshot.Entry
	for i := range files {
		if i%50 == 0 {
			es = append(es, dirEntry(fmt.Sprintf("d%d", i/50)))
		}
		es = append(es, file(fmt.Sprintf("d%d/f%d", i/50, i), content))
	}
	b.SetBytes(int64(files * len(content)))
	for b.Loop() {
		dir := b.TempDir()
		if _, err := unpack.Unpack(context.Background(), dir, stream(es...), unpack.Options{}); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkUnpack5000Small(b *testing.B) { benchmarkUnpack(b, 5000, strings.Repeat("x", 1000)) }
func BenchmarkUnpackOneLarge(b *testing.B)  { benchmarkUnpack(b, 1, strings.Repeat("x", 256<<20)) }

// What the record costs beside Unpack: a write for each entry.
func BenchmarkApply5000Small(b *testing.B) {
	var es []*snapshot.Entry
	for i := range 5000 {
		es = append(es, file(fmt.Sprintf("d%d/f%d", i/50, i), strings.Repeat("x", 1000)))
	}
	for b.Loop() {
		r, err := Open(b.TempDir(), Options{})
		if err != nil {
			b.Fatal(err)
		}
		l, err := r.Lock(b.Context(), false, nil)
		if err != nil {
			b.Fatal(err)
		}
		if res, err := l.Apply(b.Context(), step("1"), stream(es...)); err != nil || len(res.Problems) > 0 {
			b.Fatal(err, res.Problems)
		}
		if err := l.Unlock(); err != nil {
			b.Fatal(err)
		}
	}
}
