package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/clayer/clayer/cmd/pack/internal/release"
)

// A version before a release: each format writes it in its own way, so that it is older than
// the release, and the installers find it at all hosts.
func TestPackagesBeforeARelease(t *testing.T) {
	packed(t) // or nfpm is not to be had
	dir := t.TempDir()
	r := makeRelease(filepath.Join(dir, "programs"), "1.2.3-rc.1")
	p, out := own(t, r), writeRelease(r, filepath.Join(dir, "packages"))
	for _, name := range []string{
		"container_layer-1.2.3rc1-py3-none-macosx_11_0_arm64.whl", "container-layer-1.2.3-rc.1.tgz", "container-layer-linux-x64-1.2.3-rc.1.tgz",
		"clayer_1.2.3~rc.1_amd64.deb", "clayer-1.2.3~rc.1-1.x86_64.rpm", "clayer_1.2.3_rc1_x86_64.apk", "clayer_linux_amd64.tar.gz",
	} {
		if _, err := os.Stat(filepath.Join(out, name)); err != nil {
			t.Errorf("%v; there are %v", err, files(t, out))
		}
	}
	if text, err := os.ReadFile(filepath.Join(out, "pins.txt")); err != nil || !strings.Contains(string(text), "  clayer_1.2.3-rc.1_linux_amd64\n") {
		t.Errorf("pins.txt: %s, %v", text, err)
	}
	h := newHosts(t, r, p, out)
	for _, i := range installers(t, out) {
		for _, source := range sources {
			_, undo := h.only(source)
			program, errs, err := h.run(t, i)
			undo()
			if err != nil || !bytes.Equal(program, p.Data) {
				t.Errorf("%s: %s: %v\n%s", i.name, source, err, errs)
			}
		}
	}
	if _, err := exec.LookPath("dpkg"); err == nil {
		got, err := exec.Command("dpkg-deb", "--field", filepath.Join(out, "clayer_1.2.3~rc.1_amd64.deb"), "Version").Output()
		version := strings.TrimSpace(string(got))
		if err != nil || version != "1.2.3~rc.1" || exec.Command("dpkg", "--compare-versions", version, "lt", "1.2.3").Run() != nil {
			t.Errorf("the deb has %q, %v", version, err)
		}
	}
	for version, want := range map[string]string{"1.2.3": "1.2.3", "1.2.3-alpha.0": "1.2.3a0", "1.2.3-beta.12": "1.2.3b12", "1.2.3-rc.2": "1.2.3rc2"} {
		if r, err := release.New(version); err != nil || r.Python() != want {
			t.Errorf("%s: %v, want %s", version, err, want)
		}
	}
}
