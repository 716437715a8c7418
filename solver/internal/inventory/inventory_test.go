package inventory

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/clayer/clayer/solver/internal/names"
)

// write makes files in a root: PATH, or PATH=TEXT; a name that ends in a slash is a
// directory, and PATH->TARGET a link.
func write(t *testing.T, root string, files ...string) {
	t.Helper()
	for _, f := range files {
		name, text, _ := strings.Cut(f, "=")
		link, target, isLink := strings.Cut(name, "->")
		at := filepath.Join(root, link)
		if err := os.MkdirAll(filepath.Dir(at), 0o755); err != nil {
			t.Fatal(err)
		}
		var err error
		switch {
		case isLink:
			err = os.Symlink(target, at)
		case strings.HasSuffix(name, "/"):
			err = os.MkdirAll(at, 0o755)
		default:
			err = os.WriteFile(at, []byte(text), 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

const status = `Package: bash
Status: install ok installed
Version: 5.2-1
Description: a shell
 Version: of no package

Package: gone
Status: deinstall ok config-files
Version: 1

Package: jq
Version: 1.6-2
Status: hold ok installed
`

// What is read of a root, and what of it is new.
func TestSince(t *testing.T) {
	root := t.TempDir()
	write(t, root, "var/lib/dpkg/status="+status, "lib/apk/db/installed=C:Q1x\nP:musl\nV:1.2-r0\n\nP:zlib\nV:1.3\n",
		"usr/lib/python3/dist-packages/six-1.16.0.egg-info", "usr/lib/python3.11/", "home/me/.local/lib/python3.11/site-packages/My_Tool-2.dist-info/",
		"usr/lib/node_modules/npm/package.json={\"version\":\"10.1\"}", "usr/lib/node_modules/@scope/x/package.json={", "usr/local/bin/tool", "opt/app/")
	read := func(home string) *Inventory {
		t.Helper()
		i, err := Read(names.New(root, ""), home)
		if err != nil {
			t.Fatal(err)
		}
		return i
	}
	before := read("/home/me")
	if got, want := fmt.Sprint(before.Packages), "map[apk:map[musl:1.2-r0 zlib:1.3] dpkg:map[bash:5.2-1 jq:1.6-2] "+
		"npm /usr/lib/node_modules:map[@scope/x: npm:10.1] program /opt:map[app:] program /usr/local/bin:map[tool:] "+
		"python /home/me/.local/lib/python3.11/site-packages:map[my-tool:2] python /usr/lib/python3/dist-packages:map[six:1.16.0]]"; got != want {
		t.Errorf("read %s\nwant %s", got, want)
	}
	if list := read("/home/me").Since(before); len(list) > 0 {
		t.Errorf("nothing changed: %v", list)
	}
	site := "usr/local/lib/python3.11/dist-packages/"
	write(t, root, "var/lib/dpkg/status="+strings.Replace(status, "1.6-2", "1.7-1", 1)+"\nPackage: new\nStatus: install ok installed\nVersion: 3\n",
		site+"httpx-0.28.dist-info/RECORD=../../../bin/httpx,,\nhttpx/__init__.py,,\n", "usr/local/bin/httpx", "usr/local/bin/other", "usr/local/bin/npx->../lib/node_modules/npm/npx",
		"home/me/.local/bin/mine", "usr/lib/node_modules/npm/package.json={\"version\":\"11\"}")
	list, err := withoutScripts(names.New(root, ""), read("/home/me").Since(before))
	if got, want := fmt.Sprint(list), "[jq 1.7-1 new 3 npm 11 httpx 0.28 /home/me/.local/bin/mine /usr/local/bin/other]"; got != want || err != nil {
		t.Errorf("since: %s, %v, want %s", got, err, want)
	}
	if got, want := Text(list), "jq 1.7-1, new 3, npm 11 and 3 more"; got != want {
		t.Errorf("text: %q, want %q", got, want)
	}
	// Of another user's home nobody knows what was there.
	write(t, root, "home/you/.local/bin/yours", "home/you/.local/lib/python3.11/site-packages/yours-1.dist-info/")
	if got := fmt.Sprint(read("/home/you").Since(before)); strings.Contains(got, "your") || strings.Contains(got, "mine") {
		t.Errorf("with another home: %s", got)
	}
	needs := read("/home/me").Needs(list)
	if got, want := fmt.Sprint(needs), "[jq (= 1.7-1) (dpkg) new (= 3) (dpkg) npm11 (npm) httpx==0.28 (python)]"; got != want {
		t.Errorf("needs: %s, want %s", got, want)
	}
	if got, want := fmt.Sprint(needs[3].Search), "[/usr/local/lib/python3.11/dist-packages /usr/lib/python3/dist-packages]"; got != want {
		t.Errorf("searched in %s, want %s", got, want)
	}
}

// What a RUN may have found is a need of its snapshot.
func TestMayLack(t *testing.T) {
	list := []Package{{Manager: "dpkg", Name: "jq"}, {Manager: "python", Name: "six"}, {Manager: Program, Name: "x", Dir: "/opt"}}
	for _, tt := range []struct {
		name, text string // the last line counts
		empty      bool
		changed    string
		want       string
	}{
		{name: "nothing that installs", text: "RUN echo x > /x", want: "[]"},
		{name: "a name", text: "RUN pip install requests", changed: "python", want: "[]"},
		{name: "a list", text: "RUN pip install -r /list", changed: "python", want: "[six]"},
		{name: "a list and a name of another", text: "RUN apt-get install -y git && pip install -r /list", changed: "python", want: "[six]"},
		{name: "a manager that nobody knows", text: "RUN grab requests", changed: "python", want: "[six]"},
		{name: "a manager that nobody knows, which changed nothing of a known one", text: "RUN grab requests", want: "[]"},
		{name: "a script", text: "RUN sh /setup", want: "[jq six]"},
		{name: "a script by its name", text: "RUN ./setup.sh", want: "[jq six]"},
		{name: "a copy of a script", text: "RUN cp setup.sh /opt", want: "[]"},
		{name: "a command in an argument", text: "RUN sudo -u me timeout 5 apt-get install -y git", want: "[jq]"},
		{name: "lists of packages", text: "RUN apt-get update", want: "[]"},
		{name: "another manager's packages, by their names", text: "RUN apt-get update && apt-get install -y python3-pip && rm -rf /var/lib/apt/lists/*", changed: "python", want: "[]"},
		{name: "a manager that changed nothing", text: "RUN apt-get install -y jq", empty: true, want: "[jq]"},
		{name: "nothing changed", text: "RUN grab six", empty: true, want: "[jq six /opt/x]"},
		{name: "nothing changed, and nothing to find", text: "RUN test -e /x || mkdir /x", empty: true, want: "[]"},
		{name: "nothing changed, as a step before installed it", text: "RUN pip install six\nRUN pip install six", empty: true, want: "[]"},
		{name: "another instruction", text: "WORKDIR /x", empty: true, want: "[]"},
	} {
		steps := graphOf(t, tt.text).Steps()
		got := MayLack(steps[len(steps)-1], list, tt.empty, func(manager string) bool { return manager == tt.changed })
		if text := strings.ReplaceAll(fmt.Sprint(got), " ]", "]"); text != tt.want {
			t.Errorf("%s: %s, want %s", tt.name, text, tt.want)
		}
	}
}

// The base record of this machine.
func BenchmarkRead(b *testing.B) {
	for b.Loop() {
		i, err := Read(names.New("/", ""), os.Getenv("HOME"))
		if err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(float64(len(i.Packages["dpkg"])), "packages")
	}
}

func TestPaths(t *testing.T) {
	i := &Inventory{Packages: map[string]map[string]string{
		"dpkg": nil, "python /usr/lib/python3/dist-packages": nil, "npm /usr/lib/node_modules": nil, "program /opt": nil, "program /home/me/.local/bin": nil,
	}}
	for p, want := range map[string]bool{
		"var/lib/dpkg/status": true, "var/lib/dpkg/info/jq.list": false, "usr": true, "usr/lib": true, "usr/lib/x86_64-linux-gnu/libz.so": false,
		"usr/lib/python3/dist-packages": true, "usr/lib/python3/dist-packages/six.py": true, "usr/lib/python3/dist-packages/six-1.dist-info": true,
		"usr/lib/python3/dist-packages/six-1.dist-info/RECORD": true, "usr/lib/python3/dist-packages/numpy/core/x.py": false,
		"usr/lib/node_modules/tsc/package.json": true, "usr/lib/node_modules/@a/b": true, "usr/lib/node_modules/@a/b/package.json": true, "usr/lib/node_modules/tsc/lib": false,
		"opt/tool": true, "opt/tool/bin": false, "home": true, "home/me/.local": true, "home/me/.local/bin/x": true, "home/you/x": false, "usr/libexec": false,
	} {
		if got := i.paths()(p); got != want {
			t.Errorf("%s: %t", p, got)
		}
	}
}
