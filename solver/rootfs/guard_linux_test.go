package rootfs

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/clayer/clayer/cache/snapshot"
	"github.com/clayer/clayer/internal/treetest"
	"github.com/clayer/clayer/solver/internal/record"
	"github.com/clayer/clayer/solver/internal/unpack"
)

// onThread calls f on a thread that enter changed, and that ends with it: what
// it entered is no other test's.
func onThread(t *testing.T, enter func() error, f func()) {
	t.Helper()
	done := make(chan error)
	go func() {
		defer close(done)
		runtime.LockOSThread() // never unlocked
		if err := enter(); err != nil {
			done <- err
			return
		}
		f()
	}()
	if err := <-done; err != nil {
		t.Skipf("not permitted here: %v", err)
	}
}

// ownMounts is a mount namespace, in which a test may mount.
func ownMounts() error {
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return fmt.Errorf("unshare: %w", err)
	}
	return unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, "")
}

const isAlone = "ROOTFS_TEST_ALONE"

// mounting calls f in a process of its own, with a mount namespace of its own, in
// which f may mount: what an apply makes, any thread may make a part of. It is all
// that its test does.
func mounting(t *testing.T, f func()) {
	t.Helper()
	if os.Getenv(isAlone) == t.Name() {
		f()
		return
	}
	c := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v", "-test.timeout=5m")
	c.Env = append(os.Environ(), isAlone+"="+t.Name())
	c.SysProcAttr = &syscall.SysProcAttr{Unshareflags: unix.CLONE_NEWNS}
	out, err := c.CombinedOutput()
	switch {
	case errors.Is(err, unix.EPERM):
		t.Skipf("not permitted here: %v", err)
	case err != nil:
		t.Fatalf("%v\n%s", err, out)
	case !bytes.Contains(out, []byte("--- PASS: "+t.Name())):
		t.Skipf("%s", out)
	}
}

// anyUser is uid and gid 65534, of this thread alone.
func anyUser() error {
	for _, call := range []uintptr{unix.SYS_SETRESGID, unix.SYS_SETRESUID} {
		if _, _, errno := unix.RawSyscall(call, 65534, 65534, 65534); errno != 0 {
			return errno
		}
	}
	return nil
}

func with(e *snapshot.Entry, change func(*snapshot.Entry)) *snapshot.Entry {
	change(e)
	return e
}

func step(name string) record.Applied {
	return record.Applied{Key: keyOf(name), Layer: "base", Digest: "sha256:x", Text: "RUN " + name}
}

// No way leads into clayer's own directory: not by its name, nor by links that the
// root has.
func TestApplyStaysOutOfItsOwnDirectory(t *testing.T) {
	tests := []struct {
		name    string
		before  string
		entry   *snapshot.Entry
		problem bool // in place of an error
	}{
		{"by its name", "true", file("var/lib/clayer/state.json", "{}"), false},
		{"a new directory in it", "true", file("var/lib/clayer/a/b/c", "{}"), false},
		{"by a link to it", "ln -s var/lib/clayer l", file("l/state.json", "{}"), false},
		{"by an absolute link", "ln -s /var/lib/clayer l", file("l/state.json", "{}"), false},
		{"by a link to what is in it", "ln -s var/lib/clayer/log l", gone("l/000001"), false},
		{"by a link above it", "ln -s var l", file("l/lib/clayer/state.json", "{}"), false},
		{"by a link to what is not there yet", "ln -s var/lib/clayer/new l", file("l/x", "{}"), false},
		{"its mode by a link above it", "ln -s var/lib l", with(dirEntry("l/clayer"), func(e *snapshot.Entry) { e.Mode = 0o777 }), false},
		{"deleted by a link above it", "ln -s var/lib l", gone("l/clayer"), false},
		{"deleted with what it is in", "true", gone("var"), true},
		{"replaced with what it is in", "true", symlink("var/lib", "/tmp"), true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r, l := testRoot(t)
			if _, err := l.Apply(t.Context(), step("first"), stream(file("f", "x"))); err != nil {
				t.Fatal(err)
			}
			commit(t, l)
			shell(t, r.Dir(), tt.before+"; echo > var/lib/neighbour")
			res, err := l.Apply(t.Context(), step("second"), stream(tt.entry))
			var bad *snapshot.UnsafeError
			if !tt.problem && !errors.As(err, &bad) {
				t.Errorf("error = %v, want an UnsafeError", err)
			}
			if tt.problem && (err != nil || len(res.Problems) != 1) {
				t.Errorf("error = %v, problems = %v, want one", err, res.Problems)
			}
			if s, err := r.State(); err != nil || len(s.Log) == 0 {
				t.Errorf("state = %+v, %v", s, err)
			}
			shell(t, r.Dir(), `[ -f var/lib/neighbour ] && [ -f var/lib/clayer/log/000001 ] && [ $(stat -c %a var/lib/clayer) = 755 ]`)
		})
	}
}

func TestApplyOpaqueSparesItsOwnDirectory(t *testing.T) {
	r, l := testRoot(t)
	shell(t, r.Dir(), "mkdir var/lib/other")
	res, err := l.Apply(t.Context(), step("1"), stream(dirEntry("var/lib"), &snapshot.Entry{Path: "var/lib", Kind: snapshot.Opaque}))
	if err != nil || len(res.Problems) > 0 {
		t.Fatalf("error %v, problems %v", err, res.Problems)
	}
	shell(t, r.Dir(), `[ "$(ls var/lib)" = clayer ]`)
}

// The state of a root whose /var is an absolute link is in that root.
func TestOpenHoldsStateInsideTheRoot(t *testing.T) {
	outside := t.TempDir()
	if strings.HasPrefix(outside, "/var/") { // in the root it would lead to the link itself
		outside = "/elsewhere"
	}
	for before, want := range map[string]string{
		"true":                                 "var/lib/clayer",
		"mkdir -p data; ln -s data var":        "data/lib/clayer",
		"ln -s " + outside + " var":            outside[1:] + "/lib/clayer",
		"mkdir var; ln -s ../../../.. var/lib": "clayer",
	} {
		dir := t.TempDir()
		shell(t, dir, before)
		r, err := Open(dir, Options{})
		if err != nil {
			t.Fatal(err)
		}
		if want := filepath.Join(dir, want); r.StateDir().String() != want {
			t.Errorf("%s: state in %s, want %s", before, r.StateDir(), want)
		}
		if _, err := os.Lstat(r.StateDir().String()); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s: after opening, the state directory: %v", before, err)
		}
	}
	dir := t.TempDir()
	shell(t, dir, "ln -s var var")
	if _, err := Open(dir, Options{}); err == nil {
		t.Error("a link to itself is no error")
	}
}

func TestUnpackMakesWhatIsMissing(t *testing.T) {
	both(t, func(t *testing.T, opt unpack.Options) {
		dir := t.TempDir()
		shell(t, dir, "mkdir var; ln -s /run var/run; ln -s ../usr/lib/x var/x; touch -d @1000000000 var .")
		res, err := unpack.Unpack(t.Context(), dir, stream(file("var/run/app/pid", "1"), file("var/x/y", "2"), gone("no/such/a")), opt)
		if err != nil || len(res.Problems) > 0 {
			t.Fatalf("error %v, problems %v", err, res.Problems)
		}
		shell(t, dir, `[ -f run/app/pid ] && [ -f usr/lib/x/y ] && [ ! -e no ] && [ "$(stat -c %Y run usr usr/lib | sort -u)" = 315532800 ] && [ $(stat -c %Y .) = 1000000000 ] && [ $(stat -c %Y var) = 1000000000 ]`)
	})
}

// A directory that is named in two ways has the time of its entry.
func TestUnpackTimesThroughLinks(t *testing.T) {
	both(t, func(t *testing.T, opt unpack.Options) {
		for range 20 { // the order of a map is random
			dir := t.TempDir()
			shell(t, dir, "mkdir -p usr/lib; ln -s usr/lib lib; touch -d @1000000000 usr/lib usr")
			if _, err := unpack.Unpack(t.Context(), dir, stream(file("lib/a", "x"), dirEntry("usr/lib"), file("usr/lib/b", "x")), opt); err != nil {
				t.Fatal(err)
			}
			shell(t, dir, `[ $(stat -c %Y usr/lib) = 1600000000 ] && [ $(stat -c %Y usr) = 1000000000 ]`)
		}
	})
}

func TestUnpackInvalidStreams(t *testing.T) {
	lost := errors.New("the store is gone")
	data := func(x ...snapshot.Extent) *snapshot.Entry {
		return with(file("f", "0123456789"), func(e *snapshot.Entry) { e.Data = x })
	}
	tests := []struct {
		name    string
		entries []*snapshot.Entry
		want    error
	}{
		{"data behind the end", []*snapshot.Entry{data(snapshot.Extent{Offset: 8, Length: 3})}, nil},
		{"data that overlaps", []*snapshot.Entry{data(snapshot.Extent{Length: 4}, snapshot.Extent{Offset: 3, Length: 1})}, nil},
		{"data of a negative length", []*snapshot.Entry{data(snapshot.Extent{Offset: 5, Length: -1})}, nil},
		{"data whose end overflows", []*snapshot.Entry{data(snapshot.Extent{Offset: 5, Length: 1<<63 - 1})}, nil},
		{"opaque behind what it holds", []*snapshot.Entry{dirEntry("d"), file("d/e/f", "x"), {Path: "d", Kind: snapshot.Opaque}}, nil},
		{"content that cannot be opened", []*snapshot.Entry{with(file("f", "x"), func(e *snapshot.Entry) {
			e.Content, e.Open = nil, func() (io.ReadCloser, error) { return nil, lost }
		})}, lost},
		{"content whose error looks like one of the root", []*snapshot.Entry{with(file("f", "x"), func(e *snapshot.Entry) {
			e.Content, e.Open = nil, func() (io.ReadCloser, error) { return nil, unix.EACCES }
		})}, unix.EACCES},
	}
	for _, tt := range tests {
		dir := t.TempDir()
		if _, err := unpack.Unpack(t.Context(), dir, stream(tt.entries...), unpack.Options{}); err == nil || tt.want != nil && !errors.Is(err, tt.want) {
			t.Errorf("%s: error = %v, want %v", tt.name, err, tt.want)
		}
		if left, _ := filepath.Glob(filepath.Join(dir, ".*")); len(left) > 0 {
			t.Errorf("%s: left behind: %v", tt.name, left)
		}
	}
}

func TestUnpackUnprivileged(t *testing.T) {
	dir := t.TempDir()
	shell(t, dir, "mkdir root; chmod 777 root; chmod 755 . ..")
	root := filepath.Join(dir, "root")
	readOnly := with(dirEntry("mod"), func(e *snapshot.Entry) { e.Mode, e.UID, e.GID = 0o555, 65534, 65534 })
	closed := with(dirEntry("mod/closed"), func(e *snapshot.Entry) { e.Mode, e.UID, e.GID = 0, 65534, 65534 })
	setuid := with(file("mod/setuid", "x"), func(e *snapshot.Entry) { e.UID, e.GID, e.Mode = 0, 0, 0o4755 })
	own := with(file("mod/own", "x"), func(e *snapshot.Entry) { e.UID, e.GID, e.Mode = 65534, 65534, 0o4755 })
	device := &snapshot.Entry{Path: "null", Kind: snapshot.Char, Major: 1, Minor: 3, Mode: 0o666, ModTime: when}
	var res unpack.Result
	var err error
	onThread(t, anyUser, func() {
		res, err = unpack.Unpack(t.Context(), root, stream(readOnly, closed, file("mod/closed/f", "x"), setuid, own, device), unpack.Options{})
	})
	if err != nil || len(res.Problems) > 0 {
		t.Fatalf("error %v, problems %v", err, res.Problems)
	}
	if res.Unprivileged != 2 {
		t.Errorf("%d are left out for want of privilege, want 2: the owner of setuid, and the device", res.Unprivileged)
	}
	shell(t, root, `[ $(stat -c %a mod) = 555 ] && [ $(stat -c %Y mod) = 1600000000 ] && [ $(stat -c %a mod/closed) = 0 ] && [ -f mod/closed/f ] &&
		[ $(stat -c %Y mod/closed) = 1600000000 ] && [ $(stat -c %u:%a mod/setuid) = 65534:4755 ] && [ $(stat -c %a mod/own) = 4755 ] && [ ! -e null ]`)
}

// What a directory workers down to new files is not of the snapshot.
func TestUnpackInheritsNoACL(t *testing.T) {
	dir := t.TempDir()
	// user::rwx user:12:rwx group::r-x mask::rwx other::r-x
	acl := "\x02\x00\x00\x00" +
		"\x01\x00\x07\x00\xff\xff\xff\xff" + "\x02\x00\x07\x00\x0c\x00\x00\x00" + "\x04\x00\x05\x00\xff\xff\xff\xff" +
		"\x10\x00\x07\x00\xff\xff\xff\xff" + "\x20\x00\x05\x00\xff\xff\xff\xff"
	shell(t, dir, "mkdir -m 755 d plain")
	if err := unix.Setxattr(filepath.Join(dir, "d"), "system.posix_acl_default", []byte(acl), 0); err != nil {
		t.Skipf("no ACLs here: %v", err)
	}
	in := func(d string) []*snapshot.Entry {
		return []*snapshot.Entry{
			file(d+"/f", "x"), dirEntry(d + "/sub"), file(d+"/sub/g", "x"),
			{Path: d + "/p", Kind: snapshot.Fifo, Mode: 0o640, ModTime: when},
			with(file(d+"/own", "x"), func(e *snapshot.Entry) { e.Mode, e.Xattrs = 0o775, map[string]string{"system.posix_acl_access": acl} }),
		}
	}
	if res, err := unpack.Unpack(t.Context(), dir, stream(append(in("d"), in("plain")...)...), unpack.Options{}); err != nil || len(res.Problems) > 0 {
		t.Fatalf("error %v, problems %v", err, res.Problems)
	}
	treetest.Diff(t, treetest.Describe(t, filepath.Join(dir, "plain"), nil), treetest.Describe(t, filepath.Join(dir, "d"), nil))
	if got := treetest.Describe(t, filepath.Join(dir, "d"), nil); strings.Count(got, "posix_acl") != 1 {
		t.Errorf("want an ACL of own alone:\n%s", got)
	}
}

// A mark of overlayfs would make a directory of the root hide what is below it, in
// the next sandbox.
func TestUnpackSetsNoOverlayMarks(t *testing.T) {
	dir := t.TempDir()
	d := with(dirEntry("d"), func(e *snapshot.Entry) {
		e.Xattrs = map[string]string{"trusted.overlay.opaque": "y", "user.overlay.opaque": "y"}
	})
	if _, err := unpack.Unpack(t.Context(), dir, stream(d), unpack.Options{}); err != nil {
		t.Fatal(err)
	}
	if got := treetest.Describe(t, dir, nil); strings.Contains(got, "overlay") {
		t.Error(got)
	}
}

func TestUnpackOverAnImmutableFile(t *testing.T) {
	r, l := testRoot(t)
	shell(t, r.Dir(), "echo old > fixed; echo old > other")
	f, err := os.Open(filepath.Join(r.Dir(), "fixed"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	const immutable = 0x10 // FS_IMMUTABLE_FL
	if err := unix.IoctlSetPointerInt(int(f.Fd()), unix.FS_IOC_SETFLAGS, immutable); err != nil {
		t.Skipf("files can't be made immutable here: %v", err)
	}
	defer unix.IoctlSetPointerInt(int(f.Fd()), unix.FS_IOC_SETFLAGS, 0)
	res, err := l.Apply(t.Context(), step("1"), stream(file("fixed", "new"), file("other", "new")))
	if err != nil || len(res.Problems) != 1 || res.Problems[0].Path != "fixed" || !errors.Is(res.Problems[0].Err, unix.EPERM) {
		t.Errorf("error %v, problems %v, want EPERM of fixed alone", err, res.Problems)
	}
	shell(t, r.Dir(), `[ "$(cat fixed other)" = "old
new" ] && [ "$(ls -A)" = "fixed
other
var" ]`)
}

func TestApplyOverMounts(t *testing.T) {
	r, l := testRoot(t)
	shell(t, r.Dir(), "mkdir etc ro busy; echo host > etc/resolv.conf; echo > busy/f")
	var res unpack.Result
	var err error
	onThread(t, ownMounts, func() {
		in := func(p string) string { return filepath.Join(r.Dir(), p) }
		err = errors.Join(
			unix.Mount(in("etc/resolv.conf"), in("etc/resolv.conf"), "", unix.MS_BIND, ""),
			unix.Mount("ro", in("ro"), "tmpfs", unix.MS_RDONLY, ""),
			unix.Mount("busy", in("busy"), "tmpfs", 0, ""),
			os.WriteFile(in("busy/old"), []byte("old"), 0o644),
		)
		if err == nil {
			res, err = l.Apply(t.Context(), step("1"), stream(
				file("etc/resolv.conf", "x"), file("etc/hosts", "x"), file("ro/f", "x"), gone("busy"), file("after", "x")))
		}
		if err == nil {
			// What is on another file system is not replaced, since its original
			// could not be saved; a new file is made.
			var more unpack.Result
			more, err = l.Apply(t.Context(), step("2"), stream(file("busy/old", "x"), file("busy/new", "x")))
			res.Problems = append(res.Problems, more.Problems...)
			if text, _ := os.ReadFile(in("busy/old")); string(text) != "old" {
				t.Errorf("busy/old is %q", text)
			}
			if _, err := os.Stat(in("busy/new")); err != nil {
				t.Error(err)
			}
		}
	})
	var paths []string
	for _, p := range res.Problems {
		paths = append(paths, p.Path)
	}
	if got, want := strings.Join(paths, " "), "etc/resolv.conf ro/f busy busy/old"; err != nil || got != want {
		t.Errorf("error %v, problems of %q, want of %q", err, got, want)
	}
	shell(t, r.Dir(), `[ -f after ] && [ -f etc/hosts ] && [ "$(cat etc/resolv.conf)" = host ] && [ -f busy/f ]`)
}

func TestUnpackDiskFull(t *testing.T) {
	dir := t.TempDir()
	onThread(t, ownMounts, func() {
		if err := unix.Mount("small", dir, "tmpfs", 0, "size=1m"); err != nil {
			t.Error(err)
			return
		}
		_, err := unpack.Unpack(t.Context(), dir, stream(file("a", "x"), file("d/big", strings.Repeat("x", 2<<20)), file("c", "x")), unpack.Options{})
		if !errors.Is(err, unix.ENOSPC) {
			t.Errorf("error = %v, want ENOSPC", err)
		}
		var names []string
		filepath.WalkDir(dir, func(p string, _ os.DirEntry, err error) error {
			names = append(names, strings.TrimPrefix(p, dir))
			return err
		})
		if got := strings.Join(names, " "); got != " /a /d" {
			t.Errorf("there is %q, want a, and d without big", got)
		}
	})
}
