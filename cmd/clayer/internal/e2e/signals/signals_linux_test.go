// Package signals tests that clayer ends within 2 s of SIGINT or SIGTERM, wherever it
// waits.
package signals

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/clayer/clayer/cmd/clayer/internal/clitest"
)

// limit is how long the program may take to end.
const limit = 2 * time.Second

// tries is how often it may take longer: this machine may be busy. What waits for
// something of its own that takes longer never ends in time.
const tries = 6

// never is how long a test waits for what is a matter of moments, on any machine.
const never = 2 * time.Minute

// hangs is when a program that was asked to end is taken for one that never does.
const hangs = 30 * time.Second

// A wait is a place in the program that waits.
type wait struct {
	name string
	file string // the Containerfile
	args string // of the command, blanks between
	prep func(r *run)
	// begun reports whether the program has come to wait; nil: all its threads sleep.
	begun func(r *run) bool
	code  int // 0: 130
}

// A run is one try.
type run struct {
	*testing.T
	dir   string
	cmd   *exec.Cmd
	err   output
	asked sync.Map // what servers were asked for
}

func (r *run) path(name string) string { return filepath.Join(r.dir, name) }

func (r *run) write(name, text string, mode os.FileMode) {
	r.Helper()
	if err := os.MkdirAll(filepath.Dir(r.path(name)), 0o755); err != nil {
		r.Fatal(err)
	}
	if err := os.WriteFile(r.path(name), []byte(text), mode); err != nil {
		r.Fatal(err)
	}
}

// must runs a command that works.
func (r *run) must(args ...string) {
	r.Helper()
	cmd := r.command(args...)
	if out, err := cmd.CombinedOutput(); err != nil {
		r.Fatalf("%v: %v\n%s", args, err, out)
	}
}

func (r *run) command(args ...string) *exec.Cmd {
	cmd := exec.Command(program, args...)
	cmd.Dir = r.dir
	cmd.Env = []string{
		"PATH=" + r.path("fake") + ":" + os.Getenv("PATH"), "HOME=" + r.dir, "TMPDIR=" + os.Getenv("TMPDIR"),
		"CLAYER_CACHE_DIR=" + r.path("cache"), "DOCKER_CONFIG=" + r.path("docker"),
	}
	return cmd
}

// stalls starts a server that says nothing to requests with a text in them.
func (r *run) stalls(match string, answer http.HandlerFunc) (url string) {
	stop := make(chan struct{})
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		if !strings.Contains(q.Method+" "+q.URL.Path, match) {
			answer(w, q)
			return
		}
		r.asked.Store(match, true)
		select {
		case <-stop:
		case <-q.Context().Done():
		}
	}))
	r.Cleanup(func() { close(stop); srv.CloseClientConnections(); srv.Close() })
	return srv.URL
}

func (r *run) wasAsked(match string) func(*run) bool {
	return func(r *run) bool { _, ok := r.asked.Load(match); return ok }
}

// locks holds a lock until the test ends.
func (r *run) locks(name string) {
	r.Helper()
	if err := os.MkdirAll(filepath.Dir(r.path(name)), 0o755); err != nil {
		r.Fatal(err)
	}
	f, err := os.OpenFile(r.path(name), os.O_RDWR|os.O_CREATE, 0o644)
	if err == nil {
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	}
	if err != nil {
		r.Fatal(err)
	}
	r.Cleanup(func() { f.Close() })
}

// said is for what begins to wait when it has said something.
func said(text string) func(*run) bool {
	return func(r *run) bool { return strings.Contains(r.err.String(), text) }
}

// busy is for what has work for minutes: it has had a tenth of a second of it.
func busy(r *run) bool {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", r.cmd.Process.Pid))
	if err != nil {
		return false
	}
	fields := strings.Fields(string(data[bytes.LastIndexByte(data, ')')+1:]))
	user, _ := strconv.Atoi(fields[11])
	system, _ := strconv.Atoi(fields[12])
	return user+system > 40 // of 10 ms
}

// asleep reports whether all threads of the program sleep, ten times on end.
func asleep(r *run) bool {
	for range 10 {
		stats, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", r.cmd.Process.Pid))
		if len(stats) < 2 {
			return false
		}
		for _, stat := range stats {
			data, err := os.ReadFile(stat)
			if err != nil {
				return false
			}
			if state := strings.Fields(string(data[bytes.LastIndexByte(data, ')')+1:]))[0]; state != "S" {
				return false
			}
		}
		time.Sleep(20 * time.Millisecond)
	}
	return true
}

// output is what the program wrote, while it writes.
type output struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

// endless is a stdin that never ends.
func endless(r *run) {
	read, write, err := os.Pipe()
	if err != nil {
		r.Fatal(err)
	}
	r.cmd.Stdin = read
	r.Cleanup(func() { read.Close(); write.Close() })
}

const deaf = `trap "" TERM INT HUP; echo begun; while :; do sleep 1; done`

var waits = []wait{
	{name: "a Containerfile from stdin", args: "solve --root=root -f -", prep: endless},
	{name: "a secret from a pipe", args: "plan --root=root --secret id=x,src=/dev/stdin", file: "RUN true\n", prep: endless},
	{name: "stdin that is checked", args: "check -", prep: endless},

	{name: "the lock of the root", args: "solve --root=root", file: "RUN true\n", prep: func(r *run) { r.locks("root/var/lib/clayer/lock") }},
	{name: "the lock of the root, to undo", args: "undo --root=root", file: "RUN true > /x\n", prep: func(r *run) {
		r.must("solve", "--root=root")
		r.locks("root/var/lib/clayer/lock")
	}},
	{name: "the lock of the store", args: "cache prune --keep 0", file: "RUN echo > /x\n", prep: func(r *run) {
		r.must("solve", "--root=root")
		r.locks("cache/store/lock")
	}},
	{name: "the lock of a cache mount", args: "solve --root=root", file: "RUN --mount=type=cache,id=c,sharing=locked,target=/c true > /x\n", prep: func(r *run) {
		other := r.command("solve", "--root=other", "-f", "Containerfile.other")
		if err := clitest.MakeRoot(r.path("other")); err != nil {
			r.Fatal(err)
		}
		r.write("Containerfile.other", "RUN --mount=type=cache,id=c,sharing=locked,target=/c echo begun; sleep 100000\n", 0o644)
		var out output
		other.Stderr = &out
		if err := other.Start(); err != nil {
			r.Fatal(err)
		}
		r.Cleanup(func() { _ = other.Process.Signal(syscall.SIGTERM); _ = other.Wait() })
		await(r.T, "the other solve", func() bool { return strings.Contains(out.String(), "| begun") })
	}},

	{name: "a RUN", args: "solve --root=root", file: "RUN echo begun; sleep 100000\n", begun: said("| begun")},
	{name: "a RUN that is deaf", args: "solve --root=root", file: "RUN " + deaf + "\n", begun: said("| begun")},
	{name: "a deaf child of a RUN", args: "solve --root=root", file: "RUN setsid sh -c '" + deaf + "' & wait\n", begun: said("| begun")},
	{name: "a deaf child of a RUN that has ended its streams", args: "solve --root=root", file: "RUN setsid sh -c '" + deaf + "' & sleep 1; exec >/dev/null 2>&1; wait\n", begun: said("| begun")},
	{name: "a RUN in place", args: "solve --root=root --sandbox=inplace", file: "RUN echo begun; sleep 100000\n", begun: said("| begun")},
	{name: "a RUN in place that is deaf", args: "solve --root=root --sandbox=inplace", file: "RUN " + deaf + "\n", begun: said("| begun")},
	{name: "a deaf child of a RUN in place", args: "solve --root=root --sandbox=inplace", file: "RUN setsid sh -c '" + deaf + "' & wait\n", begun: said("| begun"), prep: func(r *run) {
		r.write("root/dev/null", "", 0o666) // a shell gives it to what runs in the background
	}},
	{name: "a RUN among several", args: "solve --root=root -f Containerfile -f Containerfile.b", file: "FROM scratch\nRUN echo begun; sleep 100000\n", begun: said("| begun"), prep: func(r *run) {
		r.write("Containerfile.b", "FROM scratch\nRUN "+deaf+"\n", 0o644)
	}},
	{name: "a command of run", args: "run --root=root sh -c {SLEEP}", file: "RUN true > /x\n", begun: said("begun")},
	{name: "a deaf command of run", args: "run --root=root sh -c {DEAF}", file: "RUN true > /x\n", begun: said("begun")},

	{name: "a server that does not answer", args: "solve --root=root", prep: func(r *run) {
		r.write("Containerfile", "FETCH "+r.stalls("/file", nil)+"/file /opt\n", 0o644)
	}, begun: func(r *run) bool { return r.wasAsked("/file")(r) }},
	{name: "a server that does not answer, of a plan", args: "plan --root=root", prep: func(r *run) {
		r.write("Containerfile", "FETCH "+r.stalls("/file", nil)+"/file /opt\n", 0o644)
	}, begun: func(r *run) bool { return r.wasAsked("/file")(r) }},
	{name: "a body that stops", args: "solve --root=root", prep: func(r *run) {
		url := r.stalls("nothing", func(w http.ResponseWriter, q *http.Request) {
			w.Header().Set("Content-Length", "1000000")
			_, _ = io.WriteString(w, strings.Repeat("x", 1000))
			w.(http.Flusher).Flush()
			r.asked.Store("/body", true)
			<-q.Context().Done()
		})
		r.write("Containerfile", "FETCH "+url+"/body /opt\n", 0o644)
	}, begun: func(r *run) bool { return r.wasAsked("/body")(r) }},
	{name: "the next try", args: "solve --root=root", prep: func(r *run) {
		url := r.stalls("nothing", func(w http.ResponseWriter, q *http.Request) {
			w.WriteHeader(http.StatusServiceUnavailable)
		})
		r.write("Containerfile", "FETCH "+url+"/file /opt\n", 0o644)
	}},
	{name: "a port that swallows connections", args: "solve --root=root", prep: func(r *run) {
		l, err := net.Listen("tcp", "127.0.0.1:0") // nobody accepts
		if err != nil {
			r.Fatal(err)
		}
		r.Cleanup(func() { l.Close() })
		r.write("Containerfile", "FETCH http://"+l.Addr().String()+"/file /opt\n", 0o644)
	}},
	{name: "a registry that does not answer", args: "solve --root=root --store oci:{HOST}/me/env", file: "RUN true > /x\n", prep: func(r *run) {
		r.replace("{HOST}", strings.TrimPrefix(r.stalls("/", nil), "http://"))
	}, begun: func(r *run) bool { return r.wasAsked("/")(r) }},
	{name: "an upload that stops", args: "solve --root=root --store oci:{HOST}/me/env", file: "RUN echo > /x\nRUN sleep 100000\n", prep: func(r *run) {
		r.replace("{HOST}", strings.TrimPrefix(r.stalls("POST ", func(w http.ResponseWriter, q *http.Request) {
			w.WriteHeader(map[bool]int{true: 200, false: 404}[q.URL.Path == "/v2/"])
		}), "http://"))
	}, begun: func(r *run) bool { return r.wasAsked("POST ")(r) }},
	{name: "an upload that stops, when all is built", args: "solve --root=root --store oci:{HOST}/me/env", file: "RUN echo > /x\n", prep: func(r *run) {
		r.replace("{HOST}", strings.TrimPrefix(r.stalls("POST ", func(w http.ResponseWriter, q *http.Request) {
			w.WriteHeader(map[bool]int{true: 200, false: 404}[q.URL.Path == "/v2/"])
		}), "http://"))
	}, begun: func(r *run) bool { return r.wasAsked("POST ")(r) && asleep(r) }},
	{name: "hosts that doctor asks", args: "doctor --root=root --store oci:{HOST}/me/env", prep: func(r *run) {
		r.replace("{HOST}", strings.TrimPrefix(r.stalls("/", nil), "http://"))
	}},

	{name: "files of COPY that are hashed", args: "solve --root=root", file: "COPY huge /huge\n", prep: func(r *run) { r.sparse("huge") }, begun: busy},
	{name: "a reading by digest", args: "solve --root=root --sandbox=inplace --compare=digest", file: "RUN true > /x\n", prep: func(r *run) { r.sparse("root/huge") }, begun: busy},
	{name: "a file that is packed", args: "solve --root=root", file: "RUN echo begun; truncate -s 400G /huge\n", begun: func(r *run) bool { return said("| begun")(r) && busy(r) }},
	{name: "the python3 of the root", args: "plan", file: "RUN true\n", prep: func(r *run) {
		r.leaves("fake/python3", "")
	}},
	{name: "a package manager", args: "capture --root=root -f Containerfile", file: "RUN true\n", prep: func(r *run) {
		r.leaves("fake/dpkg-query", "trap '' TERM\n")
	}},

	{name: "a reader of stdout that does not read", args: "plan --root=root", prep: func(r *run) {
		r.write("Containerfile", strings.Repeat("RUN true\n", 5000), 0o644)
		read, write, err := os.Pipe()
		if err != nil {
			r.Fatal(err)
		}
		r.cmd.Stdout = write
		r.Cleanup(func() { read.Close(); write.Close() })
	}},
	{name: "a reader of stderr that does not read", args: "solve --root=root", file: "RUN while :; do echo y; done\n", prep: func(r *run) {
		read, write, err := os.Pipe()
		if err != nil {
			r.Fatal(err)
		}
		r.cmd.Stderr = write
		r.Cleanup(func() { read.Close(); write.Close() })
	}},
}

// replace puts a value into the arguments.
func (r *run) replace(name, value string) {
	for i, arg := range r.cmd.Args {
		r.cmd.Args[i] = strings.ReplaceAll(arg, name, value)
	}
}

// leaves makes a program that waits for a child of its own, which is in another
// session and keeps its output open.
func (r *run) leaves(name, first string) {
	pid := r.path(name + ".pid")
	r.write(name, fmt.Sprintf("#!/bin/sh\n%ssetsid sleep 100000 &\necho $! >> %s\nwait\n", first, pid), 0o755)
	r.Cleanup(func() {
		text, err := os.ReadFile(pid)
		if err != nil {
			r.Error(err)
		}
		for line := range strings.Lines(string(text)) {
			if n, err := strconv.Atoi(strings.TrimSpace(line)); err == nil {
				_ = syscall.Kill(n, syscall.SIGKILL)
			}
		}
	})
}

// sparse makes a file that takes minutes to read.
func (r *run) sparse(name string) {
	r.write(name, "", 0o644)
	if err := os.Truncate(r.path(name), 400<<30); err != nil {
		r.Skip(err)
	}
}

var program string

func TestEndsInTime(t *testing.T) {
	clitest.RequireSandbox(t)
	if os.Geteuid() != 0 {
		t.Skip("not root: commands in place need chroot")
	}
	program = clitest.Build(t, t.TempDir())
	t.Run("waits", func(t *testing.T) {
		for _, w := range waits {
			for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT} {
				t.Run(w.name+", "+unix.SignalName(sig), func(t *testing.T) {
					t.Parallel()
					var took []time.Duration
					for range tries {
						took = append(took, w.end(t, sig))
						if t.Failed() || took[len(took)-1] <= limit {
							break
						}
					}
					if least := slices.Min(took); least > limit {
						t.Errorf("it ended after %v at the soonest, of %v", least, took)
					}
					t.Logf("ended after %v", took)
				})
			}
		}
	})
}

// end lets the program reach its wait and ends it; it returns how long that took.
func (w *wait) end(t *testing.T, sig syscall.Signal) (took time.Duration) {
	ended := false
	t.Run("", func(t *testing.T) {
		r := &run{T: t, dir: t.TempDir()}
		if err := clitest.MakeRoot(r.path("root")); err != nil {
			t.Fatal(err)
		}
		if w.file != "" {
			r.write("Containerfile", w.file, 0o644)
		}
		r.cmd = r.command(strings.Fields(w.args)...)
		r.replace("{SLEEP}", "echo begun >&2; sleep 100000")
		r.replace("{DEAF}", strings.Replace(deaf, "echo begun", "echo begun >&2", 1))
		r.cmd.Stderr = &r.err
		if w.prep != nil {
			w.prep(r)
		}
		if err := r.cmd.Start(); err != nil {
			t.Fatal(err)
		}
		exited := make(chan struct{})
		go func() { defer close(exited); _ = r.cmd.Wait() }()
		t.Cleanup(func() { _ = r.cmd.Process.Kill(); <-exited })
		begun := w.begun
		if begun == nil {
			begun = asleep
		}
		await(t, "the wait", func() bool {
			select {
			case <-exited:
				t.Fatalf("it ended by itself: %v\n%s", r.cmd.ProcessState, &r.err)
			default:
			}
			return begun(r)
		})
		start := time.Now()
		if err := r.cmd.Process.Signal(sig); err != nil {
			t.Fatal(err)
		}
		select {
		case <-exited:
		case <-time.After(hangs):
			t.Fatalf("it does not end\n%s", &r.err)
		}
		took, ended = time.Since(start), true
		if code := r.cmd.ProcessState.ExitCode(); code != 130 && (w.code == 0 || code != w.code) {
			t.Errorf("exit code %d, want 130\n%s", code, &r.err)
		}
		// Nothing is left, the root is as it was, and the next command does not wait.
		for start := time.Now(); len(r.inRoot()) > 0; time.Sleep(10 * time.Millisecond) {
			if time.Since(start) > hangs {
				t.Fatalf("processes are left: %v", r.inRoot())
			}
		}
		if mounts, err := os.ReadFile("/proc/self/mountinfo"); err != nil || bytes.Contains(mounts, []byte(r.dir)) {
			t.Errorf("mounts are left, %v:\n%s", err, mounts)
		}
		if out, err := r.command("status", "--root=root").CombinedOutput(); err != nil {
			t.Errorf("status: %v\n%s", err, out)
		}
		if left, _ := filepath.Glob(r.path("root/var/lib/clayer/work/*")); len(left) > 0 {
			t.Errorf("left: %v", left)
		}
	})
	if !ended && !t.Failed() {
		t.SkipNow()
	}
	return took
}

// inRoot lists the processes that run in a root of the test.
func (r *run) inRoot() (pids []string) {
	procs, _ := filepath.Glob("/proc/[0-9]*/root")
	for _, p := range procs {
		if root, err := os.Readlink(p); err == nil && strings.HasPrefix(root, r.dir+"/root") {
			pids = append(pids, p)
		}
	}
	return pids
}

// await waits for what comes in moments on any machine.
func await(t *testing.T, what string, there func() bool) {
	t.Helper()
	for start := time.Now(); !there(); time.Sleep(10 * time.Millisecond) {
		if time.Since(start) > never {
			t.Fatalf("%s does not begin", what)
		}
	}
}
