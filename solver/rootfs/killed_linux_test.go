package rootfs

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/clayer/clayer/cache/snapshot"
	"github.com/clayer/clayer/internal/leftover"
	"github.com/clayer/clayer/internal/treetest"
)

// A process of this test that locks a root, and does what it is told until its
// input ends or it is killed.
const (
	helperDoes = "ROOTFS_TEST_HELPER"
	helperRoot = "ROOTFS_TEST_ROOT"
)

func TestMain(m *testing.M) {
	if does := os.Getenv(helperDoes); does != "" {
		if err := helper(does, os.Getenv(helperRoot)); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	code := m.Run()
	if err := leftover.Check(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = max(code, 1)
	}
	os.Exit(code)
}

func helper(does, dir string) error {
	r, err := openRoot(dir)
	if err != nil {
		return err
	}
	l, err := r.Lock(context.Background(), false, nil)
	if err != nil {
		return err
	}
	wait := func() {
		fmt.Println("here")
		io.Copy(io.Discard, os.Stdin)
	}
	switch does {
	case "edit":
		n, err := strconv.Atoi(os.Getenv(helperKill))
		if err != nil {
			return err
		}
		killAt(r, n)
		_, err = operations[1].do(l)
		return errors.Join(errors.New("not killed"), err)
	case "lock":
		wait()
	case "apply": // stops within a file, after much else was done
		stuck := file("d/stuck", "never whole")
		stuck.Content, stuck.Open = nil, func() (io.ReadCloser, error) {
			r, w := io.Pipe()
			go func() {
				io.WriteString(w, "never")
				wait()
			}()
			return r, nil
		}
		_, err := l.Apply(context.Background(), step("1"), stream(changesAll(stuck)...))
		return errors.Join(errors.New("not killed"), err)
	}
	return l.Unlock()
}

// changesAll replaces, moves away, describes and makes, and ends with last.
func changesAll(last *snapshot.Entry) []*snapshot.Entry {
	return []*snapshot.Entry{
		file("replaced", "new"), file("tree", "a file now"), gone("gone"), symlink("link", "d"), file("new/a/b", "x"), dirEntry("d"), last,
	}
}

// start starts the helper, and returns once it is where it waits.
func start(t *testing.T, does, dir string) (cmd *exec.Cmd, stdin io.Closer) {
	t.Helper()
	cmd = exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), helperDoes+"="+does, helperRoot+"="+dir)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "here\n" {
		t.Fatalf("the helper says %q, %v", line, err)
	}
	return cmd, in
}

func TestLockOfAnotherProcess(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "root")
	r, err := Open(dir, Options{})
	if err != nil {
		t.Fatal(err)
	}
	for _, end := range []string{"unlock", "kill"} {
		cmd, stdin := start(t, "lock", dir)
		pid := fmt.Sprint(cmd.Process.Pid)
		if _, err := r.Lock(t.Context(), false, nil); !errors.Is(err, ErrLocked) || !strings.Contains(err.Error(), pid) {
			t.Errorf("%s: error = %v, want ErrLocked with %s", end, err, pid)
		}
		l, err := r.Lock(t.Context(), true, func(holder string) {
			if !strings.Contains(holder, pid) {
				t.Errorf("%s: waits for %q, want process %s", end, holder, pid)
			}
			if end == "kill" {
				cmd.Process.Kill()
			} else {
				stdin.Close()
			}
		})
		if err != nil {
			t.Fatalf("%s: %v", end, err)
		}
		if err := l.Unlock(); err != nil {
			t.Error(err)
		}
	}
	// A wait that is given up.
	start(t, "lock", dir)
	ctx, cancel := context.WithCancel(t.Context())
	if _, err := r.Lock(ctx, true, func(string) { cancel() }); !errors.Is(err, context.Canceled) {
		t.Errorf("error = %v, want Canceled", err)
	}
}

// After a kill the next Lock rolls back what was done, and nothing half-made is
// left.
func TestLockAfterAKill(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "root")
	shell(t, filepath.Dir(dir), `mkdir root; cd root; echo old > replaced; mkdir -p tree/sub d; echo deep > tree/sub/f; echo x > gone; chmod 4711 gone; ln -s nowhere link
		touch -d @1000000000 replaced gone tree/sub/f tree/sub tree d`)
	skip := func(p string) bool { return p == "var" }
	before := treetest.Describe(t, dir, skip)
	cmd, _ := start(t, "apply", dir)
	if half, _ := filepath.Glob(filepath.Join(dir, "var/lib/clayer/stage/1/*")); len(half) < 2 {
		t.Errorf("half-made are %v: the test is not within a file", half)
	}
	cmd.Process.Kill()
	cmd.Wait()

	r, err := Open(dir, Options{})
	if err != nil {
		t.Fatal(err)
	}
	l, err := r.Lock(t.Context(), false, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Unlock()
	if l.Recovered != RolledBack {
		t.Errorf("recovered: %q", l.Recovered)
	}
	treetest.Diff(t, before, treetest.Describe(t, dir, skip))
	if s, err := r.State(); err != nil || !s.Pristine() {
		t.Fatalf("state = %+v, %v, want none", s, err)
	}

	// The same again, to its end.
	if res, err := l.Apply(t.Context(), step("1"), stream(changesAll(file("d/stuck", "whole"))...)); err != nil || len(res.Problems) > 0 {
		t.Fatal(err, res.Problems)
	}
	commit(t, l)
	shell(t, dir, `[ "$(cat d/stuck)" = whole ] && [ "$(cat replaced)" = new ] && [ -f tree ] && [ ! -e gone ] && [ -f new/a/b ]`)
	if _, err := l.Undo(t.Context(), 0, false); err != nil {
		t.Fatal(err)
	}
	commit(t, l)
	treetest.Diff(t, before, treetest.Describe(t, dir, skip))
}
