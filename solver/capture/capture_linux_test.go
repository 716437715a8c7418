package capture

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/clayer/clayer/solver/rootfs/drift"
)

// machine is a temporary root with the databases of package managers, which are
// on a PATH of its own.
type machine struct {
	*testing.T
	root string
}

func newMachine(t *testing.T) *machine {
	m := &machine{t, t.TempDir()}
	m.write("bin/.keep", "")
	t.Setenv("PATH", m.path("bin"))
	t.Setenv("HOME", m.path("home"))
	return m
}

func (m *machine) path(p string) string { return filepath.Join(m.root, p) }

func (m *machine) write(p, text string) {
	m.Helper()
	if err := os.MkdirAll(filepath.Dir(m.path(p)), 0o755); err != nil {
		m.Fatal(err)
	}
	if err := os.WriteFile(m.path(p), []byte(text), 0o644); err != nil {
		m.Fatal(err)
	}
}

// program puts a script on PATH.
func (m *machine) program(name, script string) {
	m.Helper()
	m.write("bin/"+name, "#!/bin/sh\n"+script)
	if err := os.Chmod(m.path("bin/"+name), 0o755); err != nil {
		m.Fatal(err)
	}
}

// real makes a program of this machine one of PATH, with what is set before it.
func (m *machine) real(name, before string) {
	m.Helper()
	path := "/usr/bin/" + name
	if _, err := os.Stat(path); err != nil {
		m.Skip(err)
	}
	m.program(name, before+"\nexec "+path+` "$@"`+"\n")
}

// now is a time before whatever is written next.
func (m *machine) now() time.Time {
	m.Helper()
	stamp := func() time.Time {
		m.write("clock", "")
		var st unix.Stat_t
		if err := unix.Lstat(m.path("clock"), &st); err != nil {
			m.Fatal(err)
		}
		return time.Unix(st.Ctim.Unix())
	}
	at := stamp()
	for !stamp().After(at) {
		time.Sleep(time.Millisecond)
	}
	return stamp()
}

// text is a list of packages, each with the line that installs it.
func text(packages []Package) string {
	var b strings.Builder
	for _, p := range packages {
		b.WriteString(strings.Join(p.command(true), " "))
		if p.note != "" {
			b.WriteString(" # " + p.note)
		}
		b.WriteString("\n")
	}
	return b.String()
}

func (m *machine) check(packages []Package, err error, want string) {
	m.Helper()
	if got := text(packages); err != nil || got != want {
		m.Errorf("found:\n%s, %v, want:\n%s", got, err, want)
	}
}

// The database of dpkg, as dpkg-query and apt-mark of Debian read it.
func TestDpkg(t *testing.T) {
	m := newMachine(t)
	admin := m.path("var/lib/dpkg")
	var status strings.Builder
	add := func(binary, version, state string, at int64, files ...string) {
		name, arch, several := strings.Cut(binary, ":")
		more := ""
		if several {
			more = "Multi-Arch: same\n"
		} else {
			arch = "all"
		}
		fmt.Fprintf(&status, "Package: %s\nStatus: %s\nArchitecture: %s\n%sMaintainer: x <x@example.com>\nVersion: %s\nDescription: x\n\n", name, state, arch, more, version)
		list := "var/lib/dpkg/info/" + binary + ".list"
		m.write(list, strings.Join(files, "\n")+"\n")
		if err := os.Chtimes(m.path(list), time.Unix(at, 0), time.Unix(at, 0)); err != nil {
			t.Fatal(err)
		}
	}
	const since = 1_700_000_000
	add("bash", "5.2-1", "install ok installed", since-1, "/.", "/bin/bash")
	add("jq", "1.6-2", "install ok installed", since+5, "/.", "/usr/bin/jq")
	add("libjq1", "1.6-2", "install ok installed", since+5, "/.", "/usr/lib/libjq.so")
	native, other := "amd64", "i386"
	if out, err := exec.Command("dpkg", "--print-architecture").Output(); err == nil && strings.TrimSpace(string(out)) != native {
		native, other = strings.TrimSpace(string(out)), native
	}
	add("libz:"+native, "1.3", "install ok installed", since+5, "/.", "/usr/lib/native/libz.so")
	add("libz:"+other, "1.3", "install ok installed", since+5, "/.", "/usr/lib/other/libz.so")
	add("gone", "1:1", "deinstall ok config-files", since+5, "/etc/gone")
	m.write("var/lib/dpkg/status", status.String())
	m.write("var/lib/dpkg/info/format", "1\n")
	m.write("var/lib/dpkg/arch", native+"\n"+other+"\n")
	m.write("apt/extended_states", fmt.Sprintf("Package: libjq1\nArchitecture: %[1]s\nAuto-Installed: 1\n\nPackage: libz\nArchitecture: %[1]s\nAuto-Installed: 1\n\n", native))
	m.write("apt/lists/partial/.keep", "")
	m.write("apt/cache/archives/partial/.keep", "")
	m.write("apt.conf", fmt.Sprintf("Dir::State \"%[1]s/apt\";\nDir::State::status \"%[2]s/status\";\nDir::Cache \"%[1]s/apt/cache\";\nDir::Etc \"%[1]s/apt/etc\";\n", m.root, admin))
	t.Setenv("DPKG_ADMINDIR", admin)
	t.Setenv("APT_CONFIG", m.path("apt.conf"))
	m.real("dpkg-query", "")
	m.real("apt-mark", "")
	m.real("dpkg", "")

	packages, aside, err := dpkg(t.Context(), Options{Since: time.Unix(since, 0)})
	m.check(packages, err, "apt-get install jq=1.6-2\napt-get install libz:"+other+"=1.3\n")
	if len(packages) > 0 && !strings.Contains(strings.Join(packages[0].owns, " "), "/usr/bin/jq") {
		t.Errorf("jq owns %q", packages[0].owns)
	}
	if !strings.Contains(strings.Join(aside, " "), "/usr/lib/libjq.so") {
		t.Errorf("owned by what came along: %q", aside)
	}
	packages, _, err = dpkg(t.Context(), Options{Since: time.Unix(since+6, 0)})
	m.check(packages, err, "")
	// A damaged database is reported.
	m.write("var/lib/dpkg/status", "Package: \n\x00")
	if _, _, err := dpkg(t.Context(), Options{}); err == nil || !strings.Contains(err.Error(), "dpkg-query") {
		t.Errorf("a damaged database: %v", err)
	}
}

// Distributions in two interpreters, as a real Python finds them.
func TestPython(t *testing.T) {
	m := newMachine(t)
	if _, err := os.Stat("/usr/bin/python3"); err != nil {
		t.Skip(err)
	}
	// Each has a directory of distributions of its own, and nothing of this machine's.
	interpreter := func(name string) {
		site := m.path("lib/" + name)
		m.program(name, fmt.Sprintf(`exec /usr/bin/python3 -I -S -c "import sys; sys.path.insert(0, '%s')
$3"
`, site))
	}
	interpreter("python3")
	interpreter("python")
	dist := func(python, name, version, installer string, more map[string]string) {
		dir := fmt.Sprintf("lib/%s/%s-%s.dist-info/", python, name, version)
		metadata := "Metadata-Version: 2.1\nName: " + name + "\nVersion: " + version + "\n"
		for _, r := range strings.Fields(more["requires"]) {
			metadata += "Requires-Dist: " + r + "\n"
		}
		m.write(dir+"METADATA", metadata)
		m.write(dir+"INSTALLER", installer+"\n")
		m.write(dir+"RECORD", fmt.Sprintf("%s/__init__.py,,\n../../bin/%s-tool,,\n", name, name))
		for file, text := range more {
			if file != "requires" {
				m.write(dir+file, text)
			}
		}
	}
	asked := map[string]string{"REQUESTED": ""}
	dist("python3", "old", "1.0", "pip", asked)
	since := m.now()
	if wait := time.Until(since.Truncate(time.Second).Add(time.Second)); wait > 0 {
		time.Sleep(wait) // times are to the second
	}
	since = since.Truncate(time.Second).Add(time.Second)
	dist("python3", "pandas", "3.0", "pip", map[string]string{"REQUESTED": "", "requires": "numpy>=1"})
	dist("python3", "numpy", "2.4", "pip", nil)
	dist("python3", "debian-owned", "1.0", "debian", nil)
	dist("python3", "tool", "0.1", "uv", asked)
	dist("python3", "vcs", "1.0", "pip", map[string]string{"REQUESTED": "", "direct_url.json": `{"url": "https://example.com/vcs", "vcs_info": {"vcs": "git", "commit_id": "12ab"}}`})
	dist("python3", "mine", "1.0", "pip", map[string]string{"REQUESTED": "", "direct_url.json": `{"url": "file:///home/me/mine", "dir_info": {"editable": true}}`})
	dist("python3", "wheel", "1.0", "pip", map[string]string{"REQUESTED": "", "direct_url.json": `{"url": "https://example.com/wheel-1.0.whl", "archive_info": {}}`})
	dist("python", "other", "1.0", "pip", asked)
	dist("python", "by_uv", "1.0", "uv", map[string]string{"requires": "needed[x]>=1"})
	dist("python", "needed", "1.0", "uv", nil)
	dist("python", "broken", "1.0", "pip", map[string]string{"direct_url.json": ""})

	packages, aside, err := python(t.Context(), Options{Since: since})
	lines := make(map[string]bool)
	for l := range strings.Lines(text(packages)) {
		lines[l] = true
	}
	for _, want := range []string{
		"python3 -m pip install pandas==3.0\n",
		"uv pip install --system tool==0.1\n",
		"python3 -m pip install vcs @ git+https://example.com/vcs@12ab\n",
		"python3 -m pip install mine==1.0 # it was installed from file:///home/me/mine, which is of this machine\n",
		"python3 -m pip install wheel @ https://example.com/wheel-1.0.whl\n",
		"python -m pip install other==1.0\n",
		"uv pip install --system --python python by_uv==1.0\n",
	} {
		if !lines[want] {
			t.Errorf("not found: %s", want)
		}
		delete(lines, want)
	}
	if len(lines) > 0 || err != nil {
		t.Errorf("found too: %v, %v", lines, err)
	}
	for _, file := range []string{"lib/python3/numpy/__init__.py", "bin/numpy-tool", "lib/python/needed-1.0.dist-info/"} {
		p := m.path(file)
		if strings.HasSuffix(file, "/") {
			p += "/"
		}
		if !strings.Contains(strings.Join(aside, "\n")+"\n", p+"\n") {
			t.Errorf("%s has no owner: %q", p, aside)
		}
	}
	// One that fails is reported, and the other is still queried.
	m.program("python3", "echo no module importlib >&2; exit 1\n")
	packages, _, err = python(t.Context(), Options{Since: since})
	if err == nil || !strings.Contains(err.Error(), "no module importlib") || !strings.Contains(text(packages), "other==1.0") {
		t.Errorf("one that fails: %v, %s", err, text(packages))
	}
}

// npm's directory of packages for all projects.
func TestNpm(t *testing.T) {
	m := newMachine(t)
	m.write("lib/node_modules/old/package.json", "{}")
	since := m.now()
	for _, p := range []string{"typescript", "@scope/tool", "mine"} {
		m.write("lib/node_modules/"+p+"/package.json", "{}")
	}
	if err := os.Symlink("../lib/node_modules/typescript/bin/tsc", m.path("bin/tsc")); err != nil {
		t.Fatal(err)
	}
	m.program("npm", fmt.Sprintf(`case "$*" in
"root -g") echo %[1]s/lib/node_modules ;;
"ls -g --json --depth=0") echo '{"name": "lib", "dependencies": {"old": {"version": "1.0.0"}, "typescript": {"version": "5.9.2", "overridden": false},
	"@scope/tool": {"version": "2.0.0"}, "mine": {"version": "1.0.0", "resolved": "file:../../src/mine"}}}' ;;
*) exit 1 ;;
esac
`, m.root))
	packages, _, err := npm(t.Context(), Options{Since: since})
	m.check(packages, err, `npm install -g @scope/tool@2.0.0
npm install -g mine@1.0.0 # it was installed from file:../../src/mine, which is of this machine
npm install -g typescript@5.9.2
`)
	if len(packages) == 3 && !strings.Contains(strings.Join(packages[2].owns, " "), m.path("bin/tsc")) {
		t.Errorf("typescript owns %q", packages[2].owns)
	}
	m.program("npm", "echo '<html>'\n")
	if _, _, err := npm(t.Context(), Options{Since: since}); err == nil {
		t.Error("what is no JSON is believed")
	}
}

// cargo's list of programs, and where they are.
func TestCargo(t *testing.T) {
	m := newMachine(t)
	m.write("home/.cargo/bin/old", "")
	since := m.now()
	for _, p := range []string{"rg", "fd", "mine"} {
		m.write("home/.cargo/bin/"+p, "")
	}
	m.program("cargo", `[ "$*" = "install --list" ] || exit 1
echo 'fd-find v10.2.0 (https://example.com/fd?branch=main#12ab34cd):
    fd
mine v0.1.0 (/home/me/mine):
    mine
old v1.0.0:
    old
ripgrep v14.1.0:
    rg
removed v1.0.0:
    removed'
`)
	packages, aside, err := cargo(t.Context(), Options{Since: since})
	m.check(packages, err, `cargo install --git https://example.com/fd --rev 12ab34cd fd-find
cargo install mine@0.1.0 # it was installed from /home/me/mine, which is of this machine
cargo install ripgrep@14.1.0
`)
	if got := strings.Join(packages[0].command(false), " "); got != "cargo install --git https://example.com/fd --branch main fd-find" {
		t.Errorf("without its commit: %s", got)
	}
	if !strings.Contains(strings.Join(aside, " "), m.path("home/.cargo/registry")) {
		t.Errorf("cargo's own: %q", aside)
	}
	// Where programs go can be said.
	t.Setenv("CARGO_INSTALL_ROOT", m.path("elsewhere"))
	packages, _, err = cargo(t.Context(), Options{Since: since})
	m.check(packages, err, "")
}

// The specifications of gems.
func TestGem(t *testing.T) {
	m := newMachine(t)
	spec := func(name, text string) { m.write("gems/specifications/"+name+".gemspec", text) }
	spec("old-1.0", "")
	since := m.now()
	spec("rails-8.0.1", `s.add_runtime_dependency(%q<rack-test>.freeze, [">= 0"])`+"\n"+`s.add_dependency(%q<nokogiri>.freeze, ["~> 1"])`)
	spec("rack-test-2.1.0", "")
	spec("nokogiri-1.18.0-x86_64-linux-gnu", "")
	spec("jekyll-4.3.0.pre.1", "")
	m.write("gems/specifications/default/json-2.0.gemspec", "")
	m.program("gem", fmt.Sprintf("[ \"$*\" = 'environment gemdir' ] && echo %s/gems\n", m.root))
	packages, aside, err := gem(t.Context(), Options{Since: since})
	m.check(packages, err, "gem install jekyll:4.3.0.pre.1\ngem install rails:8.0.1\n")
	for _, file := range []string{"gems/gems/rack-test-2.1.0", "gems/specifications/nokogiri-1.18.0-x86_64-linux-gnu.gemspec"} {
		if !strings.Contains(strings.Join(aside, " "), m.path(file)) {
			t.Errorf("%s has no owner: %q", file, aside)
		}
	}
	if err := os.RemoveAll(m.path("gems")); err != nil {
		t.Fatal(err)
	}
	packages, _, err = gem(t.Context(), Options{Since: since})
	m.check(packages, err, "")
}

// What the root's diff holds and no manager owns, uppermost directories first; a
// manager that is not there is no problem, one that fails is one.
func TestLook(t *testing.T) {
	m := newMachine(t)
	m.program("npm", "echo cannot read the config >&2; exit 3\n")
	m.program("cargo", "exit 0\n")
	m.write("srv/proj/.git/HEAD", "")
	changed := func(state drift.DriftState, dir bool, size int64, p string) drift.FileState {
		return drift.FileState{Path: p, State: state, Dir: dir, Size: size}
	}
	found, err := Look(t.Context(), Options{Since: m.now(), Root: m.root, Skip: []string{"/work"}, Changed: []drift.FileState{
		changed(drift.Changed, false, 10, "etc/passwd"),
		changed(drift.New, false, 7, "etc/mine.conf"),
		changed(drift.New, false, 10, "etc/shadow"),
		changed(drift.New, true, 0, "home/.cargo"),
		changed(drift.New, false, 9, "home/.cargo/config.toml"),
		changed(drift.New, false, 9, "home/.ssh/id_rsa"),
		changed(drift.New, true, 0, "opt/empty"),
		changed(drift.New, true, 0, "opt/tool"),
		changed(drift.New, true, 0, "opt/tool/bin"),
		changed(drift.New, false, 2000, "opt/tool/bin/x"),
		changed(drift.New, false, 500, "opt/tool/y"),
		changed(drift.New, false, 1, "opt/tool.conf"),
		changed(drift.New, false, 1, "srv/proj/z"),
		changed(drift.New, false, 1, "work/z"),
		changed(drift.Missing, false, 0, "zzz"),
	}})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, tree := range found.Rest {
		got = append(got, tree.Path+" "+tree.String())
	}
	if g, want := strings.Join(got, "\n"), "/etc/mine.conf 7 B\n/home/.cargo 9 B\n/opt/tool 2.5 kB in 2 files\n/opt/tool.conf 1 B"; g != want {
		t.Errorf("the rest:\n%s\nwant:\n%s", g, want)
	}
	if p := strings.Join(found.Problems, "\n"); !strings.Contains(p, "npm could not be queried") || !strings.Contains(p, "cannot read the config") || len(found.Problems) != 1 {
		t.Errorf("problems: %q", p)
	}
	out, err := found.Propose([]byte("# mine\r\nRUN true\r\nSNAPSHOT /opt/tool\r\n"))
	if want := "# mine\r\nRUN true\r\nSNAPSHOT /opt/tool\r\n# 7 B\r\nSNAPSHOT --all /etc/mine.conf\r\n# 9 B\r\nSNAPSHOT --all /home/.cargo\r\n# 1 B\r\nSNAPSHOT --all /opt/tool.conf\r\n"; err != nil || string(out) != want {
		t.Errorf("proposed %q, %v, want %q", out, err, want)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Look(ctx, Options{}); err == nil {
		t.Error("a context that is done is no error")
	}
}

// The machine began when its first process did, as ps reckons it too.
// What a RUN of the file installs to the same place is not proposed again, however
// its options differ from those that a machine reports.
func TestProposeRepeatsNothing(t *testing.T) {
	idna := Package{argv: []string{"python3", "-m", "pip", "install"}, name: "idna", version: "3.6", between: "=="}
	for _, tt := range []struct {
		file     string
		pin      bool
		proposed string // "" for nothing
	}{
		{"RUN pip install --break-system-packages idna==3.6\n", false, ""},
		{"RUN pip install --break-system-packages idna==3.6\n", true, ""},
		{"RUN true && pip3 install -i https://example.com/simple --break-system-packages six idna\n", false, ""},
		{"RUN pip install --target /opt/x idna\n", false, "RUN python3 -m pip install idna\n"},
		{"RUN pip install --break-system-packages idna==3.5\n", true, "RUN python3 -m pip install idna==3.6\n"},
		{"RUN pip install idna-ssl\n", false, "RUN python3 -m pip install idna\n"},
	} {
		found := Found{Packages: []Package{idna}, pin: tt.pin}
		got, err := found.Propose([]byte(tt.file))
		if err != nil || string(got) != tt.file+tt.proposed {
			t.Errorf("%q, pinned %t: %q, %v; want %q", tt.file, tt.pin, got, err, tt.file+tt.proposed)
		}
	}
}

func TestStarted(t *testing.T) {
	at, err := Started()
	if err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("ps", "-o", "etimes=", "-p", "1").Output()
	if err != nil {
		t.Skip(err)
	}
	seconds, err := strconv.Atoi(strings.TrimSpace(string(out)))
	if d := time.Since(at) - time.Duration(seconds)*time.Second; err != nil || d.Abs() > time.Minute {
		t.Errorf("started at %v, %v ago; ps says %s s (%v)", at, time.Since(at), out, err)
	}
}
