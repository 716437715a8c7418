//go:build linux

// Package clitest has what tests of the built program share: the program, and
// fresh Debian roots to run it on.
package clitest

import (
	"bytes"
	"context"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// Build builds clayer into a directory as a release is built: without the race
// detector, which makes packing and unpacking many times slower.
func Build(t testing.TB, dir string) (program string) {
	t.Helper()
	program = filepath.Join(dir, "clayer")
	build := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", program, "github.com/clayer/clayer/cmd/clayer")
	build.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	return program
}

// Mirror returns the archive that this machine installs from, and skips
// where there is none or it does not answer.
func Mirror(t testing.TB) (mirror, suite string) {
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

// SessionCA is where the roots have the CA bundle of this machine, so that a
// RUN gets through a proxy that inspects TLS as the machine itself does.
const SessionCA = "/etc/ssl/session-ca.pem"

// DebianRoot makes a fresh Debian in dir.
func DebianRoot(t testing.TB, dir string) {
	t.Helper()
	mirror, suite := Mirror(t)
	out, err := exec.CommandContext(t.Context(), "debootstrap", "--variant=minbase", suite, dir, mirror).CombinedOutput()
	if err != nil {
		t.Fatalf("debootstrap: %v\n%s", err, out[max(0, len(out)-2000):])
	}
	for _, ca := range []string{os.Getenv("SSL_CERT_FILE"), "/etc/ssl/certs/ca-certificates.crt"} {
		if data, err := os.ReadFile(ca); ca != "" && err == nil {
			if err := os.MkdirAll(filepath.Join(dir, "etc/ssl"), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(dir, SessionCA), data, 0o644); err != nil {
				t.Fatal(err)
			}
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
