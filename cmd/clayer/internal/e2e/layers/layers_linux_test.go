// Package layers composes the layers of testdata/layers on a fresh Debian.
package layers

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/clayer/clayer/cmd/clayer/internal/clitest"
	"github.com/clayer/clayer/internal/treetest"
)

const testdata = "../../../../../testdata"

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
	text, err := os.ReadFile(testdata + "/layers/Containerfile.mojo")
	if err != nil {
		t.Fatal(err)
	}
	sum := fmt.Sprintf("sha256:%x", sha256.Sum256(mojoTar(t)))
	if !strings.Contains(string(text), sum) {
		t.Errorf("Containerfile.mojo does not name %s", sum)
	}
}

// The main job on real input: base, scientific and mojo of testdata/layers are
// built in one fresh Debian and restored in another from the store alone, with
// the network cut off. The two are the same to the byte, and pandas works.
func TestEndToEndComposeBuildAndRestore(t *testing.T) {
	if testing.Short() {
		t.Skip("-short: it installs packages for minutes")
	}
	exe := clitest.Build(t, t.TempDir())
	dir := t.TempDir()
	built, restored := filepath.Join(dir, "built"), filepath.Join(dir, "restored")
	clitest.DebianRoot(t, built)
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
		cmd.Dir = testdata
		cmd.Env = clitest.Env()
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("clayer %s: %v\n%s", strings.Join(args, " "), err, out)
		}
		return string(out)
	}

	out := compose(false, built)
	t.Logf("built: %s", clitest.LastLine(out))
	www.Close()
	out = compose(true, restored)
	t.Logf("restored: %s", clitest.LastLine(out))
	if strings.Contains(clitest.LastLine(out), " ran") || !strings.Contains(clitest.LastLine(out), "restored") {
		t.Errorf("with all steps in the store: %s", clitest.LastLine(out))
	}

	skip := func(path string) bool { return path == "var/lib/clayer" || strings.HasPrefix(path, "var/lib/clayer/") }
	treetest.Diff(t, treetest.Describe(t, built, skip), treetest.Describe(t, restored, skip))

	cmd := exec.CommandContext(t.Context(), "chroot", restored, "python3", "-c", "import pandas; print(pandas.__version__)")
	cmd.Env = clitest.Env()
	if got, err := cmd.CombinedOutput(); err != nil || strings.TrimSpace(string(got)) != "3.1.1" {
		t.Errorf("import pandas in the restored root: %v\n%s", err, got)
	}
	if out := compose(true, restored); !strings.Contains(clitest.LastLine(out), "present") || strings.Contains(clitest.LastLine(out), "restored") {
		t.Errorf("a second solve: %s", clitest.LastLine(out))
	}
}
