//go:build linux

package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/clayer/clayer/cmd/clayer/internal/clitest"
	"github.com/clayer/clayer/internal/githubtest"
	"github.com/clayer/clayer/internal/golden"
	"github.com/clayer/clayer/internal/testexec"
)

// A failure is something that a user runs into, in a workspace of its own.
type failure struct {
	name string
	code int
	file string                      // the Containerfile
	prep func(t *testing.T, f *fall) // what comes before
	args string                      // of the command that fails, blanks between
	full string                      // a directory that is on a disk of 64 KiB
	user uint32                      // who is not root
}

// A fall is the workspace in which a failure happens.
type fall struct {
	*workspace
	t   *testing.T
	gh  *githubtest.Server
	env []string

	full string
	user uint32
}

// must runs a command that works.
func (f *fall) must(args string) {
	f.t.Helper()
	if stderr, code := f.clayer(args); code != 0 {
		f.t.Fatalf("clayer %s: exit code %d\n%s", args, code, stderr)
	}
}

// clayer runs a command with nothing of this session's settings, and returns
// what a user sees of it: stdout is where results go, and a failure has none.
func (f *fall) clayer(args string) (output string, code int) {
	f.t.Helper()
	cmd := f.command(strings.Fields(args)...)
	var environ []string
	for _, kv := range cmd.Env {
		name, _, _ := strings.Cut(kv, "=")
		if slices.Contains([]string{"PATH", "HOME", "TMPDIR", "LANG", "CLAYER_CACHE_DIR"}, name) || strings.HasPrefix(name, "GO") {
			environ = append(environ, kv)
		}
	}
	cmd.Env = append(environ, f.env...)
	if f.full != "" {
		script := `mount -t tmpfs -o size=64k disk "$0" && exec -a clayer "$@"`
		disk := exec.CommandContext(f.t.Context(), "unshare", append([]string{"--mount", "--propagation", "private", "bash", "-c", script, f.full, cmd.Path}, cmd.Args[1:]...)...)
		disk.Env, disk.Dir = cmd.Env, cmd.Dir
		cmd = disk
	}
	if f.user != 0 { // who may not enter the directory that the test was built in
		program := f.path("clayer")
		if _, err := os.Lstat(program); errors.Is(err, fs.ErrNotExist) {
			data, err := os.ReadFile(cmd.Path)
			if err != nil {
				f.t.Fatal(err)
			}
			if err := testexec.WriteFile(program, data); err != nil {
				f.t.Fatal(err)
			}
		}
		cmd.Path = program
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: f.user, Gid: f.user}}
	}
	out, err := cmd.CombinedOutput()
	if cmd.ProcessState == nil {
		f.t.Fatal(err)
	}
	return string(out), cmd.ProcessState.ExitCode()
}

// github starts a GitHub with the public repository me/env.
func (f *fall) github() {
	f.gh = githubtest.New(f.t)
	f.gh.Repo("me/env", githubtest.Repo{})
	f.gh.Repo("me/hidden", githubtest.Repo{Private: true})
	f.gh.Token("ghp_test0123456789", "write")
	f.gh.Token("ghp_readonly456789", "read")
	f.env = []string{"GITHUB_API_URL=" + f.gh.URL, "GITHUB_SERVER_URL=" + f.gh.URL, "GH_TOKEN=ghp_test0123456789"}
}

func (f *fall) damage(pattern string) {
	f.t.Helper()
	names, _ := filepath.Glob(f.path(pattern))
	if len(names) == 0 {
		f.t.Fatalf("no %s", pattern)
	}
	for _, name := range names {
		data, err := os.ReadFile(name)
		if err != nil {
			f.t.Fatal(err)
		}
		data[len(data)/2] ^= 0xff
		if err := os.WriteFile(name, data, 0o644); err != nil {
			f.t.Fatal(err)
		}
	}
}

// openFor lets a user into the workspace, and gives it the cache.
func (f *fall) openFor(user int) {
	f.t.Helper()
	for dir := f.dir; dir != os.TempDir() && dir != "/"; dir = filepath.Dir(dir) {
		if err := os.Chmod(dir, 0o755); err != nil {
			f.t.Fatal(err)
		}
	}
	if err := errors.Join(os.Mkdir(f.path("cache"), 0o755), os.Chown(f.path("cache"), user, user)); err != nil {
		f.t.Fatal(err)
	}
}

const twoSteps = "RUN echo one > /one\nRUN echo two > /two\n"

var failures = []failure{
	// The command line.
	{name: "unknown command", code: 2, args: "slove"},
	{name: "unknown command, nothing near", code: 2, args: "frobnicate"},
	{name: "unknown flag", code: 2, args: "solve --rot=root"},
	{name: "flag of a wrong kind", code: 2, args: "solve --root=root --jobs=many"},
	{name: "variable of a wrong kind", code: 2, args: "solve --root=root", prep: func(t *testing.T, f *fall) { f.env = []string{"CLAYER_JOBS=many"} }},
	{name: "arguments that are too many", code: 2, args: "solve Containerfile"},
	{name: "arguments that are missing", code: 2, args: "build"},
	{name: "no command for run", code: 2, args: "run"},
	{name: "root that is not there", code: 2, args: "solve --root=nosuch", file: twoSteps},
	{name: "root that is a file", code: 2, args: "solve --root=Containerfile", file: twoSteps},
	{name: "dest that is a file", code: 2, args: "solve --dest=Containerfile", file: twoSteps},
	{name: "dest that is the root", code: 2, args: "solve --dest=/", file: twoSteps},
	{name: "root and dest", code: 2, args: "solve --root=root --dest=out", file: twoSteps},
	{name: "dest in place", code: 2, args: "solve --dest=out --sandbox=inplace", file: twoSteps},
	{name: "unknown sandbox", code: 2, args: "solve --root=root --sandbox=docker", file: twoSteps},
	{name: "unknown progress", code: 2, args: "solve --root=root --progress=fancy", file: twoSteps},
	{name: "progress for a terminal without one", code: 2, args: "solve --root=root --progress=tty", file: twoSteps},
	{name: "compression out of bounds", code: 2, args: "solve --root=root --compression=99", file: twoSteps},
	{name: "jobs below none", code: 2, args: "solve --root=root --jobs=-3", file: twoSteps},
	{name: "size that is none", code: 2, args: "solve --root=root --cache-size=lots", file: twoSteps},
	{name: "store of no known kind", code: 2, args: "solve --root=root --store=ftp://host/x", file: twoSteps},
	{name: "repository that is none", code: 2, args: "solve --root=root --repo=env", file: twoSteps},
	{name: "ref that is none", code: 2, args: "solve --root=root --invalidate-on=env", file: twoSteps},
	{name: "name of several files", code: 2, args: "hash --name=x Containerfile Containerfile", file: twoSteps},
	{name: "name with blanks", code: 2, args: "hash --name=X! Containerfile", file: twoSteps},
	{name: "build argument without a name", code: 2, args: "solve --root=root --build-arg==1", file: twoSteps},
	{name: "secret without an id", code: 2, args: "solve --root=root --secret=src=x", file: twoSteps},
	{name: "secret that is not there", code: 2, args: "solve --root=root --secret=id=key,src=nosuch", file: twoSteps},
	{name: "trace that can't be written", code: 2, args: "solve --root=root --trace=nosuch/trace.json", file: twoSteps},
	{name: "graph of no known kind", code: 2, args: "plan --root=root --graph=png", file: twoSteps},
	{name: "shell of no known kind", code: 2, args: "env --root=root --shell=tcsh", file: twoSteps},
	{name: "layer that is nowhere", code: 2, args: "compose --root=root nosuch", file: twoSteps},
	{name: "no layers named", code: 2, args: "compose --root=root"},
	{name: "list of layers that is no JSON", code: 2, args: "compose --root=root", file: twoSteps, prep: func(t *testing.T, f *fall) {
		if err := os.Mkdir(f.path(".claude"), 0o755); err != nil {
			t.Fatal(err)
		}
		f.write(".claude/container-layers.json", "{layers: base}")
	}},
	{name: "step that is not there", code: 2, args: "run --root=root --at 7 -- sh", file: twoSteps},
	{name: "line that is none", code: 2, args: "run --root=root --at=-1 -- sh", file: twoSteps},
	{name: "no Containerfile", code: 2, args: "solve --root=root"},
	{name: "check of a file with a problem", code: 2, args: "check Containerfile", file: "RUNN true\n"},
	{name: "hook of no known kind", code: 2, args: "init emacs"},

	// What a Containerfile asks for.
	{name: "RUN that fails", code: 1, args: "solve --root=root --build-arg=WHO=a", file: "ARG WHO\nRUN echo one > /one\nRUN \\\n  for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22; do echo line $i; done; \\\n  exit 7\n"},
	{name: "RUN that fails without a variable of the session", code: 1, args: "solve --root=root", file: "RUN echo 'STAGE: not set' >&2; exit 1\n", prep: func(t *testing.T, f *fall) {
		f.env = []string{"DEPLOY_TOKEN=t0ken-t0ken", "STAGE=prod", "CI=true", "EMPTY="}
	}},
	{name: "RUN that fails at once, quietly", code: 1, args: "solve --root=root", file: "RUN exit 3\n"},
	{name: "RUN that fails in place", code: 1, args: "solve --root=root --sandbox=inplace", file: "RUN echo one > /one\nRUN echo half > /half; exit 7\n"},
	{name: "RUN of a program that is not there", code: 1, args: "solve --root=root", file: "RUN nosuch-program --now\n"},
	{name: "RUN without a shell", code: 1, args: "solve --root=root", file: "SHELL [\"/bin/nosuch\", \"-c\"]\nRUN true\n"},
	{name: "RUN that is killed", code: 1, args: "solve --root=root", file: "RUN kill -9 $$\n"},
	{name: "RUN that takes too long", code: 1, args: "solve --root=root --timeout=200ms", file: "RUN sleep 60\n"},
	{name: "RUN with a secret that was not given", code: 1, args: "solve --root=root", file: "RUN --mount=type=secret,id=key,required=true cat /run/secrets/key\n"},
	{name: "build argument that must be set", code: 2, args: "solve --root=root", file: "ARG V\nWORKDIR /${V:?give --build-arg V=1.2}\n"},
	{name: "FETCH of what is not there", code: 1, args: "solve --root=root --build-arg=HOST={WWW}", file: "ARG HOST\nFETCH http://$HOST/nosuch.tar.gz /opt/x\n"},
	{name: "FETCH with another checksum", code: 1, args: "solve --root=root --build-arg=HOST={WWW}", file: "ARG HOST\nFETCH --checksum=sha256:" + strings.Repeat("12ab", 16) + " http://$HOST/file /opt/x\n"},
	{name: "FETCH of what is no archive", code: 1, args: "solve --root=root --build-arg=HOST={WWW}", file: "ARG HOST\nFETCH --extract=true http://$HOST/file /opt/x\n"},
	{name: "FETCH of an archive that is cut off", code: 1, args: "solve --root=root --build-arg=HOST={WWW}", file: "ARG HOST\nFETCH http://$HOST/cut.tar.gz /opt/x\n"},
	{name: "FETCH that is refused", code: 1, args: "solve --root=root --build-arg=HOST={WWW}", file: "ARG HOST\nFETCH http://$HOST/secret /opt/x\n"},
	{name: "FETCH of a GitHub repository that is not there", code: 1, args: "solve --root=root", file: "FETCH github:me/nosuch /opt/x\n", prep: func(t *testing.T, f *fall) { f.github() }},
	{name: "FETCH of a ref that is not there", code: 2, args: "solve --root=root", file: "FETCH github:me/env@v9 /opt/x\n", prep: func(t *testing.T, f *fall) { f.github() }},
	{name: "FETCH of a folder that is not there", code: 1, args: "solve --root=root", file: "FETCH github:me/env//nosuch /opt/x\n", prep: func(t *testing.T, f *fall) { f.github() }},
	{name: "FETCH from GitHub with a bad token", code: 1, args: "solve --root=root", file: "FETCH github:me/hidden /opt/x\n", prep: func(t *testing.T, f *fall) {
		f.github()
		f.env = append(f.env, "GH_TOKEN=ghp_wrong456789012")
	}},
	{name: "FETCH where GitHub's limit is used up", code: 1, args: "solve --root=root", file: "FETCH github:me/env /opt/x\n", prep: func(t *testing.T, f *fall) {
		f.github()
		f.gh.Fail(githubtest.Fault{Match: "/me/env.git/", Status: 404, Times: -1})
		f.gh.Limit(0, time.Now().Add(time.Hour))
	}},

	// Stores.
	{name: "required store without a repository", code: 3, args: "solve --root=root --repo=me/nosuch --require-cache", file: twoSteps, prep: func(t *testing.T, f *fall) { f.github() }},
	{name: "required store with a bad token", code: 3, args: "solve --root=root --repo=me/env --require-cache", file: twoSteps, prep: func(t *testing.T, f *fall) {
		f.github()
		f.env = append(f.env, "GH_TOKEN=ghp_wrong456789012")
	}},
	{name: "required store that may only be read", code: 3, args: "solve --root=root --repo=me/env --require-cache", file: twoSteps, prep: func(t *testing.T, f *fall) {
		f.github()
		f.env = append(f.env, "GH_TOKEN=ghp_readonly456789")
	}},
	{name: "store without a token", code: 0, args: "solve --root=root --repo=me/env", file: twoSteps, prep: func(t *testing.T, f *fall) {
		f.github()
		f.env = append(f.env, "GH_TOKEN=")
	}},
	{name: "store refused by a proxy", code: 0, args: "solve --root=root --repo=me/env", file: twoSteps, prep: func(t *testing.T, f *fall) {
		f.github()
		f.gh.Fail(githubtest.Fault{Match: "/", Status: 403, Times: -1, Body: "<html>blocked by policy</html>"})
	}},
	{name: "snapshot that is damaged", code: 0, args: "solve --root=root", file: twoSteps, prep: func(t *testing.T, f *fall) {
		f.must("solve --root=root")
		f.must("undo --root=root")
		f.damage("cache/store/blobs/sha256/*")
	}},
	{name: "snapshot that is damaged on GitHub", code: 0, args: "solve --root=root --repo=me/env", file: twoSteps, prep: func(t *testing.T, f *fall) {
		f.github()
		f.must("solve --root=root --repo=me/env")
		f.must("undo --root=root")
		f.gh.Corrupt("me/env", ".tar.zst")
		if err := os.RemoveAll(f.path("cache")); err != nil {
			t.Fatal(err)
		}
	}},
	{name: "secret in a snapshot", code: 0, args: "solve --root=root --repo=me/env", file: "RUN echo $DEPLOY_KEY > /key\n", prep: func(t *testing.T, f *fall) {
		f.github()
		f.env = append(f.env, "DEPLOY_KEY=s3cr3t-s3cr3t-s3cr3t")
	}},
	{name: "store folder that is a file", code: 3, args: "solve --root=root --cache-dir=Containerfile/cache --require-cache", file: twoSteps},
	{name: "store that is a file", code: 0, args: "solve --root=root", file: "RUN true\n", prep: func(t *testing.T, f *fall) {
		if err := os.Mkdir(f.path("cache"), 0o755); err != nil {
			t.Fatal(err)
		}
		f.write("cache/store", "no directory\n")
	}},
	{name: "cache command for a layer that is not cached", code: 2, args: "cache rm mojo", file: twoSteps},
	{name: "cache command without a store to copy to", code: 2, args: "cache push", file: twoSteps},
	{name: "cache push without a right", code: 3, args: "cache push base --repo=me/env", file: twoSteps, prep: func(t *testing.T, f *fall) {
		f.github()
		f.must("solve --root=root")
		f.env = append(f.env, "GH_TOKEN=ghp_readonly456789")
	}},

	// Roots.
	{name: "root that another solve changes", code: 4, args: "solve --root=root --no-wait", file: "RUN true\n", prep: func(t *testing.T, f *fall) {
		f.must("solve --root=root")
		f.write("Containerfile.slow", "RUN touch /tmp/begun; sleep 60\n")
		other := f.command("solve", "--root=root", "-f", "Containerfile.slow", "--sandbox=inplace")
		if err := other.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			other.Process.Signal(syscall.SIGTERM)
			other.Wait()
		})
		for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(10 * time.Millisecond) {
			if _, err := os.Stat(f.path("root/tmp/begun")); err == nil {
				return
			} else if time.Now().After(deadline) {
				t.Fatal("the other solve never began")
			}
		}
	}},
	{name: "undo to a layer that is not applied", code: 2, args: "undo --root=root --to=mojo", file: twoSteps, prep: func(t *testing.T, f *fall) { f.must("solve --root=root") }},
	{name: "undo of what a RUN in place overwrote", code: 4, args: "undo --root=root", file: "RUN echo mine > /etc/os-release\n", prep: func(t *testing.T, f *fall) { f.must("solve --root=root --sandbox=inplace") }},
	{name: "file that was changed since", code: 0, args: "solve --root=root", file: twoSteps, prep: func(t *testing.T, f *fall) {
		f.must("solve --root=root")
		f.write("root/two", "mine\n")
		f.write("Containerfile", "RUN echo one > /one\n")
	}},
	{name: "verify of a file that was changed since", code: 1, args: "verify --root=root", file: twoSteps, prep: func(t *testing.T, f *fall) {
		f.must("solve --root=root")
		f.write("root/two", "mine\n")
	}},
	{name: "verify of what a plain user applied", code: 0, args: "verify --root=root", file: "COPY Containerfile /opt/new/dir/\nWORKDIR /opt/work/dir\n", user: 65534, prep: func(t *testing.T, f *fall) {
		f.openFor(65534)
		if out, err := exec.Command("chown", "-R", "65534:65534", f.path("root")).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		f.user = 65534
		f.must("solve --root=root")
	}},
	{name: "status of a root that lags behind", code: 1, args: "status --root=root --exit-code Containerfile", file: twoSteps, prep: func(t *testing.T, f *fall) {
		f.must("solve --root=root")
		f.write("Containerfile", twoSteps+"RUN echo three > /three\n")
	}},
	{name: "root that belongs to somebody else", code: 4, args: "solve --root=root --sandbox=inplace", file: "WORKDIR /opt/x\n", user: 65534, prep: func(t *testing.T, f *fall) {
		f.openFor(65534)
	}},
	{name: "disk of the root that is full", code: 4, args: "solve --root=root", file: "RUN head -c 1000000 /dev/urandom > /opt/large\n", full: "root/opt", prep: func(t *testing.T, f *fall) {
		f.must("solve --root=root")
		f.must("undo --root=root")
	}},
	{name: "disk of the cache that is full", code: 0, args: "solve --root=root", file: "RUN head -c 1000000 /dev/urandom > /large\n", full: "cache", prep: func(t *testing.T, f *fall) {
		if err := os.Mkdir(f.path("cache"), 0o755); err != nil {
			t.Fatal(err)
		}
	}},
	{name: "disk of the cache that is full, though it is required", code: 3, args: "solve --root=root --require-cache", file: "RUN head -c 1000000 /dev/urandom > /large\n", full: "cache", prep: func(t *testing.T, f *fall) {
		if err := os.Mkdir(f.path("cache"), 0o755); err != nil {
			t.Fatal(err)
		}
	}},
	{name: "record of a root that is damaged", code: 4, args: "status --root=root", file: twoSteps, prep: func(t *testing.T, f *fall) {
		f.must("solve --root=root")
		f.write("root/var/lib/clayer/state.json", "{")
	}},
}

// network says that a failure's command requires a server with a file.
const network = "{WWW}"

// requireMounts skips a test of texts that are those which root gets, by overlay.
func requireMounts(t *testing.T) {
	t.Helper()
	clitest.RequireSandbox(t)
	if os.Geteuid() != 0 {
		t.Skip("not root: the texts are those that root gets")
	}
	if out, err := exec.Command("unshare", "--mount", "true").CombinedOutput(); err != nil {
		t.Skipf("nothing can be mounted: the texts are others in place: %s", out)
	}
}

// TestFailures lists what a user can run into beside a Containerfile that does
// not parse (TestBadInput), with all that is said then. What is not the same in
// each run (directorys, ports, times) is replaced.
func TestFailures(t *testing.T) {
	t.Parallel()
	requireMounts(t)
	var got strings.Builder
	for _, tt := range failures {
		t.Run(tt.name, func(t *testing.T) {
			f := &fall{workspace: newWorkspace(t), t: t}
			if tt.file != "" {
				f.write("Containerfile", tt.file)
			}
			if tt.prep != nil {
				tt.prep(t, f)
			}
			args := tt.args
			if strings.Contains(args, network) {
				args = strings.ReplaceAll(args, network, failingServer(t))
			}
			f.full, f.user = tt.full, tt.user
			out, code := f.clayer(args)
			if code != tt.code {
				t.Errorf("exit code %d, want %d\n%s", code, tt.code, out)
			}
			if strings.Contains(out, "s3cr3t") || strings.Contains(out, "ghp_") {
				t.Errorf("a secret is shown:\n%s", out)
			}
			got.WriteString("== " + tt.name + "\n$ clayer " + strings.TrimSpace(tt.args) + "\n" + steady(out, f.dir) + "[" + string(rune('0'+code)) + "]\n\n")
		})
	}
	if t.Failed() {
		return
	}
	golden.Check(t, "../../testdata/failures.golden", got.String())
}

var unsteady = []struct {
	re   *regexp.Regexp
	with string
}{
	{regexp.MustCompile(`(?m)^(  (time|slowest|bytes) | {10,}\d+\.\ds ).*\n`), ""}, // a summary, if it took long
	{regexp.MustCompile(`127\.0\.0\.1:\d+`), "HOST"},
	{regexp.MustCompile(`\b[0-9a-f]{64}\b`), "DIGEST"},
	{regexp.MustCompile(`\b(blob|part)-\w+`), "$1-N"},
	{regexp.MustCompile(`\b[0-9a-f]{16}\b`), "KEY16"},
	{regexp.MustCompile(`\b\d+\.\d+ ?s\b|\b\d+ms\b`), "TIME"},
	{regexp.MustCompile(`\b\d\d:\d\d(:\d\d)?\b`), "CLOCK"},
	{regexp.MustCompile(`\b(pid|process) \d+`), "$1 PID"},
	{regexp.MustCompile(`\d+(\.\d+)? (B|kB|MB)\b`), "SIZE"},
	// Other tests check what goes well; it may come before a warning or after it.
	{regexp.MustCompile(`(?m)^(clayer: sandbox: |clayer: applying |base:\d+  ).*\n`), ""},
}

// steady replaces what is not the same in each run.
func steady(text, dir string) string {
	text = strings.ReplaceAll(text, dir+"/", "")
	text = strings.ReplaceAll(text, dir, ".")
	for _, u := range unsteady {
		text = u.re.ReplaceAllString(text, u.with)
	}
	return text
}

// failingServer serves a file, one that is cut off, and one that nobody may have.
func failingServer(t *testing.T) (host string) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/file":
			io.WriteString(w, "a text\n")
		case "/cut.tar.gz":
			var b bytes.Buffer
			z := gzip.NewWriter(&b)
			tw := tar.NewWriter(z)
			tw.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: "x", Mode: 0o644, Size: 4})
			io.WriteString(tw, "text")
			tw.Close()
			z.Close()
			w.Write(b.Bytes()[:b.Len()-20])
		case "/secret":
			http.Error(w, "who are you?", http.StatusForbidden)
		default:
			http.NotFound(w, r)
		}
	}))
	t.Cleanup(srv.Close)
	return strings.TrimPrefix(srv.URL, "http://")
}

// TestNoNetwork: what does not answer at all is waited for, and then told.
func TestNoNetwork(t *testing.T) {
	if testing.Short() {
		t.Skip("-short: a network is waited for, 30 s")
	}
	t.Parallel()
	f := &fall{workspace: newWorkspace(t), t: t}
	f.write("Containerfile", "FETCH http://127.0.0.1:1/x.tar.gz /opt/x\n")
	out, code := f.clayer("solve --root=root")
	want := regexp.MustCompile(`^clayer: waiting for 127\.0\.0\.1:1: connection refused
clayer: Containerfile:1: FETCH: get http://127\.0\.0\.1:1/x\.tar\.gz: .*connection refused \(tried \d+ times\)
  1 \| FETCH http://127\.0\.0\.1:1/x\.tar\.gz /opt/x
hint: is there a network, .*clayer doctor lists the hosts that are reached
$`)
	if code != 1 || !want.MatchString(out) {
		t.Errorf("exit code %d:\n%s", code, out)
	}
}
