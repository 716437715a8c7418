package hosts

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/clayer/clayer/cmd/clayer/internal/clitest"
	"github.com/clayer/clayer/internal/golden"
	"github.com/clayer/clayer/internal/hosttest"
	"github.com/clayer/clayer/internal/leftover"
)

// program is clayer as it is released.
var program string

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "clayer-test-")
	if err != nil {
		panic(err)
	}
	program = filepath.Join(dir, "clayer")
	code := m.Run()
	if err := os.RemoveAll(dir); err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
	if err := leftover.Check(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = max(code, 1)
	}
	os.Exit(code)
}

// A store is a store that sessions on some hosts can restore from.
type store struct {
	name   string
	column string // of the table in docs/stores.md
	flag   string
	env    []string
	hosts  []string // the profiles on which it restores
}

var online = []string{"claude-trusted", "claude-full", "codex-setup", "actions", "open"}

// without leaves profiles out of a list.
func without(list []string, names ...string) []string {
	return slices.DeleteFunc(slices.Clone(list), func(s string) bool { return slices.Contains(names, s) })
}

var (
	keys   = []string{"AWS_ACCESS_KEY_ID=AKIDOFATEST", "AWS_SECRET_ACCESS_KEY=secret-key-of-a-test"}
	amazon = append(keys[:2:2], "AWS_REGION=us-east-1")
	r2     = append(keys[:2:2], "AWS_ENDPOINT_URL_S3=https://account.r2.cloudflarestorage.com")
	gcs    = append(keys[:2:2], "AWS_ENDPOINT_URL_S3=https://storage.googleapis.com")
)

// stores is facts as a table: which store works on which host.
var stores = []store{
	{"the releases of a repository", "--repo", "--repo=" + hosttest.Env, nil, without(online, "claude-trusted", "claude-full")},
	{"the releases of the session's repository", "--repo", "--repo=" + hosttest.Project, nil, online},
	{"ghcr.io", "oci:", "--store=oci:ghcr.io/me/env", nil, without(online, "claude-trusted")},
	{"public.ecr.aws", "oci:", "--store=oci:public.ecr.aws/me/env", nil, without(online, "claude-trusted")},
	{"Docker Hub", "oci:", "--store=oci:docker.io/me/env", nil, online},
	{"gcr.io", "oci:", "--store=oci:gcr.io/me/env", nil, online},
	{"Amazon S3", "s3:", "--store=s3://bucket/env", amazon, online},
	{"Cloudflare R2", "s3:", "--store=s3://bucket/env", r2, online},
	{"Google Cloud Storage", "s3:", "--store=s3://bucket/env", gcs, online},
	{"Git", "git:", "--store=git:https://github.com/" + hosttest.Env, nil, online},
	{"the session's own Git repository", "git:", "--store=git:", nil, online},
	{"raw.githubusercontent.com", "https:", "--store=https://raw.githubusercontent.com/me/site/main/cache", nil, online},
	{"a public bucket", "https:", "--store=https://public.s3.us-east-1.amazonaws.com/cache", nil, online},
	{"the cache of GitHub Actions", "gha:", "--store=gha:", nil, []string{"actions"}},
}

// On each host, what others pushed is restored from each store that the host lets through.
// One that it refuses is skipped and named once, and doctor says what is refused.
func TestHosts(t *testing.T) {
	clitest.Build(t, filepath.Dir(program))
	n := hosttest.New(t)
	project := newProject(t, 300<<10, 1000, 1000)
	pushEverywhere(t, n, project)
	for i := range hosttest.Profiles {
		p := &hosttest.Profiles[i]
		t.Run(p.Name, func(t *testing.T) {
			t.Parallel()
			host := n.Host(t, p, hosttest.Link{})
			var text strings.Builder
			for _, s := range stores {
				m := newMachine(t, host, project)
				_, stderr, code := m.clayer(s.env, "solve", "--dest", "out", "-f", "Containerfile", s.flag)
				got := "restores"
				if warning, ok := warningIn(stderr); ok {
					got = warning
				}
				restored := code == 0 && strings.Contains(stderr, "3 restored")
				if restored != slices.Contains(s.hosts, p.Name) || code != 0 || restored == (got != "restores") {
					t.Errorf("%s: exit code %d, restored: %t\n%s\n%s", s.name, code, restored, stderr, strings.Join(host.Asked(), "\n"))
				}
				fmt.Fprintf(&text, "%s %s\n    %s\n", s.name, s.flag, steady(m, got))
				host.Asked()
			}
			fmt.Fprintf(&text, "\n%s\n%s", chain(t, n, p, project), fetches(t, n, host))
			m := newMachine(t, host, project)
			for _, args := range [][]string{
				{"doctor", "--root", m.dir, "--repo=" + hosttest.Env, "--store=git:", "--store=oci:ghcr.io/me/env"},
				{"doctor", "--stores", "--repo=" + hosttest.Env, "--store=oci:ghcr.io/me/env", "--store=oci:docker.io/me/env", "--store=git:", "--store=s3://bucket/env", "--store=https://raw.githubusercontent.com/me/site/main/cache"},
			} {
				stdout, stderr, code := m.clayer(amazon, args...)
				if stderr != "" {
					t.Errorf("clayer %s prints on stderr:\n%s", args, stderr)
				}
				fmt.Fprintf(&text, "\n$ clayer %s\n%sexit code %d\n", steady(m, strings.Join(args, " ")), steady(m, ofTheNetwork(stdout)), code)
			}
			golden.Check(t, filepath.Join("testdata", p.Name+".golden"), text.String())
		})
	}
}

// chain solves with a chain of stores of which a host refuses some. Each of these is named once.
func chain(t *testing.T, n *hosttest.Internet, p *hosttest.Profile, project string) string {
	t.Helper()
	args := []string{"solve", "--dest", "out", "-f", "Containerfile", "--store=oci:ghcr.io/me/env", "--store=s3://bucket/env", "--repo=" + hosttest.Env}
	m := newMachine(t, n.Host(t, p, hosttest.Link{}), project)
	_, stderr, code := m.clayer(amazon, args...)
	warning, _ := warningIn(stderr)
	restored := strings.Contains(stderr, "3 restored")
	if code != 0 || restored != slices.Contains(online, p.Name) || restored && strings.Contains(warning, "built again") {
		t.Errorf("a chain: exit code %d\n%s", code, stderr)
	}
	for _, name := range []string{"oci", "s3", "github"} {
		if strings.Count(stderr, "store "+name+": ") > 1 {
			t.Errorf("a chain: %s is named more than once:\n%s", name, stderr)
		}
	}
	return fmt.Sprintf("$ clayer %s\n    %s\n", steady(m, strings.Join(args, " ")), steady(m, warning+"\n    "+lastLine(stderr)))
}

func lastLine(s string) string {
	lines := strings.Split(strings.TrimSpace(s), "\n")
	return ranIn.ReplaceAllString(lines[len(lines)-1], "in N s")
}

var (
	ranIn      = regexp.MustCompile(`in [\d.]+s`)
	signedPath = regexp.MustCompile(`/signed/\d+`)
)

// fetches takes a tree of GitHub, and a file of a registry of packages: the same everywhere.
func fetches(t *testing.T, n *hosttest.Internet, host *hosttest.Host) string {
	t.Helper()
	dir := t.TempDir()
	const file = "files.pythonhosted.org"
	text := "FETCH github:" + hosttest.Tools + " /opt/tools\nFETCH --checksum=" + hosttest.SumOf(file) + " https://" + file + "/packages/a.whl /opt/\n"
	if err := os.WriteFile(filepath.Join(dir, "Containerfile"), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	m := newMachine(t, host, dir)
	host.Asked()
	_, stderr, code := m.clayer(nil, "solve", "--dest", "out", "-f", "Containerfile")
	if slices.Contains(online, host.Profile.Name) {
		plan, _, _ := m.clayer(nil, "plan", "--dest", "other", "-f", "Containerfile", "--json")
		tool, err := os.ReadFile(m.path("project/out/opt/tools/bin/tool"))
		if code != 0 || err != nil || string(tool) != "#!/bin/sh\necho a tool\n" || strings.Contains(stderr, "warning") || !strings.Contains(plan, n.Commit) {
			t.Errorf("FETCH: exit code %d, %v\n%s%s\n%s", code, err, stderr, plan, strings.Join(host.Asked(), "\n"))
		}
	}
	var asked []string
	for _, line := range host.Asked() {
		line = signedPath.ReplaceAllString(strings.ReplaceAll(line, n.Commit, "COMMIT"), "/signed/N")
		if !slices.Contains(asked, line) {
			asked = append(asked, line)
		}
	}
	slices.Sort(asked)
	said := lastLine(stderr)
	if code != 0 {
		said = strings.ReplaceAll(strings.TrimSpace(stderr), "\n", "\n    ")
	}
	return fmt.Sprintf("FETCH github:%s and from %s\n    %s\n    asked for:\n    %s\n", hosttest.Tools, file, steady(m, said), strings.Join(asked, "\n    "))
}

// warningIn returns the warning that clayer printed.
func warningIn(stderr string) (string, bool) {
	var all []string
	for line := range strings.Lines(stderr) {
		if strings.Contains(line, "warning: ") {
			all = append(all, strings.TrimSpace(line))
		}
	}
	return strings.Join(all, "\n    "), len(all) > 0
}

// ofTheNetwork leaves out of what doctor prints the areas that are this machine's.
func ofTheNetwork(text string) string {
	var b strings.Builder
	ours := true
	for line := range strings.Lines(text) {
		if !strings.HasPrefix(line, " ") {
			area := strings.TrimSpace(line)
			ours = area != "machine" && area != "sandbox" && area != "space"
		}
		if ours {
			b.WriteString(line)
		}
	}
	return b.String()
}

var variable = []struct {
	pattern *regexp.Regexp
	with    string
}{
	{regexp.MustCompile(`\d+ ms(, [\d.]+ .?B a second)?`), "N ms$1"},
	{regexp.MustCompile(`, [\d.]+ .?B a second`), ", SPEED"},
	{regexp.MustCompile(`127\.0\.0\.1:\d+`), "127.0.0.1:PORT"},
	{regexp.MustCompile(`\S*/proxy-ca\.pem`), "proxy-ca.pem"},
	{regexp.MustCompile(`[0-9a-f]{64}`), "DIGEST"},
	{regexp.MustCompile(`layer-base-[0-9a-f]{16}`), "layer-base-KEY"},
}

// steady replaces what differs from one run to the next.
func steady(m *machine, text string) string {
	text = strings.ReplaceAll(text, m.dir, "HOME")
	for _, u := range variable {
		text = u.pattern.ReplaceAllString(text, u.with)
	}
	return text
}
