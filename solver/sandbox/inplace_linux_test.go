package sandbox_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/clayer/clayer/cache/snapshot"
	"github.com/clayer/clayer/internal/tree"
	"github.com/clayer/clayer/solver/sandbox"
	"github.com/clayer/clayer/solver/sandbox/inplace"
	"github.com/clayer/clayer/solver/sandbox/internal/treecopy"
	"github.com/clayer/clayer/solver/sandbox/overlay"
)

func needRoot(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("not root")
	}
}

func TestInPlaceAFailedRunReportsWhatItDid(t *testing.T) {
	needRoot(t)
	v, _ := newPlace(t, sandbox.CompareCTime)
	ch, err := v.Run(context.Background(), sandbox.Command{
		Argv: []string{"/bin/sh", "-c", `echo 1 >n; rm f; echo out; exit 3`}, Env: testEnv, Dir: "/w"})
	var exit *sandbox.ExitError
	if !errors.As(err, &exit) || exit.Code != 3 || string(exit.Output) != "out\n" {
		t.Fatalf("error %v", err)
	}
	if got, want := text(t, ch), "dir w 0755\ndelete w/f\nfile w/n 0644 2\n"; got != want {
		t.Errorf("got:\n%swant:\n%s", got, want)
	}
}

func TestInPlaceDirtyPathsAreReportedAsTheyAre(t *testing.T) {
	needRoot(t)
	v, _ := newPlace(t, sandbox.CompareCTime)
	ch, err := v.Run(context.Background(), sandbox.Command{
		Argv: []string{"/bin/sh", "-c", `rm g`}, Env: testEnv, Dir: "/w", Dirty: []string{"w/d", "w/f", "w/g", "w/never", "w/f/below", "none/x", "run/x"}})
	if err != nil {
		t.Fatal(err)
	}
	if got, want := text(t, ch), "dir w 0755\ndir w/d 0755\nfile w/f 0644 6\ndelete w/g\ndelete w/never\n"; got != want {
		t.Errorf("got:\n%swant:\n%s", got, want)
	}
	for p, want := range map[string]bool{"w/g": true, "w/n": false, "w/f/x": false} {
		if _, existed := v.Before(p); existed != want {
			t.Errorf("existed before: %s: %v", p, existed)
		}
	}
	if directory, _ := v.Before("w/d"); directory == nil || directory.Kind != snapshot.Dir || directory.Mode != 0o755 {
		t.Errorf("w/d was %v", directory)
	}
}

func TestInPlaceKilledParentLeavesNothing(t *testing.T) {
	needRoot(t)
	_, root := newPlace(t, sandbox.CompareCTime)
	killWhileRunning(t, "inplace", root, t.TempDir())
}

func TestEmulatedMounts(t *testing.T) {
	needRoot(t)
	v, root := newPlace(t, sandbox.CompareCTime)
	run := func(script string, mounts ...sandbox.Mount) (changes, out string) {
		t.Helper()
		changes, out, err := try(t, v, sandbox.Command{Argv: []string{"/bin/sh", "-ec", script}, Env: testEnv, Dir: "/w", Mounts: mounts})
		if err != nil {
			t.Fatalf("%s: %v\n%s", script, err, out)
		}
		return changes, out
	}
	refused := func(want string, m sandbox.Mount) {
		t.Helper()
		_, err := v.Run(context.Background(), sandbox.Command{Argv: []string{"/bin/sh", "-c", "echo ran >/w/ran"}, Env: testEnv, Dir: "/w", Mounts: []sandbox.Mount{m}})
		if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), m.Target) {
			t.Errorf("%v: error %v, want %q", m, err, want)
		}
		if _, err := os.Stat(filepath.Join(root, "w/ran")); err == nil {
			t.Error("it ran")
		}
	}
	secret := sandbox.Mount{Target: "/srv/secrets/token", Content: []byte("s3cret-" + unique()), Mode: 0o440}
	if changes, out := run(`cat /srv/secrets/token`, secret); changes != "" || out != string(secret.Content) {
		t.Errorf("secret %q\n%s", out, changes)
	}
	if p := find(t, root, secret.Content); p != "" {
		t.Errorf("the secret is on disk, in %s", p)
	}
	if _, err := os.Lstat(filepath.Join(root, "srv")); err == nil {
		t.Error("what the secret stood in is left")
	}
	refused("something exists there", sandbox.Mount{Target: "/w/f", Content: []byte("x")})
	refused("read-only", sandbox.Mount{Target: "/w/ro", Tmpfs: true, ReadOnly: true})
	refused("not a directory", sandbox.Mount{Target: "/w/f", Tmpfs: true})
	refused("not empty", sandbox.Mount{Target: "/w/d", Tmpfs: true})

	// A cache: with a root of its own it begins empty, and leaves nothing.
	if changes, _ := run(`echo 1 >/w/c/x; mkdir /w/c/d`, sandbox.Mount{Target: "/w/c", Source: t.TempDir()}); changes != "" {
		t.Errorf("a cache changed:\n%s", changes)
	}
	if _, err := os.Lstat(filepath.Join(root, "w/c")); err == nil {
		t.Error("the cache is left")
	}
	// A directory that is there is the cache.
	if changes, _ := run(`echo 1 >/w/d/cached`, sandbox.Mount{Target: "/w/d", Source: t.TempDir()}); changes != "" {
		t.Errorf("a cache changed:\n%s", changes)
	}
	// An empty one is lent, and given back as it was.
	if changes, out := run(`echo 1 >e/x; ls e`, sandbox.Mount{Target: "/w/e", Tmpfs: true}); changes != "" || out != "x\n" {
		t.Errorf("tmpfs: %q\n%s", out, changes)
	}
	if changes, _ := run(`test -z "$(ls e)"`); changes != "" {
		t.Errorf("a directory that was lent:\n%s", changes)
	}
	// What the command does beside a mount point is its own.
	changes, _ := run(`echo 1 >/w/n/mine`, sandbox.Mount{Target: "/w/n/m", Tmpfs: true})
	if want := "dir w 0755\ndir w/n 0755\nfile w/n/mine 0644 2\n"; changes != want {
		t.Errorf("beside a mount:\n%swant:\n%s", changes, want)
	}
}

func TestInPlaceCapture(t *testing.T) {
	needRoot(t)
	v, _ := newPlace(t, sandbox.CompareCTime)
	sh(t, v, `echo 1 >d/new`)
	ch, err := v.Capture(context.Background(), "/w/ld/../d")
	if err != nil {
		t.Fatal(err)
	}
	if got, want := text(t, ch), "implied dir w 0755\ndir w/d/s 0755\nfile w/d/s/z 0644 2\nfile w/d/x 0644 2\nfile w/d/y 0644 2\n"; got != want {
		t.Errorf("got:\n%swant:\n%s", got, want)
	}
	for p, want := range map[string]bool{"/w/ld/../d": true, "/none": false, "/w/none/x": false} {
		if got, err := v.Exists(context.Background(), p); got != want || err != nil {
			t.Errorf("%s exists: %t, %v", p, got, err)
		}
	}
	if _, err := v.Capture(context.Background(), "/none"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("error %v", err)
	}
}

// Clayer's own files are known by what they are: moved, they are in no snapshot. A copy
// is the user's.
func TestInPlaceOwnFilesUnderAnotherName(t *testing.T) {
	needRoot(t)
	v, _ := newPlace(t, sandbox.CompareCTime)
	got, _ := sh(t, v, `mkdir -p d/away; echo state > /var/lib/clayer/state.json; cp -a /var/lib/clayer/state.json d/copy; mv /var/lib/clayer d/away/moved`)
	if want := "dir w/d 0755\ndir w/d/away 0755\nfile w/d/copy 0644 6\n"; !strings.Contains(got, want) || strings.Contains(got, "moved") || strings.Contains(got, "clayer") {
		t.Errorf("got:\n%swant:\n%s", got, want)
	}
	ch, err := v.Capture(context.Background(), "/w/d")
	if err != nil {
		t.Fatal(err)
	}
	if got := text(t, ch); strings.Contains(got, "moved") {
		t.Errorf("captured:\n%s", got)
	}
}

// What a command deletes of clayer's own gives its inode number to nothing that the
// command makes then, which would be left out of the snapshot. Many file systems give a
// number that was freed to the next file.
func TestInPlaceInodeOfOwnFilesIsNotReused(t *testing.T) {
	needRoot(t)
	v, _ := newPlace(t, sandbox.CompareCTime)
	got, _ := sh(t, v, `rm -rf /var/lib/clayer; for i in 1 2 3 4 5 6 7 8; do mkdir /var/lib/new$i; echo >/var/lib/file$i; done`)
	for i := range 8 {
		for _, want := range []string{fmt.Sprintf("dir var/lib/new%d ", i+1), fmt.Sprintf("file var/lib/file%d ", i+1)} {
			if !strings.Contains(got, want) {
				t.Errorf("%q is not in the snapshot", want)
			}
		}
	}
}

// onTheRoot returns a new directory on the file system of /, and not in /tmp: other mounts
// are not looked at, and what is in /tmp is no part of a root.
func onTheRoot(t *testing.T) string {
	t.Helper()
	var root, have unix.Stat_t
	if err := unix.Stat("/", &root); err != nil {
		t.Fatal(err)
	}
	for _, in := range []string{os.TempDir(), os.Getenv("CLAYER_TEST_DIR")} {
		if err := unix.Stat(in, &have); err != nil || have.Dev != root.Dev || snapshot.IsScratch(strings.TrimPrefix(in, "/")) {
			continue
		}
		if dir, err := os.MkdirTemp(in, "clayer-test-"); err == nil {
			t.Cleanup(func() { os.RemoveAll(dir) })
			return dir
		}
	}
	t.Skip("no directory on the file system of / may be written")
	return ""
}

// TestInPlaceAsAUser runs on the root of the machine, as the one who tests it
// without privilege does anyway; it writes into a directory of its own there.
func TestInPlaceAsAUser(t *testing.T) {
	if os.Geteuid() == 0 {
		t.Skip("run by internal/places")
	}
	dir, work := onTheRoot(t), t.TempDir()
	if err := errors.Join(os.WriteFile(filepath.Join(dir, "f"), []byte("hello"), 0o644), os.Mkdir(filepath.Join(dir, "secret"), 0o700)); err != nil {
		t.Fatal(err)
	}
	var warned []string
	s, err := inplace.New(sandbox.Options{Root: "/", Work: work, Warn: func(text string) { warned = append(warned, text) }})
	if err != nil {
		t.Fatal(err)
	}
	v := s.InPlace()
	defer v.Close()
	cache := t.TempDir()
	run := func(script string) string {
		t.Helper()
		ch, err := v.Run(context.Background(), sandbox.Command{
			Argv: []string{"/bin/sh", "-ec", script}, Env: os.Environ(), Dir: dir, Timeout: time.Minute, Output: &testOutput{t},
			Filter: &snapshot.Filter{Include: []string{dir}},
			Mounts: []sandbox.Mount{
				{Target: filepath.Join(dir, "c"), Source: cache},
				{Target: filepath.Join(dir, "run", "token"), Content: []byte("s3cret")},
			},
		})
		if err != nil {
			t.Fatal(err)
		}
		rel := strings.TrimPrefix(dir, "/") + "/"
		var b strings.Builder
		for l := range strings.Lines(text(t, ch)) {
			if strings.Contains(l, rel) {
				l, _, _ = strings.Cut(l, fmt.Sprintf(" %d:", os.Geteuid()))
				b.WriteString(strings.TrimSuffix(strings.ReplaceAll(l, rel, ""), "\n") + "\n")
			}
		}
		return b.String()
	}
	got := run(`touch -r f ref; echo HELLO | head -c 5 >f; touch -r ref f; rm ref; mkdir n; ln -s ../f n/l; ln f g
		test "$(cat run/token)" = s3cret; echo 1 >c/cached`)
	if want := "file f 0644 5\nlink g -> f\ndir n 0755\nsymlink n/l -> ../f\n"; got != want {
		t.Errorf("got:\n%swant:\n%s", got, want)
	}
	if b, _ := os.ReadFile(filepath.Join(cache, "cached")); string(b) != "1\n" {
		t.Errorf("the cache holds %q", b)
	}
	if got := run(`test -e c/cached; rm -r n`); got != "delete n\n" {
		t.Errorf("got:\n%s", got)
	}
	if len(warned) == 0 || !strings.Contains(warned[0], "never captured") {
		t.Errorf("what may not be read was not reported: %q", warned)
	}
	if _, err := inplace.New(sandbox.Options{Root: dir, Work: work}); !errors.Is(err, sandbox.ErrUnavailable) || !strings.Contains(err.Error(), "chroot") {
		t.Errorf("another root: %v", err)
	}
}

// A file that others write to while it is captured is captured when it stands
// still, or named.
func TestAFileThatIsBusy(t *testing.T) {
	needRoot(t)
	v, root := newPlace(t, sandbox.CompareCTime)
	ch, err := v.Run(context.Background(), sandbox.Command{Argv: []string{"/bin/sh", "-c", "echo 1 >log"}, Env: testEnv, Dir: "/w"})
	if err != nil {
		t.Fatal(err)
	}
	log := filepath.Join(root, "w/log")
	if err := os.WriteFile(log, []byte("longer by now"), 0o644); err != nil {
		t.Fatal(err)
	}
	packed := func() error {
		_, err := snapshot.Pack(context.Background(), discard{}, ch, snapshot.PackOptions{})
		return err
	}
	if err := packed(); !errors.Is(err, tree.ErrBusy) || !strings.Contains(err.Error(), "w/log") {
		t.Fatalf("error %v", err)
	}
	if err := packed(); err != nil {
		t.Fatalf("again: %v", err)
	}
	if got := text(t, ch); !strings.Contains(got, "file w/log 0644 13") {
		t.Errorf("got %s", got)
	}
	if err := os.Remove(log); err != nil {
		t.Fatal(err)
	}
	if got := text(t, ch); !strings.Contains(got, "delete w/log") {
		t.Errorf("a file that is gone: %s", got)
	}
}

type discard struct{}

func (discard) Write(p []byte) (int, error) { return len(p), nil }

func TestNamesThatALayerCannotHold(t *testing.T) {
	sandboxes(t, func(t *testing.T, b testBox) {
		v, _ := b.view(t)
		ch, err := v.Run(context.Background(), sandbox.Command{Argv: []string{"/bin/sh", "-c", "echo 1 >d/.wh.x"}, Env: testEnv, Dir: "/w"})
		if err == nil {
			_, err = snapshot.Pack(context.Background(), discard{}, ch, snapshot.PackOptions{})
		}
		if err == nil || !strings.Contains(err.Error(), "w/d/.wh.x") {
			t.Errorf("error %v", err)
		}
	})
}

func TestDeepPathsInBoth(t *testing.T) {
	sandboxes(t, func(t *testing.T, b testBox) {
		v, _ := b.view(t)
		var blob []byte
		runAll(t, v, []string{`mkdir D; deep D; touch -d @1000000000 /w`}, func(p []byte) { blob = p })
		if !strings.HasSuffix(strings.TrimSpace(lines(t, blob)), "end 0644 5") {
			t.Error("the file at the end is missing")
		}
	})
}

// TestLarge is what takes long, and has to stay small in memory.
func TestLarge(t *testing.T) {
	if testing.Short() {
		t.Skip("-short")
	}
	sandboxes(t, func(t *testing.T, b testBox) {
		if b.name == "inplace by digest" {
			t.Skip("reads 5 GB twice")
		}
		v, _ := b.view(t)
		ch, err := v.Run(context.Background(), sandbox.Command{
			Argv: []string{"/bin/sh", "-ec", `mkdir many; cd many; i=0; while test $i -lt 1000; do
				for k in 0 1 2 3 4 5 6 7 8 9; do :>$i.${k}0; :>$i.${k}1; :>$i.${k}2; :>$i.${k}3; :>$i.${k}4; :>$i.${k}5; :>$i.${k}6; :>$i.${k}7; :>$i.${k}8; :>$i.${k}9; done
				i=$((i+1)); done; truncate -s 5G ../sparse`},
			Env: testEnv, Dir: "/w"})
		if err != nil {
			t.Fatal(err)
		}
		n, sparse := 0, false
		for e, err := range ch {
			if err != nil {
				t.Fatal(err)
			}
			n++
			sparse = sparse || e.Path == "w/sparse" && e.Size == 5<<30 && e.Data != nil && len(e.Data) == 0
		}
		if n != 100_003 || !sparse {
			t.Errorf("%d entries, a sparse one %v", n, sparse)
		}
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		if m.HeapInuse > 200<<20 {
			t.Errorf("%d MB are in use", m.HeapInuse>>20)
		}
	})
}

func TestManySteps(t *testing.T) {
	sandboxes(t, func(t *testing.T, b testBox) {
		v, _ := b.view(t)
		for i := range 120 {
			got, _ := sh(t, v, fmt.Sprintf("echo %d >n%d; rm -f n%d; touch -d @%d .", i, i, i-1, i+1))
			if want := fmt.Sprintf("file w/n%d 0644 %d\n", i, len(fmt.Sprint(i))+1); !strings.Contains(got, want) {
				t.Fatalf("step %d: got:\n%s", i, got)
			}
		}
	})
}

// A RUN in place costs one reading of the root: here of 200,000 files, beside
// the overlay that doesn't look at them.
func BenchmarkRunInPlace(b *testing.B) {
	needRoot(b)
	from, work := fixture(b)
	dir := b.TempDir()
	if _, err := os.Stat("/dev/shm"); err == nil {
		if dir, err = os.MkdirTemp("/dev/shm", "inplace-*"); err != nil {
			b.Fatal(err)
		}
		defer os.RemoveAll(dir)
	}
	root := filepath.Join(dir, "root")
	if err := errors.Join(os.MkdirAll(filepath.Join(root, "var/lib/clayer/work"), 0o755), treecopy.Tree(b.Context(), from, root, func(p string) bool { return p == "var" })); err != nil {
		b.Fatal(err)
	}
	for i := range 2000 {
		at := filepath.Join(root, "opt", fmt.Sprint(i))
		if err := os.MkdirAll(at, 0o755); err != nil {
			b.Fatal(err)
		}
		for j := range 100 {
			if err := os.WriteFile(filepath.Join(at, fmt.Sprint(j)), nil, 0o644); err != nil {
				b.Fatal(err)
			}
		}
	}
	for _, kind := range []string{"inplace", "overlay"} {
		b.Run(kind, func(b *testing.B) {
			opt := sandbox.Options{Root: root, Work: filepath.Join(root, "var/lib/clayer/work"), Hide: []string{"/var/lib/clayer"}}
			if kind == "overlay" {
				opt.Work = work
			}
			s, err := choose(kind, opt)
			if err != nil {
				b.Skip(err)
			}
			v, err := viewOf(b.Context(), s)
			if err != nil {
				b.Fatal(err)
			}
			defer v.Close()
			run := func() {
				ch, err := v.Run(b.Context(), sandbox.Command{Argv: []string{"/bin/sh", "-c", ":"}, Env: testEnv})
				if err != nil {
					b.Fatal(err)
				}
				if got := text(b, ch); got != "" {
					b.Fatalf("changes: %s", got)
				}
			}
			run() // the first one reads twice
			for b.Loop() {
				run()
			}
		})
	}
}

// Choosing is probing by doing: "auto" for a solve, and what plan does.
func BenchmarkChoose(b *testing.B) {
	root, work := fixture(b)
	opt := sandbox.Options{Root: root, Work: work, Hide: []string{"/var/lib/clayer"}}
	b.Run("auto", func(b *testing.B) {
		for b.Loop() {
			if _, err := choose("auto", opt); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("inplace", func(b *testing.B) {
		for b.Loop() {
			if _, err := inplace.New(opt); err != nil {
				b.Skip(err)
			}
		}
	})
	b.Run("plan", func(b *testing.B) {
		for b.Loop() {
			if _, err := sandbox.Check("auto", opt, overlay.Engine, inplace.Engine); err != nil {
				b.Fatal(err)
			}
		}
	})
}
