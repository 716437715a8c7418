package sandbox_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/moby/sys/reexec"
	"golang.org/x/sys/unix"

	"github.com/clayer/clayer/cache/snapshot"
	"github.com/clayer/clayer/internal/leftover"
	"github.com/clayer/clayer/internal/testexec"
	"github.com/clayer/clayer/solver/internal/unpack"
	"github.com/clayer/clayer/solver/sandbox"
	"github.com/clayer/clayer/solver/sandbox/helper"
	"github.com/clayer/clayer/solver/sandbox/inplace"
	"github.com/clayer/clayer/solver/sandbox/internal/treecopy"
	"github.com/clayer/clayer/solver/sandbox/overlay"
)

// The test binary is a tool in the test root too: what shells and coreutils
// cannot do, or not the same everywhere.
func init() {
	reexec.Register("manifest", func() { // manifest DIR: what the tree there is, line by line
		m, err := manifest(os.Args[1], os.Getenv("OWNERS") != "")
		exitOn(err)
		fmt.Print(m)
	})
	reexec.Register("mksock", func() { // mksock PATH
		l, err := net.Listen("unix", os.Args[1])
		exitOn(err)
		l.(*net.UnixListener).SetUnlinkOnClose(false)
		l.Close()
	})
	reexec.Register("setx", func() { // setx PATH NAME HEX
		b, err := hex.DecodeString(os.Args[3])
		exitOn(err)
		exitOn(unix.Lsetxattr(os.Args[1], os.Args[2], b, 0))
	})
	reexec.Register("unsetx", func() { // unsetx PATH NAME
		exitOn(unix.Lremovexattr(os.Args[1], os.Args[2]))
	})
	reexec.Register("settle", func() { // settle DIR: what has a time of today gets one that is always the same
		exitOn(filepath.WalkDir(os.Args[1], func(p string, _ fs.DirEntry, err error) error {
			var st unix.Stat_t
			if err == nil || errors.Is(err, fs.ErrPermission) {
				err = unix.Lstat(p, &st)
			}
			if now := time.Now().Unix(); err != nil || st.Mtim.Sec < now-24*3600 || st.Mtim.Sec > now {
				return err
			}
			return unix.UtimesNanoAt(unix.AT_FDCWD, p, []unix.Timespec{{Nsec: unix.UTIME_OMIT}, {Sec: 1e9}}, unix.AT_SYMLINK_NOFOLLOW)
		}))
	})
	reexec.Register("holes", func() { // holes PATH: 4 KiB of data, 1 MiB of nothing, 4 KiB of data
		f, err := os.Create(os.Args[1])
		exitOn(err)
		b := bytes.Repeat([]byte("x"), 4096)
		_, err = f.Write(b)
		exitOn(err)
		_, err = f.WriteAt(b, 4096+1<<20)
		exitOn(err)
	})
	reexec.Register("chaos", func() { // chaos DIR SEED: random changes
		seed, err := strconv.ParseUint(os.Args[2], 10, 64)
		exitOn(err)
		chaos(os.Args[1], rand.New(rand.NewPCG(seed, 0)))
	})
	reexec.Register("deep", func() { // deep DIR: a file below more directories than a path can name
		exitOn(os.Chdir(os.Args[1]))
		for range 25 {
			name := strings.Repeat("d", 250)
			exitOn(os.Mkdir(name, 0o755))
			exitOn(os.Chdir(name))
		}
		exitOn(os.WriteFile("end", []byte("deep\n"), 0o644))
	})
	reexec.Register("odd", func() { // odd DIR: names with any bytes
		for _, n := range []string{"new\nline", "bad\xff\xfeutf8", strings.Repeat("n", 255), " ", "-rf"} {
			exitOn(os.WriteFile(filepath.Join(os.Args[1], n), []byte(n), 0o644))
		}
	})
}

func exitOn(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func TestMain(m *testing.M) {
	sandbox.Main()
	if err := setProgram(); err != nil {
		fmt.Fprintln(os.Stderr, "build a program for helpers:", err)
		os.Exit(1)
	}
	if err := setUpPlace(); err != nil {
		fmt.Fprintln(os.Stderr, "set up a place:", err)
		os.Exit(1)
	}
	code := m.Run()
	if err := leftover.Check(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = max(code, 1)
	}
	if testRoot.dir != "" {
		os.RemoveAll(testRoot.dir)
	}
	if programDir != "" {
		os.RemoveAll(programDir)
	}
	os.Exit(code)
}

// programDir holds the program that was built for helpers, if one was.
var programDir string

// setProgram builds this test binary without the race detector and cgo, for the
// helpers and for the tools in the test root: thousands of processes, each of which
// starts in a tenth of the time. The helper of a solve runs with the detector in the
// stories of cmd/clayer. Where there is no go tool it is this program.
func setProgram() error {
	if !raceEnabled {
		return nil
	}
	if _, err := exec.LookPath("go"); err != nil {
		return nil
	}
	var err error
	if programDir, err = os.MkdirTemp("", "sandbox-program-*"); err != nil {
		return err
	}
	if err := os.Chmod(programDir, 0o755); err != nil {
		return err
	}
	exe := filepath.Join(programDir, "sandbox.test")
	build := exec.Command("go", "test", "-c", "-ldflags=-s -w", "-o", exe, ".")
	build.Env = append(os.Environ(), "GOFLAGS=", "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	helper.Program = exe
	return nil
}

// programFile is the path of what helpers are started from.
func programFile() (string, error) {
	if programDir == "" {
		return os.Executable()
	}
	return helper.Program, nil
}

var testRoot struct {
	once sync.Once
	dir  string // holds root and work
	err  error
}

// fixture returns a small root of a shell, coreutils and some files in /w,
// made once per test binary, and a directory for views.
func fixture(t testing.TB) (root, work string) {
	t.Helper()
	testRoot.once.Do(func() {
		testRoot.dir, testRoot.err = os.MkdirTemp("", "sandbox-test-*")
		if testRoot.err == nil {
			testRoot.err = makeRoot(testRoot.dir)
		}
	})
	if testRoot.err != nil {
		t.Skipf("no test root: %v", testRoot.err)
	}
	return filepath.Join(testRoot.dir, "root"), filepath.Join(testRoot.dir, "work")
}

func makeRoot(dir string) error {
	root := filepath.Join(dir, "root")
	for _, d := range []string{"root/bin", "root/w", "root/tmp", "root/run", "root/proc", "root/etc", "root/var/lib/clayer", "work"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			return err
		}
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(root, "var/lib/clayer/state"), []byte("secret state"), 0o644); err != nil {
		return err
	}
	tools := []string{"cat", "cp", "mv", "rm", "mkdir", "rmdir", "ln", "touch", "chmod", "chown", "truncate",
		"mkfifo", "ls", "sleep", "dd", "id", "setsid", "head", "seq", "stat", "mknod"}
	self, err := programFile()
	if err != nil {
		return err
	}
	need := map[string]string{"sh": "/bin/sh", "t": self}
	for _, name := range tools {
		if need[name], err = exec.LookPath(name); err != nil {
			return err
		}
	}
	// Programs and libraries are below /run, which is never captured and so not
	// read: a reading of every digest of this root takes no time. Links lead there.
	libs := make(map[string]bool)
	lib := regexp.MustCompile(`(/\S+) \(0x`)
	program := func(from, path string) error {
		to := filepath.Join(root, path)
		if err := copyExecutable(from, filepath.Join(root, "run", path)); err != nil {
			return err
		}
		if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
			return err
		}
		return os.Symlink(filepath.Join("/run", path), to)
	}
	for name, path := range need {
		if err := program(path, filepath.Join("bin", name)); err != nil {
			return err
		}
		out, _ := exec.Command("ldd", path).Output() // fails for a static one
		for _, m := range lib.FindAllSubmatch(out, -1) {
			libs[string(m[1])] = true
		}
	}
	for path := range libs {
		if err := program(path, path); err != nil {
			return err
		}
	}
	for _, name := range []string{"manifest", "mksock", "setx", "unsetx", "settle", "holes", "deep", "odd", "chaos", "descriptors"} {
		if err := os.Symlink("t", filepath.Join(root, "bin", name)); err != nil {
			return err
		}
	}
	const files = `
		cd "$1"; umask 022
		echo hello >f; echo other >g; chmod 0755 g; echo xa >xa
		mkdir -p d/s e tree/a/b; echo x >d/x; echo y >d/y; echo z >d/s/z
		ln -s f l; ln -s d ld
		echo linked >h1; ln h1 h2
		for i in 1 2 3 4 5; do echo $i >tree/a/$i; done; echo b >tree/a/b/b
		find . -exec touch -h -d '2001-02-03 04:05:06.123456789Z' {} +`
	out, err := exec.Command("/bin/sh", "-ec", files, "sh", filepath.Join(root, "w")).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	err = unix.Lsetxattr(filepath.Join(root, "w", "xa"), "user.k", []byte("ab"), 0)
	if errors.Is(err, unix.ENOTSUP) {
		return nil
	}
	return err
}

func copyExecutable(from, to string) error {
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return err
	}
	return testexec.Copy(to, from)
}

// modes are the two ways of the overlay sandbox, as far as this machine has
// them. The user namespace is tried as root here, and as nobody by internal/places.
func modes(t *testing.T, f func(t *testing.T, s *testOverlay)) {
	t.Helper()
	for _, m := range []struct {
		name   string
		rooted bool
	}{{"root", true}, {"user", false}} {
		t.Run(m.name, func(t *testing.T) {
			f(t, newOverlay(t, m.rooted, sandbox.Options{}))
		})
	}
}

// inGVisor reports whether these tests run in gVisor, whose file systems know no
// holes, and whose ctime does not move with xattrs.
func inGVisor() bool {
	var u unix.Utsname
	return unix.Uname(&u) == nil && strings.Contains(unix.ByteSliceToString(u.Release[:]), "gvisor")
}

// A testBox is a sandbox that a test runs in.
type testBox struct {
	name      string
	owners    bool // files may have other owners
	direct    bool // in place
	ctimeOnly bool // no digests decide
	view      func(t *testing.T) (v sandbox.View, root string)
}

// sandboxes are all ways to run, as far as this machine has them.
func sandboxes(t *testing.T, f func(t *testing.T, b testBox)) {
	t.Helper()
	modes(t, func(t *testing.T, s *testOverlay) {
		name := "overlay in a user namespace"
		if s.rooted {
			name = "overlay"
		}
		f(t, testBox{name: name, owners: s.rooted, view: func(t *testing.T) (sandbox.View, string) { return newView(t, s), s.Root }})
	})
	for _, compare := range []sandbox.Compare{sandbox.CompareCTime, sandbox.CompareDigest} {
		t.Run("inplace by "+string(compare), func(t *testing.T) {
			if os.Geteuid() != 0 {
				t.Skip("not root")
			}
			f(t, testBox{
				name: "inplace by " + string(compare), owners: mayGive(t), direct: true, ctimeOnly: compare == sandbox.CompareCTime,
				view: func(t *testing.T) (sandbox.View, string) { return newPlace(t, compare) },
			})
		})
	}
}

// mayGive reports whether files may be given to others here.
func mayGive(t testing.TB) bool {
	f := filepath.Join(t.TempDir(), "f")
	return os.WriteFile(f, nil, 0o600) == nil && os.Chown(f, 12, 34) == nil
}

// copyRoot copies the test root, whose programs are run from the copy.
func copyRoot(from, to string) error {
	return testexec.Fill(to, func() error { return treecopy.Tree(context.Background(), from, to, nil) })
}

// newPlace returns the view of a copy of the test root.
func newPlace(t testing.TB, compare sandbox.Compare) (sandbox.InPlace, string) {
	t.Helper()
	from, _ := fixture(t)
	root := t.TempDir()
	if err := copyRoot(from, root); err != nil {
		t.Fatal(err)
	}
	work := filepath.Join(root, "var/lib/clayer/work")
	// A shell gives what runs in the background the /dev/null of its root.
	err := errors.Join(os.MkdirAll(work, 0o755), os.Mkdir(filepath.Join(root, "dev"), 0o755),
		unix.Mknod(filepath.Join(root, "dev/null"), unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))))
	if errors.Is(err, unix.EPERM) { // in a user namespace: an empty file reads the same
		err = os.WriteFile(filepath.Join(root, "dev/null"), nil, 0o666)
	}
	if err != nil {
		t.Fatal(err)
	}
	s, err := inplace.New(sandbox.Options{Root: root, Work: work, Hide: []string{"/var/lib/clayer"}, Compare: compare})
	if errors.Is(err, sandbox.ErrUnavailable) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	v := s.InPlace()
	t.Cleanup(func() { v.Close() })
	return v, root
}

// A testOverlay is an overlay in one of its two ways.
type testOverlay struct {
	*overlay.Overlay
	rooted bool
}

// newOverlay makes a sandbox in the one mode, over the test root unless opt names another.
func newOverlay(t testing.TB, rooted bool, opt sandbox.Options) *testOverlay {
	t.Helper()
	root, work := fixture(t)
	if opt.Root == "" {
		opt.Root = root
	}
	if opt.Work == "" {
		opt.Work = work
	}
	if opt.Hide == nil {
		opt.Hide = []string{"/var/lib/clayer"}
	}
	if rooted && os.Geteuid() != 0 {
		t.Skip("not root")
	}
	s, err := overlay.NewWay(rooted, opt)
	if err != nil {
		t.Skipf("this machine does not allow it: %v", err)
	}
	return &testOverlay{s, rooted}
}

// choose is sandbox.Choose among the sandboxes of this package.
func choose(kind string, opt sandbox.Options) (*sandbox.Sandbox, error) {
	return sandbox.Choose(kind, opt, overlay.Engine, inplace.Engine)
}

// viewOf returns a view of either kind.
func viewOf(ctx context.Context, s *sandbox.Sandbox) (sandbox.View, error) {
	if s.InPlace != nil {
		return s.InPlace(), nil
	}
	return s.Layered(ctx)
}

func newView(t testing.TB, s *testOverlay) *overlay.View {
	t.Helper()
	v, err := s.View(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := v.Close(); err != nil {
			t.Error(err)
		}
	})
	return v
}

var testEnv = []string{"PATH=/bin", "HOME=/"}

// sh runs a script in /w and returns the changes as text, one line each:
//
//	file w/f 0644 6      kind, path, mode, size
//	link w/b -> w/a
//	delete w/c
//
// and what it printed.
func sh(t testing.TB, v sandbox.View, script string) (changes, output string) {
	t.Helper()
	text, out, err := try(t, v, sandbox.Command{Argv: []string{"/bin/sh", "-ec", script}, Env: testEnv, Dir: "/w"})
	if err != nil {
		t.Fatalf("%s\n%v\n%s", script, err, out)
	}
	return text, out
}

// raceNoise is what a program with the race detector says where there is no /proc.
var raceNoise = regexp.MustCompile(`(?m)^==\d+==WARNING: reading executable name.*\n`)

func try(t testing.TB, v sandbox.View, c sandbox.Command) (changes, output string, err error) {
	t.Helper()
	var out bytes.Buffer
	c.Output = &out
	if c.Timeout == 0 {
		c.Timeout = time.Minute
	}
	ch, err := v.Run(context.Background(), c)
	if err != nil {
		return "", out.String(), err
	}
	return text(t, ch), raceNoise.ReplaceAllString(out.String(), ""), nil
}

func text(t testing.TB, ch snapshot.Changes) string {
	t.Helper()
	var b strings.Builder
	for e, err := range ch {
		if err != nil {
			t.Fatal(err)
		}
		b.WriteString(line(t, e) + "\n")
	}
	return b.String()
}

func line(t testing.TB, e *snapshot.Entry) string {
	t.Helper()
	s := ""
	if e.Implied {
		s = "implied "
	}
	switch e.Kind {
	case snapshot.File:
		s += fmt.Sprintf("file %s %04o %d", e.Path, e.Mode, e.Size)
		r, err := e.Open()
		if err != nil {
			t.Fatal(err)
		}
		n, err := io.Copy(io.Discard, r)
		if err := errors.Join(err, r.Close()); err != nil || n != e.Size {
			t.Fatalf("%s: read %d of %d bytes: %v", e.Path, n, e.Size, err)
		}
		if e.Data != nil {
			s += fmt.Sprintf(" data %v", e.Data)
		}
	case snapshot.Dir:
		s += fmt.Sprintf("dir %s %04o", e.Path, e.Mode)
	case snapshot.Symlink:
		s += fmt.Sprintf("symlink %s -> %s", e.Path, e.Target)
	case snapshot.Link:
		s += fmt.Sprintf("link %s -> %s", e.Path, e.Target)
	case snapshot.Char:
		s += fmt.Sprintf("char %s %04o %d:%d", e.Path, e.Mode, e.Major, e.Minor)
	case snapshot.Fifo:
		s += fmt.Sprintf("fifo %s %04o", e.Path, e.Mode)
	case snapshot.Delete:
		s += "delete " + e.Path
	case snapshot.Opaque:
		s += "opaque " + e.Path
	default:
		t.Fatalf("%s: kind %d", e.Path, e.Kind)
	}
	if e.UID != 0 || e.GID != 0 {
		s += fmt.Sprintf(" %d:%d", e.UID, e.GID)
	}
	for _, k := range slices.Sorted(func(yield func(string) bool) {
		for k := range e.Xattrs {
			if !yield(k) {
				return
			}
		}
	}) {
		s += fmt.Sprintf(" %s=%x", k, e.Xattrs[k])
	}
	return s
}

// trim takes the indentation off a table's text.
func trim(s string) string {
	var b strings.Builder
	for l := range strings.Lines(s) {
		if l = strings.TrimSpace(l); l != "" {
			b.WriteString(l + "\n")
		}
	}
	return b.String()
}

// manifest describes a tree in a line per entry, with all that a snapshot keeps:
// link groups by their first name, content by its digest.
func manifest(dir string, owners bool) (string, error) {
	var b strings.Builder
	first := make(map[uint64]string)
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(dir, p)
		if rel == "." {
			return nil
		}
		var st unix.Stat_t
		if err := unix.Lstat(p, &st); err != nil {
			return err
		}
		if st.Mode&unix.S_IFMT == unix.S_IFSOCK {
			return nil
		}
		fmt.Fprintf(&b, "%q %o %d.%09d", rel, st.Mode, st.Mtim.Sec, st.Mtim.Nsec)
		if owners {
			fmt.Fprintf(&b, " %d:%d", st.Uid, st.Gid)
		}
		switch st.Mode & unix.S_IFMT {
		case unix.S_IFLNK:
			l, err := os.Readlink(p)
			if err != nil {
				return err
			}
			fmt.Fprintf(&b, " -> %q", l)
		case unix.S_IFCHR, unix.S_IFBLK:
			fmt.Fprintf(&b, " dev %d", st.Rdev)
		case unix.S_IFREG:
			f, err := os.Open(p)
			if err != nil {
				return err
			}
			defer f.Close()
			h := sha256.New()
			if _, err := io.Copy(h, f); err != nil {
				return err
			}
			fmt.Fprintf(&b, " %d %x", st.Size, h.Sum(nil)[:6])
			if st.Nlink > 1 {
				if _, ok := first[st.Ino]; !ok {
					first[st.Ino] = rel
				}
				fmt.Fprintf(&b, " group %q", first[st.Ino])
			}
		}
		list := make([]byte, 4096)
		if n, err := unix.Llistxattr(p, list); err == nil {
			for _, k := range strings.FieldsFunc(string(list[:n]), func(r rune) bool { return r == 0 }) {
				if strings.HasPrefix(k, "user.overlay.") || strings.HasPrefix(k, "trusted.") || k == "security.selinux" {
					continue
				}
				v := make([]byte, 4096)
				n, err := unix.Lgetxattr(p, k, v)
				if err != nil {
					return err
				}
				fmt.Fprintf(&b, " %s=%x", k, v[:n])
			}
		}
		b.WriteByte('\n')
		return nil
	})
	return b.String(), err
}

// pack returns the changes as a blob.
func pack(t testing.TB, ch snapshot.Changes) []byte {
	t.Helper()
	var b bytes.Buffer
	if _, err := snapshot.Pack(context.Background(), &b, ch, snapshot.PackOptions{}); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func unpackBlob(t testing.TB, dir string, blob []byte) {
	t.Helper()
	res, err := unpack.Unpack(context.Background(), dir, snapshot.Read(bytes.NewReader(blob)), unpack.Options{})
	if err != nil || len(res.Problems) > 0 {
		t.Fatal(err, res.Problems)
	}
}
