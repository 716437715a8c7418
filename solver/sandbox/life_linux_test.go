package sandbox_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
	"time"

	"github.com/moby/sys/reexec"
	"golang.org/x/sys/unix"

	"github.com/clayer/clayer/cache/snapshot"
	"github.com/clayer/clayer/solver/internal/record"
	"github.com/clayer/clayer/solver/sandbox"
	"github.com/clayer/clayer/solver/sandbox/overlay"
)

func TestFailingRun(t *testing.T) {
	modes(t, func(t *testing.T, s *testOverlay) {
		before, err := manifest(filepath.Join(s.Root, "w"), true)
		if err != nil {
			t.Fatal(err)
		}
		v := newView(t, s)
		_, _, err = try(t, v, sandbox.Command{
			Argv: []string{"/bin/sh", "-c", `rm -r *; for i in $(seq 100); do echo line $i; done; exit 7`},
			Env:  testEnv, Dir: "/w",
		})
		var exit *sandbox.ExitError
		if !errors.As(err, &exit) || exit.Code != 7 || exit.Reason != "" {
			t.Fatalf("error %v, want exit code 7", err)
		}
		lines := strings.Split(strings.TrimSuffix(string(exit.Output), "\n"), "\n")
		if len(lines) != 20 || lines[0] != "line 81" || lines[19] != "line 100" {
			t.Errorf("last lines %q", lines)
		}
		if _, _, err := try(t, v, sandbox.Command{Argv: []string{"/bin/sh"}}); err == nil {
			t.Error("a failed view runs again")
		}
		if after, _ := manifest(filepath.Join(s.Root, "w"), true); after != before {
			t.Errorf("the root was changed:\n%s", difference(before, after))
		}
	})
}

func TestStatus(t *testing.T) {
	tests := []struct {
		name   string
		c      sandbox.Command
		code   int
		output string
	}{
		{"a signal", sandbox.Command{Argv: []string{"/bin/sh", "-c", "kill -9 $$"}}, 137, ""},
		{"no such command", sandbox.Command{Argv: []string{"nothere"}}, 127, "nothere: command not found"},
		{"no such shell", sandbox.Command{Argv: []string{"/bin/bash5", "-c", "true"}}, 127, "/bin/bash5: no such file"},
		{"not executable", sandbox.Command{Argv: []string{"/w/f"}}, 126, "/w/f: cannot execute"},
		{"no interpreter", sandbox.Command{Script: []byte("#!/bin/none\n")}, 127, "interpreter"},
		{"a script's own", sandbox.Command{Script: []byte("#!/bin/sh -e\necho from here; exit 3\n")}, 3, "from here"},
	}
	sandboxes(t, func(t *testing.T, b testBox) {
		for _, tt := range tests {
			t.Run(tt.name, func(t *testing.T) {
				if b.direct && tt.c.Script != nil {
					t.Skip("there is no /proc in the test root")
				}
				tt.c.Env = testEnv
				v, _ := b.view(t)
				_, out, err := try(t, v, tt.c)
				var exit *sandbox.ExitError
				if !errors.As(err, &exit) || exit.Code != tt.code {
					t.Errorf("error %v, want exit code %d\n%s", err, tt.code, out)
				}
				if !strings.Contains(out, tt.output) {
					t.Errorf("output %q, want %q", out, tt.output)
				}
			})
		}
	})
}

func TestSetUpErrorIsNoExitStatus(t *testing.T) {
	modes(t, func(t *testing.T, s *testOverlay) {
		v := newView(t, s)
		_, _, err := try(t, v, sandbox.Command{Argv: []string{"/bin/sh", "-c", "true"}, Env: testEnv,
			Mounts: []sandbox.Mount{{Target: "/c", Source: filepath.Join(t.TempDir(), "missing")}}})
		var exit *sandbox.ExitError
		if err == nil || errors.As(err, &exit) || !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "mount /c") {
			t.Errorf("error %v", err)
		}
	})
}

// Who owns a directory above a cache mount can exchange it after it was checked.
func TestSourceThatWasReplaced(t *testing.T) {
	modes(t, func(t *testing.T, s *testOverlay) {
		base := filepath.Join(t.TempDir(), "mounts")
		cached, elsewhere := filepath.Join(base, "c"), t.TempDir()
		if err := os.MkdirAll(cached, 0o755); err != nil {
			t.Fatal(err)
		}
		dir, err := os.OpenRoot(cached)
		if err != nil {
			t.Fatal(err)
		}
		defer dir.Close()
		id, err := sandbox.IDOf(dir)
		if err != nil {
			t.Fatal(err)
		}
		cmd := sandbox.Command{Argv: []string{"/bin/sh", "-c", "touch /c/x"}, Env: testEnv, Mounts: []sandbox.Mount{{Target: "/c", Source: cached, SourceID: id}}}
		if _, out, err := try(t, newView(t, s), cmd); err != nil {
			t.Fatal(err, out)
		}
		if err := errors.Join(os.Rename(base, base+".old"), os.Mkdir(base, 0o755), os.Symlink(elsewhere, cached)); err != nil {
			t.Fatal(err)
		}
		if _, _, err := try(t, newView(t, s), cmd); err == nil || !strings.Contains(err.Error(), "replaced meanwhile") {
			t.Errorf("error %v", err)
		}
		if left, _ := os.ReadDir(elsewhere); len(left) > 0 {
			t.Errorf("elsewhere: %v", left)
		}
	})
}

// alive reports whether a process of the machine has the word in its arguments.
func alive(t *testing.T, word string) bool {
	t.Helper()
	procs, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range procs {
		if b, err := os.ReadFile(p); err == nil && bytes.Contains(b, []byte(word)) {
			return true
		}
	}
	return false
}

// awaitDeath fails if the word is still there when the test's time is nearly over.
func awaitDeath(t *testing.T, word string) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); alive(t, word); {
		if time.Now().After(end) {
			t.Fatalf("a process %q is left", word)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// unique is an argument of sleep that no other test and process has.
func unique() string {
	return fmt.Sprintf("%d.%d", 10000+os.Getpid()%10000, time.Now().UnixNano()%1e9)
}

func TestWhatARunLeavesBehindIsEnded(t *testing.T) {
	sandboxes(t, func(t *testing.T, b testBox) {
		v, _ := b.view(t)
		word := unique()
		sh(t, v, `sleep `+word+` & setsid sh -c "setsid sleep `+word+`; true" & true`)
		if alive(t, word) {
			t.Error("a process is left")
		}
		if got, _ := sh(t, v, `true`); got != "" {
			t.Errorf("changes after the end: %s", got)
		}
	})
}

// signals a line of output.
type sawLine struct {
	want string
	once sync.Once
	seen chan struct{}
	buf  bytes.Buffer
}

func (w *sawLine) Write(p []byte) (int, error) {
	w.buf.Write(p)
	if strings.Contains(w.buf.String(), w.want) {
		w.once.Do(func() { close(w.seen) })
	}
	return len(p), nil
}

func TestCancel(t *testing.T) {
	sandboxes(t, func(t *testing.T, b testBox) {
		for _, deaf := range []bool{false, true} {
			t.Run(fmt.Sprintf("deaf=%v", deaf), func(t *testing.T) {
				v, _ := b.view(t)
				word := unique()
				script := `echo ready; sleep ` + word
				if deaf {
					script = `trap "" TERM; ` + script
				}
				out := &sawLine{want: "ready", seen: make(chan struct{})}
				ctx, cancel := context.WithCancel(context.Background())
				defer cancel()
				go func() { <-out.seen; cancel() }()
				_, err := v.Run(ctx, sandbox.Command{Argv: []string{"/bin/sh", "-c", script}, Env: testEnv, Output: out})
				if !errors.Is(err, context.Canceled) {
					t.Errorf("error %v", err)
				}
				if alive(t, word) {
					t.Error("a process is left")
				}
			})
		}
	})
}

func TestTimeout(t *testing.T) {
	sandboxes(t, func(t *testing.T, b testBox) {
		// Where a machine is busy the first ones come before the command has begun.
		for limit := time.Millisecond; ; limit *= 4 {
			v, _ := b.view(t)
			_, out, err := try(t, v, sandbox.Command{
				Argv: []string{"/bin/sh", "-c", "echo begun; sleep 1000"}, Env: testEnv, Timeout: limit})
			var exit *sandbox.ExitError
			if !errors.As(err, &exit) || exit.Reason != "timeout after "+limit.String() {
				t.Fatalf("after %v: error %#v", limit, err)
			}
			if out == "begun\n" {
				if exit.Code != 143 {
					t.Errorf("exit code %d", exit.Code)
				}
				return
			}
		}
	})
}

// A process that runs a command in a view, to be killed.
func init() {
	reexec.Register("doomed", func() {
		s, err := choose(os.Args[4], sandbox.Options{Root: os.Args[1], Work: os.Args[2]})
		exitOn(err)
		v, err := viewOf(context.Background(), s)
		exitOn(err)
		_, err = v.Run(context.Background(), sandbox.Command{
			Argv: []string{"/bin/sh", "-c", `setsid sleep "$0" & sleep "$0" & echo ready; wait`, os.Args[3]}, Env: testEnv, Output: os.Stdout})
		exitOn(err)
	})
}

// killWhileRunning kills a process that runs a command, and waits until what the
// command had started is gone too.
func killWhileRunning(t *testing.T, kind, root, work string) {
	t.Helper()
	word := unique()
	out := &sawLine{want: "ready", seen: make(chan struct{})}
	cmd := &exec.Cmd{Path: reexec.Self(), Args: []string{"doomed", root, work, word, kind}, Stdout: out, Stderr: os.Stderr}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	<-out.seen
	if !alive(t, word) {
		t.Fatal("the command does not run")
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_, _ = cmd.Process.Wait()
	awaitDeath(t, word)
}

func TestKilledParentLeavesNothing(t *testing.T) {
	modes(t, func(t *testing.T, s *testOverlay) {
		if !s.rooted && os.Geteuid() == 0 {
			t.Skip("NewOverlay takes the other mode")
		}
		work := t.TempDir()
		killWhileRunning(t, "overlay", s.Root, work)
		// Its view is swept by the next sandbox that works there.
		for end := time.Now().Add(20 * time.Second); ; time.Sleep(5 * time.Millisecond) {
			if _, err := overlay.New(sandbox.Options{Root: s.Root, Work: work}); err != nil {
				t.Fatal(err)
			}
			left, err := os.ReadDir(work)
			if err != nil {
				t.Fatal(err)
			}
			if len(left) == 0 {
				break
			}
			if time.Now().After(end) {
				t.Fatalf("left in the work directory: %v", left)
			}
		}
	})
}

func TestMounts(t *testing.T) {
	modes(t, func(t *testing.T, s *testOverlay) {
		v, cache := newView(t, s), t.TempDir()
		run := func(script string, mounts ...sandbox.Mount) (changes, out string) {
			t.Helper()
			changes, out, err := try(t, v, sandbox.Command{Argv: []string{"/bin/sh", "-ec", script}, Env: testEnv, Dir: "/w", Mounts: mounts})
			if err != nil {
				t.Fatalf("%s: %v\n%s", script, err, out)
			}
			return changes, out
		}
		secret := sandbox.Mount{Target: "/run/secrets/deep/token", Content: []byte("s3cret-" + unique()), Mode: 0o440}

		changes, out := run(`cat /run/secrets/deep/token; stat -c ' %a %u' /run/secrets/deep/token`, secret)
		if want := string(secret.Content) + " 440 0\n"; out != want {
			t.Errorf("secret %q, want %q", out, want)
		}
		if changes != "" {
			t.Errorf("a secret changed:\n%s", changes)
		}
		for _, dir := range []string{v.Dir(), s.Root} {
			if p := find(t, dir, secret.Content); p != "" {
				t.Errorf("the secret is on disk, in %s", p)
			}
		}

		changes, _ = run(`echo kept >/w/cache/c`, sandbox.Mount{Target: "/w/cache", Source: cache})
		if changes != "" {
			t.Errorf("a cache mount changed:\n%s", changes)
		}
		if _, out := run(`cat /var/x/c`, sandbox.Mount{Target: "/var/x", Source: cache}); out != "kept\n" {
			t.Errorf("cache: %q", out)
		}
		changes, _ = run(`! (echo 1 >/w/cache/d) 2>/dev/null; test ! -e /w/cache/d`, sandbox.Mount{Target: "/w/cache", Source: cache, ReadOnly: true})
		if changes != "" {
			t.Errorf("a read-only mount changed:\n%s", changes)
		}
		changes, out = run(`echo 1 >d/x; stat -c %a d; ls d; ! head -c 200000 /dev/zero >d/big 2>/dev/null`, sandbox.Mount{Target: "/w/d", Tmpfs: true, Size: 64 << 10, Mode: 0o700})
		if changes != "" || out != "700\nx\n" {
			t.Errorf("tmpfs over a directory: %q\n%s", out, changes)
		}

		// What the command does beside a mount point is its own.
		changes, _ = run(`echo 1 >/w/n/mine; rmdir /w/n/m 2>/dev/null || true`, sandbox.Mount{Target: "/w/n/m", Tmpfs: true})
		if want := "dir w 0755\ndir w/n 0755\nfile w/n/mine 0644 2\n"; changes != want {
			t.Errorf("beside a mount:\n%swant:\n%s", changes, want)
		}
		// A link in the root cannot lead a mount out of it.
		outside := t.TempDir()
		if err := os.Chmod(outside, 0o777); err != nil {
			t.Fatal(err)
		}
		run(`mkdir -p ` + outside + `; ln -s ` + outside + ` /w/out`)
		run(`echo in >`+outside+`/in/x`, sandbox.Mount{Target: "/w/out/in", Tmpfs: true})
		if l, _ := os.ReadDir(outside); len(l) > 0 {
			t.Errorf("outside of the root: %v", l)
		}
	})
}

// find returns a file below dir that holds the bytes.
func find(t *testing.T, dir string, what []byte) (found string) {
	t.Helper()
	_ = filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			if b, err := os.ReadFile(p); err == nil && bytes.Contains(b, what) {
				found = p
			}
		}
		return nil
	})
	return found
}

func TestResolvConfOfTheMachine(t *testing.T) {
	host, err := os.ReadFile("/etc/resolv.conf")
	if err != nil {
		t.Skip(err)
	}
	modes(t, func(t *testing.T, s *testOverlay) {
		v := newView(t, s)
		changes, out := sh(t, v, `cat /etc/resolv.conf; echo nameserver 192.0.2.1 >/etc/resolv.conf; test -c /dev/null; test -d /sys/kernel; test -d /proc/self`)
		if out != string(host) {
			t.Errorf("resolv.conf: %q", out)
		}
		if changes != "" {
			t.Errorf("changes:\n%s", changes)
		}
		if now, _ := os.ReadFile("/etc/resolv.conf"); !bytes.Equal(now, host) {
			t.Error("the machine's file was changed")
		}
	})
}

func TestClone(t *testing.T) {
	modes(t, func(t *testing.T, s *testOverlay) {
		v := newView(t, s)
		const work = `rm -r d e; mkdir d; echo n >d/n; ln d/n d/m; rm f; echo G >>g; holes s; mkfifo p; chmod 0 p;
			ln -s /none dead; setx g user.k 61; mkdir odd; odd odd; touch -d @7 d; mkdir /opt; deep /opt; chmod 4755 g`
		sh(t, v, work)
		other, err := v.Clone(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		defer func() {
			if err := other.Close(); err != nil {
				t.Error(err)
			}
		}()
		upper, cloned := filepath.Join(v.Dir(), "upper"), filepath.Join(other.(*overlay.View).Dir(), "upper")
		for _, p := range []string{"", "w/s"} {
			var a, b unix.Stat_t
			if err := errors.Join(unix.Stat(filepath.Join(upper, p), &a), unix.Stat(filepath.Join(cloned, p), &b)); err != nil {
				t.Fatal(err)
			}
			if a.Mode != b.Mode || a.Mtim != b.Mtim || a.Blocks != b.Blocks {
				t.Errorf("%q: %+v, clone %+v", p, a, b)
			}
		}
		list := func(v sandbox.View) string {
			_, out, err := try(t, v, sandbox.Command{Argv: []string{"manifest", "/w"}, Env: append(testEnv, "OWNERS=1")})
			if err != nil {
				t.Fatal(err, out)
			}
			return out
		}
		before := list(v)
		if got := list(other); got != before {
			t.Errorf("the clone differs:\n%s", difference(before, got))
		}
		if changes, _ := sh(t, other, `rm -r d; echo clone >g; ln p /w/p2`); !strings.Contains(changes, "delete w/d\n") {
			t.Errorf("changes of the clone:\n%s", changes)
		}
		if got := list(v); got != before {
			t.Errorf("the first view changed:\n%s", difference(before, got))
		}
	})
}

func TestDeepPaths(t *testing.T) {
	modes(t, func(t *testing.T, s *testOverlay) {
		changes, _ := sh(t, newView(t, s), `mkdir n; deep n`)
		want := "n/" + strings.Repeat(strings.Repeat("d", 250)+"/", 25) + "end 0644 5\n"
		if !strings.HasSuffix(changes, want) {
			t.Errorf("%d bytes of changes", len(changes))
		}
	})
}

func TestApply(t *testing.T) {
	modes(t, func(t *testing.T, s *testOverlay) {
		from, to := newView(t, s), newView(t, s)
		for _, script := range []string{
			`rm -r d; mkdir d; echo q >d/q; ln d/q d/r; rm f; mv g G; mkdir /opt; echo o >/opt/o`,
			`rm d/q; echo f >f; rm -r tree/a/b; echo 9 >tree/a/1`,
		} {
			ch, err := from.Run(context.Background(), sandbox.Command{Argv: []string{"/bin/sh", "-ec", script}, Env: testEnv, Dir: "/w"})
			if err != nil {
				t.Fatal(err)
			}
			if err := to.Apply(context.Background(), bytes.NewReader(pack(t, ch)), record.Placement{}); err != nil {
				t.Fatal(err)
			}
		}
		look := sandbox.Command{Argv: []string{"manifest", "/w"}, Env: testEnv}
		_, a, err := try(t, from, look)
		if err != nil {
			t.Fatal(err, a)
		}
		changes, b, err := try(t, to, look)
		if err != nil || a != b {
			t.Errorf("%v\n- run, + applied\n%s", err, difference(a, b))
		}
		if changes != "" {
			t.Errorf("what was applied is reported again:\n%s", changes)
		}
		cut := errors.New("the network went away")
		if err := newView(t, s).Apply(context.Background(), struct {
			io.Reader
			io.Seeker
		}{iotest.ErrReader(cut), strings.NewReader("")}, record.Placement{}); !errors.Is(err, cut) {
			t.Errorf("a blob that ends early: %v", err)
		}
		if err := to.Apply(context.Background(), strings.NewReader("no snapshot"), record.Placement{}); err == nil {
			t.Error("garbage was applied")
		}
		if err := to.Apply(context.Background(), strings.NewReader(""), record.Placement{}); err == nil {
			t.Error("a view that failed goes on")
		}
	})
}

func TestCapture(t *testing.T) {
	modes(t, func(t *testing.T, s *testOverlay) {
		v := newView(t, s)
		sh(t, v, `echo 2 >>d/y; echo n >d/n; rm -r d/s`)
		for _, tt := range []struct{ path, want string }{
			{"/w/d", "file w/d/x 0644 2"},
			{"/w/tree/a/b", "implied dir w/tree 0755\nimplied dir w/tree/a 0755\ndir w/tree/a/b 0755\nfile w/tree/a/b/b 0644 2"},
			{"/w/h1", "file w/h1 0644 7"},
			{"/w/d/n", ""},
		} {
			ch, err := v.Capture(context.Background(), tt.path)
			if err != nil {
				t.Fatal(err)
			}
			// A stub for a top-level directory is not taken for one that a step reported.
			if got := strings.TrimPrefix(text(t, ch), "implied dir w 0755\n"); got != trim(tt.want) {
				t.Errorf("%s:\n%swant:\n%s", tt.path, got, trim(tt.want))
			}
		}
		for p, want := range map[string]bool{"/w/d": true, "/w/d/n": true, "/w/none": false, "/w/d/s": false, "/w/h1/x": false} {
			if got, err := v.Exists(context.Background(), p); got != want || err != nil {
				t.Errorf("%s exists: %t, %v", p, got, err)
			}
		}
		for _, p := range []string{"/w/none", "/w/d/s"} {
			if _, err := v.Capture(context.Background(), p); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("%s: error %v", p, err)
			}
		}
		if got, _ := sh(t, v, `true`); got != "" {
			t.Errorf("capturing changed:\n%s", got)
		}
	})
}

func TestFilter(t *testing.T) {
	modes(t, func(t *testing.T, s *testOverlay) {
		run := func(filter *snapshot.Filter) string {
			changes, out, err := try(t, newView(t, s), sandbox.Command{
				Argv: []string{"/bin/sh", "-ec", `mkdir /tmp/in /tmp/out; echo 1 >/tmp/in/x; echo 1 >/tmp/out/x; touch -d @1 /tmp`},
				Env:  testEnv, Filter: filter})
			if err != nil {
				t.Fatal(err, out)
			}
			return changes
		}
		if got := run(nil); !strings.Contains(got, "file tmp/in/x 0644 2") || !strings.Contains(got, "file tmp/out/x 0644 2") || strings.Contains(got, "dir tmp 0") {
			t.Errorf("by default:\n%s", got)
		}
		if got := run(&snapshot.Filter{Ignore: []string{"tmp/out"}}); !strings.Contains(got, "file tmp/in/x 0644 2") || strings.Contains(got, "tmp/out") {
			t.Errorf("with /tmp/out ignored:\n%s", got)
		}
	})
}

func TestOver(t *testing.T) {
	root, _ := fixture(t)
	dest := t.TempDir()
	for p, content := range map[string]string{"w/f": "from dest\n", "opt/x": "x", "var/lib/clayer/state": "its state"} {
		p = filepath.Join(dest, p)
		if err := errors.Join(os.MkdirAll(filepath.Dir(p), 0o755), os.WriteFile(p, []byte(content), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	for _, rooted := range []bool{true, false} {
		t.Run("rooted="+strconv.FormatBool(rooted), func(t *testing.T) {
			v := newView(t, newOverlay(t, rooted, sandbox.Options{Root: root, Over: dest}))
			changes, out := sh(t, v, `cat f /opt/x d/x; echo more >>f; rm /opt/x`)
			if out != "from dest\nxx\n" {
				t.Errorf("output %q", out)
			}
			if want := "dir opt 0755\ndelete opt/x\nfile w/f 0644 15\n"; changes != want {
				t.Errorf("changes:\n%swant:\n%s", changes, want)
			}
			if p := find(t, v.Dir(), []byte("its state")); p != "" {
				t.Errorf("hidden state was copied to %s", p)
			}
			if b, _ := os.ReadFile(filepath.Join(dest, "w/f")); string(b) != "from dest\n" {
				t.Errorf("the directory itself was changed: %q", b)
			}
		})
	}
}

// TestMachineRoot looks at the machine's own root, and changes nothing there.
func TestMachineRoot(t *testing.T) {
	modes(t, func(t *testing.T, _ *testOverlay) {})
	for _, rooted := range []bool{true, false} {
		t.Run("rooted="+strconv.FormatBool(rooted), func(t *testing.T) {
			work, err := os.MkdirTemp("", "sandbox-root-*")
			if err != nil {
				t.Fatal(err)
			}
			defer os.RemoveAll(work)
			v := newView(t, newOverlay(t, rooted, sandbox.Options{Root: "/", Work: work, Hide: []string{"/var/lib/clayer"}}))
			name := "/clayer-test-" + unique()
			changes, out, err := try(t, v, sandbox.Command{Argv: []string{"/bin/sh", "-ec", "echo hello >" + name + "; test -c /dev/null; ls /proc/self >/dev/null; id -u"},
				Env: []string{"PATH=/usr/bin:/bin"}})
			if err != nil {
				t.Fatal(err, out)
			}
			if want := "file " + name[1:] + " 0644 6\n"; changes != want || out != "0\n" {
				t.Errorf("changes %q, output %q", changes, out)
			}
			if _, err := os.Lstat(name); err == nil {
				t.Error("the machine was changed")
			}
		})
	}
}

func TestUnavailable(t *testing.T) {
	_, err := overlay.New(sandbox.Options{Root: "/", Work: "/proc"})
	if !errors.Is(err, sandbox.ErrUnavailable) || !strings.Contains(err.Error(), "not available: ") {
		t.Errorf("error %v", err)
	}
}

func BenchmarkRunTrue(b *testing.B) {
	for _, root := range []string{"", "/"} {
		for _, rooted := range []bool{true, false} {
			b.Run(fmt.Sprintf("root=%s,rooted=%v", root, rooted), func(b *testing.B) {
				v := newView(b, newOverlay(b, rooted, sandbox.Options{Root: root}))
				for b.Loop() {
					if _, err := v.Run(context.Background(), sandbox.Command{Argv: []string{"/bin/sh", "-c", ":"}, Env: testEnv}); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}
