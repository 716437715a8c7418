package hosts

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/clayer/clayer/cmd/clayer/internal/clitest"
	"github.com/clayer/clayer/internal/hosttest"
)

// What the setup of a session restored is there for its agent, which has no network.
func TestOfflineAgent(t *testing.T) {
	clitest.Build(t, filepath.Dir(program))
	n := hosttest.New(t)
	project := newProject(t, 1000, 1000)
	job := newMachine(t, n.Host(t, profile("open"), hosttest.Link{}), project)
	job.mustClayer(amazon, "solve", "--dest", "out", "-f", "Containerfile", "--store=s3://bucket/env")

	m := newMachine(t, n.Host(t, profile("codex-setup"), hosttest.Link{}), project)
	m.mustClayer(amazon, "solve", "--dest", "out", "-f", "Containerfile", "--store=s3://bucket/env")
	m.host = n.Host(t, profile("codex-agent"), hosttest.Link{})
	for _, args := range [][]string{{"solve", "--dest", "out", "-f", "Containerfile", "--store=s3://bucket/env"}, {"status", "--dest", "out"}, {"env", "--dest", "out"}} {
		stdout, stderr, code := m.clayer(amazon, args...)
		if code != 0 || args[0] == "solve" && !strings.Contains(stderr, "2 present") {
			t.Errorf("clayer %s: exit code %d\n%s%s", args, code, stdout, stderr)
		}
		if strings.Count(stderr, "warning") > 0 {
			t.Errorf("clayer %s warns of what it does not need:\n%s", args, stderr)
		}
	}
	if asked := m.host.Asked(); len(asked) > 0 {
		t.Logf("the agent asks for:\n%s", strings.Join(asked, "\n"))
	}
}

// A session of Claude Code pushes its branch and removes layers from it, though it may push
// nothing but branches, and delete none.
func TestSessionPushes(t *testing.T) {
	clitest.Build(t, filepath.Dir(program))
	n := hosttest.New(t)
	project := newProject(t, 1000, 1000)
	host := n.Host(t, profile("claude-trusted"), hosttest.Link{})
	m := newMachine(t, host, project)
	m.mustClayer(nil, "solve", "--dest", "out", "-f", "Containerfile", "--store=git:", "--yes")
	m.mustClayer(nil, "solve", "--dest", "other", "-f", "Containerfile", "--name=other", "--store=git:")
	m.mustClayer(nil, "cache", "rm", "other", "--store=git:")
	if out := m.mustClayer(nil, "cache", "ls", "--store=git:"); !strings.Contains(out, "layer-base-") || strings.Contains(out, "layer-other-") {
		t.Errorf("the branch has\n%s", out)
	}
	if out := newMachine(t, host, project).mustClayer(nil, "solve", "--dest", "out", "-f", "Containerfile", "--store=git:"); !strings.Contains(out, "2 restored") {
		t.Errorf("another session:\n%s", out)
	}
	// By the address at github.com too, if git is told of the proxy as docs/stores.md has it.
	if _, stderr, _ := m.clayer(nil, "cache", "push", "--store=git:https://github.com/"+hosttest.Project); !strings.Contains(stderr, "not allowed to push") {
		t.Errorf("pushed without the proxy:\n%s", stderr)
	}
	m.mustClayer(nil, "solve", "--dest", "third", "-f", "Containerfile", "--name=third")
	told := `origin=$(git remote get-url origin); git config --global url."${origin%/git/*}/git/".pushInsteadOf https://github.com/`
	if out, err := m.command("sh", nil, "-c", told).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	m.mustClayer(nil, "cache", "push", "third", "--store=git:https://github.com/"+hosttest.Project)
	if err := os.Remove(m.path(".gitconfig")); err != nil {
		t.Fatal(err)
	}
	// The proxy is as strict as the host's.
	for _, args := range [][]string{
		{"commit", "-q", "--allow-empty", "-m", "x"},
		{"push", "-q", "origin", "HEAD:refs/heads/claude/x"},
	} {
		if out, err := m.command("git", []string{"GIT_AUTHOR_NAME=a", "GIT_AUTHOR_EMAIL=a", "GIT_COMMITTER_NAME=a", "GIT_COMMITTER_EMAIL=a"}, args...).CombinedOutput(); err != nil {
			t.Fatalf("git %s: %v\n%s", args, err, out)
		}
	}
	for _, args := range [][]string{
		{"push", "-q", "origin", "HEAD:refs/tags/v1"},
		{"push", "-q", "origin", ":refs/heads/claude/x"},
		{"push", "-q", host.GitURL + hosttest.Env, "HEAD:refs/heads/x"},
		{"push", "-q", "https://github.com/" + hosttest.Project, "HEAD:refs/heads/x"},
	} {
		if out, err := m.command("git", nil, args...).CombinedOutput(); err == nil || !strings.Contains(string(out), "403") {
			t.Errorf("git %s: %v\n%s", args, err, out)
		}
	}
}

// The table of docs/stores.md says what TestHosts has found.
func TestTableOfStores(t *testing.T) {
	doc, err := os.ReadFile("../../../../docs/stores.md")
	if err != nil {
		t.Fatal(err)
	}
	m := regexp.MustCompile(`(?m)^\| host \|.*\n\|[ |-]+\n((?:\|.*\n)+)`).FindSubmatch(doc)
	if m == nil {
		t.Fatal("docs/stores.md has no table of hosts")
	}
	cells := func(line string) (all []string) {
		for c := range strings.SplitSeq(strings.Trim(strings.TrimSpace(line), "|"), "|") {
			all = append(all, strings.Trim(strings.TrimSpace(c), "`"))
		}
		return all
	}
	columns := cells(strings.SplitN(string(m[0]), "\n", 2)[0])
	rows := make(map[string][]string)
	for line := range strings.Lines(string(m[1])) {
		row := cells(line)
		rows[row[0]] = row
	}
	for i := range hosttest.Profiles {
		p := &hosttest.Profiles[i]
		row := rows[p.Title]
		if row == nil {
			t.Errorf("docs/stores.md: no row %q", p.Title)
			continue
		}
		for c, column := range columns {
			works, fails := onHost(p.Name, column)
			switch got := row[c]; {
			case len(works)+len(fails) == 0: // no column of stores
			case len(fails) == 0 && !strings.HasPrefix(got, "✓"), len(works) == 0 && !strings.HasPrefix(got, "–"):
				t.Errorf("%s, %s: the table says %q; %q work, %q do not", p.Title, column, got, works, fails)
			case len(works) > 0 && len(fails) > 0 && column == "oci:":
				for _, name := range fails {
					if !strings.Contains(got, "– "+name) {
						t.Errorf("%s, %s: the table says %q, and %s does not work", p.Title, column, got, name)
					}
				}
				for _, name := range works {
					if !strings.Contains(got, name) || strings.Contains(got, "– "+name) {
						t.Errorf("%s, %s: the table says %q, and %s works", p.Title, column, got, name)
					}
				}
			case len(works) > 0 && len(fails) > 0 && !strings.HasPrefix(got, "attached repositories only"):
				t.Errorf("%s, %s: the table says %q; %q work, %q do not", p.Title, column, got, works, fails)
			}
		}
	}
}

// onHost returns the names of the stores of a column that work on a host, and of those that
// do not.
func onHost(host, column string) (works, fails []string) {
	for _, s := range stores {
		if s.column != column {
			continue
		}
		if strings.Contains(strings.Join(s.hosts, " "), host) {
			works = append(works, s.name)
		} else {
			fails = append(fails, s.name)
		}
	}
	return works, fails
}
