package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/clayer/clayer/cmd/pack/internal/wheel"
	"github.com/clayer/clayer/internal/skill"
)

// python returns a Python of this machine: the program itself, not a shim of pyenv.
func python(t *testing.T) string {
	t.Helper()
	out, err := exec.Command("python3", "-c", "import sys; print(sys.executable)").Output()
	if err != nil {
		t.Skip("python3 is not installed")
	}
	return strings.TrimSpace(string(out))
}

// The wheel has the skill: its scripts are a package of the module, or, with its directory on
// the path, the one that they were.
func TestWheelHasTheSkill(t *testing.T) {
	r := newRelease(t)
	own(t, r)
	dir, site := t.TempDir(), t.TempDir()
	if err := wheel.Write(r, dir, installScript(t)); err != nil {
		t.Fatal(err)
	}
	python := python(t)
	install := exec.Command(python, "-m", "pip", "install", "--no-index", "--find-links", dir, "--target", site, "--disable-pip-version-check", "container-layer==1.2.3")
	install.Env = append(os.Environ(), "HOME="+site)
	if out, err := install.CombinedOutput(); err != nil {
		t.Skipf("pip install: %v\n%s", err, out)
	}
	module := filepath.Join(site, "container_layer")
	if text, err := os.ReadFile(filepath.Join(module, "SKILL.md")); err != nil || !bytes.Contains(text, []byte("name: container-layer\n")) {
		t.Errorf("SKILL.md: %v", err)
	}
	for script, path := range map[string]string{
		"-m container_layer.scripts.cli plan x": site, "-m scripts.cli plan x": module,
		"-c from container_layer.scripts.containerfile import ContainerLayer, compose; from container_layer.scripts.layer_cache import run; print(run(['plan', 'x']), end='')": site,
		"-c from scripts.containerfile import ContainerLayer, compose, content_hash; from scripts.layer_cache import run; print(run(['plan', 'x']), end='')":                   site + ":" + module,
		"-c import container_layer, subprocess; print(subprocess.check_output([container_layer.find_clayer(), 'plan', 'x'], text=True), end='')":                               site,
	} {
		option, rest, _ := strings.Cut(script, " ")
		args := []string{option, rest}
		if option == "-m" {
			args = append(args[:1], strings.Fields(rest)...)
		}
		cmd := exec.Command(python, args...)
		cmd.Env = []string{"PATH=/usr/bin:/bin", "HOME=" + t.TempDir(), "PYTHONPATH=" + path + ":" + site}
		if out, err := cmd.CombinedOutput(); err != nil || string(out) != "clayer v1.2.3 plan x\n" {
			t.Errorf("%s: %q, %v", script, out, err)
		}
	}
	if out, err := exec.Command(python, "-c", "import sys; sys.path.insert(0, sys.argv[1]); import container_layer; print(container_layer.skill_dir())", site).Output(); err != nil || strings.TrimSpace(string(out)) != module {
		t.Errorf("skill_dir: %q, %v", out, err)
	}
}

// The scripts of the skill install the release if it is missing, from the wheel of an index,
// and verify it.
func TestSkillInstallsTheRelease(t *testing.T) {
	r := newRelease(t)
	p, out := own(t, r), packed(t)
	h := newHosts(t, r, p, out)
	python := python(t)
	for _, i := range installers(t, out)[:2] { // those of a shell: curl and wget
		_, undo := h.only("pypi")
		for name, pin := range map[string]string{"its pin": p.SHA256, "another pin": fmt.Sprintf("%064x", 1)} {
			dir, home := t.TempDir(), t.TempDir()
			texts, err := skill.Files(skill.Options{Version: "v1.2.3", Pins: []string{pin}, Installer: installScript(t)})
			if err != nil {
				t.Fatal(err)
			}
			for file, text := range texts {
				path := filepath.Join(dir, file)
				if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(path, text, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			run := func() (string, error) {
				cmd := exec.Command(python, "-m", "scripts.cli", "plan", "x")
				cmd.Dir = dir
				cmd.Env = []string{"PATH=" + i.path, "HOME=" + home, "no_proxy=127.0.0.1", "CLAYER_TRIES=0",
					"CLAYER_PYPI_URL=" + h.url + "/pypi/simple", "CLAYER_NPM_URL=" + h.url + "/npm", "CLAYER_GITHUB_URL=" + h.url + "/github"}
				text, err := cmd.CombinedOutput()
				return string(text), err
			}
			before := h.count("pypi")
			text, err := run()
			if name == "another pin" {
				if err == nil || !strings.Contains(text, "checksum mismatch") || strings.Contains(text, "Traceback") {
					t.Errorf("%s: %s: %q, %v", i.name, name, text, err)
				}
				continue
			}
			if err != nil || text != "clayer v1.2.3 plan x\n" || h.count("pypi") != before+2 {
				t.Errorf("%s: %q, %v, asked %d times", i.name, text, err, h.count("pypi")-before)
			}
			if text, err := run(); err != nil || text != "clayer v1.2.3 plan x\n" || h.count("pypi") != before+2 {
				t.Errorf("%s: again: %q, %v, asked %d times", i.name, text, err, h.count("pypi")-before)
			}
		}
		undo()
	}
}

// The scripts are Python that version 3.9 reads, and what agents load is short.
func TestSkillIsSmallAndOld(t *testing.T) {
	texts, err := skill.Files(skill.Options{})
	if err != nil {
		t.Fatal(err)
	}
	for name, most := range map[string]int{"../../AGENTS.md": 3000, "../../llms.txt": 3000, "SKILL.md": 2000} {
		text, ok := texts[name]
		if !ok {
			if text, err = os.ReadFile(name); err != nil {
				t.Fatal(err)
			}
		}
		if len(text) == 0 || len(text) >= most {
			t.Errorf("%s has %d bytes, want less than %d", name, len(text), most)
		}
	}
	python := python(t)
	texts["install.py"] = nil
	for name := range texts {
		if !strings.HasSuffix(name, ".py") {
			continue
		}
		path := filepath.Join("../../internal/skill", name)
		if name == "install.py" {
			path = "../../install.py"
		}
		// Annotations may say more: they are not evaluated.
		const parse = "import ast, sys; t = ast.parse(open(sys.argv[1]).read(), feature_version=(3, 9)); assert not any(isinstance(n, getattr(ast, 'Match', ())) for n in ast.walk(t))"
		if out, err := exec.Command(python, "-c", parse, path).CombinedOutput(); err != nil {
			t.Errorf("%s: %s", path, out)
		}
	}
	if out, err := exec.Command("vermin", "--version").CombinedOutput(); err != nil {
		t.Skipf("vermin is not on PATH: the library that the scripts use is not compared with that of 3.9: %s", out)
	}
	if out, err := exec.Command("vermin", "-t=3.9-", "--no-tips", "--eval-annotations", "../../internal/skill/scripts", "../../install.py", "internal/wheel/module.py").CombinedOutput(); err != nil {
		t.Errorf("%s", out)
	}
}
