// Package installs installs by hand, captures that, and solves what was captured.
package installs

import (
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/clayer/clayer/cmd/clayer/internal/clitest"
)

// inScratch runs a script in this machine's root with a scratch layer over it:
// what real package managers do there is gone afterwards. The directory is where the
// layer's files are found.
func inScratch(t *testing.T, dir, script string) string {
	t.Helper()
	for _, d := range []string{"upper", "work", "merged"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.CommandContext(t.Context(), "unshare", "--mount", "--propagation", "private", "sh", "-euc", `
mount -t overlay scratch -o "lowerdir=/,upperdir=$1/upper,workdir=$1/work" "$1/merged"
mkdir -p "$1/merged/tmp"
for m in proc sys dev; do mount --rbind "/$m" "$1/merged/$m"; done
mount -t tmpfs scratch "$1/merged/tmp"
for f in /etc/resolv.conf /etc/hosts; do [ ! -f "$f" ] || mount --bind "$f" "$1/merged$f" || :; done
exec chroot "$1/merged" sh -euc "cd /
$2"
`, "sh", dir, script)
	// The clayer of the layer, and not that of testscript, which PATH begins with.
	cmd.Env = append(os.Environ(), "PATH=/usr/local/bin:"+os.Getenv("PATH"), "TMPDIR=/tmp", "DEBIAN_FRONTEND=noninteractive", "PIP_BREAK_SYSTEM_PACKAGES=1", "PIP_ROOT_USER_ACTION=ignore",
		"UV_BREAK_SYSTEM_PACKAGES=1", "CLAYER_CACHE_DIR=/tmp/clayer-cache", "CLAYER_SHIM=lines", "XDG_STATE_HOME=", "UV_LINK_MODE=copy")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out[max(0, len(out)-4000):])
	}
	return string(out)
}

// Real uv, pip, apt and npm, each captured by its shim, and again without one;
// then the Containerfile is solved where nothing was installed, and gives the same
// packages, in the same versions.
func TestEndToEndInstallsFlowBack(t *testing.T) {
	if testing.Short() {
		t.Skip("-short: it installs packages")
	}
	clitest.Debian(t, "")
	for _, tool := range []string{"pip", "npm", "python3"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skip(err)
		}
	}
	if out, err := exec.Command("pip", "download", "--no-deps", "-q", "-d", t.TempDir(), "funcy").CombinedOutput(); err != nil {
		t.Skipf("PyPI does not answer: %s", out)
	}
	if exec.Command("pip", "show", "-q", "funcy").Run() == nil {
		t.Skip("funcy is installed on this machine: installing it would do nothing")
	}
	if out, err := exec.Command("npm", "view", "left-pad", "version").CombinedOutput(); err != nil {
		t.Skipf("the registry of npm does not answer: %s", out)
	}
	// Not below /tmp, whose file system may be an overlay already.
	work, err := os.MkdirTemp("/dev/shm", "flow-back-")
	if err != nil {
		t.Skip(err)
	}
	t.Cleanup(func() { os.RemoveAll(work) })
	session := filepath.Join(work, "session")
	bin := filepath.Join(session, "upper/usr/local/bin")
	if err := os.MkdirAll(bin, 0o755); err != nil {
		t.Fatal(err)
	}
	program := clitest.Build(t, bin)

	const packages = `
for p in funcy toolz; do python3 -c 'import sys, importlib.metadata as m; print("python", sys.argv[1], m.version(sys.argv[1]))' $p; done
dpkg-query -W -f 'dpkg ${Package} ${Version}\n' hello
npm ls -g --depth=0 --parseable left-pad | sed -n 's,.*/,npm ,p'
`
	out := inScratch(t, session, `
began=$(date -u +%Y-%m-%dT%H:%M:%SZ)
sleep 1
mkdir /proj
cd /proj
clayer shim install
eval "$(clayer shim env)"
pip install -q funcy
pip install -q uv
uv pip install --system -q 'toolz<9'
apt-get update -qq
apt-get install -qq hello
npm install -g --silent left-pad
clayer shim uninstall
clayer capture --since $began -f /proj/captured --pin --write
echo LIST
`+packages)
	_, want, _ := strings.Cut(out, "LIST\n")
	if n := strings.Count(want, "\n"); n != 4 {
		t.Fatalf("%d packages are installed: %q\n%s", n, want, out)
	}
	containerfile, err := os.ReadFile(filepath.Join(session, "upper/proj/Containerfile"))
	if err != nil {
		t.Fatal(err)
	}
	const captured = `RUN pip install funcy uv
RUN uv pip install --system 'toolz<9'
RUN apt-get update && apt-get install -y hello
RUN npm install -g left-pad
`
	if string(containerfile) != captured {
		t.Errorf("captured:\n%s", containerfile)
	}
	asked, err := os.ReadFile(filepath.Join(session, "upper/proj/captured"))
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{"funcy==", "uv==", "toolz==", "hello=", "left-pad@"} {
		if !strings.Contains(string(asked), line) {
			t.Errorf("capture has no %s:\n%s", line, asked)
		}
	}
	for _, noise := range []string{"SNAPSHOT --all /usr", "SNAPSHOT --all /var", "/.git/"} {
		if strings.Contains(string(asked), noise) {
			t.Errorf("capture takes files of packages for the user's:\n%s", asked)
		}
	}

	// Other sessions, on what the machine was: what the RUNs add is in a directory.
	solvedElsewhere := func(file string) {
		t.Helper()
		dest := filepath.Join(work, "fresh-"+file)
		cmd := exec.CommandContext(t.Context(), program, "solve", "-f", filepath.Join(session, "upper/proj", file), "--dest", dest, "--cache-dir", filepath.Join(work, "cache"))
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out[max(0, len(out)-4000):])
		}
		for line := range strings.Lines(want) {
			f := strings.Fields(line)
			var pattern string
			switch f[0] {
			case "python":
				pattern = f[1] + "-" + f[2] + ".dist-info"
			case "dpkg":
				pattern = f[1] + ".list"
			case "npm":
				pattern = f[1]
			}
			found := false
			err := filepath.WalkDir(dest, func(path string, d fs.DirEntry, err error) error {
				found = found || err == nil && d.Name() == pattern
				return err
			})
			if err != nil || !found {
				t.Errorf("%s solved elsewhere: no %s (%v)", file, pattern, err)
			}
		}
	}
	solvedElsewhere("Containerfile")
	solvedElsewhere("captured")
}
