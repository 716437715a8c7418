package main

import (
	"bytes"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/clayer/clayer/cmd/pack/internal/npm"
	"github.com/clayer/clayer/cmd/pack/internal/release"
	"github.com/clayer/clayer/cmd/pack/internal/wheel"
)

// hosts has a release as PyPI, npm, GitHub and a mirror have it, on loopback. It counts
// what each is asked.
type hosts struct {
	url   string
	mu    sync.Mutex
	files map[string][]byte // by path; what is not there is refused
	asked map[string]int    // by host
}

// sources are the hosts, in the order in which they are asked.
var sources = []string{"pypi", "npm", "github", "mirror"}

func newHosts(t *testing.T, r *release.Release, p *release.Program, out string) *hosts {
	t.Helper()
	read := func(name string) []byte {
		data, err := os.ReadFile(filepath.Join(out, name))
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	w, name := wheel.FileName(r, p), npm.PackageName(p)
	h := &hosts{asked: make(map[string]int), files: map[string][]byte{
		"/pypi/simple/container-layer/": fmt.Appendf(nil, "<!DOCTYPE html><a href='../../files/other.whl'>other.whl</a>\n<a href=\"../../files/%s#sha256=12\" data-requires-python=\"&gt;=3.9\">%[1]s</a><br>\n", w),
		"/pypi/files/" + w:              read(w),
		"/npm/" + name + "/-/" + name[strings.Index(name, "/")+1:] + "-" + r.Version + ".tgz": read(npm.FileName(r, name)),
		"/github/download/v" + r.Version + "/" + p.FileName() + ".tar.gz":                     read(p.FileName() + ".tar.gz"),
		"/mirror/download/v" + r.Version + "/" + p.FileName() + ".tar.gz":                     read(p.FileName() + ".tar.gz"),
	}}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h.mu.Lock()
		host, _, _ := strings.Cut(r.URL.Path[1:], "/")
		h.asked[host]++
		data, ok := h.files[r.URL.Path]
		h.mu.Unlock()
		if !ok {
			w.WriteHeader(http.StatusForbidden)
			return
		}
		_, _ = w.Write(data)
	}))
	t.Cleanup(srv.Close)
	h.url = srv.URL
	return h
}

// only returns hosts of which all but one refuse.
func (h *hosts) only(host string) (asked map[string]int, undo func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	all, some := h.files, make(map[string][]byte)
	for path, data := range all {
		if strings.HasPrefix(path, "/"+host+"/") {
			some[path] = data
		}
	}
	h.files, h.asked = some, make(map[string]int)
	return h.asked, func() {
		h.mu.Lock()
		h.files = all
		h.mu.Unlock()
	}
}

// count returns how often a host was asked since only.
func (h *hosts) count(host string) int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.asked[host]
}

// An installer is a command line, on a machine whose PATH has some programs only.
type installer struct {
	name string
	argv []string
	path string
}

// installers are install.sh, with each program that fetches, and install.py.
func installers(t *testing.T, out string) []installer {
	t.Helper()
	bin := func(name string, programs ...string) string {
		dir := filepath.Join(t.TempDir(), name)
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		for _, program := range append(programs, "sh", "cat", "chmod", "cut", "grep", "gzip", "head", "mkdir", "mktemp", "mv", "od", "rm", "sed", "sha256sum", "sleep", "tail", "tar", "tr", "uname") {
			path, err := exec.LookPath(program)
			if err != nil {
				t.Skip(err)
			}
			if err := os.Symlink(path, filepath.Join(dir, program)); err != nil {
				t.Fatal(err)
			}
		}
		return dir
	}
	sh := []string{"sh", filepath.Join(out, "install.sh")}
	list := []installer{{"curl", sh, bin("curl", "curl")}, {"wget", sh, bin("wget", "wget")}}
	// What python3 is on PATH may itself call programs that PATH will lack.
	python, err := exec.Command("python3", "-c", "import sys; print(sys.executable)").Output()
	if err != nil {
		t.Log("skipped: python3 is not installed")
		return list
	}
	dir := bin("python")
	if err := os.Symlink(strings.TrimSpace(string(python)), filepath.Join(dir, "python3")); err != nil {
		t.Fatal(err)
	}
	return append(list, installer{"python3", sh, dir}, installer{"install.py", []string{strings.TrimSpace(string(python)), filepath.Join(out, "install.py")}, "/nonexistent"})
}

// run installs into a new directory, and returns the program and what was reported.
func (h *hosts) run(t *testing.T, i installer, env ...string) (program []byte, errs string, err error) {
	t.Helper()
	dir := t.TempDir()
	cmd := exec.Command(i.argv[0], append(slices.Clone(i.argv[1:]), "--dir", dir)...)
	if i.argv[0] == "sh" {
		cmd.Path = filepath.Join(i.path, "sh")
	}
	cmd.Env = append([]string{"PATH=" + i.path, "HOME=" + dir, "no_proxy=127.0.0.1", "CLAYER_TRIES=0",
		"CLAYER_PYPI_URL=" + h.url + "/pypi/simple", "CLAYER_NPM_URL=" + h.url + "/npm/", "CLAYER_GITHUB_URL=" + h.url + "/github", "CLAYER_DOWNLOAD_URL=" + h.url + "/mirror"}, env...)
	var out, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &stderr
	err = cmd.Run()
	if err == nil && out.String() != filepath.Join(dir, "clayer")+"\n" {
		t.Errorf("%s: prints %q", i.name, &out)
	}
	program, _ = os.ReadFile(filepath.Join(dir, "clayer"))
	if left, _ := filepath.Glob(filepath.Join(dir, ".clayer-*")); len(left) > 0 {
		t.Errorf("%s: left behind: %v", i.name, left)
	}
	return program, stderr.String(), err
}

// The installers of a release ask the hosts in turn, each once, until one has it.
func TestInstallersAskInTurn(t *testing.T) {
	r := newRelease(t)
	p, out := own(t, r), packed(t)
	h := newHosts(t, r, p, out)
	for _, i := range installers(t, out) {
		for n, source := range sources {
			asked, undo := h.only(source)
			program, errs, err := h.run(t, i)
			undo()
			if err != nil || !bytes.Equal(program, p.Data) {
				t.Errorf("%s: %s: %v\n%s", i.name, source, err, errs)
			}
			for m, host := range sources {
				want := 0
				switch {
				case m <= n && host == "pypi" && source == "pypi":
					want = 2 // its index, and the file
				case m <= n:
					want = 1
				}
				if asked[host] != want {
					t.Errorf("%s: %s: %s was asked %d times, want %d", i.name, source, host, asked[host], want)
				}
			}
		}
		asked, undo := h.only("none")
		program, errs, err := h.run(t, i, "CLAYER_TRIES=15") // a refusal is not waited for
		undo()
		if err == nil || program != nil || !strings.Contains(errs, "nothing was installed") || len(asked) != len(sources) {
			t.Errorf("%s: none: %v, asked %v\n%s", i.name, err, asked, errs)
		}
		asked, undo = h.only("npm")
		if _, errs, err := h.run(t, i, "CLAYER_PYPI_URL=", "CLAYER_OFFLINE=1"); err == nil || !strings.Contains(errs, "offline") || len(asked) > 0 {
			t.Errorf("%s: offline: %v\n%s", i.name, err, errs)
		}
		undo()
	}
}

// A program that has none of the pins is not installed; the next host is asked.
func TestInstallersVerify(t *testing.T) {
	r := newRelease(t)
	p, out := own(t, r), packed(t)
	h := newHosts(t, r, p, out)
	other := *p
	other.Data = bytes.Replace(p.Data, []byte("exit"), []byte("EXIT"), 1)
	dir := t.TempDir()
	if err := wheel.Write(&release.Release{Version: "1.2.3", Programs: []*release.Program{&other}}, dir, installScript(t)); err != nil {
		t.Fatal(err)
	}
	changed, err := os.ReadFile(filepath.Join(dir, wheel.FileName(r, p)))
	if err != nil {
		t.Fatal(err)
	}
	at := "/pypi/files/" + wheel.FileName(r, p)
	good := h.files[at]
	for _, i := range installers(t, out) {
		for name, bad := range map[string][]byte{"changed": changed, "short": good[:len(good)/2], "damaged": append(bytes.Clone(good[:1000]), bytes.Repeat([]byte{0xff}, 5000)...), "empty": {}, "a page": []byte("<html>log in</html>")} {
			h.mu.Lock()
			h.files[at] = bad
			h.mu.Unlock()
			program, errs, err := h.run(t, i)
			if err != nil || !bytes.Equal(program, p.Data) || name == "changed" && !strings.Contains(errs, "checksum mismatch") || strings.Contains(errs, "Traceback") {
				t.Errorf("%s: %s: %v\n%s", i.name, name, err, errs)
			}
		}
		h.mu.Lock()
		h.files[at] = changed
		h.mu.Unlock()
		// Whoever uses another program gives its pin.
		if program, errs, err := h.run(t, i, fmt.Sprintf("CLAYER_PINS=%064x %x", 1, sha(other.Data))); err != nil || !bytes.Equal(program, other.Data) {
			t.Errorf("%s: its own pin: %v\n%s", i.name, err, errs)
		}
	}
}

// Where one host has no address, the others are asked before anything is waited for.
func TestInstallersWaitForNoHost(t *testing.T) {
	r := newRelease(t)
	p, out := own(t, r), packed(t)
	h := newHosts(t, r, p, out)
	for _, i := range installers(t, out) {
		if program, errs, err := h.run(t, i, "CLAYER_PYPI_URL=http://host.invalid/simple", "CLAYER_TRIES=15", "no_proxy=127.0.0.1,host.invalid"); err != nil || !bytes.Equal(program, p.Data) || errs != "" {
			t.Errorf("%s: %v\n%s", i.name, err, errs)
		}
		if _, errs, err := h.run(t, i, "CLAYER_PYPI_URL=http://host.invalid/simple", "CLAYER_NPM_URL=", "CLAYER_GITHUB_URL=", "CLAYER_DOWNLOAD_URL=", "no_proxy=host.invalid"); err == nil || !strings.Contains(errs, "cannot download http://host.invalid") {
			t.Errorf("%s: %v\n%s", i.name, err, errs)
		}
	}
}

// A clayer of that version on PATH is used, and no host is asked.
func TestInstallersFindTheOneOnPath(t *testing.T) {
	r := newRelease(t)
	p, out := own(t, r), packed(t)
	h := newHosts(t, r, p, out)
	for _, i := range installers(t, out) {
		dir := t.TempDir()
		if err := os.Symlink(p.Path, filepath.Join(dir, "clayer")); err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command(i.argv[0], append(slices.Clone(i.argv[1:]), "--dir", t.TempDir())...)
		cmd.Env = []string{"PATH=" + dir + ":" + i.path, "HOME=" + dir, "CLAYER_PYPI_URL=" + h.url}
		if got, err := cmd.CombinedOutput(); err != nil || string(got) != filepath.Join(dir, "clayer")+"\n" {
			t.Errorf("%s: %q, %v", i.name, got, err)
		}
		if len(h.asked) > 0 {
			t.Errorf("%s: asked %v", i.name, h.asked)
		}
	}
}

// docs/install.md names packages that there are, and variables that both installers read.
func TestInstallPageIsTrue(t *testing.T) {
	page, err := os.ReadFile("../../docs/install.md")
	if err != nil {
		t.Fatal(err)
	}
	out := packed(t)
	names := regexp.MustCompile(`clayer[_-]1\.2\.3[\w.-]*\.(?:deb|rpm|apk)|clayer\.rb|install\.(?:sh|py)|pins\.txt|checksums\.txt`).FindAllString(string(page), -1)
	if len(names) < 8 {
		t.Errorf("it names %v", names)
	}
	for _, name := range names {
		if _, err := os.Stat(filepath.Join(out, name)); err != nil {
			t.Error(err)
		}
	}
	for _, script := range []string{"install.sh", "install.py"} {
		text, err := os.ReadFile(filepath.Join(out, script))
		if err != nil {
			t.Fatal(err)
		}
		for _, word := range regexp.MustCompile(`CLAYER_[A-Z_]+|https://[a-z./]+[a-z]`).FindAllString(string(page), -1) {
			if !bytes.Contains(text, []byte(word)) {
				t.Errorf("%s does not know %s", script, word)
			}
		}
	}
}
