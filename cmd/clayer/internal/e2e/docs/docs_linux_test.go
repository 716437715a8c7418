// Package docs follows the documentation on a machine that has nothing, and in a
// checkout.
package docs

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/clayer/clayer/cmd/clayer/internal/clitest"
	"github.com/clayer/clayer/cmd/clayer/internal/doctest"
	"github.com/clayer/clayer/internal/testexec"
)

// top is the top of the repository.
var top = filepath.Join("..", "..", "..", "..", "..")

// README's commands that need Go work in a checkout, and leave nothing in it that
// Git does not ignore.
func TestDocsInACheckout(t *testing.T) {
	if testing.Short() {
		t.Skip("-short: it compiles clayer")
	}
	if out, err := exec.CommandContext(t.Context(), "unshare", "-Ur", "true").CombinedOutput(); os.Geteuid() != 0 && err != nil {
		t.Skipf("neither root nor user namespaces: %s", out)
	}
	list := exec.CommandContext(t.Context(), "git", "-C", top, "ls-files", "-z", "--cached", "--others", "--exclude-standard")
	files, err := list.Output()
	if err != nil {
		t.Skipf("no checkout: git ls-files: %v", err)
	}
	dir := t.TempDir()
	checkout := filepath.Join(dir, "clayer")
	for name := range bytes.SplitSeq(bytes.TrimRight(files, "\x00"), []byte{0}) {
		from, to := filepath.Join(top, string(name)), filepath.Join(checkout, string(name))
		info, err := os.Stat(from)
		if errors.Is(err, fs.ErrNotExist) {
			continue // deleted, and not committed
		}
		if err != nil {
			t.Fatal(err)
		}
		data, err := os.ReadFile(from)
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(os.MkdirAll(filepath.Dir(to), 0o755), os.WriteFile(to, data, info.Mode().Perm())); err != nil {
			t.Fatal(err)
		}
	}
	// The home is the test's, and Go's caches are the user's.
	env := slices.DeleteFunc(os.Environ(), func(kv string) bool {
		return strings.HasPrefix(kv, "CLAYER_") || strings.HasPrefix(kv, "XDG_") || strings.HasPrefix(kv, "GIT_")
	})
	for _, name := range []string{"GOCACHE", "GOMODCACHE", "GOPATH"} {
		out, err := exec.CommandContext(t.Context(), "go", "env", name).Output()
		if err != nil {
			t.Fatal(err)
		}
		env = append(env, name+"="+strings.TrimSpace(string(out)))
	}
	// So that both are compiled once, in this directory and elsewhere.
	env = append(env, "HOME="+filepath.Join(dir, "home"), "CGO_ENABLED=0", "GOFLAGS=-trimpath")
	bash := func(script string) (string, error) {
		cmd := exec.CommandContext(t.Context(), "bash", "-c", script)
		cmd.Dir, cmd.Env = checkout, env
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	if out, err := bash("git init -q && git add -A"); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	var blocks []doctest.Block
	for _, b := range doctest.Blocks(t, filepath.Join(top, "README.md")) {
		if b.WithGo {
			blocks = append(blocks, b)
		}
	}
	if len(blocks) < 2 {
		t.Fatalf("README.md has %d blocks that need Go", len(blocks))
	}
	// The one that is built is then found.
	blocks = append(blocks, doctest.Block{Kind: "sh", Text: "[ \"$(command -v clayer)\" = \"$PWD/clayer\" ] && clayer version && out/opt/hello/bin/greet\n"})
	doctest.Follow(t, blocks, dir, bash)
	if out, err := bash("git ls-files --others --modified --exclude-standard"); err != nil || out != "" {
		t.Errorf("README's commands leave in the checkout, %v:\n%s", err, out)
	}
}

// debian is a machine: a Debian with nothing but what debootstrap's variant minbase installs,
// and clayer: a root of its own, in namespaces of its own, with the network of this
// machine.
type debian struct {
	t    *testing.T
	root string
	env  []string
}

func newDebian(t *testing.T, a clitest.Archive, clayer string, env []string) *debian {
	t.Helper()
	m := &debian{t, filepath.Join(t.TempDir(), "root"), env}
	a.Unpack(t, m.root)
	data, err := os.ReadFile(clayer)
	if err != nil {
		t.Fatal(err)
	}
	hosts := "127.0.0.1 localhost ghcr.io\n" // the registry that README names refuses at once
	if err := errors.Join(testexec.WriteFile(filepath.Join(m.root, "usr/local/bin/clayer"), data), os.WriteFile(filepath.Join(m.root, "etc/hosts"), []byte(hosts), 0o644)); err != nil {
		t.Fatal(err)
	}
	return m
}

// project is where the commands of a page are typed.
func (m *debian) project() string { return filepath.Join(m.root, "root", "project") }

// bash runs a script in the machine. Its root is the one at "/" there: that of the
// machine that tests is not mounted at all.
func (m *debian) bash(script string) (string, error) {
	cmd := exec.CommandContext(m.t.Context(), "unshare", "--mount", "--pid", "--fork", "--kill-child", "--propagation", "private", "--", "sh", "-euc", `
mount --bind "$1" "$1"
mount -t proc proc "$1/proc"
for d in sys dev; do mount --rbind "/$d" "$1/$d"; done
cd "$1"
mkdir .old
pivot_root . .old
umount -l .old
rmdir .old
cd /root/project
exec bash -c "$2"
`, "sh", m.root, script)
	cmd.Env = m.env
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// README and the tutorial, word by word, in Debian 12 and 13 with nothing but what
// debootstrap installs. apt-get, pip and uv are the real ones.
func TestEndToEndDocs(t *testing.T) {
	if testing.Short() {
		t.Skip("-short: it installs packages for minutes")
	}
	if _, err := exec.LookPath("pivot_root"); err != nil {
		t.Skip(err)
	}
	if out, err := exec.CommandContext(t.Context(), "unshare", "--mount", "true").CombinedOutput(); err != nil {
		t.Skipf("nothing can be mounted: %s", out)
	}
	clitest.Answer(t, "PyPI", "https://pypi.org/simple/uv/")
	exe := clitest.Build(t, t.TempDir())
	for _, suite := range []string{"bookworm", "trixie"} {
		for _, page := range []string{"README.md", "docs/tutorial.md"} {
			t.Run(suite+"/"+filepath.Base(page), func(t *testing.T) {
				a := clitest.Debian(t, suite)
				env := append(append(clitest.Env(), doctest.GitHub(t)...), "CLAYER_CACHE_DIR=/root/.cache/clayer", "SHELL=/bin/sh", "no_proxy=127.0.0.1,localhost,ghcr.io,"+os.Getenv("no_proxy"))
				m := newDebian(t, a, exe, env)
				doctest.Files(t, filepath.Join(top, "testdata"), strings.TrimSuffix(filepath.Base(page), ".md"), m.project())
				blocks := slices.DeleteFunc(doctest.Blocks(t, filepath.Join(top, page)), func(b doctest.Block) bool { return b.Not != "" || b.WithGo })
				for len(blocks) > 0 {
					here := len(blocks)
					if next := slices.IndexFunc(blocks[1:], func(b doctest.Block) bool { return b.NextMachine }); next >= 0 {
						here = next + 1
					}
					doctest.Follow(t, blocks[:here], "/root", m.bash)
					if blocks = blocks[here:]; len(blocks) > 0 {
						// A fresh one, with the project.
						old := m
						m = newDebian(t, a, exe, env)
						if err := os.CopyFS(m.project(), os.DirFS(old.project())); err != nil {
							t.Fatal(err)
						}
					}
				}
			})
		}
	}
}
