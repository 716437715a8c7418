//go:build linux

package main

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/clayer/clayer/solver/rootfs/treetest"
)

// clayerCommand returns a command that runs this test binary as clayer.
func clayerCommand(t testing.TB, args ...string) *exec.Cmd {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), exe, args...)
	cmd.Args[0] = "clayer"
	return cmd
}

// plainBinary builds clayer without the race detector, which makes packing and
// unpacking many times slower: for tests that move hundreds of megabytes.
func plainBinary(t testing.TB) string {
	t.Helper()
	exe := filepath.Join(t.TempDir(), "clayer")
	if out, err := exec.Command("go", "build", "-o", exe, ".").CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	return exe
}

// mojoTar is the tarball that testdata/layers/Containerfile.mojo fetches: a
// program and a library of thousands of files. It is the same bytes always, as
// the checksum in the Containerfile demands.
func mojoTar(t testing.TB) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	add := func(h tar.Header, content string) {
		h.Size = int64(len(content))
		h.ModTime = time.Unix(1_700_000_000, 0)
		h.Format = tar.FormatPAX
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(content)); err != nil {
			t.Fatal(err)
		}
	}
	add(tar.Header{Name: "mojo-1.2.0/", Typeflag: tar.TypeDir, Mode: 0o755}, "")
	add(tar.Header{Name: "mojo-1.2.0/bin/", Typeflag: tar.TypeDir, Mode: 0o755}, "")
	add(tar.Header{Name: "mojo-1.2.0/bin/mojo", Typeflag: tar.TypeReg, Mode: 0o755}, `#!/usr/bin/python3
# mojo precompile DIR: what a compiler would do, as far as files go.
import hashlib, pathlib, sys
for source in sorted(pathlib.Path(sys.argv[2]).rglob("*.mojo")):
    source.with_suffix(".mojoc").write_text(hashlib.sha256(source.read_bytes()).hexdigest() * 8)
`)
	add(tar.Header{Name: "mojo-1.2.0/bin/mojo-1", Typeflag: tar.TypeSymlink, Linkname: "mojo", Mode: 0o777}, "")
	for pkg := range 60 {
		dir := fmt.Sprintf("mojo-1.2.0/lib/pkg%02d/", pkg)
		add(tar.Header{Name: dir, Typeflag: tar.TypeDir, Mode: 0o755}, "")
		for mod := range 50 {
			add(tar.Header{Name: fmt.Sprintf("%smod%02d.mojo", dir, mod), Typeflag: tar.TypeReg, Mode: 0o644},
				strings.Repeat(fmt.Sprintf("fn f%d_%d() -> Int: return %d\n", pkg, mod, pkg*mod), 20+mod))
		}
	}
	add(tar.Header{Name: "mojo-1.2.0/lib/pkg00/same.mojo", Typeflag: tar.TypeLink, Linkname: "mojo-1.2.0/lib/pkg00/mod00.mojo", Mode: 0o644}, "")
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestMojoChecksumInLayer(t *testing.T) {
	text, err := os.ReadFile("../../testdata/layers/Containerfile.mojo")
	if err != nil {
		t.Fatal(err)
	}
	sum := fmt.Sprintf("sha256:%x", sha256.Sum256(mojoTar(t)))
	if !strings.Contains(string(text), sum) {
		t.Errorf("Containerfile.mojo does not name %s", sum)
	}
}

// aptMirror returns the archive that this machine installs from, and skips
// where there is none or it does not answer.
func aptMirror(t *testing.T) (mirror, suite string) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("not root: debootstrap needs it")
	}
	for _, tool := range []string{"debootstrap", "apt-get", "unshare"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("%s is not installed", tool)
		}
	}
	release, err := os.ReadFile("/etc/os-release")
	if err != nil {
		t.Skip(err)
	}
	if m := regexp.MustCompile(`(?m)^VERSION_CODENAME=(\w+)`).FindSubmatch(release); m != nil && bytes.Contains(release, []byte("ID=debian")) {
		suite = string(m[1])
	} else {
		t.Skip("not Debian: no archive to bootstrap from")
	}
	out, err := exec.Command("apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages", "Codename: "+suite).Output()
	if err != nil || len(bytes.Fields(out)) == 0 {
		t.Skipf("apt knows no archive of %s: %v", suite, err)
	}
	mirror = string(bytes.Fields(out)[0])
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodHead, strings.TrimSuffix(mirror, "/")+"/dists/"+suite+"/Release", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Skipf("the Debian archive does not answer: %v", err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		t.Skipf("the Debian archive answers %s", resp.Status)
	}
	return mirror, suite
}

// sessionCA is where the roots have the CA bundle of this machine, so that a
// RUN gets through a proxy that inspects TLS as the machine itself does.
const sessionCA = "/etc/ssl/session-ca.pem"

// debianRoot makes a fresh Debian in dir.
func debianRoot(t *testing.T, dir string) {
	t.Helper()
	mirror, suite := aptMirror(t)
	out, err := exec.CommandContext(t.Context(), "debootstrap", "--variant=minbase", suite, dir, mirror).CombinedOutput()
	if err != nil {
		t.Fatalf("debootstrap: %v\n%s", err, out[max(0, len(out)-2000):])
	}
	for _, ca := range []string{os.Getenv("SSL_CERT_FILE"), "/etc/ssl/certs/ca-certificates.crt"} {
		if data, err := os.ReadFile(ca); ca != "" && err == nil {
			if err := os.MkdirAll(filepath.Join(dir, "etc/ssl"), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(dir, sessionCA), data, 0o644); err != nil {
				t.Fatal(err)
			}
			return
		}
	}
}

// layersEnv is the session of the end-to-end tests.
func layersEnv() []string {
	return []string{
		"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "TERM=dumb",
		"SSL_CERT_FILE=" + sessionCA, "PIP_CERT=" + sessionCA, "REQUESTS_CA_BUNDLE=" + sessionCA, "CURL_CA_BUNDLE=" + sessionCA,
		"NODE_EXTRA_CA_CERTS=" + sessionCA,
		"http_proxy=" + os.Getenv("http_proxy"), "https_proxy=" + os.Getenv("https_proxy"), "no_proxy=" + os.Getenv("no_proxy"),
	}
}

// The main job on real input: base, scientific and mojo of testdata/layers are
// built in one fresh Debian and restored in another from the store alone, with
// the network cut off. The two are the same to the byte, and pandas works.
func TestEndToEndComposeBuildAndRestore(t *testing.T) {
	if testing.Short() {
		t.Skip("-short: it installs packages for minutes")
	}
	t.Parallel()
	exe := plainBinary(t)
	dir := t.TempDir()
	built, restored := filepath.Join(dir, "built"), filepath.Join(dir, "restored")
	debianRoot(t, built)
	if out, err := exec.Command("cp", "-a", built, restored).CombinedOutput(); err != nil {
		t.Fatalf("cp: %v\n%s", err, out)
	}
	tarball := mojoTar(t)
	www := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.ServeContent(w, r, "mojo.tar", time.Time{}, bytes.NewReader(tarball))
	}))
	defer www.Close()

	compose := func(offline bool, root string, more ...string) string {
		t.Helper()
		args := append([]string{"compose", "base", "scientific", "mojo", "--root", root, "--cache-dir", filepath.Join(dir, "cache"),
			"--build-arg", "MIRROR=" + www.URL}, more...)
		cmd := exec.CommandContext(t.Context(), exe, args...)
		if offline {
			self := cmd.Path
			cmd = exec.CommandContext(t.Context(), "unshare", append([]string{"--net", "--", "/bin/sh", "-c", `exec -a clayer "$0" "$@"`, self}, args...)...)
			cmd.Args[3] = "/bin/bash"
		}
		cmd.Dir = "../../testdata"
		cmd.Env = layersEnv()
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("clayer %s: %v\n%s", strings.Join(args, " "), err, out)
		}
		return string(out)
	}

	out := compose(false, built)
	t.Logf("built: %s", lastLine(out))
	www.Close()
	out = compose(true, restored)
	t.Logf("restored: %s", lastLine(out))
	if strings.Contains(lastLine(out), " ran") || !strings.Contains(lastLine(out), "restored") {
		t.Errorf("with all steps in the store: %s", lastLine(out))
	}

	skip := func(path string) bool { return path == "var/lib/clayer" || strings.HasPrefix(path, "var/lib/clayer/") }
	treetest.Diff(t, treetest.Describe(t, built, skip), treetest.Describe(t, restored, skip))

	cmd := exec.CommandContext(t.Context(), "chroot", restored, "python3", "-c", "import pandas; print(pandas.__version__)")
	cmd.Env = layersEnv()
	if got, err := cmd.CombinedOutput(); err != nil || strings.TrimSpace(string(got)) != "3.1.1" {
		t.Errorf("import pandas in the restored root: %v\n%s", err, got)
	}
	if out := compose(true, restored); !strings.Contains(lastLine(out), "present") || strings.Contains(lastLine(out), "restored") {
		t.Errorf("a second solve: %s", lastLine(out))
	}
}

func lastLine(s string) string {
	lines := strings.Split(strings.TrimSpace(s), "\n")
	return lines[len(lines)-1]
}
