package main

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/base64"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"

	"github.com/clayer/clayer/cmd/pack/internal/npm"
	"github.com/clayer/clayer/cmd/pack/internal/release"
	"github.com/clayer/clayer/cmd/pack/internal/wheel"
	"github.com/clayer/clayer/internal/testexec"
)

// program is what stands for clayer here: it takes seconds to link, four times.
const program = `#!/bin/sh
case $1 in
man) mkdir "$2" && echo page >"$2/clayer.1" ;;
completion) echo "$2" ;;
exit) exit "$2" ;;
kill) kill -"$2" $$ ;;
wait) trap 'echo interrupted; exit 42' INT TERM; echo ready; while :; do sleep 0.1; done ;;
pid) echo $$ ;;
tty) [ -t 0 ] && echo terminal ;;
*) echo "clayer v1.2.3 $*" ;;
esac
# `

// newRelease returns a release of which all tests have the same one.
func newRelease(t *testing.T) *release.Release {
	t.Helper()
	return shared.release()
}

// packed returns a directory with its packages, which no test changes.
func packed(t *testing.T) string {
	t.Helper()
	tool := exec.Command("go", "-C", "../../testdata/tools/nfpm", "tool", "nfpm", "--version")
	if text, err := tool.CombinedOutput(); err != nil {
		t.Skipf("nfpm is not to be had: %v: %s", err, text)
	}
	return shared.packages()
}

var shared struct {
	dir      string
	release  func() *release.Release
	packages func() string
}

func TestMain(m *testing.M) {
	os.Exit(func() int {
		dir, err := os.MkdirTemp("", "clayer-pack-test-")
		if err != nil {
			panic(err)
		}
		defer os.RemoveAll(dir)
		shared.dir = dir
		shared.release = sync.OnceValue(func() *release.Release { return makeRelease(filepath.Join(dir, "programs"), "1.2.3") })
		shared.packages = sync.OnceValue(func() string { return writePackages(filepath.Join(dir, "packages")) })
		return m.Run()
	}())
}

func makeRelease(dir, version string) *release.Release {
	r, err := release.New(version)
	if err == nil {
		err = os.Mkdir(dir, 0o755)
	}
	random := rand.New(rand.NewPCG(1, 2))
	for _, p := range release.Platforms {
		text := []byte(strings.ReplaceAll(program, "v1.2.3", "v"+version) + p.OS + "/" + p.Arch + "\n#")
		for range 10_000 {
			text = append(text, "0123456789abcdef"[random.IntN(16)])
		}
		path := filepath.Join(dir, p.OS+p.Arch)
		err = errors.Join(err, testexec.WriteFile(path, append(text, '\n')))
		err = errors.Join(err, r.Add(p, path))
	}
	if err != nil {
		panic(err)
	}
	return r
}

func writePackages(dir string) string {
	return writeRelease(shared.release(), dir)
}

func writeRelease(r *release.Release, dir string) string {
	if err := errors.Join(os.Mkdir(dir, 0o755), write(r, filepath.Join("..", ".."), dir)); err != nil {
		panic(err)
	}
	return dir
}

// installScript is install.sh of the repository.
func installScript(t *testing.T) []byte {
	t.Helper()
	text, err := os.ReadFile("../../install.sh")
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func own(t *testing.T, r *release.Release) *release.Program {
	t.Helper()
	for _, p := range r.Programs {
		if p.OS == runtime.GOOS && p.Arch == runtime.GOARCH {
			return p
		}
	}
	t.Skipf("there is no program for %s/%s", runtime.GOOS, runtime.GOARCH)
	return nil
}

func TestPackagesAreTheSameBytesOnEveryRun(t *testing.T) {
	a, b := packed(t), writePackages(filepath.Join(t.TempDir(), "again"))
	sums := make(map[string]string)
	for name := range files(t, a) {
		one, err := os.ReadFile(filepath.Join(a, name))
		if err != nil {
			t.Fatal(err)
		}
		two, err := os.ReadFile(filepath.Join(b, name))
		if err != nil || !bytes.Equal(one, two) {
			t.Errorf("%s is not the same: %v", name, err)
		}
		sums[name] = fmt.Sprintf("%x", sha256.Sum256(one))
	}
	if len(files(t, a)) != len(files(t, b)) {
		t.Errorf("%v, %v", files(t, a), files(t, b))
	}
	list, err := os.ReadFile(filepath.Join(a, "checksums.txt"))
	if err != nil {
		t.Fatal(err)
	}
	delete(sums, "checksums.txt")
	for line := range strings.Lines(string(list)) {
		sum, name, _ := strings.Cut(strings.TrimSpace(line), "  ")
		if sums[name] != sum {
			t.Errorf("checksums.txt has %q, want %s", line, sums[name])
		}
		delete(sums, name)
	}
	for name := range sums {
		if !strings.Contains(name, "/") {
			t.Errorf("%s is not in checksums.txt", name)
		}
	}
}

// files returns the names of the files below dir.
func files(t *testing.T, dir string) map[string]bool {
	t.Helper()
	names := make(map[string]bool)
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			rel, _ := filepath.Rel(dir, path)
			names[rel] = true
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return names
}

func TestVersionsThatAreNone(t *testing.T) {
	for _, v := range []string{"", "1.2", "v1.2.3", "1.2.3-rc1", "1.2.3-rc.01", "1.2.3-dev.1", "1.2.3+x", "01.2.3", "1.2.3 "} {
		if _, err := release.New(v); err == nil {
			t.Errorf("%q is one", v)
		}
	}
}

// A wheel, by the rules of its specification: RECORD lists every member with its digest.
// The program is the first member, and its header has what gzip needs.
func TestWheel(t *testing.T) {
	r := newRelease(t)
	dir := t.TempDir()
	if err := wheel.Write(r, dir, installScript(t)); err != nil {
		t.Fatal(err)
	}
	for _, p := range r.Programs {
		data, err := os.ReadFile(filepath.Join(dir, wheel.FileName(r, p)))
		if err != nil {
			t.Fatal(err)
		}
		z, err := zip.NewReader(bytes.NewReader(data), int64(len(data)))
		if err != nil {
			t.Fatal(err)
		}
		members := make(map[string][]byte)
		for _, f := range z.File {
			m, err := f.Open()
			if err != nil {
				t.Fatal(err)
			}
			if members[f.Name], err = io.ReadAll(m); err != nil {
				t.Errorf("%s: %v", f.Name, err)
			}
		}
		first := z.File[0]
		offset, err := first.DataOffset()
		if err != nil || first.Name != "container_layer-1.2.3.data/scripts/clayer" || first.Mode() != 0o755 || offset != int64(30+len(first.Name)) || first.Flags != 0 {
			t.Errorf("the first member is %+v, at %d, %v", first.FileHeader, offset, err)
		}
		if !bytes.Equal(members[first.Name], p.Data) {
			t.Error("the first member is not the program")
		}
		lines, err := csv.NewReader(bytes.NewReader(members["container_layer-1.2.3.dist-info/RECORD"])).ReadAll()
		if err != nil || len(lines) != len(members) {
			t.Errorf("RECORD: %v, %v", lines, err)
		}
		for _, l := range lines {
			sum := sha256.Sum256(members[l[0]])
			if want := "sha256=" + base64.RawURLEncoding.EncodeToString(sum[:]); l[1] != want && !(l[1] == "" && strings.HasSuffix(l[0], "/RECORD")) {
				t.Errorf("RECORD has %v, want %s", l, want)
			}
		}
	}
}

// pip installs the wheel of this platform, and no others; the command is the program.
func TestPipInstallsTheWheel(t *testing.T) {
	python, err := exec.LookPath("python3")
	if err != nil {
		t.Skip("python3 is not installed")
	}
	if out, err := exec.Command(python, "-m", "pip", "--version").CombinedOutput(); err != nil {
		t.Skipf("python3 has no pip: %s", out)
	}
	r := newRelease(t)
	p, dir, prefix := own(t, r), t.TempDir(), t.TempDir()
	if err := wheel.Write(r, dir, installScript(t)); err != nil {
		t.Fatal(err)
	}
	install := exec.Command(python, "-m", "pip", "install", "--no-index", "--find-links", dir, "--prefix", prefix, "--no-warn-script-location", "--disable-pip-version-check", "--break-system-packages", "container-layer==1.2.3")
	install.Env = append(os.Environ(), "HOME="+prefix)
	if out, err := install.CombinedOutput(); err != nil {
		t.Fatalf("pip install: %v\n%s", err, out)
	}
	found, _ := filepath.Glob(filepath.Join(prefix, "*", "bin", "clayer")) // Debian's Python adds local/
	if found = append(found, filepath.Join(prefix, "bin", "clayer")); len(found) > 1 {
		found = found[:1]
	}
	if got, err := os.ReadFile(found[0]); err != nil || !bytes.Equal(got, p.Data) {
		t.Errorf("%s is not the program: %v", found[0], err)
	}
	if out, err := exec.Command(found[0], "x").CombinedOutput(); err != nil || string(out) != "clayer v1.2.3 x\n" {
		t.Errorf("%q, %v", out, err)
	}
}

func readManifest(t *testing.T, path string) (m struct {
	Name, Version        string
	Bin                  map[string]string
	OS, CPU              []string
	OptionalDependencies map[string]string
}) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	a := tar.NewReader(z)
	if h, err := a.Next(); err != nil || h.Name != "package/package.json" {
		t.Fatalf("%+v, %v", h, err)
	}
	if err := json.NewDecoder(a).Decode(&m); err != nil {
		t.Fatal(err)
	}
	return m
}

// The packages of npm name each other: the main one depends on all others, in its own
// version.
func TestPackagesOfNPM(t *testing.T) {
	r := newRelease(t)
	dir := t.TempDir()
	if err := npm.Write(r, dir, nil); err != nil {
		t.Fatal(err)
	}
	main := readManifest(t, filepath.Join(dir, "container-layer-1.2.3.tgz"))
	if main.Name != "container-layer" || main.Version != "1.2.3" || len(main.OptionalDependencies) != len(r.Programs) {
		t.Errorf("%+v", main)
	}
	for _, p := range r.Programs {
		name := npm.PackageName(p)
		m := readManifest(t, filepath.Join(dir, npm.FileName(r, name)))
		if m.Name != name || main.OptionalDependencies[name] != "1.2.3" || m.OS[0] != p.OS || m.CPU[0] != p.CPU || m.Bin["clayer"] != "bin/clayer" {
			t.Errorf("%+v", m)
		}
	}
}

// The packages of distributions have the program, its manual and its completions.
func TestPackagesOfDistributions(t *testing.T) {
	r := newRelease(t)
	own(t, r)
	out := packed(t)
	for _, name := range []string{"clayer_1.2.3_amd64.deb", "clayer_1.2.3_arm64.deb", "clayer-1.2.3-1.x86_64.rpm", "clayer-1.2.3-1.aarch64.rpm", "clayer_1.2.3_x86_64.apk", "clayer_1.2.3_aarch64.apk"} {
		if _, err := os.Stat(filepath.Join(out, name)); err != nil {
			t.Errorf("%v; there are %v", err, files(t, out))
		}
	}
	// An apk is three tars, each compressed by itself, which read as one: the signature
	// (none), what the package is, its files.
	f, err := os.Open(filepath.Join(out, "clayer_1.2.3_x86_64.apk"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	members := make(map[string]string)
	a := tar.NewReader(z)
	for {
		h, err := a.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(a)
		if err != nil {
			t.Fatal(err)
		}
		members[h.Name] = string(text)
		if h.Typeflag == tar.TypeReg && (h.Uid != 0 || h.Name == "usr/bin/clayer" && h.Mode&0o7777 != 0o755) {
			t.Errorf("%+v", h)
		}
	}
	if info := members[".PKGINFO"]; !strings.Contains(info, "pkgname = clayer\npkgver = 1.2.3") || !strings.Contains(info, "arch = x86_64\n") {
		t.Errorf(".PKGINFO: %s", info)
	}
	if members["usr/bin/clayer"] != string(r.Programs[0].Data) || members["usr/share/man/man1/clayer.1"] != "page\n" || members["usr/share/bash-completion/completions/clayer"] != "bash\n" {
		t.Errorf("the files are %d", len(members))
	}
	if _, err := exec.LookPath("dpkg-deb"); err != nil {
		t.Skip("dpkg-deb is not installed: the deb is not read")
	}
	list, err := exec.Command("dpkg-deb", "--fsys-tarfile", filepath.Join(out, "clayer_1.2.3_amd64.deb")).Output()
	if err != nil || !bytes.Contains(list, r.Programs[0].Data) {
		t.Errorf("the deb lacks the program: %v", err)
	}
}

func sha(data []byte) []byte {
	sum := sha256.Sum256(data)
	return sum[:]
}
