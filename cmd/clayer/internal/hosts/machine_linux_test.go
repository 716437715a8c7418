package hosts

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/clayer/clayer/internal/hosttest"
	"github.com/clayer/clayer/internal/ocitest"
)

// A machine is a fresh machine on a host, with a clone of the project.
type machine struct {
	t    testing.TB
	host *hosttest.Host
	dir  string
}

func newMachine(t testing.TB, host *hosttest.Host, project string) *machine {
	t.Helper()
	m := &machine{t, host, t.TempDir()}
	origin := "https://github.com/" + hosttest.Project
	if host.GitURL != "" {
		origin = host.GitURL + hosttest.Project
	}
	// What git init and git remote add would make, without two processes for each machine.
	config := "[core]\n\trepositoryformatversion = 0\n[remote \"origin\"]\n\turl = " + origin + "\n\tfetch = +refs/heads/*:refs/remotes/origin/*\n"
	for name, text := range map[string]string{"HEAD": "ref: refs/heads/main\n", "config": config, "objects/x": "", "refs/x": ""} {
		path := filepath.Join(m.path("project/.git"), name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.CopyFS(m.path("project"), os.DirFS(project)); err != nil {
		t.Fatal(err)
	}
	return m
}

func (m *machine) path(name string) string { return filepath.Join(m.dir, name) }

// command returns a command of a session: nothing of this machine's environment is in it.
func (m *machine) command(name string, env []string, args ...string) *exec.Cmd {
	path := name
	if name == "clayer" {
		path = program
	}
	cmd := exec.CommandContext(m.t.Context(), path, args...)
	cmd.Dir = m.dir
	if _, err := os.Stat(m.path("project")); err == nil {
		cmd.Dir = m.path("project")
	}
	cmd.Env = slices.Concat(m.host.Environ(), []string{
		"PATH=" + os.Getenv("PATH"), "HOME=" + m.dir, "TMPDIR=" + m.dir, "TERM=dumb", "CLAYER_CACHE_DIR=" + m.path("cache"),
		"GIT_CONFIG_NOSYSTEM=1", "AWS_EC2_METADATA_DISABLED=true",
	}, env)
	return cmd
}

// clayer runs clayer, and returns what it printed.
func (m *machine) clayer(env []string, args ...string) (stdout, stderr string, code int) {
	m.t.Helper()
	cmd := m.command("clayer", env, args...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	_ = cmd.Run() // the exit code says it
	return out.String(), errs.String(), cmd.ProcessState.ExitCode()
}

// mustClayer runs clayer, and ends the test if it fails.
func (m *machine) mustClayer(env []string, args ...string) string {
	m.t.Helper()
	stdout, stderr, code := m.clayer(env, args...)
	if code != 0 || strings.Contains(stderr, "warning: store") {
		m.t.Fatalf("clayer %s: exit code %d\n%s%s", strings.Join(args, " "), code, stdout, stderr)
	}
	return stdout + stderr
}

// newProject makes a project whose environment needs no sandbox: a step for each size.
func newProject(t testing.TB, sizes ...int) string {
	t.Helper()
	dir := t.TempDir()
	var text strings.Builder
	for i, size := range sizes {
		data := make([]byte, size)
		if _, err := rand.Read(data); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("data%d", i)), data, 0o644); err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&text, "COPY data%d /opt/\n", i)
	}
	if err := os.WriteFile(filepath.Join(dir, "Containerfile"), []byte(text.String()), 0o644); err != nil {
		t.Fatal(err)
	}
	return dir
}

// pushEverywhere has the machines of others push the environment of a project to each store.
func pushEverywhere(t testing.TB, n *hosttest.Internet, project string) {
	t.Helper()
	job := newMachine(t, n.Host(t, profile("actions"), hosttest.Link{}), project)
	auth := base64.StdEncoding.EncodeToString([]byte(ocitest.User + ":" + ocitest.Password))
	if err := os.MkdirAll(job.path(".docker"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(job.path(".docker/config.json"), fmt.Appendf(nil, `{"auths":{"ghcr.io":{"auth":%q}}}`, auth), 0o600); err != nil {
		t.Fatal(err)
	}
	job.mustClayer(nil, "solve", "--dest", "out", "-f", "Containerfile")
	for _, to := range []string{"--repo=" + hosttest.Env, "--repo=" + hosttest.Project, "--store=oci:ghcr.io/me/env", "--store=gha:", "--store=git:" + n.Git.URL + "/" + hosttest.Env + ".git"} {
		job.mustClayer(nil, "cache", "push", to)
	}
	job.mustClayer(amazon, "cache", "push", "--store=s3://bucket/env")
	for _, dir := range []string{n.Site, n.Public} {
		job.mustClayer(nil, "cache", "export", "--layout="+filepath.Join(dir, "cache"))
	}
	// Sessions push branches of their own repository.
	session := newMachine(t, n.Host(t, profile("claude-trusted"), hosttest.Link{}), project)
	session.mustClayer(nil, "solve", "--dest", "out", "-f", "Containerfile", "--store=git:", "--yes")
}

func profile(name string) *hosttest.Profile {
	i := slices.IndexFunc(hosttest.Profiles, func(p hosttest.Profile) bool { return p.Name == name })
	return &hosttest.Profiles[i]
}
