package sandbox_test

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/clayer/clayer/solver/sandbox"
	"github.com/clayer/clayer/solver/sandbox/helper"
	"github.com/clayer/clayer/solver/sandbox/inplace"
	"github.com/clayer/clayer/solver/sandbox/overlay"
	"golang.org/x/sys/unix"
)

// The suite runs once more in places that are hard, see internal/places: this
// binary is started there with the name of the place in this variable.
const placeVariable = "CLAYER_TEST_PLACE"

// places are what has to be made of this process before the tests.
var places = map[string]func() error{
	"a root that is an overlay": func() error {
		// As in a container: the root, and the directory for views in it, are of an overlay.
		if err := privateMounts(); err != nil {
			return err
		}
		root := filepath.Join(testRoot.dir, "root")
		mem := filepath.Join(testRoot.dir, "mem")
		if err := errors.Join(os.Mkdir(mem, 0o755), unix.Mount("tmpfs", mem, "tmpfs", 0, "mode=755")); err != nil {
			return err
		}
		up, work := filepath.Join(mem, "up"), filepath.Join(mem, "work")
		if err := errors.Join(os.Mkdir(up, 0o755), os.Mkdir(work, 0o755)); err != nil {
			return err
		}
		return unix.Mount("overlay", root, "overlay", 0, "lowerdir="+root+",upperdir="+up+",workdir="+work)
	},
	"a chroot": func() error {
		if err := privateMounts(); err != nil {
			return err
		}
		// The chroot is no mount; it holds the test root, and another for itself.
		cell := filepath.Join(testRoot.dir, "cell")
		if err := os.Mkdir(cell, 0o755); err != nil {
			return err
		}
		if err := copyRoot(filepath.Join(testRoot.dir, "root"), cell); err != nil {
			return err
		}
		inner := filepath.Join(cell, "tmp", "inner")
		err := errors.Join(os.MkdirAll(filepath.Join(inner, "work"), 0o755), os.Mkdir(filepath.Join(inner, "root"), 0o755),
			os.Mkdir(filepath.Join(cell, "sys"), 0o755), os.MkdirAll(filepath.Join(cell, "dev"), 0o755))
		if err == nil {
			err = copyRoot(filepath.Join(testRoot.dir, "root"), filepath.Join(inner, "root"))
		}
		for _, dir := range []string{"/proc", "/dev", "/sys"} {
			err = errors.Join(err, unix.Mount(dir, filepath.Join(cell, dir), "", unix.MS_BIND|unix.MS_REC, ""))
		}
		if err == nil {
			err = errors.Join(unix.Chroot(cell), os.Chdir("/"))
		}
		testRoot.dir = "/tmp/inner"
		return errors.Join(err, os.Setenv("TMPDIR", "/tmp"))
	},
	"a kernel without open_tree": func() error { helper.WithoutOpenTree = true; return nil },
	"a read-only root": func() error {
		if err := privateMounts(); err != nil {
			return err
		}
		root := filepath.Join(testRoot.dir, "root")
		return errors.Join(unix.Mount(root, root, "", unix.MS_BIND, ""), unix.Mount("", root, "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY, ""))
	},
	"other mounts in the root": privateMounts,
	"subordinate ids": func() error {
		if os.Geteuid() != 0 {
			return nil // there already
		}
		if _, err := exec.LookPath("newuidmap"); err != nil {
			return err
		}
		err := privateMounts()
		for _, f := range []string{"/etc/subuid", "/etc/subgid"} {
			mine := filepath.Join(testRoot.dir, filepath.Base(f))
			err = errors.Join(err, os.WriteFile(mine, []byte("nobody:200000:65536\n"), 0o644), unix.Mount(mine, f, "", unix.MS_BIND, ""))
		}
		if err != nil {
			return err
		}
		_ = os.RemoveAll(filepath.Join(testRoot.dir, "root"))
		cmd := exec.Command(os.Args[0], os.Args[1:]...)
		cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
		if err := cmd.Run(); cmd.ProcessState == nil {
			return err
		}
		os.Exit(cmd.ProcessState.ExitCode())
		return nil
	},
}

func privateMounts() error { return unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, "") }

// setUpPlace is called by TestMain.
func setUpPlace() error {
	setUp := places[os.Getenv(placeVariable)]
	if setUp == nil {
		return nil
	}
	testRoot.once.Do(func() {
		if testRoot.dir, testRoot.err = os.MkdirTemp("", "sandbox-test-*"); testRoot.err == nil {
			testRoot.err = makeRoot(testRoot.dir)
		}
	})
	if testRoot.err != nil {
		return testRoot.err
	}
	return setUp()
}

// TestOverlayOverAnOverlay runs where the directory for views lies on an overlay:
// they go elsewhere.
func TestOverlayOverAnOverlay(t *testing.T) {
	if os.Getenv(placeVariable) != "a root that is an overlay" {
		t.Skip("run by internal/places")
	}
	root, _ := fixture(t)
	work := filepath.Join(root, "var/lib/clayer/work")
	if err := os.MkdirAll(work, 0o755); err != nil {
		t.Fatal(err)
	}
	opt := sandbox.Options{Root: root, Work: work, Hide: []string{"/var/lib/clayer"}}
	chosen, err := choose("auto", opt)
	if err != nil {
		t.Fatal(err)
	}
	s, err := overlay.New(opt)
	if err != nil {
		t.Fatal(err)
	}
	if chosen.Name != "overlay" || s.Work == work {
		t.Fatalf("%s in %v: %s", chosen.Name, s, chosen.Why)
	}
	v := newView(t, &testOverlay{Overlay: s})
	if got, _ := sh(t, v, `echo 1 >n; rm f`); got != "dir w 0755\ndelete w/f\nfile w/n 0644 2\n" {
		t.Errorf("got:\n%s", got)
	}
	if err := v.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(s.Work); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%s is left", s.Work)
	}

	// In place, copy-up without a change is no change, by the default.
	in, err := inplace.New(sandbox.Options{Root: root, Work: work, Hide: []string{"/var/lib/clayer"}})
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(in.How, "overlay") {
		t.Errorf("compares %s", in.How)
	}
	p := in.InPlace()
	if got, _ := sh(t, p, `: >>f; chmod 0644 f; : >>d/x; ln -f f /tmp/f; rm /tmp/f`); got != "" {
		t.Errorf("copy-up was reported:\n%s", got)
	}
	// A mount leaves no trace in a directory that it copies up: not its times, nor
	// what the command wrote into an empty directory in the place of a tmpfs.
	for target, script := range map[string]string{"/w/d/m": `echo 1 >/w/d/m/x`, "/w/e": `echo 1 >/w/e/x`} {
		got, out, err := try(t, p, sandbox.Command{Argv: []string{"/bin/sh", "-ec", script}, Env: testEnv, Mounts: []sandbox.Mount{{Target: target, Tmpfs: true}}})
		if err != nil || got != "" {
			t.Errorf("a mount at %s: %v\n%s%s", target, err, out, got)
		}
		if left, _ := os.ReadDir(filepath.Join(root, "w/e")); len(left) > 0 {
			t.Errorf("left: %v", left)
		}
	}
	if got, _ := sh(t, p, `echo HELLO >f; touch -d '2001-02-03 04:05:06.123456789Z' f`); got != "file w/f 0644 6\n" {
		t.Errorf("got:\n%s", got)
	}
}

// TestSubordinateIDs runs as nobody, who has some: files can be given to others,
// and the snapshot says to whom.
func TestSubordinateIDs(t *testing.T) {
	if os.Getenv(placeVariable) != "subordinate ids" {
		t.Skip("run by internal/places")
	}
	root, work := fixture(t)
	s, err := overlay.New(sandbox.Options{Root: root, Work: work, Hide: []string{"/var/lib/clayer"}})
	if err != nil {
		t.Fatal(err)
	}
	if s.How() != "in a user namespace with subordinate ids" {
		t.Fatal(s.How())
	}
	v := newView(t, &testOverlay{Overlay: s})
	if got, _ := sh(t, v, `echo 1 >n; chown 33:8 n; chown 12:34 f; chmod 4755 f; stat -c %u:%g n f g`); got != "dir w 0755\nfile w/f 4755 6 12:34\nfile w/n 0644 2 33:8\n" {
		t.Errorf("got:\n%s", got)
	}
	if got, out, refused := asUser(t, v, someone(5), `id -u; id -G; chown 1234:5 /w/n 2>&- || echo denied`); got != "dir closed 0755\n" || out != "1234\n2345 5\ndenied\n" || refused {
		t.Errorf("as a user: refused %v, it prints %q, and changes\n%s", refused, out, got)
	}
	if got, _ := sh(t, v, `chown 0:0 f; rm n; echo x >d/x`); got != "dir w 0755\nfile w/d/x 0644 2\nfile w/f 0755 6\ndelete w/n\n" {
		t.Errorf("got:\n%s", got)
	}
}

// TestOtherMounts has a file, a directory and a late mount in the root, each a
// mount of its own: nothing of them is the root's.
func TestOtherMounts(t *testing.T) {
	if os.Getenv(placeVariable) != "other mounts in the root" {
		t.Skip("run by internal/places")
	}
	mountIn := func(root string) {
		host := filepath.Join(t.TempDir(), "hosts")
		err := errors.Join(os.WriteFile(host, []byte("127.0.0.1 localhost\n"), 0o644), os.WriteFile(filepath.Join(root, "etc/hosts"), nil, 0o644),
			unix.Mount(host, filepath.Join(root, "etc/hosts"), "", unix.MS_BIND, ""),
			os.MkdirAll(filepath.Join(root, "w/vol"), 0o755), os.MkdirAll(filepath.Join(root, "w/late"), 0o755),
			os.WriteFile(filepath.Join(root, "w/late/below"), []byte("x"), 0o644),
			unix.Mount("tmpfs", filepath.Join(root, "w/vol"), "tmpfs", 0, ""),
			os.WriteFile(filepath.Join(root, "w/vol/on"), []byte("volume"), 0o644))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			for _, p := range []string{"etc/hosts", "w/vol", "w/late"} {
				_ = unix.Unmount(filepath.Join(root, p), unix.MNT_DETACH)
			}
		})
	}
	const script = `echo 1 >>/etc/hosts; echo 1 >>vol/on; echo 1 >vol/new; echo 1 >n; cat vol/on >/dev/null`
	const want = "dir w 0755\nfile w/n 0644 2\n"
	v, root := newPlace(t, sandbox.CompareCTime)
	mountIn(root)
	if got, _ := sh(t, v, script); got != want {
		t.Errorf("in place:\n%s", got)
	}
	// One that appears hides what was there, which is not gone.
	late := filepath.Join(root, "w/late")
	if err := unix.Mount("tmpfs", late, "tmpfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	if got, _ := sh(t, v, `echo 1 >late/x; echo 2 >m`); got != "dir w 0755\nfile w/m 0644 2\n" {
		t.Errorf("a mount that appeared:\n%s", got)
	}
	base, _ := fixture(t)
	mountIn(base)
	s := newOverlay(t, true, sandbox.Options{})
	if got, _ := sh(t, newView(t, s), script); got != want {
		t.Errorf("overlay:\n%s", got)
	}
}
