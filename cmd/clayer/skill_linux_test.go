package main

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/clayer/clayer/internal/githubtest"
	"github.com/clayer/clayer/internal/testexec"
)

// pythons returns the Python of this machine, and 3.9 and 3.12 where they can be had.
func pythons(t *testing.T) map[string]string {
	pyenv := os.Getenv("PYENV_ROOT")
	if pyenv == "" {
		pyenv = filepath.Join(os.Getenv("HOME"), ".pyenv")
	}
	candidates := []string{"python3", "python3.9", "python3.12"}
	for _, version := range []string{"3.9", "3.12"} {
		found, err := filepath.Glob(filepath.Join(pyenv, "versions", version+".*", "bin", "python3"))
		if err != nil {
			t.Fatal(err)
		}
		candidates = append(candidates, found...)
		if out, err := exec.Command("uv", "python", "find", "--offline", version).Output(); err == nil {
			candidates = append(candidates, strings.TrimSpace(string(out)))
		}
	}
	list := make(map[string]string)
	for _, name := range candidates {
		out, err := exec.Command(name, "-c", `import sys; print("%d.%d" % sys.version_info[:2], sys.executable)`).Output()
		version, path, ok := strings.Cut(strings.TrimSpace(string(out)), " ")
		if err == nil && ok && list[version] == "" {
			list[version] = path
		}
	}
	if len(list) == 0 {
		t.Skip("there is no python3")
	}
	return list
}

// skillProject is a directory with layers and the skill, on a machine with a root of its
// own, and a GitHub on loopback.
type skillProject struct {
	*workspace
	gh  *githubtest.Server
	env []string
}

const skillToken = "ghp_test0123456789"

func newSkillProject(t *testing.T, python string) *skillProject {
	w := newWorkspace(t)
	gh, _ := onGitHub(t)
	p := &skillProject{workspace: w, gh: gh}
	for _, dir := range []string{"bin", "home", "project/layers", "tools"} {
		if err := os.MkdirAll(w.path(dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for name, text := range map[string]string{
		"bin/clayer": "echo \"$*\" >>'" + w.path("argv") + "'\nexec '" + clayerProgram(t) + "' \"$@\"\n",
		"bin/python": "exec '" + python + "' \"$@\"\n", "bin/python3": "exec '" + python + "' \"$@\"\n",
		"tools/uv": "echo \"uv $*\"\n",
	} {
		if err := testexec.WriteFile(w.path(name), []byte("#!/bin/sh\n"+text)); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"apt-get", "uv", "pip"} {
		if err := testexec.WriteFile(w.path("root/bin/"+name), []byte("#!/bin/sh\nfor a; do :; done; mkdir -p /opt/installed; echo \"$a\" >/opt/installed/"+name+"\n")); err != nil {
			t.Fatal(err)
		}
	}
	const id = "cat /proc/sys/kernel/random/uuid > " // another value whenever it runs
	for name, text := range map[string]string{
		"Containerfile":                   "ENV MY_VAR=hello\nRUN " + id + "/single\n",
		"Containerfile.mojo":              "RUN " + id + "/named\n",
		"layers/Containerfile":            "RUN " + id + "/base\n",
		"layers/Containerfile.scientific": "RUN " + id + "/scientific\n",
		"layers/Containerfile.mojo":       "RUN " + id + "/mojo\n",
		"weird-named-file.txt":            "RUN echo weird > /weird\n",
		"other-file.txt":                  "RUN echo other > /other\n",
		"Containerfile.bad":               "RUN echo to see >&2; exit 3\n",
	} {
		w.write("project/"+name, text)
	}
	for _, kv := range os.Environ() {
		if name, _, _ := strings.Cut(kv, "="); name != "GH_TOKEN" && name != "GITHUB_TOKEN" && !strings.HasPrefix(name, "CLAYER_") && !strings.HasPrefix(name, "PYTHON") {
			p.env = append(p.env, kv)
		}
	}
	p.env = append(p.env, "GITHUB_API_URL="+gh.URL, "GITHUB_SERVER_URL="+gh.URL, "HOME="+w.path("home"), "PATH="+w.path("bin")+":"+w.path("tools")+":"+os.Getenv("PATH"),
		"CLAYER_CACHE_DIR="+w.path("cache"), "CLAYER_ROOT="+w.path("root"), "CLAYER_SHIM=lines", "PYTHONDONTWRITEBYTECODE=1")
	p.bash("clayer init skill .", 0)
	return p
}

// bash runs a script in the project, and returns what it printed.
func (p *skillProject) bash(script string, code int, env ...string) string {
	p.t.Helper()
	cmd := exec.CommandContext(p.t.Context(), "bash", "-c", script)
	cmd.Dir, cmd.Env = p.path("project"), append(p.env[:len(p.env):len(p.env)], env...)
	out, _ := cmd.CombinedOutput()
	if got := cmd.ProcessState.ExitCode(); got != code {
		p.t.Fatalf("exit code %d, want %d, of\n%s\n%s", got, code, script, out)
	}
	return string(out)
}

// python runs a Python script in the project.
func (p *skillProject) python(script string, env ...string) string {
	p.t.Helper()
	p.write("script.py", script)
	return p.bash("PYTHONPATH=. python '"+p.path("script.py")+"'", 0, env...)
}

// nextMachine gives the project a root of the same base, and an empty cache.
func (p *skillProject) nextMachine() {
	p.t.Helper()
	p.bash("clayer undo -q", 0)
	if err := os.RemoveAll(p.path("cache")); err != nil {
		p.t.Fatal(err)
	}
}

// has returns the content of a file in the root.
func (p *skillProject) has(name string) string {
	p.t.Helper()
	text, err := os.ReadFile(p.path("root/" + name))
	if err != nil {
		p.t.Fatal(err)
	}
	return string(text)
}

func (p *skillProject) wantReleases(tags ...string) {
	p.t.Helper()
	list := strings.Join(p.gh.Releases("me/env"), "\n")
	for _, tag := range tags {
		if !strings.Contains(list, tag) {
			p.t.Errorf("there is no release %s..:\n%s", tag, list)
		}
	}
}

// TestManualOfContainerLayer runs the examples of the manual of container-layer, as they
// stand there but for names of repositories and files, and asserts what they did.
func TestManualOfContainerLayer(t *testing.T) {
	t.Parallel()
	requireMounts(t)
	for version, python := range pythons(t) {
		t.Run(version, func(t *testing.T) {
			t.Parallel()
			for name, example := range map[string]func(*testing.T, *skillProject){
				"single layer": singleLayer, "composition": composition, "names": layerNames, "shim": uvShim, "instructions": oldInstructions, "errors": skillErrors,
			} {
				t.Run(name, func(t *testing.T) {
					p := newSkillProject(t, python)
					example(t, p)
					argv, err := os.ReadFile(p.path("argv"))
					if err != nil || strings.Contains(string(argv), skillToken) {
						t.Errorf("%v, and the token is in an argv of clayer:\n%s", err, argv)
					}
				})
			}
		})
	}
}

func singleLayer(t *testing.T, p *skillProject) {
	const layer = `
import os
from scripts.containerfile import ContainerLayer

layer = ContainerLayer(
    containerfile_path="Containerfile",
    cache_repo="me/env",  # GitHub repo for release assets
    gh_token="` + skillToken + `",
)

# Try cache first, fall back to full build
result = layer.restore_or_build()
assert result.success and not result.errors and os.environ["MY_VAR"] == result.env_vars["MY_VAR"] == "hello", result
assert layer.tag == "layer-base-" + result.content_hash, layer.tag
`
	p.python(layer)
	built := p.has("single")
	p.wantReleases("layer-")
	p.nextMachine()
	p.python(layer)
	if got := p.has("single"); got != built {
		t.Errorf("it was built again, not restored: %s, %s", got, built)
	}
	p.nextMachine()
	p.bash("python -m scripts.cli restore \"$PWD/Containerfile\" --repo me/env", 0)
	if got := p.has("single"); got != built {
		t.Errorf("it was built again, not restored: %s, %s", got, built)
	}
	p.python(layer + "layer.build_and_push()\n")
	rebuilt := p.has("single")
	if rebuilt == built {
		t.Error("build_and_push did not build")
	}
	p.bash("python -m scripts.cli build Containerfile --no-cache --repo me/env --token "+skillToken, 0)
	if p.has("single") == rebuilt {
		t.Error("build did not build")
	}
}

func composition(t *testing.T, p *skillProject) {
	p.python(`
from scripts.containerfile import compose

results = compose(
    containerfile_paths=[
        "layers/Containerfile",            # name='base'  (always-on)
        "layers/Containerfile.scientific", # name='scientific'
        "layers/Containerfile.mojo",       # name='mojo'
    ],
    cache_repo="me/env",
)
assert len(results) == 3 and all(r.success for r in results)
`, "GH_TOKEN="+skillToken)
	p.wantReleases("layer-base-", "layer-scientific-", "layer-mojo-")
	built := p.has("base") + p.has("scientific") + p.has("mojo")
	p.nextMachine()
	p.bash(`python -m scripts.cli compose \
    layers/Containerfile \
    layers/Containerfile.scientific \
    layers/Containerfile.mojo \
    --repo me/env`, 0)
	if got := p.has("base") + p.has("scientific") + p.has("mojo"); got != built {
		t.Errorf("they were built again, not restored: %s, %s", got, built)
	}
}

func layerNames(t *testing.T, p *skillProject) {
	p.bash(`python -m scripts.cli --token `+skillToken+` --repo me/env compose \
    --name base:weird-named-file.txt \
    --name mojo:other-file.txt \
    weird-named-file.txt other-file.txt`, 0)
	p.wantReleases("layer-base-", "layer-mojo-")
	if got := p.has("weird") + p.has("other"); got != "weird\nother\n" {
		t.Errorf("%q", got)
	}
	p.python(`
from scripts.containerfile import compose
compose(["weird-named-file.txt", "other-file.txt"], "me/env", names=["one", None])
`, "GH_TOKEN="+skillToken)
	p.wantReleases("layer-one-")
	p.nextMachine()
	p.bash("python -m scripts.cli restore Containerfile.mojo --name mojo --repo me/env --token="+skillToken, 0)
	named := strings.TrimSpace(p.bash("python -m scripts.cli hash Containerfile.mojo --name mojo", 0))
	if !strings.HasPrefix(named, "layer-mojo-") {
		t.Errorf("hash: %s", named)
	}
	p.wantReleases(named)
	if out := p.bash("python -m scripts.cli inspect Containerfile.mojo --name mojo", 0); !strings.Contains(out, "RUN") || !strings.Contains(out, "mojo") {
		t.Errorf("inspect: %s", out)
	}
	p.bash("python -m scripts.cli build Containerfile.mojo --name mojo --no-cache", 0)
	p.has("named")
}

func uvShim(t *testing.T, p *skillProject) {
	for _, shell := range []string{"bash", "zsh"} {
		if _, err := exec.LookPath(shell); err != nil {
			continue
		}
		p.write("project/Containerfile.shim", "RUN true\n")
		out := p.bash(shell+` -c 'set -eu; cd layers; source `+p.path("project")+`/scripts/uv_shim.sh `+p.path("project")+`/Containerfile.shim; uv pip install foo'`, 0)
		text, err := os.ReadFile(p.path("project/Containerfile.shim"))
		if err != nil || string(text) != "RUN true\nRUN uv pip install --system foo\n" || !strings.Contains(out, "uv pip install foo") {
			t.Errorf("%s: %v\n%s\n%s", shell, err, text, out)
		}
	}
	if err := os.Remove(p.path("bin/clayer")); err != nil {
		t.Fatal(err)
	}
	p.bash("mv scripts elsewhere; sed -i 's/^VERSION, PINS, PROGRAM = .*/VERSION, PINS, PROGRAM = \"\", \"\", \"nowhere\"/' elsewhere/layer_cache.py", 0)
	if out := p.bash("source elsewhere/uv_shim.sh Containerfile", 1, "PATH="+p.path("bin")+":/usr/bin:/bin"); !strings.Contains(out, "clayer: no clayer is on PATH") {
		t.Errorf("without clayer: %s", out)
	}
}

func oldInstructions(t *testing.T, p *skillProject) {
	p.gh.Repo("user/repo", githubtest.Repo{Files: map[string]string{"file": "main"}})
	p.gh.Commit("user/repo", "refs/heads/ref", map[string]string{"file": "ref"})
	p.write("project/Containerfile.all", `FROM ubuntu:24.04
ENV KEY=value
RUN apt-get install -y foo        # system packages
RUN uv pip install pandas numpy   # Python packages (preferred)
RUN pip install requests          # also works
FETCH github:user/repo /dest/path              # latest tarball
FETCH github:user/repo@ref /dest/other         # specific ref
WORKDIR /some/path
RUN echo "$KEY" > file
SNAPSHOT /some/path
EXPOSE 80
CMD ["sh"]
`)
	p.bash("python -m scripts.cli restore Containerfile.all --repo me/env --token "+skillToken, 0)
	check := func() {
		t.Helper()
		for name, want := range map[string]string{"some/path/file": "value\n", "dest/path/file": "main", "dest/other/file": "ref"} {
			if got := p.has(name); got != want {
				t.Errorf("%s: %q, want %q", name, got, want)
			}
		}
		for _, name := range []string{"apt-get", "uv", "pip"} {
			p.has("opt/installed/" + name)
		}
	}
	check()
	p.nextMachine()
	if out := p.bash("python -m scripts.cli restore Containerfile.all --repo me/env", 0); strings.Contains(out, " to run") {
		t.Errorf("it was built again:\n%s", out)
	}
	check()
}

func skillErrors(t *testing.T, p *skillProject) {
	out := p.python(`
from scripts.containerfile import ClayerError, ContainerLayer, compose

for call, code in (
    (lambda: ContainerLayer("Containerfile.bad").restore_or_build(), 1),
    (lambda: compose(["layers/Containerfile", "Containerfile.bad"]), 1),
    (lambda: ContainerLayer("missing").build_only(), 2),
):
    try:
        call()
    except ClayerError as e:
        assert e.exit_code == code, e.exit_code
        print("<" + str(e) + ">")
    else:
        raise SystemExit("no error")
`)
	for _, want := range []string{"<clayer: Containerfile.bad:1: RUN: exit code 3\n", "<clayer: missing: no such file"} {
		if !strings.Contains(out, want) {
			t.Errorf("there is no %q in\n%s", want, out)
		}
	}
	p.bash("python -m scripts.cli restore Containerfile.bad", 1)
	p.bash("python -m scripts.cli restore missing", 2)
	p.bash("python -m scripts.cli restore --no-such-flag Containerfile", 2)
}

// TestSkillIsSmallAndWritesOnlyItsOwn: agents load SKILL.md whole, the binary has little room,
// and what clayer did not write stays.
func TestSkillIsSmallAndWritesOnlyItsOwn(t *testing.T) {
	dir := t.TempDir()
	clayer := func(args ...string) (string, error) {
		cmd := clayerCommand(t, append([]string{"init", "skill"}, args...)...)
		cmd.Dir = dir
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	at := filepath.Join(dir, ".claude", "skills", "container-layer")
	for _, again := range []bool{false, true} {
		out, err := clayer("--repo", "me/env")
		if err != nil || strings.Contains(out, "wrote") == again || strings.Contains(out, "is as it should be") != again || !strings.Contains(out, ": the skill runs the clayer on PATH, or else ") || !strings.Contains(out, "or write the skill for a release: ") {
			t.Errorf("%v\n%s", err, out)
		}
	}
	text, err := os.ReadFile(filepath.Join(at, "SKILL.md"))
	if err != nil || len(text) >= 2000 || !strings.HasPrefix(string(text), "---\nname: container-layer\ndescription: ") {
		t.Errorf("%v, SKILL.md has %d bytes:\n%s", err, len(text), text)
	}
	total := 0
	files, err := filepath.Glob(filepath.Join(at, "scripts", "*"))
	if err != nil || len(files) != 5 {
		t.Errorf("%v: %v", err, files)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		total += len(text)
		if filepath.Base(file) == "layer_cache.py" && !strings.Contains(string(text), `DEFAULTS: Dict[str, str] = {"CLAYER_REPO":"me/env"}`) {
			t.Errorf("the repository is not in\n%s", text)
		}
	}
	if total > 12_000 {
		t.Errorf("the scripts have %d bytes", total)
	}

	other := filepath.Join(dir, "other", "scripts", "cli.py")
	if err := errors.Join(os.MkdirAll(filepath.Dir(other), 0o755), os.WriteFile(other, []byte("mine\n"), 0o644)); err != nil {
		t.Fatal(err)
	}
	out, err := clayer("other")
	entries, _ := os.ReadDir(filepath.Join(dir, "other"))
	if text, _ := os.ReadFile(other); err == nil || string(text) != "mine\n" || len(entries) != 1 || !strings.Contains(out, "nothing was written") {
		t.Errorf("%v, %v, cli.py: %q\n%s", err, entries, text, out)
	}
	for _, args := range [][]string{{"a", "b"}, {"--env-files", "secrets"}, {"--repo", "a b"}} {
		if out, err := clayer(args...); err == nil {
			t.Errorf("%q: %s", args, out)
		}
	}
}
