// Package packages installs the packages of a release on machines that have nothing.
package packages

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"

	"github.com/clayer/clayer/cmd/clayer/internal/clitest"
)

// top is the top of the repository.
var top = filepath.Join("..", "..", "..", "..", "..")

// A release is what cmd/pack writes for this machine's platform.
type release struct {
	dir    string
	elf    []byte
	node   string // its platform, as npm calls it
	server *server
}

// packed has cmd/pack write the packages once, for all tests.
var packed = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "clayer-packages-test-")
	if err != nil {
		return "", err
	}
	pack := exec.Command("go", "run", "./cmd/pack", "-version", "1.2.3", "-platforms", "linux/"+runtime.GOARCH, "-out", dir)
	pack.Dir = top
	out, err := pack.CombinedOutput()
	if err != nil {
		err = fmt.Errorf("pack: %w\n%s", err, out)
	}
	return dir, err
})

func TestMain(m *testing.M) {
	code := m.Run()
	if !testing.Short() {
		if dir, _ := packed(); dir != "" {
			_ = os.RemoveAll(dir)
		}
	}
	os.Exit(code)
}

func newRelease(t *testing.T) *release {
	t.Helper()
	if testing.Short() {
		t.Skip("-short: it builds the packages of a release, and installs them for minutes")
	}
	dir, err := packed()
	if err != nil && strings.Contains(err.Error(), "nfpm") {
		t.Skipf("nfpm is not to be had: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	r := &release{dir: dir, node: "linux-" + map[string]string{"amd64": "x64", "arm64": "arm64"}[runtime.GOARCH]}
	z, err := gzip.NewReader(bytes.NewReader(r.file(t, "clayer_linux_*.tar.gz")))
	if err != nil {
		t.Fatal(err)
	}
	members := tar.NewReader(z)
	if h, err := members.Next(); err != nil || h.Name != "clayer" {
		t.Fatalf("%+v, %v", h, err)
	}
	var b bytes.Buffer
	if _, err := b.ReadFrom(members); err != nil {
		t.Fatal(err)
	}
	r.elf = b.Bytes()
	r.server = newServer(t, r)
	return r
}

// path returns the package that a pattern matches.
func (r *release) path(t *testing.T, pattern string) string {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(r.dir, pattern))
	if err != nil || len(names) != 1 {
		t.Fatalf("%s: %v, %v", pattern, names, err)
	}
	return names[0]
}

func (r *release) file(t *testing.T, pattern string) []byte {
	t.Helper()
	data, err := os.ReadFile(r.path(t, pattern))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// A server is PyPI, npm, GitHub and a mirror, of which one has the release.
type server struct {
	url   string
	mu    sync.Mutex
	has   string // the one
	files map[string][]byte
	asked []string // hosts, in turn
	bytes int      // that were sent
}

// put makes a file be there.
func (s *server) put(name string, data []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.files[name] = data
}

func newServer(t *testing.T, r *release) *server {
	t.Helper()
	wheel := filepath.Base(r.path(t, "*.whl"))
	archive := r.file(t, "clayer_linux_*.tar.gz")
	s := &server{files: map[string][]byte{
		"/pypi/simple/container-layer/": fmt.Appendf(nil, "<!DOCTYPE html><a href=\"../../%s#sha256=1\">%[1]s</a>", wheel),
		"/pypi/" + wheel:                r.file(t, "*.whl"),
		"/npm/@container-layer/" + r.node + "/-/" + r.node + "-1.2.3.tgz":    r.file(t, "container-layer-linux-*.tgz"),
		"/github/download/v1.2.3/clayer_linux_" + runtime.GOARCH + ".tar.gz": archive,
		"/url/download/v1.2.3/clayer_linux_" + runtime.GOARCH + ".tar.gz":    archive,
	}}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		defer s.mu.Unlock()
		host, _, _ := strings.Cut(r.URL.Path[1:], "/")
		s.asked = append(s.asked, host)
		data, ok := s.files[r.URL.Path]
		if !ok || host != s.has {
			http.Error(w, "not from here", http.StatusForbidden)
			return
		}
		n, _ := w.Write(data)
		s.bytes += n + 300 // and a header
	}))
	t.Cleanup(srv.Close)
	s.url = srv.URL
	return s
}

// only has one host answer, and forgets what was asked.
func (s *server) only(host string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.has, s.asked, s.bytes = host, nil, 0
}

func (s *server) env() []string {
	return []string{"CLAYER_PYPI_URL=" + s.url + "/pypi/simple", "CLAYER_NPM_URL=" + s.url + "/npm", "CLAYER_GITHUB_URL=" + s.url + "/github", "CLAYER_DOWNLOAD_URL=" + s.url + "/url"}
}

// A machine is a root of its own on top of a Debian, in namespaces of its own, with the
// network of this machine.
type machine struct {
	t    *testing.T
	base string // what debootstrap installed
	own  string // what differs
	env  []string
}

func newMachine(t *testing.T, base string, env []string) *machine {
	t.Helper()
	m := &machine{t, base, t.TempDir(), append(clitest.Env(), env...)}
	m.env = append(m.env, "no_proxy=127.0.0.1,"+os.Getenv("no_proxy"))
	for _, d := range []string{"upper/root/packages", "work", "root"} {
		if err := os.MkdirAll(filepath.Join(m.own, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return m
}

// path is where a file of the machine is here.
func (m *machine) path(name string) string { return filepath.Join(m.own, "upper", name) }

func (m *machine) put(name string, data []byte) {
	m.t.Helper()
	if err := os.MkdirAll(filepath.Dir(m.path(name)), 0o755); err != nil {
		m.t.Fatal(err)
	}
	if err := os.WriteFile(m.path(name), data, 0o755); err != nil {
		m.t.Fatal(err)
	}
}

// sh runs a script in the machine.
func (m *machine) sh(script string, env ...string) (string, error) {
	cmd := exec.CommandContext(m.t.Context(), "unshare", "--mount", "--pid", "--fork", "--kill-child", "--propagation", "private", "--", "sh", "-euc", `
mount -t overlay -o "lowerdir=$1,upperdir=$2/upper,workdir=$2/work" clayer-test "$2/root"
mount -t proc proc "$2/root/proc"
mount --rbind /dev "$2/root/dev"
cd "$2/root"
mkdir -p .old
pivot_root . .old
umount -l .old
cd /root
exec sh -c "$3"
`, "sh", m.base, m.own, script)
	cmd.Env = append(m.env, env...)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func (m *machine) must(script string, env ...string) string {
	m.t.Helper()
	out, err := m.sh(script, env...)
	if err != nil {
		m.t.Fatalf("%s: %v\n%s", script, err, out)
	}
	return out
}

// require skips where no machine can be made, and returns the base of a suite.
func require(t *testing.T, suite string) string {
	t.Helper()
	if _, err := exec.LookPath("pivot_root"); err != nil {
		t.Skip(err)
	}
	if out, err := exec.CommandContext(t.Context(), "unshare", "--mount", "true").CombinedOutput(); err != nil {
		t.Skipf("nothing can be mounted: %s", out)
	}
	dir, err := packed()
	if err != nil {
		t.Fatal(err)
	}
	// Beside the packages, for all tests: no machine changes it.
	base := filepath.Join(dir, "bases", suite)
	if _, err := os.Stat(base); err == nil {
		return base
	}
	clitest.Debian(t, suite).Unpack(t, base)
	m := newMachine(t, base, nil)
	if out, err := m.sh("true"); err != nil {
		t.Skipf("no overlay can be mounted here: %s", out)
	}
	cmd := exec.CommandContext(t.Context(), "chroot", base, "apt-get", "update", "-qq")
	cmd.Env = m.env
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Skipf("apt-get update: %v\n%s", err, out)
	}
	return base
}

var hosts = []string{"pypi", "npm", "github", "url"}

// With any one host that has the release, and any one program that fetches, the boot script
// and the installers get clayer running. They ask each host once, none after the first that
// has it, and transfer at most 0.41 times the program.
func TestEndToEndInstallers(t *testing.T) {
	r := newRelease(t)
	project := t.TempDir()
	if err := os.WriteFile(filepath.Join(project, "Containerfile"), []byte("ENV GREETING=hello\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(t.TempDir(), "clayer")
	if err := os.WriteFile(program, r.elf, 0o755); err != nil {
		t.Fatal(err)
	}
	boot := exec.CommandContext(t.Context(), program, "init", "boot", "--pins-file", r.path(t, "pins.txt"))
	boot.Dir = project
	if out, err := boot.CombinedOutput(); err != nil {
		t.Fatalf("init boot: %v\n%s", err, out)
	}
	script, err := os.ReadFile(filepath.Join(project, "boot.sh"))
	if err != nil {
		t.Fatal(err)
	}
	for _, suite := range []string{"bookworm", "trixie"} {
		t.Run(suite, func(t *testing.T) {
			base := require(t, suite)
			for _, tool := range []string{"curl", "wget", "python3"} {
				t.Run(tool, func(t *testing.T) {
					m := newMachine(t, base, r.server.env())
					m.must("apt-get install -qq -y --no-install-recommends " + tool + " >/dev/null")
					m.put("root/boot.sh", script)
					m.put("root/Containerfile", []byte("ENV GREETING=hello\n"))
					m.put("root/install.sh", r.file(t, "install.sh"))
					m.put("root/install.py", r.file(t, "install.py"))
					commands := map[string]string{
						"boot":       `CLAYER_YES=1 sh boot.sh sh -c 'echo "$GREETING"; ~/.cache/clayer/bin/clayer version'`,
						"install.sh": `"$(sh install.sh)" version`,
					}
					if tool == "python3" {
						commands["install.py"] = `"$(python3 install.py)" version`
					}
					for name, command := range commands {
						for n, host := range hosts {
							r.server.only(host)
							home := fmt.Sprintf("/root/%s-%s", name, host)
							out, err := m.sh("mkdir " + home + " && HOME=" + home + " && " + command)
							if err != nil || !strings.Contains(out, "clayer v1.2.3 linux/") || name == "boot" && !strings.Contains(out, "hello\n") {
								t.Errorf("%s from %s: %v\n%s", name, host, err, out)
							}
							want := hosts[:n+1]
							if host == "pypi" {
								want = []string{"pypi", "pypi"} // its index, and the file
							}
							if strings.Join(r.server.asked, " ") != strings.Join(want, " ") {
								t.Errorf("%s from %s: asked %v", name, host, r.server.asked)
							}
							if ratio := float64(r.server.bytes) / float64(len(r.elf)); ratio > 0.41 {
								t.Errorf("%s from %s: transferred %.3f of the program", name, host, ratio)
							}
						}
					}
				})
			}
		})
	}
}

// Each package installs the program, on a machine without a network of its own.
func TestEndToEndPackages(t *testing.T) {
	r := newRelease(t)
	const version = "clayer v1.2.3 linux/"
	t.Run("deb and rpm", func(t *testing.T) {
		m := newMachine(t, require(t, "bookworm"), nil)
		m.put("root/x.deb", r.file(t, "*.deb"))
		m.put("root/x.rpm", r.file(t, "*.rpm"))
		if out := m.must("dpkg -i x.deb >/dev/null && clayer version && ! clayer self uninstall && dpkg -r clayer && [ ! -e /usr/bin/clayer ]"); !strings.Contains(out, version) || !strings.Contains(out, "installed by dpkg") {
			t.Error(out)
		}
		m.must("apt-get install -qq -y --no-install-recommends rpm >/dev/null")
		if out := m.must("rpm --root /other --dbpath /var/lib/rpm --nodeps --force-debian -i x.rpm && /other/usr/bin/clayer version && ls /other/usr/share/man/man1/clayer-solve.1"); !strings.Contains(out, version) {
			t.Error(out)
		}
	})
	run := func(t *testing.T, times int, script string) {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), "sh", "-euc", script, "sh", r.dir, filepath.Base(r.path(t, "container-layer-linux-*.tgz")))
		dir := t.TempDir()
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), "npm_config_update_notifier=false", "HOME="+dir, "XDG_DATA_HOME=", "XDG_CACHE_HOME=", "npm_config_cache="+dir+"/npm")
		if out, err := cmd.CombinedOutput(); err != nil || strings.Count(string(out), version) != times {
			t.Errorf("%s: %v\n%s", script, err, out)
		}
	}
	need := func(t *testing.T, tools ...string) {
		t.Helper()
		for _, tool := range tools {
			if out, err := exec.CommandContext(t.Context(), tool, "--version").CombinedOutput(); err != nil {
				t.Skipf("%s is not to be had: %v: %s", tool, err, out)
			}
		}
	}
	t.Run("pip and uv", func(t *testing.T) {
		need(t, "python3")
		clitest.Answer(t, "PyPI", "https://pypi.org/simple/uv/")
		run(t, 4, `python3 -m venv v >/dev/null
v/bin/pip install -q --disable-pip-version-check uv==0.8.0
v/bin/pip install -q --disable-pip-version-check --no-index --find-links "$1" container-layer
v/bin/clayer version
v/bin/python -c 'import container_layer, subprocess; subprocess.run([container_layer.find_clayer(), "--version"])' | grep clayer && v/bin/clayer self update 2>&1 | grep -q 'pip install --upgrade'
v/bin/uv tool install -q --offline --no-index --find-links "$1" container-layer
.local/bin/clayer version
v/bin/uv tool run -q --offline --no-index --find-links "$1" --from container-layer clayer version`)
	})
	t.Run("npm", func(t *testing.T) {
		need(t, "npm", "node")
		run(t, 3, `npm i -g --prefix "$PWD/p" --offline --no-audit --no-fund "$1/container-layer-1.2.3.tgz" "$1/$2" >/dev/null
p/bin/clayer version
npx --offline --yes -p "$1/container-layer-1.2.3.tgz" -p "$1/$2" clayer version
npx --offline --yes -p "$1/$2" clayer version`)
	})
}

// A clayer that install.sh installed replaces itself by another release, of which it
// verifies the pin, and removes itself.
func TestEndToEndSelf(t *testing.T) {
	r := newRelease(t)
	if _, err := exec.LookPath("curl"); err != nil {
		t.Skip(err)
	}
	next := []byte("#!/bin/sh\necho clayer v1.2.4 x/y go\n")
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	w := tar.NewWriter(z)
	if err := w.WriteHeader(&tar.Header{Name: "clayer", Mode: 0o755, Size: int64(len(next))}); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(next); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	pins := fmt.Appendf(nil, "%x  clayer_1.2.4_linux_%s\n", sha256.Sum256(next), runtime.GOARCH)
	r.server.put("/github/latest/download/pins.txt", pins)
	r.server.put("/github/download/v1.2.4/pins.txt", pins)
	r.server.put("/github/download/v1.2.4/clayer_linux_"+runtime.GOARCH+".tar.gz", b.Bytes())
	r.server.only("github")
	home := t.TempDir()
	run := func(argv ...string) (string, error) {
		cmd := exec.CommandContext(t.Context(), argv[0], argv[1:]...)
		cmd.Env = append(r.server.env(), "HOME="+home, "PATH=/usr/bin:/bin", "no_proxy=127.0.0.1")
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	clayer := filepath.Join(home, ".local/bin/clayer")
	installed := func(want string) {
		t.Helper()
		if out, err := run(clayer, "version"); err != nil || !strings.HasPrefix(out, "clayer "+want+" ") {
			t.Errorf("%s, %v; want %s", out, err, want)
		}
	}
	if out, err := run("sh", r.path(t, "install.sh")); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	// Of another digest.
	r.server.put("/github/download/v1.2.4/pins.txt", fmt.Appendf(nil, "%064x  clayer_1.2.4_linux_%s\n", 1, runtime.GOARCH))
	if out, err := run(clayer, "self", "update", "1.2.4"); err == nil || !strings.Contains(out, "checksum mismatch") || !strings.Contains(out, "is as it was") {
		t.Errorf("%v\n%s", err, out)
	}
	installed("v1.2.3")
	r.server.put("/github/download/v1.2.4/pins.txt", pins)
	if out, err := run(clayer, "self", "update", "v1.2.3"); err != nil || !strings.Contains(out, "is v1.2.3 already") {
		t.Errorf("%v\n%s", err, out)
	}
	if out, err := run(clayer, "self", "update"); err != nil || !strings.Contains(out, "is v1.2.4 now") {
		t.Errorf("%v\n%s", err, out)
	}
	installed("v1.2.4")
	if err := os.WriteFile(clayer+".new", r.elf, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(clayer+".new", clayer); err != nil {
		t.Fatal(err)
	}
	if out, err := run(clayer, "self", "uninstall"); err != nil || !strings.Contains(out, "removed "+clayer) {
		t.Errorf("%v\n%s", err, out)
	}
	if _, err := os.Stat(clayer); err == nil {
		t.Error("it is still there")
	}
}
