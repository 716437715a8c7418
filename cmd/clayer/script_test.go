package main

import (
	"bytes"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/clayer/clayer/cmd/clayer/internal/clitest"
	"github.com/clayer/clayer/internal/elftest"
	"github.com/clayer/clayer/internal/ghatest"
	"github.com/clayer/clayer/internal/gittest"
	"github.com/clayer/clayer/internal/ocitest"
	"github.com/clayer/clayer/internal/s3test"
	"github.com/clayer/clayer/internal/testexec"
	"github.com/clayer/clayer/solver/machine"
	"github.com/clayer/clayer/solver/sandbox"
)

func TestMain(m *testing.M) {
	sandbox.Main()
	// Under nohup, and with a shell's "&", signals are ignored that programs
	// inherit so, and that no shell can trap then. Those of the tests get none ignored.
	for _, s := range []os.Signal{syscall.SIGHUP, syscall.SIGINT} {
		if signal.Ignored(s) {
			signal.Notify(make(chan os.Signal, 1), s)
		}
	}
	// A program with the race detector sleeps for a second before it ends, so that
	// others may show their races; there are hundreds of them here.
	if os.Getenv("GORACE") == "" {
		os.Setenv("GORACE", "atexit_sleep_ms=20")
	}
	testscript.Main(tests{m}, map[string]func(){
		"clayer": func() {
			code := run(os.Args[1:], os.Stdout, os.Stderr)
			if path := os.Getenv(exitCodeFile); path != "" {
				if err := os.WriteFile(path, fmt.Append(nil, code), 0o644); err != nil {
					panic(err)
				}
			}
			os.Exit(code)
		},
	})
}

// tests are all of this package; what they built goes with them.
type tests struct{ *testing.M }

func (t tests) Run() int {
	code := t.M.Run()
	if err := afterTests(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return max(code, 1)
	}
	return code
}

// afterTests removes the program that tests were run with, and looks whether they
// left something behind.
var afterTests = func() error { return nil }

// exitCodeFile names the variable with the file that a script's last exit code
// goes to: testscript itself knows success and failure alone.
const exitCodeFile = "SCRIPT_EXIT_CODE_FILE"

// TestScripts runs the stories of testdata/script through the real main. Their
// words beside testscript's own:
//
//	root DIR         makes a small root file system: busybox and nothing else
//	serve DIR        serves DIR on loopback until the script ends; $WWW is its URL
//	unserve          ends that server
//	github           starts a GitHub on loopback with the public repository me/env; GH_TOKEN may write
//	github-repo NAME [private|immutable|empty] [DIR]   adds a repository with the files in DIR
//	github-commit NAME REF DIR                         a further commit of it
//	github-fail STATUS TIMES TEXT [BODY [AFTER]]       requests with TEXT in "METHOD /path" fail; TIMES -1: all
//	github-heal                                        ends all failures
//	github-limit N                                     N API requests are left; -1: no limit
//	github-releases NAME FILE                          writes its releases to FILE
//	github-legacy NAME TAG DIR                         adds a release with layer.tar.gz, the files in DIR
//	github-corrupt NAME TEXT                           changes a byte of the files of its releases with TEXT in the name
//	github-asked FILE                                  writes the requests since it was last said to FILE
//	github-down                                        ends it
//	registry [login|readonly|nodelete]...              starts a registry on loopback; $REGISTRY is its host; login: as me, $REGISTRY_PASS
//	registry-down                                      ends it
//	image NAME[:TAG] [config=FILE] [DIR]...            pushes an image there with these directories as layers; $IMAGE_DIGEST is its digest
//	s3-server BUCKET                                   starts a service with a bucket on loopback, and sets the variables with its address and credentials
//	s3-server-down                                     ends it
//	actions-cache                                      starts the cache service of GitHub Actions on loopback, and sets the variables of an action
//	actions-cache-readonly                             its token only reads from now on
//	actions-cache-asked FILE                           writes the requests since it was last said to FILE
//	actions-cache-down                                 ends it
//	git-server [login|readonly|filter|old]...          starts a Git server on loopback with the empty repository $GIT_URL; login: as me, $GIT_PASS
//	exitcode N       the last clayer command exited with N
//	crlf FILE        gives FILE a byte order mark and CRLF line ends
//	corrupt DIR      changes a byte of every file in DIR
//	listing DIR FILE writes names, sizes and times of all that is in DIR to FILE
//
// and the conditions [container]: this machine looks ephemeral; [immutable]: files
// can be made immutable in temporary directories; [registry]: there is a registry to start; [s3-server]: there is a service with buckets to start;
// [userns]: unshare makes a user namespace.
func TestScripts(t *testing.T) {
	clitest.RequireSandbox(t)
	testscript.Run(t, testscript.Params{
		Dir:                 filepath.Join("..", "..", "testdata", "script"),
		RequireExplicitExec: false,
		RequireUniqueNames:  true,
		Setup: func(e *testscript.Env) error {
			e.Setenv("GORACE", os.Getenv("GORACE"))
			e.Setenv("HOME", filepath.Join(e.WorkDir, "home"))
			e.Setenv("CLAYER_CACHE_DIR", filepath.Join(e.WorkDir, "cache"))
			e.Setenv("CLAYER_SHIM", "lines") // shims change no machine but one that a script names
			for _, name := range []string{"GH_TOKEN", "GITHUB_TOKEN", "GITHUB_API_URL", "GITHUB_SERVER_URL", "DOCKER_CONFIG", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE", "AWS_REGION", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "ACTIONS_RESULTS_URL", "ACTIONS_RUNTIME_TOKEN", "ACTIONS_CACHE_MODE"} {
				e.Setenv(name, "") // the session's own are nobody's business here
			}
			e.Setenv(exitCodeFile, filepath.Join(e.WorkDir, "home", "exitcode"))
			return os.Mkdir(filepath.Join(e.WorkDir, "home"), 0o755)
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"root":     cmdRoot,
			"elf":      cmdELF,
			"serve":    cmdServe,
			"unserve":  cmdUnserve,
			"exitcode": cmdExitCode,
			"crlf":     cmdCRLF,
			"corrupt":  cmdCorrupt,
			"listing":  cmdListing,
			"image":    cmdImage,
			"registry": cmdRegistry, "registry-down": cmdRegistryDown,
			"git-server":    cmdGitServer,
			"actions-cache": cmdActionsCache, "actions-cache-readonly": cmdActionsCacheReadOnly, "actions-cache-asked": cmdActionsCacheAsked, "actions-cache-down": cmdActionsCacheDown,
			"s3-server": cmdS3Server, "s3-server-down": cmdS3ServerDown,

			"github": cmdGitHub, "github-repo": cmdGitHubRepo, "github-commit": cmdGitHubCommit, "github-fail": cmdGitHubFail,
			"github-releases": cmdGitHubReleases, "github-asked": cmdGitHubAsked, "github-down": cmdGitHubDown, "github-heal": cmdGitHubHeal, "github-limit": cmdGitHubLimit, "github-legacy": cmdGitHubLegacy, "github-corrupt": cmdGitHubCorrupt,
		},
		Condition: func(cond string) (bool, error) {
			if cond == "container" {
				return machine.Ephemeral(nil) != "", nil
			}
			if cond == "root" {
				return os.Geteuid() == 0, nil
			}
			if cond == "registry" {
				_, err := ocitest.Command()
				return err == nil, nil
			}
			if cond == "s3-server" {
				_, err := s3test.Command()
				return err == nil, nil
			}
			if cond == "buildah" { // which needs root to mount an image
				_, err := exec.LookPath("buildah")
				return err == nil && os.Geteuid() == 0, nil
			}
			if cond == "userns" {
				return exec.Command("unshare", "--user", "--map-root-user", "true").Run() == nil, nil
			}
			if cond == "immutable" {
				return canBeImmutable(), nil
			}
			return false, fmt.Errorf("unknown condition %q", cond)
		},
	})
}

func canBeImmutable() bool {
	f, err := os.CreateTemp("", "immutable-")
	if err != nil {
		return false
	}
	f.Close()
	defer os.Remove(f.Name())
	if exec.Command("chattr", "+i", f.Name()).Run() != nil {
		return false
	}
	return exec.Command("chattr", "-i", f.Name()).Run() == nil
}

func cmdRoot(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: root DIR")
	}
	ts.Check(clitest.MakeRoot(ts.MkAbs(args[0])))
}

// cmdELF writes a file that a loader would take for a program, or library, with needed
// libraries: elf FILE [SONAME..] [runpath=DIR] [interpreter=FILE].
func cmdELF(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) == 0 {
		ts.Fatalf("usage: elf FILE [SONAME..] [runpath=DIR] [interpreter=FILE]")
	}
	var f elftest.File
	for _, arg := range args[1:] {
		switch name, value, _ := strings.Cut(arg, "="); name {
		case "runpath":
			f.RunPath = value
		case "interpreter":
			f.Interpreter = value
		default:
			f.Needed = append(f.Needed, arg)
		}
	}
	ts.Check(os.MkdirAll(filepath.Dir(ts.MkAbs(args[0])), 0o755))
	ts.Check(testexec.WriteFile(ts.MkAbs(args[0]), f.Bytes()))
}

// servers holds the server of each script.
var servers sync.Map

func cmdUnserve(ts *testscript.TestScript, neg bool, args []string) {
	if srv, ok := servers.Load(ts); ok {
		ts.Check(srv.(*http.Server).Close())
	}
}

func cmdServe(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: serve DIR")
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	ts.Check(err)
	srv := &http.Server{Handler: http.FileServer(http.Dir(ts.MkAbs(args[0])))}
	go srv.Serve(l)
	servers.Store(ts, srv)
	ts.Defer(func() { srv.Close() })
	ts.Setenv("WWW", "http://"+l.Addr().String())
}

// registries holds the registry of each script.
var registries sync.Map

func cmdRegistry(ts *testscript.TestScript, neg bool, args []string) {
	var opt ocitest.Options
	for _, arg := range args {
		switch arg {
		case "login":
			opt.Login = true
		case "readonly":
			opt.ReadOnly = true
		case "nodelete":
			opt.NoDelete = true
		default:
			ts.Fatalf("usage: registry [login|readonly|nodelete]...")
		}
	}
	dir := ts.MkAbs("registry")
	ts.Check(os.MkdirAll(dir, 0o755)) // what an earlier one of the script stored is there
	r, err := ocitest.Start(dir, opt)
	ts.Check(err)
	registries.Store(ts, r)
	ts.Defer(r.Close)
	ts.Setenv("REGISTRY", r.Host)
	ts.Setenv("REGISTRY_PASS", ocitest.Password)
}

// gateways holds the service with buckets of each script.
var gateways sync.Map

func cmdS3Server(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: s3-server BUCKET")
	}
	g, err := s3test.Start(ts.MkAbs("s3-server"))
	ts.Check(err)
	gateways.Store(ts, g)
	ts.Defer(g.Close)
	ts.Check(g.Bucket(args[0]))
	ts.Setenv("AWS_ENDPOINT_URL_S3", g.URL)
	ts.Setenv("AWS_ACCESS_KEY_ID", s3test.KeyID)
	ts.Setenv("AWS_SECRET_ACCESS_KEY", s3test.Secret)
	ts.Setenv("S3_SECRET", s3test.Secret)
}

func cmdS3ServerDown(ts *testscript.TestScript, neg bool, args []string) {
	if g, ok := gateways.Load(ts); ok {
		g.(*s3test.Gateway).Close()
	}
}

// actionsCaches holds the cache service of each script.
var actionsCaches sync.Map

func cmdActionsCache(ts *testscript.TestScript, neg bool, args []string) {
	if _, ok := actionsCaches.Load(ts); !ok {
		s := ghatest.Start()
		actionsCaches.Store(ts, s)
		ts.Defer(s.Close)
		ts.Setenv("ACTIONS_RESULTS_URL", s.URL+"/")
		ts.Setenv("ACTIONS_RUNTIME_TOKEN", ghatest.Token)
		ts.Setenv("GITHUB_REPOSITORY", "me/env")
	}
}

func withActionsCache(f func(ts *testscript.TestScript, s *ghatest.Server, args []string)) func(*testscript.TestScript, bool, []string) {
	return func(ts *testscript.TestScript, neg bool, args []string) {
		s, ok := actionsCaches.Load(ts)
		if !ok || neg {
			ts.Fatalf("there is no cache service")
		}
		f(ts, s.(*ghatest.Server), args)
	}
}

var (
	cmdActionsCacheReadOnly = withActionsCache(func(_ *testscript.TestScript, s *ghatest.Server, _ []string) {
		s.Change(func() { s.ReadOnly = true })
	})
	cmdActionsCacheAsked = withActionsCache(func(ts *testscript.TestScript, s *ghatest.Server, args []string) {
		if len(args) != 1 {
			ts.Fatalf("usage: actions-cache-asked FILE")
		}
		ts.Check(os.WriteFile(ts.MkAbs(args[0]), []byte(strings.Join(s.Asked(), "\n")+"\n"), 0o644))
	})
	cmdActionsCacheDown = withActionsCache(func(_ *testscript.TestScript, s *ghatest.Server, _ []string) {
		s.CloseClientConnections()
		s.Close()
	})
)

func cmdGitServer(ts *testscript.TestScript, neg bool, args []string) {
	var opt gittest.Options
	for _, arg := range args {
		switch arg {
		case "login":
			opt.Login = true
		case "readonly":
			opt.ReadOnly = true
		case "filter":
			opt.Filter = true
		case "old":
			opt.Old = true
		default:
			ts.Fatalf("usage: git-server [login|readonly|filter|old]...")
		}
	}
	dir := ts.MkAbs("git-server")
	ts.Check(os.MkdirAll(dir, 0o755)) // what an earlier one of the script stored is there
	srv, err := gittest.Start(dir, opt)
	ts.Check(err)
	ts.Defer(srv.Close)
	url, err := srv.Repository("env.git")
	ts.Check(err)
	ts.Setenv("GIT_URL", url)
	ts.Setenv("GIT_LOGIN_URL", gittest.WithLogin(url))
	ts.Setenv("GIT_PASS", gittest.Password)
}

func cmdRegistryDown(ts *testscript.TestScript, neg bool, args []string) {
	if r, ok := registries.Load(ts); ok {
		r.(*ocitest.Registry).Close()
	}
}

func cmdExitCode(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: exitcode N")
	}
	code := strings.TrimSpace(ts.ReadFile(ts.Getenv(exitCodeFile)))
	if code != args[0] {
		ts.Fatalf("exit code %s, want %s", code, args[0])
	}
}

func cmdCRLF(ts *testscript.TestScript, neg bool, args []string) {
	path := ts.MkAbs(args[0])
	data, err := os.ReadFile(path)
	ts.Check(err)
	data = append([]byte("\ufeff"), bytes.ReplaceAll(data, []byte("\n"), []byte("\r\n"))...)
	ts.Check(os.WriteFile(path, data, 0o644))
}

func cmdCorrupt(ts *testscript.TestScript, neg bool, args []string) {
	entries, err := os.ReadDir(ts.MkAbs(args[0]))
	ts.Check(err)
	for _, e := range entries {
		path := filepath.Join(ts.MkAbs(args[0]), e.Name())
		data, err := os.ReadFile(path)
		ts.Check(err)
		data[len(data)/2] ^= 0xff
		ts.Check(os.WriteFile(path, data, 0o644))
	}
}

func cmdListing(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: listing DIR FILE")
	}
	var b strings.Builder
	ts.Check(filepath.WalkDir(ts.MkAbs(args[0]), func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		fmt.Fprintln(&b, path, info.Mode(), info.Size(), info.ModTime().UnixNano())
		return nil
	}))
	ts.Check(os.WriteFile(ts.MkAbs(args[1]), []byte(b.String()), 0o644))
}
