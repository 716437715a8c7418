package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
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

	"go.yaml.in/yaml/v3"

	"github.com/clayer/clayer/cmd/clayer/internal/clitest"
	"github.com/clayer/clayer/internal/testexec"
)

// hostUser is a plain user of a host, without a name on this machine.
const hostUser = 424242

// Files of a new machine's home, as Ubuntu has them: .bashrc ends early in shells that are not
// interactive.
const (
	ubuntuBashrc  = "# ~/.bashrc: executed by bash(1) for non-login shells.\ncase $- in\n    *i*) ;;\n      *) return;;\nesac\nHISTSIZE=1000\n"
	ubuntuProfile = "if [ -n \"$BASH_VERSION\" ]; then\n    if [ -f \"$HOME/.bashrc\" ]; then\n\t. \"$HOME/.bashrc\"\n    fi\nfi\n"
)

// hostRun is a machine of a host: new, with the checkout of a project.
type hostRun struct {
	t            *testing.T
	dir          string // what the machine has: root, home, the checkouts
	project      string
	plain, sudo  bool // a user without rights; who may become root by sudo
	env          []string
	stdout       string
	name, pasted string
}

// sh runs a script as the host does, by a shell with its options, in dir.
func (m *hostRun) sh(dir, script string, shell ...string) string {
	m.t.Helper()
	cmd := exec.CommandContext(m.t.Context(), shell[0], append(shell[1:], script)...)
	cmd.Dir, cmd.Env = dir, m.env
	if m.plain {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: hostUser, Gid: hostUser}}
	}
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		log, _ := os.ReadFile(filepath.Join(m.dir, "home/.cache/clayer/bin/boot.log"))
		m.t.Fatalf("%s: %v\n%s%s%s", script, err, out.Bytes(), errs.Bytes(), log)
	}
	return out.String()
}

func (m *hostRun) read(name string) string {
	m.t.Helper()
	data, err := os.ReadFile(filepath.Join(m.dir, name))
	if err != nil {
		m.t.Fatal(err)
	}
	return string(data)
}

// yaml reads a file of the project.
func (m *hostRun) yaml(name string) map[string]any {
	m.t.Helper()
	var v map[string]any
	if err := yaml.Unmarshal([]byte(m.read("checkouts/project/"+name)), &v); err != nil {
		m.t.Fatalf("%s: %v", name, err)
	}
	return v
}

// at returns what is in nested maps and lists.
func at(v any, path ...any) any {
	for _, key := range path {
		switch k := key.(type) {
		case int:
			list, _ := v.([]any)
			if k < 0 {
				k += len(list)
			}
			if k < 0 || k >= len(list) {
				return nil
			}
			v = list[k]
		default:
			m, _ := v.(map[string]any)
			v = m[fmt.Sprint(k)]
		}
	}
	return v
}

// jsonc reads a file of JSON with comments, as far as those of the tests go.
func (m *hostRun) jsonc(name string) map[string]any {
	m.t.Helper()
	text := regexp.MustCompile(`(?m)(^|\s)//.*$|/\*.*?\*/`).ReplaceAllString(m.read("checkouts/project/"+name), "")
	text = regexp.MustCompile(`,(\s*[}\]])`).ReplaceAllString(text, "$1")
	var v map[string]any
	if err := json.Unmarshal([]byte(text), &v); err != nil {
		m.t.Fatalf("%s: %v\n%s", name, err, text)
	}
	return v
}

// boots have the host of a kind start a session, and return what a shell of its agent prints
// for a script.
var boots = map[string]struct {
	plain bool
	env   []string
	run   func(m *hostRun)
	agent func(m *hostRun, script string) string
	files map[string]string // that a project has already
	stays []string          // what of them has to stay, as it is
}{
	"claude": {
		env: []string{"CLAUDE_CODE_REMOTE=true"},
		run: func(m *hostRun) {
			m.env = append(m.env, "CLAUDE_ENV_FILE="+filepath.Join(m.dir, "home/session.env"), "CLAUDE_PROJECT_DIR="+m.project)
			hook := m.jsonc(".claude/settings.json")
			entry := at(hook, "hooks", "SessionStart", -1, "hooks", 0)
			if at(entry, "timeout") != 600.0 {
				m.t.Errorf("the hook is %v", entry)
			}
			m.stdout = m.sh(filepath.Dir(m.project), at(entry, "command").(string), "sh", "-c")
		},
		agent: func(m *hostRun, script string) string {
			return m.sh(m.project, ". \"$CLAUDE_ENV_FILE\"\n"+script, "bash", "-c")
		},
		files: map[string]string{".claude/settings.json": "{\n\t\"permissions\": {\"allow\": [\"Bash(a && b)\"]},\n\t\"hooks\": {\n\t\t\"SessionStart\": [\n\t\t\t{\"hooks\": [{\"type\": \"command\", \"command\": \"mine\"}]}\n\t\t]\n\t}\n}\n"},
		stays: []string{"\t\"permissions\": {\"allow\": [\"Bash(a && b)\"]},\n", "\t\t\t{\"hooks\": [{\"type\": \"command\", \"command\": \"mine\"}]},\n"},
	},
	"claude-setup": { // of several repositories, with the variables of the panel, which are empty
		env:   []string{"CLAYER_STORE=", "GH_TOKEN=", "CLAYER_BUDGET="},
		run:   func(m *hostRun) { m.stdout = m.sh(filepath.Dir(m.project), m.pasted, "bash", "-c") },
		agent: func(m *hostRun, script string) string { return m.sh(m.project, script, "bash", "-lc") },
	},
	"codex": {
		run:   func(m *hostRun) { m.stdout = m.sh(m.project, m.pasted, "bash", "-c") },
		agent: func(m *hostRun, script string) string { return m.sh(m.project, script, "bash", "-lc") },
	},
	"cursor": {
		plain: true,
		run: func(m *hostRun) {
			m.stdout = m.sh(m.project, at(m.jsonc(".cursor/environment.json"), "install").(string), "bash", "-c")
		},
		agent: func(m *hostRun, script string) string { return m.sh(m.project, script+" 2>/dev/null", "bash", "-ic") },
		files: map[string]string{".cursor/environment.json": "{\n    // the machine\n    \"snapshot\": \"snapshot-1\",\n    \"install\": \"echo \\\"theirs\\\" > theirs\", // it is quick\n    \"terminals\": [],\n}\n"},
		stays: []string{"    // the machine\n    \"snapshot\": \"snapshot-1\",\n", "&& echo \\\"theirs\\\" > theirs\", // it is quick\n    \"terminals\": [],\n}\n"},
	},
	"copilot": {
		plain: true,
		run: func(m *hostRun) {
			steps := m.yaml(".github/workflows/copilot-setup-steps.yml")
			step := at(steps, "jobs", "copilot-setup-steps", "steps", 1)
			if minutes, _ := at(step, "timeout-minutes").(int); minutes != 21 || !strings.Contains(fmt.Sprint(at(steps, "jobs", "copilot-setup-steps", "steps", 0)), "actions/checkout@") {
				m.t.Errorf("the steps are %v", steps)
			}
			m.github(at(step, "run").(string))
		},
		agent: (*hostRun).githubStep,
		files: map[string]string{".github/workflows/copilot-setup-steps.yml": "# Ours.\non: workflow_dispatch\njobs:\n  copilot-setup-steps:\n    runs-on: ubuntu-latest # small\n    steps:\n    # the code\n    - uses: actions/checkout@v5\n      with: {fetch-depth: 0}\n\n    # what it needs\n    - run: |\n        # npm\n        npm ci\n"},
		stays: []string{"# Ours.\n", "    runs-on: ubuntu-latest # small\n    steps:\n    # the code\n    - uses: actions/checkout@v5\n      with: {fetch-depth: 0}\n", "\n    # what it needs\n    - run: |\n        # npm\n        npm ci\n"},
	},
	"github": {
		run: func(m *hostRun) {
			var steps []any
			if err := yaml.Unmarshal([]byte(m.pasted), &steps); err != nil {
				m.t.Fatal(err)
			}
			m.github(at(steps, 0, "run").(string))
		},
		agent: (*hostRun).githubStep,
	},
	"gitlab": { // the commands of a job are one script
		env: []string{"CI=true"},
		run: func(m *hostRun) {
			if got := at(m.yaml(".gitlab-ci.yml"), "include", -1, "local"); got != ".gitlab/clayer.yml" {
				m.t.Errorf("it includes %v", got)
			}
			m.stdout = m.sh(m.project, "set -eo pipefail\n"+at(m.yaml(".gitlab/clayer.yml"), ".clayer", "before_script", 0).(string), "bash", "-c")
		},
		agent: func(m *hostRun, script string) string {
			return m.sh(m.project, "set -eo pipefail\n"+at(m.yaml(".gitlab/clayer.yml"), ".clayer", "before_script", 0).(string)+" >/dev/null\n"+script, "bash", "-c")
		},
		files: map[string]string{".gitlab-ci.yml": "# Ours.\r\ninclude:\r\n  - template: x.yml # theirs\r\nbuild:\r\n  script: [make]\r\n"},
		stays: []string{"# Ours.\r\ninclude:\r\n  - template: x.yml # theirs\r\n", "\r\nbuild:\r\n  script: [make]\r\n"},
	},
	"devcontainer": {
		plain: true,
		env:   []string{"container=docker"},
		run: func(m *hostRun) {
			m.stdout = m.sh(m.project, at(m.jsonc(".devcontainer/devcontainer.json"), "postCreateCommand").(string), "sh", "-c")
		},
		agent: func(m *hostRun, script string) string { return m.sh(m.project, script+" 2>/dev/null", "bash", "-ic") },
		files: map[string]string{".devcontainer/devcontainer.json": "// For the team.\n{\n\t// small\n\t\"image\": \"debian\", /* or not */\n\t\"features\": {} // none\n}\n"},
		stays: []string{"// For the team.\n{\n\t// small\n\t\"image\": \"debian\", /* or not */\n\t\"features\": {}, // none\n"},
	},
	"jules": {
		plain: true,
		run:   func(m *hostRun) { m.stdout = m.sh(m.project, m.pasted, "bash", "-c") },
		agent: func(m *hostRun, script string) string { return m.sh(m.project, script, "bash", "-lc") },
	},
	"boot": {
		env: []string{"CLAYER_YES=1"},
		run: func(m *hostRun) { m.stdout = m.sh(filepath.Dir(m.project), "sh project/boot.sh", "sh", "-c") },
		agent: func(m *hostRun, script string) string {
			return m.sh(m.project, "sh boot.sh sh -c '"+script+"'", "sh", "-c")
		},
	},
}

// github runs a step as the runner does.
func (m *hostRun) github(command string) {
	m.env = append(m.env, "GITHUB_ACTIONS=true", "GITHUB_ENV="+filepath.Join(m.dir, "home/genv"), "GITHUB_PATH="+filepath.Join(m.dir, "home/gpath"))
	m.sh(m.dir, "touch home/genv home/gpath", "sh", "-c")
	m.stdout = m.sh(m.project, command, "bash", "-e", "-c")
}

// githubStep runs a later step.
func (m *hostRun) githubStep(script string) string {
	env := slices.Clone(m.env)
	for _, v := range regexp.MustCompile(`(?s)(\w+)<<(\w+)\n(.*?)\n(CLAYER_END)\n`).FindAllStringSubmatch(m.read("home/genv"), -1) {
		m.env = append(m.env, v[1]+"="+v[3])
	}
	for dir := range strings.Lines(m.read("home/gpath")) {
		m.env = append(m.env, "PATH="+strings.TrimSpace(dir)+":/usr/bin:/bin")
	}
	defer func() { m.env = env }()
	return m.sh(m.project, script, "bash", "-e", "-c")
}

// tree returns all files below dir.
func tree(t *testing.T, dir string) map[string]string {
	t.Helper()
	files := make(map[string]string)
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := os.ReadFile(path)
		files[path] = string(data)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// hostGround is what the machines of all hosts share: the program, and a store that a web
// server serves.
type hostGround struct{ top, bin, store, url string }

// withSudo has a plain user become root by sudo: it may, without a password, and keep its
// variables, as on the runners of CI. The root is root's.
func (g *hostGround) withSudo(m *hostRun) {
	m.t.Helper()
	if os.Getuid() != 0 {
		m.t.Skip("only root can make a sudo")
	}
	setpriv, err := exec.LookPath("setpriv")
	if err != nil {
		m.t.Skip(err)
	}
	dir := filepath.Join(m.dir, "sudo")
	if err := os.Mkdir(dir, 0o750); err != nil {
		m.t.Fatal(err)
	}
	text := "#!/bin/sh\n[ \"$1 $2\" = '-n -E' ] || exit 1\nshift 2\nPATH=/usr/bin:/bin\nSUDO_UID=$(id -u) HOME=/root exec " + dir + "/become --reuid 0 --regid 0 --clear-groups \"$@\"\n"
	err = errors.Join(os.Chown(dir, 0, hostUser), testexec.WriteFile(filepath.Join(dir, "sudo"), []byte(text)), testexec.Copy(filepath.Join(dir, "become"), setpriv))
	if err == nil {
		err = os.Chmod(filepath.Join(dir, "become"), 0o755|fs.ModeSetuid)
	}
	if err != nil {
		m.t.Fatal(err)
	}
	m.plain, m.sudo = true, true
	m.env[0] += ":" + dir
	try := exec.Command(filepath.Join(dir, "sudo"), "-n", "-E", "id", "-u")
	try.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: hostUser, Gid: hostUser}}
	if out, err := try.CombinedOutput(); string(out) != "0\n" {
		m.t.Skipf("this file system has no programs that become root: %s, %v", out, err)
	}
}

func newHostGround(t *testing.T) *hostGround {
	clitest.RequireSandbox(t)
	if _, err := exec.LookPath("bash"); err != nil {
		t.Skip(err)
	}
	g := &hostGround{top: t.TempDir()}
	g.bin, g.store = filepath.Join(g.top, "bin"), filepath.Join(g.top, "store")
	site := httptest.NewServer(http.FileServer(http.Dir(g.store)))
	t.Cleanup(site.Close)
	g.url = site.URL
	for _, dir := range []string{g.top, filepath.Dir(g.top)} { // plain users come here
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(g.bin, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := testexec.Copy(filepath.Join(g.bin, "clayer"), clayerProgram(t)); err != nil {
		t.Fatal(err)
	}
	return g
}

// machine is a new one with a checkout of the project, and another one beside it.
func (g *hostGround) machine(t *testing.T, name string) *hostRun {
	t.Helper()
	b := boots[name]
	m := &hostRun{t: t, name: name, dir: filepath.Join(g.top, strings.ReplaceAll(t.Name(), "/", "-")), plain: b.plain && os.Getuid() == 0}
	m.project = filepath.Join(m.dir, "checkouts/project")
	m.write("checkouts/project/.claude/container-layers.json", `{"layers": ["base", "tools"]}`)
	m.write("checkouts/project/layers/Containerfile", "ENV GREETING=\"it's here\" PATH=/opt/x/bin:$PATH\nRUN echo base > /base\n")
	m.write("checkouts/project/layers/Containerfile.tools", "RUN echo tools > /tools\n")
	m.write("checkouts/another/README.md", "no layers\n")
	m.write("home/.bashrc", ubuntuBashrc)
	m.write("home/.profile", ubuntuProfile)
	root := filepath.Join(m.dir, "root")
	if err := os.Mkdir(root, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := clitest.MakeRoot(root); err != nil {
		t.Fatal(err)
	}
	m.env = append([]string{"PATH=" + g.bin + ":/usr/bin:/bin", "HOME=" + filepath.Join(m.dir, "home"), "CLAYER_ROOT=" + root, "no_proxy=127.0.0.1"}, b.env...)
	return m
}

func (m *hostRun) write(name, text string) {
	m.t.Helper()
	path := filepath.Join(m.dir, name)
	err := os.MkdirAll(filepath.Dir(path), 0o755)
	if err == nil {
		err = os.WriteFile(path, []byte(text), 0o644)
	}
	if err != nil {
		m.t.Fatal(err)
	}
}

// init runs clayer init for the host, on the machine of a developer.
func (g *hostGround) init(m *hostRun) string {
	m.t.Helper()
	cmd := exec.Command(filepath.Join(g.bin, "clayer"), "init", m.name, "--store="+g.url)
	cmd.Dir, cmd.Env = m.project, []string{"HOME=" + g.top, "PATH=/usr/bin:/bin"}
	var errs bytes.Buffer
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		m.t.Fatalf("init %s: %v\n%s", m.name, err, errs.Bytes())
	}
	return string(out)
}

// Each host: init writes what it reads, twice the same; merges it into what is there; and the
// host's machine, new and with the user that it runs, restores the environment, which the
// agent's shells then have.
func TestInitForEachHost(t *testing.T) {
	t.Parallel()
	g := newHostGround(t)
	t.Run("build", func(t *testing.T) {
		m := g.machine(t, "boot")
		m.sh(m.project, "clayer compose --store=dir:"+g.store, "sh", "-c")
	})
	for _, name := range slices.Sorted(maps.Keys(boots)) {
		t.Run(name, func(t *testing.T) { g.session(g.machine(t, name)) })
		if boots[name].plain || name == "github" {
			t.Run(name+" by sudo", func(t *testing.T) {
				m := g.machine(t, name)
				g.withSudo(m)
				g.session(m)
			})
		}
		if boots[name].files == nil {
			continue
		}
		t.Run(name+" merged", func(t *testing.T) {
			m := g.machine(t, name)
			for file, text := range boots[name].files {
				m.write("checkouts/project/"+file, text)
			}
			g.session(m)
			for file := range boots[name].files {
				for _, part := range boots[name].stays {
					if text := m.read("checkouts/project/" + file); !strings.Contains(text, part) {
						t.Errorf("%s has not %q:\n%s", file, part, text)
					}
				}
			}
			if name == "cursor" && m.read("checkouts/project/theirs") != "theirs\n" {
				t.Error("their own install did not run")
			}
		})
	}
}

// The action changes the root by sudo too.
func TestActionBySudo(t *testing.T) {
	t.Parallel()
	if info, err := os.Stat("/usr/bin/node"); err != nil || info.Mode()&0o001 == 0 {
		t.Skip("there is no /usr/bin/node")
	}
	g := newHostGround(t)
	m := g.machine(t, "github")
	for _, file := range []string{"action.js", "install.sh"} {
		if err := testexec.Copy(filepath.Join(g.bin, file), filepath.Join("../..", file)); err != nil {
			t.Fatal(err)
		}
	}
	// The clayer of the machine is the version that is wanted.
	program := "#!/bin/sh\nif [ \"$1\" = version ]; then echo 'clayer v1.2.3 x/y go'; exit; fi\nexec " + g.bin + "/clayer \"$@\"\n"
	m.write("first/README", "") // for its directory
	if err := testexec.WriteFile(filepath.Join(m.dir, "first/clayer"), []byte(program)); err != nil {
		t.Fatal(err)
	}
	g.withSudo(m)
	m.env[0] = strings.Replace(m.env[0], "PATH=", "PATH="+filepath.Join(m.dir, "first")+":", 1)
	m.write("home/genv", "")
	m.write("home/gpath", "")
	m.env = append(m.env, "CI=true", "GITHUB_ENV="+filepath.Join(m.dir, "home/genv"), "GITHUB_PATH="+filepath.Join(m.dir, "home/gpath"), "RUNNER_TEMP="+filepath.Join(m.dir, "home"), "INPUT_VERSION=v1.2.3", "INPUT_LAYERS=base tools")
	if out, err := exec.Command("chown", "-R", fmt.Sprint(hostUser), filepath.Join(m.dir, "home")).CombinedOutput(); err != nil {
		t.Fatalf("chown: %s", out)
	}
	m.sh(m.project, "node "+g.bin+"/action.js", "sh", "-c")
	if m.read("root/base")+m.read("root/tools") != "base\ntools\n" || !strings.Contains(m.read("home/genv"), "it's here") {
		t.Errorf("the environment is not there: %s", m.read("home/genv"))
	}
}

// session writes what the host reads, and starts a session there.
func (g *hostGround) session(m *hostRun) {
	b := boots[m.name]
	m.pasted = g.init(m)
	written := tree(m.t, m.project)
	if again := g.init(m); again != m.pasted || !maps.Equal(written, tree(m.t, m.project)) {
		m.t.Errorf("a second init changes what the first one wrote")
	}
	if m.plain {
		owned := []string{"-R", fmt.Sprintf("%d:%[1]d", hostUser), filepath.Join(m.dir, "home"), filepath.Join(m.dir, "checkouts")}
		if !m.sudo {
			owned = append(owned, m.dir)
		}
		if out, err := exec.Command("chown", owned...).CombinedOutput(); err != nil {
			m.t.Fatalf("chown: %s", out)
		}
	}
	b.run(m)
	if !strings.Contains(m.stdout, "2 restored") {
		m.t.Errorf("the boot says %q", m.stdout)
	}
	if m.read("root/base")+m.read("root/tools") != "base\ntools\n" {
		m.t.Error("the environment is not there")
	}
	const script = `echo "$GREETING|$PATH"`
	if got := b.agent(m, script); !strings.HasPrefix(got, "it's here|/opt/x/bin:") {
		m.t.Errorf("a shell of the agent has %q", got)
	}
	// A second boot has nothing to do.
	bashrc := m.read("home/.bashrc")
	b.run(m)
	if !strings.Contains(m.stdout, "present") {
		m.t.Errorf("the second boot says %q", m.stdout)
	}
	if m.read("home/.bashrc") != bashrc {
		m.t.Error("a second boot changes .bashrc")
	}
}

// No credential of this machine, or of the command line, gets into a script.
func TestInitWritesNoCredential(t *testing.T) {
	t.Parallel()
	p := newProject(t)
	const secret = "s3cr3t-0123456789"
	p.write("home/.config/clayer/clayer.toml", "stores = [\"https://example.com/env\"]\n")
	p.write("home/.netrc", "machine example.com login me password "+secret+"\n")
	p.write("clayer.toml", "repo = \"me/env\"\nstores = [\"s3://bucket/env\", \"git:https://github.com/me/cache\"]\n")
	var env []string
	for _, name := range []string{"GH_TOKEN", "GITHUB_TOKEN", "CLAYER_TOKEN", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "CLAYER_OCI_PASSWORD", "ACTIONS_RUNTIME_TOKEN", "NPM_TOKEN"} {
		env = append(env, name+"="+secret)
	}
	for name := range boots {
		p.must("clayer init "+name+" --release v1.2.3 >"+name+".out && clayer init "+name+" --release v1.2.3 --print >"+name+".print", env...)
	}
	for path, text := range tree(t, p.dir) {
		if strings.Contains(text, secret) && !strings.HasSuffix(path, ".netrc") {
			t.Errorf("%s holds a credential:\n%s", path, text)
		}
	}
	setup := p.read("claude-setup.out")
	for _, want := range []string{"CLAYER_REPO=${CLAYER_REPO:-me/env}\n", "CLAYER_STORE=${CLAYER_STORE:-s3://bucket/env\ngit:https://github.com/me/cache}\n", "CLAYER_YES=${CLAYER_YES:-1}\n", "CLAYER_BUDGET=${CLAYER_BUDGET:-240s}\n"} {
		if !strings.Contains(setup, want) {
			t.Errorf("the setup script has not %q", want)
		}
	}
	for _, options := range []string{"--store=git:https://me:" + secret + "@example.com/env", "--store=git:https://" + secret + "@example.com/env", "--download-url=https://me:" + secret + "@example.com"} {
		out, errs, code := p.run("clayer init claude-setup --print --release v1.2.3 --pins-file pins.txt " + options)
		if code != exitUsage || strings.Contains(out+errs, secret) {
			t.Errorf("%s: exit code %d: %s%s", options, code, out, errs)
		}
	}
	p.write("pins.txt", fmt.Sprintf("%064x  clayer_1.2.3_linux_amd64\n", 1))
	if _, errs, code := p.run("clayer init claude-setup --print --release v1.2.3 --pins-file pins.txt --store=git:https://me:" + secret + "@example.com/env"); code != exitUsage || strings.Contains(errs, secret) || !strings.Contains(errs, "--store holds a credential") {
		t.Errorf("exit code %d: %s", code, errs)
	}
	if _, errs, code := p.run("clayer init claude-setup --print --release v1.2.3 --pins-file pins.txt --store=git:ssh://git@example.com/env >/dev/null"); code != 0 {
		t.Errorf("the user of SSH: exit code %d: %s", code, errs)
	}
}

// A host ends a script that takes too long: what it took to get clayer is part of that.
func TestBudgetOfAHost(t *testing.T) {
	t.Parallel()
	p := newProject(t)
	for name, text := range map[string]string{
		"clayer": "case $1 in compose) echo \"${CLAYER_BUDGET-none}\" >" + p.dir + "/budget ;; init) exec " + filepath.Join(p.dir, "bin/clayer") + " \"$@\" ;; esac\n",
		"date":   "cat " + p.dir + "/now\necho 1100 >" + p.dir + "/now\n", // 100 s later
	} {
		if err := os.MkdirAll(filepath.Join(p.dir, "fake"), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := testexec.WriteFile(filepath.Join(p.dir, "fake", name), []byte("#!/bin/sh\n"+text)); err != nil {
			t.Fatal(err)
		}
	}
	const path = "unset CLAYER_BEST_EFFORT; PATH=$PWD/fake:$PATH; "
	for _, tt := range []struct{ kind, option, session, script, want string }{
		{kind: "claude", script: ".claude/hooks/clayer-boot.sh", want: "440s"},
		{kind: "claude", option: "--budget=20m", script: ".claude/hooks/clayer-boot.sh", want: "1100s"},
		{kind: "claude", session: "60s", script: ".claude/hooks/clayer-boot.sh", want: "10s"},
		{kind: "claude", session: "1h", script: ".claude/hooks/clayer-boot.sh", want: "1h"}, // as the session has it
		{kind: "copilot", script: ".github/clayer-copilot-boot.sh", want: "1100s"},
		{kind: "jules", script: ".jules/clayer-boot.sh", want: "140s"},
		{kind: "github", script: ".github/clayer-boot.sh", want: "none"},
		{kind: "gitlab", option: "--budget=5m", script: ".gitlab/clayer-boot.sh", want: "200s"},
	} {
		p.write("now", "1000\n")
		session := ""
		if tt.session != "" {
			session = "CLAYER_BUDGET=" + tt.session + " "
		}
		p.must(path + "clayer init " + tt.kind + " " + tt.option + " && " + session + "sh " + tt.script)
		if got := strings.TrimSpace(p.read("budget")); got != tt.want {
			t.Errorf("%s %s %s: the budget is %s, want %s", tt.kind, tt.option, session, got, tt.want)
		}
	}
	// The timeout of the hook is raised if it has to be.
	for _, tt := range [][2]string{{"", "1260"}, {"--budget=10m", "1260"}, {"--budget=30m", "1860"}} {
		p.must("clayer init claude " + tt[0])
		if settings := p.read(".claude/settings.json"); strings.Count(settings, "clayer-boot.sh") != 1 || !strings.Contains(settings, `"timeout": `+tt[1]+"\n") {
			t.Errorf("%s: the settings are %s", tt[0], settings)
		}
	}
	for _, command := range []string{"clayer init copilot --budget=59m", "clayer init claude-setup --budget=5m", "clayer init claude --budget=-1s", "clayer init skill --budget=1m"} {
		if _, errs, code := p.run(command); code != exitUsage || !strings.Contains(errs, "--budget") {
			t.Errorf("%s: exit code %d: %s", command, code, errs)
		}
	}
}

// Sessions of several repositories start in the directory that has them all.
func TestBootBesideCheckouts(t *testing.T) {
	t.Parallel()
	p := newProject(t)
	for name, text := range map[string]string{
		"beside/a/README.md": "", "beside/b/Containerfile": "RUN echo b > /of-b\n", "beside/c d/layers/Containerfile.x": "RUN echo x > /of-x\n", "beside/c d/clayer.toml": "layers = [\"x\"]\n",
	} {
		p.write(name, text)
	}
	p.must("clayer init claude-setup >setup.sh")
	if out := p.must("cd beside && sh ../setup.sh"); !strings.Contains(out, "1 ran") || !strings.Contains(out, "that of "+p.dir+"/beside/b: other checkouts") || p.read("root/of-b") != "b\n" {
		t.Errorf("says %q", out)
	}
	if out := p.must("cd beside && CLAYER_BOOT_PROJECT='c d' sh ../setup.sh"); strings.Contains(out, "other checkouts") || p.read("root/of-x") != "x\n" {
		t.Errorf("another one: %q", out)
	}
	if out := p.must("cd beside && CDPATH=/:.. CLAUDE_PROJECT_DIR=$PWD/b sh ../setup.sh"); !strings.Contains(out, "1 restored") {
		t.Errorf("the one of the session: %q", out)
	}
	// Where none has layers, the session starts.
	if out := p.must("unset CLAYER_BEST_EFFORT; cd beside/a && sh ../../setup.sh; echo \"on: $?\""); !strings.HasSuffix(out, "on: 0\n") {
		t.Errorf("without layers: %q", out)
	}
}

// What init writes is what the schemas of the hosts want.
func TestInitBySchemas(t *testing.T) {
	t.Parallel()
	check, err := exec.LookPath("check-jsonschema")
	if err != nil {
		t.Skip("check-jsonschema (of PyPI, with the schemas of GitHub and GitLab) is not on PATH")
	}
	p := newProject(t)
	for _, name := range []string{"copilot", "gitlab", "github"} {
		for file, text := range boots[name].files {
			p.must("clayer init " + name + " --release v1.2.3 >" + name + ".out")
			p.write("merged/"+file, text)
			p.must("cd merged && clayer init " + name + " --release v1.2.3 >/dev/null")
		}
	}
	p.must("clayer init github --release v1.2.3 >step && { printf 'on: push\\njobs:\\n  x:\\n    runs-on: y\\n    steps:\\n'; sed 's/^/    /' step; } >workflow.yml")
	p.must("clayer init github --prebuild docker://ghcr.io/me/base:latest --release v1.2.3")
	for _, file := range []string{
		"github-workflows .github/workflows/clayer-prebuild.yml", "github-workflows .github/workflows/copilot-setup-steps.yml", "github-workflows merged/.github/workflows/copilot-setup-steps.yml", "github-workflows workflow.yml",
		"gitlab-ci .gitlab-ci.yml", "gitlab-ci .gitlab/clayer.yml", "gitlab-ci merged/.gitlab-ci.yml",
	} {
		p.must(check + " --builtin-schema vendor." + file)
	}
}

// The program of the dev containers reads what init writes, comments and all.
func TestInitByTheDevcontainerProgram(t *testing.T) {
	t.Parallel()
	program, err := exec.LookPath("devcontainer")
	if err != nil {
		t.Skip("devcontainer (of npm, @devcontainers/cli) is not on PATH")
	}
	p := newProject(t)
	for _, text := range []string{"", boots["devcontainer"].files[".devcontainer/devcontainer.json"]} {
		if text != "" {
			p.write(".devcontainer/devcontainer.json", text)
		}
		p.must("clayer init devcontainer --release v1.2.3")
		out := p.must(program+" read-configuration --docker-path /bin/true --workspace-folder "+p.dir, "PATH="+os.Getenv("PATH"))
		var got struct {
			Configuration struct{ Image, PostCreateCommand string }
		}
		if err := json.Unmarshal([]byte(out), &got); err != nil || got.Configuration.Image == "" || got.Configuration.PostCreateCommand != "sh .devcontainer/clayer-boot.sh" {
			t.Errorf("it reads %s: %v", out, err)
		}
	}
}
