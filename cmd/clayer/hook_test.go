//go:build linux

package main

import (
	"archive/tar"
	"bytes"
	"cmp"
	"compress/gzip"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/clayer/clayer/cmd/clayer/internal/clitest"
	"github.com/clayer/clayer/internal/ghatest"
	"github.com/clayer/clayer/internal/testexec"
)

// project is a directory with layers, and a release of clayer on loopback, which is
// this test binary.
type project struct {
	t       *testing.T
	dir     string
	url     string
	mu      sync.Mutex // of what the server reads
	archive []byte
	pin     string       // the SHA-256 of the program in it
	fetched atomic.Int32 // how often the archive was
	handler http.Handler
}

func newProject(t *testing.T) *project {
	t.Helper()
	clitest.RequireSandbox(t)
	for _, tool := range []string{"curl", "sha256sum", "tar"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skip(err)
		}
	}
	p := &project{t: t, dir: t.TempDir()}
	for name, text := range map[string]string{
		".claude/container-layers.json": `{"layers": ["base", "tools"]}`,
		"layers/Containerfile":          "ENV GREETING=\"it's here\" PATH=/opt/x/bin:$PATH\nRUN echo base > /base\n",
		"layers/Containerfile.tools":    "RUN echo tools > /tools\n",
	} {
		p.write(name, text)
	}
	for _, d := range []string{"home", "root", "bin"} {
		if err := os.Mkdir(filepath.Join(p.dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := clitest.MakeRoot(filepath.Join(p.dir, "root")); err != nil {
		t.Fatal(err)
	}
	exe := clayerProgram(t)
	clayer := filepath.Join(p.dir, "bin", "clayer")
	if err := os.Symlink(exe, clayer); err != nil {
		t.Fatal(err)
	}
	program := fmt.Sprintf("#!/bin/sh\nif [ \"$1\" = version ]; then echo 'clayer v1.2.3 x/y go'; exit; fi\nexec %s \"$@\"\n", clayer)
	p.archive, p.pin = archiveOf(t, program), fmt.Sprintf("%x", sha256.Sum256([]byte(program)))
	name := fmt.Sprintf("clayer_%s_%s", runtime.GOOS, runtime.GOARCH)
	mux := http.NewServeMux()
	mux.HandleFunc("/download/v1.2.3/pins.txt", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintf(w, "%064x  clayer_1.2.3_plan9_386\n%s  %s\n", 1, p.pin, strings.Replace(name, "_", "_1.2.3_", 1))
	})
	mux.HandleFunc("/download/v1.2.3/"+name+".tar.gz", func(w http.ResponseWriter, _ *http.Request) {
		p.fetched.Add(1)
		p.mu.Lock()
		defer p.mu.Unlock()
		_, _ = w.Write(p.archive)
	})
	p.handler = mux
	srv := httptest.NewServer(mux)
	t.Cleanup(srv.Close)
	p.url = srv.URL
	return p
}

// archiveOf returns an archive as a release has it.
func archiveOf(t *testing.T, program string) []byte {
	t.Helper()
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	w := tar.NewWriter(z)
	if err := w.WriteHeader(&tar.Header{Name: "clayer", Mode: 0o755, Size: int64(len(program))}); err != nil {
		t.Fatal(err)
	}
	_, err := io.WriteString(w, program)
	if err := errors.Join(err, w.Close(), z.Close()); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func (p *project) write(name, text string) {
	p.t.Helper()
	path := filepath.Join(p.dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		p.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		p.t.Fatal(err)
	}
}

func (p *project) read(name string) string {
	p.t.Helper()
	data, err := os.ReadFile(filepath.Join(p.dir, name))
	if err != nil {
		p.t.Fatal(err)
	}
	return string(data)
}

// run runs a command line in the project as a host of hooks does.
func (p *project) run(command string, env ...string) (stdout, stderr string, code int) {
	p.t.Helper()
	cmd := exec.CommandContext(p.t.Context(), "sh", "-c", command)
	cmd.Dir = p.dir
	cmd.Env = append([]string{
		"PATH=" + filepath.Join(p.dir, "bin") + ":/usr/bin:/bin", "HOME=" + filepath.Join(p.dir, "home"),
		"CLAYER_ROOT=" + filepath.Join(p.dir, "root"), "CLAYER_DOWNLOAD_URL=" + p.url, "CLAYER_TRIES=3", "no_proxy=127.0.0.1",
	}, append(append(onlyMirror(), strict), env...)...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	_ = cmd.Run()
	if out.Len() > 2048 {
		p.t.Errorf("%s: %d bytes on stdout", command, out.Len())
	}
	return out.String(), errs.String(), cmd.ProcessState.ExitCode()
}

// onlyMirror has no host asked for a release but CLAYER_DOWNLOAD_URL.
func onlyMirror() []string {
	return []string{"CLAYER_PYPI_URL=", "CLAYER_NPM_URL=", "CLAYER_GITHUB_URL="}
}

// strict has a boot fail that cannot set up all of the environment.
const strict = "CLAYER_BEST_EFFORT=false"

func (p *project) must(command string, env ...string) string {
	p.t.Helper()
	out, errs, code := p.run(command, env...)
	if code != 0 {
		log, _ := os.ReadFile(filepath.Join(p.dir, "home/.cache/clayer/bin/boot.log"))
		p.t.Fatalf("%s: exit code %d\n%s\n%s\n%s", command, code, out, errs, log)
	}
	return out
}

func TestHookOfClaudeCode(t *testing.T) {
	t.Parallel()
	p := newProject(t)
	p.write(".claude/settings.json", `{"permissions": {"allow": ["Bash"]}, "hooks": {"Stop": [], "SessionStart": [{"hooks": [{"type": "command", "command": "true && echo '<&>'"}]}]}, "a": 1}`)
	p.must("clayer init claude --release v1.2.3")
	settings := p.read(".claude/settings.json")
	p.must("clayer init claude --release v1.2.3")
	if again := p.read(".claude/settings.json"); again != settings {
		t.Errorf("a second time: %s", again)
	}
	var s struct {
		A           int
		Permissions struct{ Allow []string }
		Hooks       struct {
			Stop         []any
			SessionStart []struct {
				Hooks []struct {
					Type, Command string
					Timeout       int
				}
			}
		}
	}
	if err := json.Unmarshal([]byte(settings), &s); err != nil {
		t.Fatal(err)
	}
	if s.A != 1 || len(s.Permissions.Allow) != 1 || s.Hooks.Stop == nil || len(s.Hooks.SessionStart) != 2 ||
		strings.Index(settings, "permissions") > strings.Index(settings, "hooks") {
		t.Errorf("the rest of the settings: %s", settings)
	}
	if !strings.Contains(settings, `"true && echo '<&>'"`) {
		t.Errorf("another hook is not as it was: %s", settings)
	}
	command := s.Hooks.SessionStart[1].Hooks[0].Command

	for text, code := range map[string]int{"null": 0, `{"hooks": null}`: 0, `{"hooks": {"SessionStart": null}}`: 0, `[]`: exitUsage, `{"hooks": []}`: exitUsage, `{`: exitUsage} {
		p.write("other/.claude/settings.json", text)
		_, errs, got := p.run("cd other && clayer init claude --release v1.2.3")
		after := p.read("other/.claude/settings.json")
		if got != code || code == 0 && !json.Valid([]byte(after)) || code == 0 != strings.Contains(after, "clayer-boot.sh") || code != 0 && after != text {
			t.Errorf("settings of %s: exit code %d, %s\n%s", text, got, errs, after)
		}
	}

	env := []string{"CLAUDE_PROJECT_DIR=" + p.dir, "CLAUDE_ENV_FILE=" + filepath.Join(p.dir, "claude.env")}
	out := p.must("cd / && "+command+` <<'EOF'
{"hook_event_name": "SessionStart", "source": "startup"}
EOF`, env...)
	if !strings.Contains(out, "2 ran") {
		t.Errorf("says %q", out)
	}
	if got := p.must(`. ./claude.env; echo "$GREETING"; echo "$PATH"`); !strings.HasPrefix(got, "it's here\n/opt/x/bin:") {
		t.Errorf("the session has %q", got)
	}
	if p.read("root/base")+p.read("root/tools") != "base\ntools\n" {
		t.Error("not composed")
	}
	// resume: nothing to do, and nothing twice.
	file := p.read("claude.env")
	if out := p.must(command, env...); !strings.Contains(out, "present") {
		t.Errorf("says %q", out)
	}
	if p.read("claude.env") != file || p.fetched.Load() != 1 {
		t.Errorf("fetched %d times; %s", p.fetched.Load(), p.read("claude.env"))
	}
}

func TestHookOfGitHubActions(t *testing.T) {
	t.Parallel()
	p := newProject(t)
	step := p.must("clayer init github base --release v1.2.3")
	command := regexp.MustCompile(`(?m)^  run: (.*)$`).FindStringSubmatch(step)
	if command == nil {
		t.Fatalf("no step: %s", step)
	}
	p.write("genv", "")
	p.write("gpath", "")
	env := []string{"GITHUB_ENV=" + filepath.Join(p.dir, "genv"), "GITHUB_PATH=" + filepath.Join(p.dir, "gpath")}
	p.must(command[1], env...)
	if got := p.read("genv") + p.read("gpath"); got != "GREETING<<CLAYER_END\nit's here\nCLAYER_END\n/opt/x/bin\n" {
		t.Errorf("the next steps have %q", got)
	}
	if _, err := os.Stat(filepath.Join(p.dir, "root/tools")); err == nil {
		t.Error("a layer that was not named is composed")
	}
}

// The action, as the runner runs it: under its own node, with the inputs of a workflow.
func TestAction(t *testing.T) {
	t.Parallel()
	var action struct {
		Inputs map[string]struct{ Description, Default string }
		Runs   struct{ Using, Main string }
	}
	data, err := os.ReadFile("../../action.yml")
	if err == nil {
		err = yaml.Unmarshal(data, &action)
	}
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join("../..", action.Runs.Main)); err != nil || !strings.HasPrefix(action.Runs.Using, "node") {
		t.Fatalf("it runs %s by %s: %v", action.Runs.Main, action.Runs.Using, err)
	}
	node, err := exec.LookPath("node")
	if err != nil {
		t.Skip("node is not on PATH: the action's JavaScript is not run")
	}
	script, err := filepath.Abs(filepath.Join("../..", action.Runs.Main))
	if err != nil {
		t.Fatal(err)
	}
	p := newProject(t)
	p.write("layers/Containerfile.tools", "RUN echo tools > /tools && env > /environment\n")
	cache := ghatest.New(t)
	with := func(more ...string) []string {
		p.write("genv", "")
		p.write("gpath", "")
		env := []string{
			"GITHUB_ENV=" + filepath.Join(p.dir, "genv"), "GITHUB_PATH=" + filepath.Join(p.dir, "gpath"), "RUNNER_TEMP=" + filepath.Join(p.dir, "temp"),
			"INPUT_VERSION=v1.2.3", "INPUT_PINS=" + p.pin, "INPUT_LAYERS=base tools",
			"ACTIONS_RESULTS_URL=" + cache.URL + "/", "ACTIONS_RUNTIME_TOKEN=" + ghatest.Token, "GITHUB_REPOSITORY=me/env",
		}
		for name, in := range action.Inputs {
			if !strings.Contains(in.Default, "${{") && !slices.ContainsFunc(env, func(kv string) bool { return strings.HasPrefix(kv, "INPUT_"+strings.ToUpper(name)+"=") }) {
				env = append(env, "INPUT_"+strings.ToUpper(name)+"="+in.Default)
			}
		}
		return append(env, more...)
	}
	out, errs, code := p.run(node+" "+script, with("INPUT_STORE=gha:")...)
	if code != 0 {
		t.Fatalf("exit code %d: %s%s", code, out, errs)
	}
	if got := p.read("gpath"); got != filepath.Join(p.dir, "temp/clayer")+"\n/opt/x/bin\n" || !strings.Contains(p.read("genv"), "it's here") {
		t.Errorf("later steps get %q, %q", got, p.read("genv"))
	}
	if p.read("root/tools") != "tools\n" {
		t.Error("the layers are not composed")
	}
	if len(cache.Keys()) == 0 {
		t.Error("nothing is stored in the cache of the job")
	}
	if everywhere := out + errs + p.read("genv") + p.read("gpath") + p.read("root/environment"); strings.Contains(everywhere, ghatest.Token) {
		t.Errorf("the token of the job is in %s", everywhere)
	}

	// Later steps get the token if that is wanted.
	out, errs, code = p.run(node+" "+script, with("INPUT_STORE=gha:", "INPUT_EXPOSE=true")...)
	if code != 0 || strings.Contains(out+errs, ghatest.Token) {
		t.Fatalf("exit code %d: %s%s", code, out, errs)
	}
	for _, want := range []string{"ACTIONS_RUNTIME_TOKEN<<", "\n" + ghatest.Token + "\n", "ACTIONS_RESULTS_URL<<", "CLAYER_STORE<<"} {
		if !strings.Contains(p.read("genv"), want) {
			t.Errorf("later steps do not get %q: %s", want, p.read("genv"))
		}
	}

	// What fails, fails the step with the program's exit code.
	p.write("layers/Containerfile.tools", "RUN false\n")
	if out, errs, code := p.run(node+" "+script, with()...); code != exitBuild || !strings.Contains(out, "::error::clayer compose: exit code ") {
		t.Errorf("exit code %d: %s%s", code, out, errs)
	}
}

func TestHookOfADevcontainer(t *testing.T) {
	t.Parallel()
	p := newProject(t)
	p.must("clayer init devcontainer --release v1.2.3")
	var d struct{ PostCreateCommand string }
	if err := json.Unmarshal([]byte(p.read(".devcontainer/devcontainer.json")), &d); err != nil {
		t.Fatal(err)
	}
	p.must(d.PostCreateCommand)
	if p.read("root/tools") != "tools\n" {
		t.Error("not composed")
	}
	// What runs already, and what a list of words is, stays.
	for theirs, want := range map[string]string{
		"{\n\t\"postCreateCommand\": \"make\"\n}\n":             "{\n\t\"postCreateCommand\": \"sh .devcontainer/clayer-boot.sh && make\"\n}\n",
		"{\"postCreateCommand\": {\"mine\": \"make\"}}\n":       "{\"postCreateCommand\": {\"mine\": \"make\", \"clayer\": \"sh .devcontainer/clayer-boot.sh\"}}\n",
		"{\"postCreateCommand\": [\"make\", \"-C\", \"/x\"]}\n": "",
		"{\"image\": }\n": "",
	} {
		p.write(".devcontainer/devcontainer.json", theirs)
		_, errs, code := p.run("clayer init devcontainer --release v1.2.3")
		if want == "" && (code != exitUsage || !strings.Contains(errs, ".devcontainer/devcontainer.json: it ")) || want != "" && code != 0 {
			t.Errorf("%s: exit code %d: %s", theirs, code, errs)
		}
		if got := p.read(".devcontainer/devcontainer.json"); got != cmp.Or(want, theirs) {
			t.Errorf("%s became %s", theirs, got)
		}
	}
}

func TestBootScript(t *testing.T) {
	t.Parallel()
	p := newProject(t)
	p.write("secrets/a.env", "TOKEN_LIKE='x y'\n")
	p.must("clayer init boot --release v1.2.3 --env-files " + filepath.Join(p.dir, "secrets"))
	if out := p.must(`sh boot.sh sh -c 'echo "$GREETING|$TOKEN_LIKE"'`); out != "it's here|x y\n" {
		t.Errorf("a command has %q", out)
	}
	if out := p.must(`. ./boot.sh; echo "$GREETING|$TOKEN_LIKE|$?"`); !strings.HasSuffix(out, "it's here|x y|0\n") {
		t.Errorf("a shell has %q", out)
	}
	if _, _, code := p.run("sh boot.sh sh -c 'exit 9'"); code != 9 {
		t.Errorf("exit code %d", code)
	}
	// A boot script that somebody else wrote stays.
	p.write("boot.sh", "mine\n")
	if _, errs, code := p.run("clayer init boot --release v1.2.3"); code != exitUsage || !strings.Contains(errs, "not of clayer init") {
		t.Errorf("exit code %d: %s", code, errs)
	}
	if out, _, _ := p.run("clayer init boot --release v1.2.3 --print | head -n 3"); !strings.HasPrefix(out, "#!/bin/sh\n") || p.read("boot.sh") != "mine\n" {
		t.Errorf("--print: %q", out)
	}
}

func TestTwoBootsAtOnce(t *testing.T) {
	t.Parallel()
	p := newProject(t)
	p.must("clayer init boot --release v1.2.3")
	// The lock of one that was killed, and whose number another process has now.
	p.write("home/.cache/clayer/bin/.boot/pid", fmt.Sprintln(os.Getpid(), 1))
	var wg sync.WaitGroup
	outs := make([]string, 3)
	for i := range outs {
		wg.Go(func() { outs[i], _, _ = p.run("sh boot.sh") })
	}
	wg.Wait()
	ran := 0
	for _, out := range outs {
		ran += strings.Count(out, "2 ran")
		if !strings.Contains(out, "2 ran") && !strings.Contains(out, "2 present") {
			t.Errorf("says %q", out)
		}
	}
	if ran != 1 || p.fetched.Load() != 1 {
		t.Errorf("%d ran, fetched %d times: %q", ran, p.fetched.Load(), outs)
	}
	if left, _ := filepath.Glob(filepath.Join(p.dir, "home/.cache/clayer/bin/.*")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestBootThatFails(t *testing.T) {
	t.Parallel()
	p := newProject(t)
	p.must("clayer init boot --release v1.2.3")
	archive := p.archive
	serve := func(a []byte) {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.archive = a
	}
	// A release that was changed since.
	serve(archiveOf(t, "#!/bin/sh\necho clayer v1.2.3 x/y go\n"))
	if out, _, code := p.run("sh boot.sh"); code == 0 || !strings.Contains(out, "checksum mismatch") || !strings.Contains(out, "nothing was installed") {
		t.Errorf("a changed program: exit code %d, %q", code, out)
	}
	serve(archive[:len(archive)/2])
	if out, _, code := p.run("sh boot.sh"); code == 0 || !strings.Contains(out, "nothing was installed") {
		t.Errorf("half an archive: exit code %d, %q", code, out)
	}
	serve(archive)
	if names, _ := os.ReadDir(filepath.Join(p.dir, "home/.cache/clayer/bin")); len(names) != 1 {
		t.Errorf("left behind: %v", names)
	}
	// A step that fails, at length: the session begins, is told, and not flooded.
	p.write("layers/Containerfile.tools", "RUN for i in $(seq 3000); do echo \"line $i of a long story\"; done; exit 3\n")
	out, _, code := p.run("sh boot.sh")
	if code != exitBuild || !strings.Contains(out, "exit code 1") || !strings.Contains(out, "line 3000") {
		t.Errorf("exit code %d, %q", code, out)
	}
	if out, _, code := p.run(`. ./boot.sh; echo "on: $?"`); code != 0 || !strings.HasSuffix(out, "on: 1\n") {
		t.Errorf("a shell that sources it: exit code %d, %q", code, out)
	}
}

// A session begins in any case, with what can be had, and is told what is missing.
func TestBootStartsTheSession(t *testing.T) {
	t.Parallel()
	p := newProject(t)
	p.must("clayer init boot --release v1.2.3")
	p.write("layers/Containerfile.tools", "RUN for i in $(seq 3000); do echo \"line $i of a long story\"; done; exit 3\n")
	const best = "CLAYER_BEST_EFFORT"
	out, errs, code := p.run("unset " + best + "; sh boot.sh sh -c 'echo began'")
	if code != 0 || out != "began\n" || !strings.Contains(errs, "incomplete: tools has 0 of 1 step; layers/Containerfile.tools:1: ") || strings.Contains(errs, "line 3000") {
		t.Errorf("a step that fails: exit code %d, %q, %q", code, out, errs)
	}
	if out := p.must("unset " + best + "; sh boot.sh"); !strings.Contains(out, "to complete it: clayer compose") || !strings.Contains(out, "boot.log") {
		t.Errorf("the report is %q", out)
	}
	if out := p.must("clayer status --report"); !strings.Contains(out, "tools has 0 of 1 step") {
		t.Errorf("the report that is kept is %q", out)
	}
	// Nor does it need clayer.
	elsewhere := "unset " + best + "; HOME=$HOME/other CLAYER_DOWNLOAD_URL=$CLAYER_DOWNLOAD_URL/nowhere "
	if out, errs, code := p.run(elsewhere + "sh boot.sh echo began"); code != 0 || out != "began\n" || !strings.Contains(errs, "nothing was installed") {
		t.Errorf("without clayer: exit code %d, %q, %q", code, out, errs)
	}
	if out, errs, code := p.run(elsewhere + "sh -c '. ./boot.sh && echo began'"); code != 0 || !strings.HasSuffix(out, "began\n") {
		t.Errorf("a shell that sources it, without clayer: exit code %d, %q, %q", code, out, errs)
	}
	// A job that tests has to fail.
	p.must("clayer init github --release v1.2.3")
	if out, _, code := p.run("unset " + best + "; sh .github/clayer-boot.sh"); code != exitBuild {
		t.Errorf("a job: exit code %d, %q", code, out)
	}
}

func TestBootWaitsForTheNetwork(t *testing.T) {
	t.Parallel()
	p := newProject(t)
	p.must("clayer init boot --release v1.2.3")
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: p.handler}
	t.Cleanup(func() { srv.Close() })
	time.AfterFunc(time.Second, func() {
		if l, err := net.Listen("tcp", addr); err == nil {
			_ = srv.Serve(l)
		}
	})
	// A proxy is the network: where nothing listens on this machine, nothing will.
	p.must("sh boot.sh", "http_proxy=http://"+addr, "no_proxy=", "NO_PROXY=", "CLAYER_DOWNLOAD_URL=http://release.example", "CLAYER_TRIES=15")
}

func TestInitRefuses(t *testing.T) {
	t.Parallel()
	p := newProject(t)
	for _, command := range []string{
		"clayer init boot --release v1", "clayer init boot --pins-file boot.pins", "clayer init tmux --release v1.2.3", "clayer init boot --release v1.2.3 --pins-file none",
		"clayer init boot --release v1.2.3 'a;b'", "clayer init",
		"clayer init boot --repo me", "clayer init boot --store s3:x", "clayer init boot --store oci:", "clayer init boot --store 'dir:a b'", "clayer init boot --download-url '$(x)'",
	} {
		if _, errs, code := p.run(command); code != exitUsage {
			t.Errorf("%s: exit code %d: %s", command, code, errs)
		}
	}
	if _, errs, code := p.run("clayer init boot --release v9.9.9"); code == 0 || !strings.Contains(errs, "--pins-file") {
		t.Errorf("a release that is not there: exit code %d: %s", code, errs)
	}
	for _, name := range []string{"boot.sh"} {
		if _, err := os.Stat(filepath.Join(p.dir, name)); err == nil {
			t.Errorf("%s is written", name)
		}
	}
}

// A clayer on PATH is run if it is the release that the hook was made for, and
// otherwise that release is downloaded: from where the session says, or init did.
func TestBootRunsTheClayerOfPath(t *testing.T) {
	t.Parallel()
	p := newProject(t)
	p.write("pins.txt", fmt.Sprintf("%s  clayer_1.2.3_%s_%s\n", p.pin, runtime.GOOS, runtime.GOARCH))
	p.must("clayer init boot --offline --download-url " + p.url + " --release v1.2.3 --pins-file pins.txt")
	p.must("unset CLAYER_DOWNLOAD_URL; sh boot.sh") // PATH has one that is no release
	if p.fetched.Load() != 1 {
		t.Errorf("fetched %d times", p.fetched.Load())
	}
	program := fmt.Sprintf("#!/bin/sh\nif [ \"$1\" = version ]; then echo 'clayer v1.2.3 x/y go'; exit; fi\nexec %s \"$@\"\n", filepath.Join(p.dir, "bin", "clayer"))
	p.write("found/clayer", program)
	if err := os.Chmod(filepath.Join(p.dir, "found", "clayer"), 0o755); err != nil {
		t.Fatal(err)
	}
	env := []string{"HOME=" + filepath.Join(p.dir, "found"), "PATH=" + filepath.Join(p.dir, "found") + ":/usr/bin:/bin"}
	if out := p.must(`sh boot.sh sh -c 'echo "$GREETING"'`, env...); out != "it's here\n" || p.fetched.Load() != 1 {
		t.Errorf("a command has %q, fetched %d times", out, p.fetched.Load())
	}
}

// The script at the top of the repository is the one that hooks carry.
func TestInstallScriptIsTheOneOfHooks(t *testing.T) {
	t.Parallel()
	a, err := os.ReadFile("../../install.sh")
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile("internal/hook/install.sh")
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(a, b) {
		t.Error("install.sh is not internal/hook/install.sh: copy it")
	}
}

// hostWith puts links to programs of this machine into a directory, to be all that
// PATH has.
func (p *project) hostWith(name string, programs ...string) string {
	p.t.Helper()
	dir := filepath.Join(p.dir, name)
	if err := os.Mkdir(dir, 0o755); err != nil {
		p.t.Fatal(err)
	}
	for _, program := range append(programs, "sh", "cat", "chmod", "cut", "grep", "gzip", "head", "mkdir", "mktemp", "mv", "od", "rm", "rmdir", "sed", "sha256sum", "sleep", "tail", "tar", "tr", "uname") {
		path, err := exec.LookPath(program)
		if err != nil {
			p.t.Skip(err)
		}
		if err := os.Symlink(path, filepath.Join(dir, filepath.Base(program))); err != nil {
			p.t.Fatal(err)
		}
	}
	return dir
}

// hostWithPython is hostWith python3 as the only program that fetches.
func (p *project) hostWithPython(name string) string {
	p.t.Helper()
	python, err := exec.Command("python3", "-c", "import sys; print(sys.executable)").Output() // what python3 is, may itself call what PATH lacks
	if err != nil {
		p.t.Skipf("python3: %v", err)
	}
	dir := p.hostWith(name)
	if err := os.Symlink(strings.TrimSpace(string(python)), filepath.Join(dir, "python3")); err != nil {
		p.t.Fatal(err)
	}
	return dir
}

// A host without curl has wget, of GNU or of BusyBox; one without either is told.
func TestBootWithoutCurl(t *testing.T) {
	t.Parallel()
	p := newProject(t)
	p.must("clayer init boot --release v1.2.3")
	if _, err := exec.LookPath("busybox"); err != nil {
		t.Skip(err)
	}
	busybox := p.hostWith("with-busybox")
	if err := testexec.WriteFile(filepath.Join(busybox, "wget"), []byte("#!/bin/sh\nexec /usr/bin/busybox wget \"$@\"\n")); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{p.hostWith("with-wget", "wget"), busybox, p.hostWithPython("with-python")} {
		home := "HOME=" + filepath.Join(p.dir, "home-"+filepath.Base(dir))
		before := p.fetched.Load()
		p.must("sh boot.sh", "PATH="+dir, home)
		if p.fetched.Load() != before+1 {
			t.Errorf("%s: nothing was fetched", dir)
		}
		// What is not there is not asked for again and again.
		out, _, code := p.run("sh boot.sh", "PATH="+dir, home+"-2", "CLAYER_DOWNLOAD_URL="+p.url+"/elsewhere", "CLAYER_TRIES=15")
		if code == 0 || !strings.Contains(out, "404") || strings.Contains(out, "waiting") {
			t.Errorf("%s: a release that is not there: exit code %d, %q", dir, code, out)
		}
	}
	out, _, code := p.run("sh boot.sh", "PATH="+p.hostWith("with-neither"), "HOME="+filepath.Join(p.dir, "home-3"))
	if code == 0 || !strings.Contains(out, "neither curl, wget nor python3") {
		t.Errorf("with neither: exit code %d, %q", code, out)
	}
}

// Any answer is final, for each program that fetches: there are other hosts to ask.
func TestBootAsksOnce(t *testing.T) {
	t.Parallel()
	p := newProject(t)
	p.must("clayer init boot --release v1.2.3")
	var asked atomic.Int32
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		code := 403
		if _, err := fmt.Sscanf(r.URL.Path, "/%d/", &code); err != nil && r.Method != http.MethodConnect {
			code = 400
		}
		w.WriteHeader(code)
	}))
	t.Cleanup(srv.Close)
	busybox := p.hostWith("busybox-wget")
	if path, err := exec.LookPath("busybox"); err != nil {
		t.Skip(err)
	} else if err := testexec.WriteFile(filepath.Join(busybox, "wget"), []byte("#!/bin/sh\nexec "+path+" wget \"$@\"\n")); err != nil {
		t.Fatal(err)
	}
	for name, dir := range map[string]string{"curl": p.hostWith("curl-alone", "curl"), "wget": p.hostWith("wget-alone", "wget"), "busybox": busybox, "python": p.hostWithPython("python-alone")} {
		for _, tt := range []struct {
			url   string
			proxy bool
			tries int32
		}{
			{srv.URL + "/403", false, 1}, {srv.URL + "/401", false, 1}, {srv.URL + "/404", false, 1}, {srv.URL + "/451", false, 1},
			{srv.URL + "/429", false, 1}, {srv.URL + "/408", false, 1}, {srv.URL + "/500", false, 1}, {srv.URL + "/503", false, 1},
			{"https://example.com", true, 1},
		} {
			if tt.proxy && name == "busybox" {
				continue // it has no HTTPS through a proxy
			}
			asked.Store(0)
			env := []string{"PATH=" + dir, "HOME=" + p.dir + "/home-" + name, "CLAYER_TRIES=2", "CLAYER_DOWNLOAD_URL=" + tt.url}
			if tt.proxy {
				env = append(env, "https_proxy="+srv.URL)
			}
			out, _, code := p.run("sh boot.sh", env...)
			if code == 0 || !strings.Contains(out, "cannot download") || strings.HasSuffix(tt.url, "/403") && !strings.Contains(out, "CLAYER_DOWNLOAD_URL to a mirror") {
				t.Errorf("%s: %s: exit code %d, %q", name, tt.url, code, out)
			}
			if n := asked.Load(); n != tt.tries {
				t.Errorf("%s: %s: asked %d times, want %d: %q", name, tt.url, n, tt.tries, out)
			}
		}
	}
}

// A host that refuses connections gets a moment, and a network that is not up yet
// 30 s; the script distinguishes them. Its sleeps are counted, not slept.
func TestBootWaitsForANetworkNotForARefusal(t *testing.T) {
	t.Parallel()
	p := newProject(t)
	p.must("clayer init boot --release v1.2.3")
	gone := httptest.NewServer(http.NotFoundHandler())
	gone.Close()
	fake := func(code int, text string) string {
		return fmt.Sprintf("#!/bin/sh\necho '%s' >&2\nexit %d\n", text, code)
	}
	for name, tt := range map[string]struct {
		tool, text  string // a program that fetches; the machine's own if there is no text
		env         string
		least, most int // seconds
	}{
		"curl":             {tool: "curl", most: 5},
		"wget":             {tool: "wget", most: 5},
		"busybox":          {tool: "wget", text: "#!/bin/sh\nexec /usr/bin/busybox wget \"$@\"\n", most: 5},
		"a newer curl":     {tool: "curl", text: fake(7, "curl: (7) Failed to connect to 127.0.0.1 port 1 after 0 ms: Could not connect to server"), most: 5},
		"no name server":   {tool: "curl", text: fake(6, "curl: (6) Could not resolve host: example.com"), least: 24, most: 30},
		"no route":         {tool: "curl", text: fake(7, "curl: (7) Failed to connect to 192.0.2.1: Network is unreachable"), least: 24, most: 30},
		"no proxy yet":     {tool: "curl", env: "http_proxy=" + gone.URL, least: 24, most: 30},
		"no proxy for it":  {tool: "curl", env: "http_proxy=" + gone.URL + " no_proxy=example.com,127.0.0.1", most: 5},
		"for its domain":   {tool: "curl", text: fake(7, "curl: (7) refused"), env: "https_proxy=" + gone.URL + " NO_PROXY=.0.1 no_proxy=", most: 5},
		"for another host": {tool: "curl", env: "http_proxy=" + gone.URL + " no_proxy=27.0.0.1", least: 24, most: 30},
		"another language": {tool: "curl", text: "#!/bin/sh\n[ \"$LC_ALL\" = C ] && echo 'curl: (7) Could not connect' >&2 || echo 'Verbindung abgelehnt' >&2\nexit 7\n", env: "LC_ALL=de_DE.UTF-8", most: 5},
		"wget in German":   {tool: "wget", text: "#!/bin/sh\n[ \"$LC_ALL\" = C ] && echo 'failed: Connection refused.' >&2 || echo 'Verbindungsaufbau abgelehnt' >&2\nexit 4\n", env: "LC_ALL=de_DE.UTF-8", most: 5},
		"no answer at all": {tool: "curl", text: fake(28, "curl: (28) Connection timed out"), most: 5},
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(p.dir, "host-"+strings.ReplaceAll(name, " ", "-"))
			host := []string{tt.tool}
			if tt.text != "" {
				host = nil
			}
			p.hostWith(filepath.Base(dir), host...)
			slept := filepath.Join(dir, "slept")
			programs := map[string]string{"sleep": "#!/bin/sh\necho \"$1\" >> " + slept + "\n"}
			if tt.text != "" {
				programs[tt.tool] = tt.text
			}
			for name, text := range programs {
				_ = os.Remove(filepath.Join(dir, name))
				if err := testexec.WriteFile(filepath.Join(dir, name), []byte(text)); err != nil {
					t.Fatal(err)
				}
			}
			env := []string{"PATH=" + dir, "HOME=" + dir, "CLAYER_DOWNLOAD_URL=" + gone.URL, "CLAYER_TRIES=", "no_proxy=", "NO_PROXY=", "http_proxy="}
			out, _, code := p.run("sh boot.sh", append(env, strings.Fields(tt.env)...)...)
			if code == 0 || !strings.Contains(out, "cannot download") {
				t.Errorf("exit code %d, %q", code, out)
			}
			waits, err := os.ReadFile(slept)
			if err != nil && !errors.Is(err, os.ErrNotExist) {
				t.Fatal(err)
			}
			total := 0
			for s := range strings.FieldsSeq(string(waits)) {
				n, err := strconv.Atoi(s)
				if err != nil {
					t.Fatal(err)
				}
				total += n
			}
			if total < tt.least || total > tt.most {
				t.Errorf("slept %d s, want %d to %d: %q", total, tt.least, tt.most, out)
			}
		})
	}
}

// A signal ends a boot that waits for a server.
func TestSignalEndsABootThatFetches(t *testing.T) {
	t.Parallel()
	p := newProject(t)
	p.must("clayer init boot --release v1.2.3")
	asked := make(chan struct{})
	var once sync.Once
	gone := make(chan struct{})
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		once.Do(func() { close(asked) })
		<-r.Context().Done()
		close(gone)
	}))
	t.Cleanup(srv.Close)
	cmd := exec.Command("sh", "boot.sh")
	cmd.Dir = p.dir
	cmd.Env = append(append(os.Environ(), onlyMirror()...), strict, "HOME="+p.dir+"/home", "CLAYER_DOWNLOAD_URL="+srv.URL, "no_proxy=127.0.0.1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	<-asked
	start := time.Now()
	if err := syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err == nil {
		t.Error("no error")
	}
	<-gone // what fetched has ended too
	if took := time.Since(start); took > 10*time.Second {
		t.Errorf("after %v", took)
	}
	// The shell that was started does not wait for the ones that tidy up.
	for {
		left, _ := filepath.Glob(filepath.Join(p.dir, "home/.cache/clayer/bin/.*"))
		if len(left) == 0 {
			break
		}
		if time.Since(start) > time.Minute {
			t.Fatalf("left behind: %v", left)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// Killed while it fetches, and while it composes, a boot is in nobody's way: the
// next one starts again, and nothing is left of the first.
func TestBootKilledHalfWay(t *testing.T) {
	t.Parallel()
	p := newProject(t)
	p.must("clayer init boot --release v1.2.3")
	p.write("layers/Containerfile.tools", "RUN [ -e /go-on ] || { echo waiting; sleep 60; }; echo tools > /tools\n")
	half := make(chan struct{}, 8)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !strings.HasSuffix(r.URL.Path, ".gz") {
			p.handler.ServeHTTP(w, r)
			return
		}
		w.Header().Set("Content-Length", fmt.Sprint(len(p.archive)))
		_, _ = w.Write(p.archive[:len(p.archive)/2])
		w.(http.Flusher).Flush()
		half <- struct{}{}
		<-r.Context().Done()
	}))
	t.Cleanup(srv.Close)
	bin := filepath.Join(p.dir, "home/.cache/clayer/bin")
	kill := func(url string, when func()) {
		t.Helper()
		cmd := exec.Command("sh", "boot.sh")
		cmd.Dir = p.dir
		cmd.Env = append(onlyMirror(), "PATH="+filepath.Join(p.dir, "bin")+":/usr/bin:/bin", "HOME="+filepath.Join(p.dir, "home"),
			"CLAYER_ROOT="+filepath.Join(p.dir, "root"), "CLAYER_DOWNLOAD_URL="+url, "no_proxy=127.0.0.1")
		cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		when()
		if err := syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL); err != nil {
			t.Error(err)
		}
		_ = cmd.Wait()
	}
	kill(srv.URL, func() { <-half })
	if left, _ := filepath.Glob(filepath.Join(bin, ".clayer-*")); len(left) != 1 {
		t.Errorf("it was not killed half-way: %v", left)
	}
	kill(p.url, func() {
		for range 600 {
			log, _ := os.ReadFile(filepath.Join(bin, "boot.log"))
			stored, _ := filepath.Glob(filepath.Join(p.dir, "home/.cache/clayer/store/keys/*"))
			if bytes.Contains(log, []byte("waiting")) && len(stored) > 0 { // the step before is stored in the background
				return
			}
			time.Sleep(50 * time.Millisecond)
		}
		t.Error("it does not store the first step and begin the second")
	})
	p.write("root/go-on", "")
	if out := p.must("sh boot.sh"); !strings.Contains(out, "1 ran") {
		t.Errorf("says %q", out)
	}
	if p.read("root/tools") != "tools\n" {
		t.Error("not composed")
	}
	if left, _ := filepath.Glob(filepath.Join(bin, ".*")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}
