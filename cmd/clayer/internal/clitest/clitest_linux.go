//go:build linux

// Package clitest has what tests of the built program share: the program, and
// fresh Debian roots to run it on.
package clitest

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/clayer/clayer/internal/buildflags"
)

// Build builds clayer into a directory as a release is built: without the race
// detector, which makes packing and unpacking many times slower.
func Build(t testing.TB, dir string) (program string) {
	t.Helper()
	program = filepath.Join(dir, "clayer")
	build := exec.Command("go", slices.Concat([]string{"build"}, buildflags.List(), []string{"-o", program, "github.com/clayer/clayer/cmd/clayer"})...)
	build.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	return program
}

// Archive is a suite of Debian in the archive that this machine installs from.
type Archive struct {
	mirror, suite string
	release       [sha256.Size]byte // of its Release file, which lists what is in it
}

// Debian returns the archive of a suite, "" for this machine's own, and skips
// where there is none or it does not answer.
func Debian(t testing.TB, suite string) Archive {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("not root: debootstrap needs it")
	}
	for _, tool := range []string{"debootstrap", "apt-get", "unshare", "tar"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("%s is not installed", tool)
		}
	}
	release, err := os.ReadFile("/etc/os-release")
	if err != nil {
		t.Skip(err)
	}
	m := regexp.MustCompile(`(?m)^VERSION_CODENAME=(\w+)`).FindSubmatch(release)
	if m == nil || !bytes.Contains(release, []byte("ID=debian")) {
		t.Skip("not Debian: no archive to bootstrap from")
	}
	own := string(m[1])
	out, err := exec.Command("apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages", "Codename: "+own).Output()
	if err != nil || len(bytes.Fields(out)) == 0 {
		t.Skipf("apt knows no archive of %s: %v", own, err)
	}
	a := Archive{mirror: strings.TrimSuffix(string(bytes.Fields(out)[0]), "/"), suite: cmp.Or(suite, own)}
	if _, err := os.Stat("/usr/share/debootstrap/scripts/" + a.suite); err != nil {
		t.Skipf("debootstrap does not know %s", a.suite)
	}
	list := Answer(t, "the Debian archive", a.mirror+"/dists/"+a.suite+"/Release")
	a.release = sha256.Sum256(list)
	return a
}

// Answer returns what a server sends, and skips where it does not answer.
func Answer(t testing.TB, who, url string) []byte {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Skipf("%s does not answer: %v", who, err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		t.Skipf("%s answers %s", who, resp.Status)
	}
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Skipf("%s does not answer: %v", who, err)
	}
	return data
}

// SessionCA is where the roots have the CA bundle of this machine, so that a
// RUN gets through a proxy that inspects TLS as the machine itself does.
const SessionCA = "/etc/ssl/session-ca.pem"

// DebianRoot makes a fresh Debian of this machine's suite in dir.
func DebianRoot(t testing.TB, dir string) {
	t.Helper()
	Debian(t, "").Unpack(t, dir)
}

// bootstrapping is held by who has debootstrap make a root, so that tests side by
// side make one of each suite.
var bootstrapping sync.Mutex

// Unpack makes a fresh Debian in dir, as debootstrap's variant minbase leaves it.
// What debootstrap made is archive as an archive in the user's cache directory until
// the suite's Release file changes.
func (a Archive) Unpack(t testing.TB, dir string) {
	t.Helper()
	command := func(name string, args ...string) {
		t.Helper()
		if out, err := exec.CommandContext(t.Context(), name, args...).CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", name, err, out[max(0, len(out)-2000):])
		}
	}
	bootstrapping.Lock()
	defer bootstrapping.Unlock()
	archive := filepath.Join(t.TempDir(), "root.tar")
	if cache, err := os.UserCacheDir(); err == nil {
		if cache = filepath.Join(cache, "clayer-test"); os.MkdirAll(cache, 0o755) == nil {
			archive = filepath.Join(cache, fmt.Sprintf("debian-%s-%x.tar", a.suite, a.release[:8]))
		}
	}
	if _, err := os.Stat(archive); err != nil {
		fresh, temp := filepath.Join(t.TempDir(), "root"), fmt.Sprintf("%s.%d", archive, os.Getpid())
		command("debootstrap", "--variant=minbase", a.suite, fresh, a.mirror)
		defer os.Remove(temp) // where it was not renamed
		command("tar", "--numeric-owner", "-C", fresh, "-cf", temp, ".")
		old, _ := filepath.Glob(filepath.Join(filepath.Dir(archive), "debian-"+a.suite+"-*.tar"))
		for _, path := range old {
			if err := os.Remove(path); err != nil {
				t.Error(err)
			}
		}
		if err := os.Rename(temp, archive); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	command("tar", "--numeric-owner", "-C", dir, "-xpf", archive)
	copyFile := func(from, to string) bool {
		t.Helper()
		data, err := os.ReadFile(from)
		if err != nil {
			return false
		}
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, to)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, to), data, 0o644); err != nil {
			t.Fatal(err)
		}
		return true
	}
	copyFile("/etc/resolv.conf", "/etc/resolv.conf") // it may have been another when the root was archived
	for _, ca := range []string{os.Getenv("SSL_CERT_FILE"), "/etc/ssl/certs/ca-certificates.crt"} {
		if ca != "" && copyFile(ca, SessionCA) {
			return
		}
	}
}

// Env is the session of a test on a Debian root.
func Env() []string {
	return []string{
		"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "TERM=dumb",
		"SSL_CERT_FILE=" + SessionCA, "PIP_CERT=" + SessionCA, "REQUESTS_CA_BUNDLE=" + SessionCA, "CURL_CA_BUNDLE=" + SessionCA,
		"NODE_EXTRA_CA_CERTS=" + SessionCA,
		"http_proxy=" + os.Getenv("http_proxy"), "https_proxy=" + os.Getenv("https_proxy"), "no_proxy=" + os.Getenv("no_proxy"),
	}
}

// LastLine returns the last line of what a command printed.
func LastLine(s string) string {
	lines := strings.Split(strings.TrimSpace(s), "\n")
	return lines[len(lines)-1]
}
