package rootfs

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/clayer/clayer/cache/snapshot"
	"github.com/clayer/clayer/internal/treetest"
)

// systemFiles returns the shell of this machine, and what it is loaded by and with:
// libc.so.6, and ld.so.
func systemFiles(t *testing.T) []string {
	t.Helper()
	out, err := exec.Command("ldd", "/bin/sh").Output()
	if err != nil {
		t.Skipf("no ldd, or no shell that is linked: %v", err)
	}
	files := []string{"/bin/sh"}
	for _, m := range regexp.MustCompile(`(?m)(/\S+) \(0x`).FindAllStringSubmatch(string(out), -1) {
		files = append(files, m[1])
	}
	if !slices.ContainsFunc(files, func(f string) bool { return strings.Contains(f, "libc.") }) ||
		!slices.ContainsFunc(files, func(f string) bool { return strings.Contains(f, "/ld-") }) {
		t.Skipf("no libc and ld.so among %q", files)
	}
	return files
}

// The shell, libc.so.6 and ld.so of a root are replaced, and put back, while
// programs of it run, and others are started all the time: none of them notices,
// and there is no instant without one of the names.
func TestApplyOverTheSystemInUse(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("chroot needs root")
	}
	files := systemFiles(t)
	dir := fastDir(t)
	root := filepath.Join(dir, "root")
	var es []*snapshot.Entry
	for _, f := range files {
		content, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		at := filepath.Join(root, f)
		if err := errors.Join(os.MkdirAll(filepath.Dir(at), 0o755), os.WriteFile(at, content, 0o755)); err != nil {
			t.Fatal(err)
		}
		e := file(strings.TrimPrefix(f, "/"), "")
		e.Mode, e.Size = 0o755, int64(len(content))
		e.Open = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(content)), nil }
		es = append(es, e)
	}
	// One shell that runs all the time, and starts others: each loads all of the
	// files again. A failure ends it, with the number of those before.
	shellIn := func(script string) *exec.Cmd {
		cmd := exec.Command("/bin/sh", "-c", script)
		cmd.Dir = "/"
		cmd.SysProcAttr = &syscall.SysProcAttr{Chroot: root}
		return cmd
	}
	if out, err := shellIn("exit 0").CombinedOutput(); err != nil {
		t.Skipf("the files don't run in a root of their own: %v\n%s", err, out)
	}
	skip := func(p string) bool { return p == "var" }
	before := treetest.Describe(t, root, skip)
	var out bytes.Buffer
	running := shellIn(`i=0; trap 'echo $i; exit 0' TERM; echo
		while :; do /bin/sh -c 'exit 7'; [ $? = 7 ] || { echo failed after $i; exit 1; }; i=$((i+1)); done`)
	running.Stdout, running.Stderr = &out, &out
	if err := running.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { running.Process.Kill() })
	stop := make(chan struct{})
	// And the names, looked at all the time.
	looked := make(chan error, 1)
	go func() {
		for n := 0; ; n++ {
			for _, f := range files {
				if _, err := os.Lstat(filepath.Join(root, f)); err != nil {
					looked <- fmt.Errorf("after %d looks: %w", n, err)
					return
				}
			}
			select {
			case <-stop:
				looked <- nil
				return
			default:
			}
		}
	}()
	rounds := 0
	for start := time.Now(); rounds < 10 || time.Since(start) < time.Second && rounds < 1000; rounds++ {
		l := lockOf(t, dir)
		applyAll(t, l, "1", es...)
		commit(t, l)
		undone, err := l.Undo(t.Context(), 0, false)
		if err != nil || len(undone.Preserved)+len(undone.Problems) > 0 {
			t.Fatal(err, undone)
		}
		commit(t, l)
		if err := l.Unlock(); err != nil {
			t.Fatal(err)
		}
	}
	close(stop)
	if err := errors.Join(running.Process.Signal(syscall.SIGTERM), running.Wait(), <-looked); err != nil {
		t.Errorf("%v: %s", err, &out)
	}
	started := strings.TrimSpace(out.String())
	t.Logf("%d rounds, and %s shells were started meanwhile", rounds, started)
	if n, err := strconv.Atoi(started); err != nil || n < 10 {
		t.Error("too few shells were started meanwhile for the test to tell something")
	}
	treetest.Diff(t, before, treetest.Describe(t, root, skip))
}
