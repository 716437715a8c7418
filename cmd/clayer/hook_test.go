//go:build linux

package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// project is a folder with layers, and a release of clayer on loopback, which is
// this test binary.
type project struct {
	t       *testing.T
	dir     string
	url     string
	mu      sync.Mutex // of what the server reads
	archive []byte
	sums    []byte
	fetched atomic.Int32 // how often the archive was
	handler http.Handler
}

func newProject(t *testing.T) *project {
	t.Helper()
	requireSandbox(t)
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
	if err := makeRoot(filepath.Join(p.dir, "root")); err != nil {
		t.Fatal(err)
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	clayer := filepath.Join(p.dir, "bin", "clayer")
	if err := os.Symlink(exe, clayer); err != nil {
		t.Fatal(err)
	}
	program := fmt.Sprintf("#!/bin/sh\nif [ \"$1\" = version ]; then echo 'clayer v1.2.3 x/y go'; exit; fi\nexec %s \"$@\"\n", clayer)
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	w := tar.NewWriter(z)
	if err := w.WriteHeader(&tar.Header{Name: "clayer", Mode: 0o755, Size: int64(len(program))}); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write([]byte(program)); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	p.archive = b.Bytes()
	name := fmt.Sprintf("clayer_%s_%s.tar.gz", runtime.GOOS, runtime.GOARCH)
	p.sums = fmt.Appendf(nil, "%064x  clayer_plan9_386.tar.gz\n%x  %s\n", 1, sha256.Sum256(p.archive), name)
	mux := http.NewServeMux()
	mux.HandleFunc("/download/v1.2.3/checksums.txt", func(w http.ResponseWriter, _ *http.Request) {
		p.mu.Lock()
		defer p.mu.Unlock()
		_, _ = w.Write(p.sums)
	})
	mux.HandleFunc("/download/v1.2.3/"+name, func(w http.ResponseWriter, _ *http.Request) {
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
	}, env...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	_ = cmd.Run()
	if out.Len() > 2048 {
		p.t.Errorf("%s: %d bytes on stdout", command, out.Len())
	}
	return out.String(), errs.String(), cmd.ProcessState.ExitCode()
}

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
	p := newProject(t)
	p.write(".claude/settings.json", `{"permissions": {"allow": ["Bash"]}, "hooks": {"Stop": [], "SessionStart": [{"hooks": []}]}, "a": 1}`)
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
	command := s.Hooks.SessionStart[1].Hooks[0].Command

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

	// The action, as the runner runs its step.
	action, err := os.ReadFile("../../action.yml")
	if err != nil {
		t.Fatal(err)
	}
	_, block, _ := strings.Cut(string(action), "      run: |\n")
	var script strings.Builder
	for line := range strings.Lines(block) {
		script.WriteString(strings.TrimPrefix(line, "        "))
	}
	top, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	p.write("step.sh", script.String())
	p.write("genv", "")
	p.write("gpath", "")
	p.must("bash --noprofile --norc -eo pipefail step.sh", append(env, "GITHUB_ACTION_PATH="+top, "LAYERS=base tools",
		"CLAYER_VERSION=v1.2.3", "CLAYER_CHECKSUMS="+fmt.Sprintf("%x", sha256.Sum256(p.sums)), "CLAYER_INSTALL_DIR="+filepath.Join(p.dir, "tool"))...)
	if got := p.read("gpath"); got != filepath.Join(p.dir, "tool")+"\n/opt/x/bin\n" || !strings.Contains(p.read("genv"), "it's here") {
		t.Errorf("the action: %q, %q", got, p.read("genv"))
	}
	if p.read("root/tools") != "tools\n" {
		t.Error("the action did not compose")
	}
}

func TestHookOfADevcontainer(t *testing.T) {
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
	// One with comments is the user's to change; it is said how.
	const theirs = "{\n\t// mine\n\t\"image\": \"debian\"\n}\n"
	p.write(".devcontainer/devcontainer.json", theirs)
	if _, errs, code := p.run("clayer init devcontainer --release v1.2.3"); code != exitUsage || !strings.Contains(errs, `add "postCreateCommand"`) {
		t.Errorf("exit code %d: %s", code, errs)
	}
	if p.read(".devcontainer/devcontainer.json") != theirs {
		t.Error("it is changed")
	}
}

func TestBootScript(t *testing.T) {
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
	p := newProject(t)
	p.must("clayer init boot --release v1.2.3")
	// The lock of one that was killed.
	p.write("home/.cache/clayer/bin/.boot/pid", "999999999\n")
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
	p := newProject(t)
	p.must("clayer init boot --release v1.2.3")
	archive, sums := p.archive, p.sums
	serve := func(a, s []byte) {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.archive, p.sums = a, s
	}
	// A release that was changed since.
	serve(append(bytes.Clone(archive), 0), sums)
	if out, _, code := p.run("sh boot.sh"); code == 0 || !strings.Contains(out, "nothing is installed") {
		t.Errorf("a changed archive: exit code %d, %q", code, out)
	}
	serve(archive, append(bytes.Clone(sums), '\n'))
	if out, _, code := p.run("sh boot.sh"); code == 0 || !strings.Contains(out, "is not the one whose SHA-256 is") {
		t.Errorf("changed checksums: exit code %d, %q", code, out)
	}
	serve(archive, sums)
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

func TestBootWaitsForTheNetwork(t *testing.T) {
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
	p.must("sh boot.sh", "CLAYER_DOWNLOAD_URL=http://"+addr, "CLAYER_TRIES=15")
}

func TestInitWantsARelease(t *testing.T) {
	p := newProject(t)
	for _, command := range []string{
		"clayer init boot", "clayer init boot --release v1", "clayer init tmux --release v1.2.3", "clayer init boot --release v1.2.3 --checksums 12ab",
		"clayer init boot --release v1.2.3 'a;b'", "clayer init",
	} {
		if _, errs, code := p.run(command); code != exitUsage {
			t.Errorf("%s: exit code %d: %s", command, code, errs)
		}
	}
	if _, errs, code := p.run("clayer init boot --release v9.9.9"); code == 0 || !strings.Contains(errs, "--checksums") {
		t.Errorf("a release that is not there: exit code %d: %s", code, errs)
	}
	for _, name := range []string{"boot.sh"} {
		if _, err := os.Stat(filepath.Join(p.dir, name)); err == nil {
			t.Errorf("%s is written", name)
		}
	}
}

// The script at the top of the repository is the one that hooks carry.
func TestInstallScriptIsTheOneOfHooks(t *testing.T) {
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

// What a release is named by is what install.sh asks for.
func TestReleaseIsNamedAsHooksWantIt(t *testing.T) {
	config, err := os.ReadFile("../../.goreleaser.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{
		`name_template: "clayer_{{ .Os }}_{{ .Arch }}"`, "name_template: checksums.txt", "formats: [tar.gz]",
		"goos: [linux, darwin]", "goarch: [amd64, arm64]", "-X main.version=v{{ .Version }}",
	} {
		if !bytes.Contains(config, []byte(line)) {
			t.Errorf(".goreleaser.yaml has no %s", line)
		}
	}
}
