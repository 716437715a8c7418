package needs_test

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/clayer/clayer/cache/snapshot"
	"github.com/clayer/clayer/internal/elftest"
	"github.com/clayer/clayer/solver/internal/names"
	"github.com/clayer/clayer/solver/internal/needs"
)

// tree makes files in a directory from lines "path content", "path/" or "path -> target".
func tree(t *testing.T, lines string) string {
	t.Helper()
	root := t.TempDir()
	for line := range strings.Lines(lines) {
		name, content, _ := strings.Cut(strings.TrimSpace(line), " ")
		if name == "" {
			continue
		}
		at := filepath.Join(root, name)
		err := os.MkdirAll(filepath.Dir(at), 0o755)
		target, isLink := strings.CutPrefix(content, "-> ")
		switch {
		case err != nil:
		case strings.HasSuffix(name, "/"):
			err = os.MkdirAll(at, 0o755)
		case isLink:
			err = os.Symlink(target, at)
		default:
			err = os.WriteFile(at, []byte(strings.ReplaceAll(content, `\n`, "\n")), 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return root
}

// changes are lines "path content", "path/", "path -> target" and "-path".
func changes(lines string) snapshot.Changes {
	return func(yield func(*snapshot.Entry, error) bool) {
		for line := range strings.Lines(lines) {
			name, content, _ := strings.Cut(strings.TrimSpace(line), " ")
			e := &snapshot.Entry{Path: strings.TrimSuffix(name, "/"), Kind: snapshot.File, Mode: 0o755}
			target, isLink := strings.CutPrefix(content, "-> ")
			gone, isGone := strings.CutPrefix(name, "-")
			switch {
			case name == "":
				continue
			case isGone:
				e.Path, e.Kind = gone, snapshot.Delete
			case strings.HasSuffix(name, "/"):
				e.Kind = snapshot.Dir
			case isLink:
				e.Kind, e.Target = snapshot.Symlink, target
			default:
				content = strings.ReplaceAll(content, `\n`, "\n")
				e.Size = int64(len(content))
				e.Open = func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(content)), nil }
			}
			if !yield(e, nil) {
				return
			}
		}
	}
}

func session() (string, []string) { return "/root", []string{"/usr/bin"} }

// record returns what changes need that were made in a root.
func record(t *testing.T, root, lines string, covered ...string) []snapshot.Need {
	t.Helper()
	r := &needs.Recorder{
		Site:    needs.NewSite(names.New(root, ""), session),
		Covered: func(p string) bool { return slices.Contains(covered, p) },
	}
	err := r.ReadDatabases(func(p string) (*os.File, error) { return os.Open(filepath.Join(root, p)) }, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, err := range r.Of(changes(lines)) {
		if err != nil {
			t.Fatal(err)
		}
	}
	found, err := r.Needs()
	if err == nil {
		err = needs.Check(found)
	}
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func text(list []snapshot.Need) (lines []string) {
	for _, n := range list {
		line := fmt.Sprintf("%s %s", n.Kind, n.Path)
		for _, more := range []string{n.Type, n.Name} {
			if more != "" {
				line += " " + more
			}
		}
		if records := slices.Concat(n.Set, n.Removed); len(records) > 0 {
			line += fmt.Sprintf(" with %d records", len(records))
		}
		lines = append(lines, line)
	}
	return lines
}

func TestWhatARunNeeds(t *testing.T) {
	const base = `
		etc/profile standard
		etc/motd hello
		etc/passwd root:x:0:0::/root:/bin/sh\n
		usr/share/info/dir x
		opt/dir/file x
		opt/link -> dir
		usr/bin/tool x
		usr/lib/site-packages/six.py 1
		usr/lib/site-packages/six-1.dist-info/RECORD six.py,,\nsix-1.dist-info/RECORD,,\nold.py,,\n
		usr/lib/site-packages/old.py 1
		bin -> usr/bin
		var/lib/dpkg/info/
	`
	tests := []struct {
		name, changes string
		covered       []string
		want          []string
	}{
		{name: "nothing", changes: ""},
		{name: "a file that is edited", changes: "etc/profile more", want: []string{"content etc/profile"}},
		{name: "a file that is deleted", changes: "-etc/motd", want: []string{"content etc/motd"}},
		{name: "a link that is replaced", changes: "opt/link -> other", want: []string{"content opt/link"}},
		{name: "an edit of what a step of the chain wrote", changes: "etc/profile more", covered: []string{"etc/profile"}},
		{name: "a new file", changes: "opt/new x", want: []string{"place opt/new file"}},
		{name: "a new directory, with what is in it", changes: "opt/new/\nopt/new/a x\nopt/new/b/\nopt/new/b/c x", want: []string{"place opt/new directory"}},
		{name: "a directory that is deleted", changes: "-opt/dir", want: []string{"place opt/dir directory"}},
		{name: "a directory with another mode", changes: "opt/dir/"},
		{name: "what is generated", changes: "usr/share/info/dir y\nvar/log/apt.log x\nvar/cache/x y\netc/passwd- x"},
		{name: "scratch", changes: "tmp/x y"},
		{name: "what is in the home", changes: "root/.tool/\nroot/.tool/x y", want: []string{"home /root", "place root/.tool directory"}},
		{name: "a user", changes: `etc/passwd root:x:0:0::/root:/bin/sh\nbob:x:1000:1000::/:/bin/sh\n`, want: []string{"content etc/passwd with 1 records"}},
		{name: "a user, after a step of the chain that made another", changes: `etc/passwd root:x:0:0::/root:/bin/sh\nbob:x:1000:1000::/:/bin/sh\n`, covered: []string{"etc/passwd"}, want: []string{"content etc/passwd with 1 records"}},
		{name: "files of a package that dpkg installs", changes: "usr/bin/tool y\nusr/bin/new z\nvar/lib/dpkg/info/tool.list /.\\n/bin/tool\\n/usr/bin/new\\n"},
		{
			name:    "files of a distribution that is upgraded",
			changes: "-usr/lib/site-packages/old.py\n-usr/lib/site-packages/six-1.dist-info\nusr/lib/site-packages/six-2.dist-info/\nusr/lib/site-packages/six-2.dist-info/RECORD six.py,,\\n\nusr/lib/site-packages/six.py 2",
			want:    []string{"place usr/lib/site-packages/six-2.dist-info directory"},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := record(t, tree(t, base), tt.changes, tt.covered...)
			if diff := cmp.Diff(tt.want, text(got)); diff != "" {
				t.Errorf("needs (-want +got):\n%s", diff)
			}
		})
	}
}

func TestWhatARootLacks(t *testing.T) {
	const base = `
		etc/profile standard
		etc/passwd root:x:0:0::/root:/bin/sh\n
		opt/link -> dir
		opt/dir/file x
	`
	const did = `
		etc/passwd root:x:0:0::/root:/bin/sh\nbob:x:1000:1000::/:/bin/sh\n
		etc/profile more
		opt/link -> other
		opt/new x
		opt/tree/
		root/x y
	`
	tests := []struct{ name, root, want string }{
		{"the same", base, ""},
		{"another file", strings.Replace(base, "standard", "mine", 1), "needs /etc/profile as it was where the step ran, which differs here"},
		{"no file", strings.Replace(base, "etc/profile", "etc/other", 1), "needs /etc/profile, which this machine lacks"},
		{"another link", strings.Replace(base, "-> dir", "-> dir2", 1), "needs /opt/link as it was where the step ran, which differs here"},
		{"a directory where the step made a file", base + "opt/new/", "needs /opt/new, which is a directory here"},
		{"a file where the step made a directory", base + "opt/tree x", "needs /opt/tree to be a directory, which it is not here"},
		{"a link to a directory where the step made one", base + "opt/tree -> dir", "needs /opt/tree to be a directory, which it is not here"},
		{"another user", strings.Replace(base, `/bin/sh\n`, `/bin/sh\nalice:x:1001:1001::/:/bin/sh\n`, 1), ""},
		{"another user of that id", strings.Replace(base, `/bin/sh\n`, `/bin/sh\nalice:x:1000:1000::/:/bin/sh\n`, 1),
			"needs a change of /etc/passwd that is not possible here: bob: alice has its uid 1000 here"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			list := record(t, tree(t, base), did)
			site := needs.NewSite(names.New(tree(t, tt.root), ""), session)
			if got, err := site.Unmet(list); got != tt.want || err != nil {
				t.Errorf("unmet: %q, %v, want %q", got, err, tt.want)
			}
		})
	}
}

// TestExpectedRecords checks that a step may change a record that one before it makes.
func TestExpectedRecords(t *testing.T) {
	const base = `etc/passwd root:x:0:0::/root:/bin/sh\n`
	const bob = base + `bob:x:1000:1000::/:/bin/sh\n`
	first := record(t, tree(t, base), bob)
	second := record(t, tree(t, bob), strings.Replace(bob, "::/:/bin/sh", "::/home/bob:/bin/bash", 1))
	site := needs.NewSite(names.New(tree(t, base), ""), session)
	if got, err := site.Unmet(second); got == "" || err != nil {
		t.Errorf("without the first step: unmet %q, %v", got, err)
	}
	site.Expect(first)
	if got, err := site.Unmet(second); got != "" || err != nil {
		t.Errorf("after the first step: unmet %q, %v", got, err)
	}
}

// TestExpectedGroupsAndIDs checks that a step may add a member to a group that one before it
// makes, and a user with the id of one that is removed before.
func TestExpectedGroupsAndIDs(t *testing.T) {
	for _, states := range [][3]string{
		{`etc/group root:x:0:\n`, `etc/group root:x:0:\ndocker:x:999:\n`, `etc/group root:x:0:\ndocker:x:999:bob\n`},
		{`etc/passwd ubuntu:x:1000:1000::/:/bin/sh\n`, `etc/passwd `, `etc/passwd app:x:1000:1000::/:/bin/sh\n`},
	} {
		first, second := record(t, tree(t, states[0]), states[1]), record(t, tree(t, states[1]), states[2])
		site := needs.NewSite(names.New(tree(t, states[0]), ""), session)
		if got, err := site.Unmet(second); got == "" || err != nil {
			t.Errorf("without the first step: unmet %q, %v", got, err)
		}
		site.Expect(first)
		if got, err := site.Unmet(second); got != "" || err != nil {
			t.Errorf("after the first step: unmet %q, %v", got, err)
		}
	}
}

// TestNeedsThatLie checks that what a store says of needs harms nobody.
func TestNeedsThatLie(t *testing.T) {
	const sum = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
	for _, n := range []snapshot.Need{
		{Kind: snapshot.NeedContent, Path: "../etc/passwd", Digest: sum},
		{Kind: snapshot.NeedContent, Path: "/etc/passwd", Digest: sum},
		{Kind: snapshot.NeedContent, Path: "etc/passwd", Digest: "md5:x"},
		{Kind: snapshot.NeedContent, Path: "", Digest: sum},
		{Kind: snapshot.NeedContent, Path: "proc/kmsg", Digest: sum},
		{Kind: snapshot.NeedPlace, Path: "sys"},
		{Kind: snapshot.NeedPlace, Path: "a/../../b"},
		{Kind: snapshot.NeedPlace, Path: "a", Target: "../b"},
		{Kind: snapshot.NeedHome, Path: "/root", Target: "b"},
		{Kind: snapshot.NeedHome, Path: "root"},
		{Kind: snapshot.NeedLibrary, Soname: "../x.so"},
		{Kind: snapshot.NeedLibrary, Soname: "x.so", Search: []string{"lib"}},
		{Kind: snapshot.NeedInterpreter, Path: "bin/sh"},
		{Kind: snapshot.NeedInterpreter, Name: "a/b"},
		{Kind: snapshot.NeedHome, Path: "/" + strings.Repeat("x", 5000)},
		{Kind: snapshot.NeedContent, Path: "x", Digest: sum, Set: make([]string, 9000)},
	} {
		if needs.Check([]snapshot.Need{n}) == nil {
			t.Errorf("%+v is taken", n)
		}
	}
	if needs.Check(make([]snapshot.Need, 5000)) == nil {
		t.Error("5000 needs are taken")
	}
	site := needs.NewSite(names.New(tree(t, ""), ""), session)
	if got, err := site.Unmet([]snapshot.Need{{Kind: "moon"}}); !strings.Contains(got, "moon") || err != nil {
		t.Errorf("a need that nobody knows: %q, %v", got, err)
	}
	got, err := site.Unmet([]snapshot.Need{{Kind: snapshot.NeedPackage, Manager: snapshot.ManagerDpkg, Name: "a\nclayer: \x1b[2J" + strings.Repeat("é", 4000)}})
	if strings.ContainsAny(got, "\n\x1b") || len(got) > 400 || err != nil {
		t.Errorf("a name of several lines: %q, %v", got, err)
	}
}

// TestManyNeeds checks that a step with more needs than a descriptor has is restored.
func TestManyNeeds(t *testing.T) {
	var base, added, edited strings.Builder
	for i := range 4200 {
		fmt.Fprintf(&base, "opt/old/%d x\n", i)
		fmt.Fprintf(&added, "opt/old/new%d y\n", i)
		fmt.Fprintf(&edited, "opt/old/%d y\n", i)
	}
	base.WriteString("var/lib/dpkg/status Package: a\n")
	root := tree(t, base.String())
	if got := record(t, root, added.String()); len(got) < 1000 {
		t.Errorf("%d needs of 4200 files in a directory that was there", len(got))
	}
	r := &needs.Recorder{Site: needs.NewSite(names.New(root, ""), session), Covered: func(string) bool { return false }}
	if err := r.ReadDatabases(func(p string) (*os.File, error) { return os.Open(filepath.Join(root, p)) }, nil); err != nil {
		t.Fatal(err)
	}
	for _, err := range r.Of(changes(edited.String() + "var/lib/dpkg/status Package: b\n")) {
		if err != nil {
			t.Fatal(err)
		}
	}
	got, err := r.Needs()
	if err == nil || !strings.Contains(err.Error(), "105 of the files") {
		t.Errorf("of what is left out it says %v", err)
	}
	if err := needs.Check(got); err != nil || !slices.ContainsFunc(got, func(n snapshot.Need) bool { return n.Path == "var/lib/dpkg/status" }) {
		t.Errorf("%d needs, %v; want those of a database among them", len(got), err)
	}
}

// TestProblemOfAView checks that changes are passed on though their needs are not known.
func TestProblemOfAView(t *testing.T) {
	root := tree(t, "etc/profile x")
	r := &needs.Recorder{Site: needs.NewSite(names.New(root, ""), session), Covered: func(string) bool { return false }}
	if err := os.RemoveAll(root); err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, err := range r.Of(changes("etc/profile y\nopt/x y")) {
		if err != nil {
			t.Fatal(err)
		}
		n++
	}
	if _, err := r.Needs(); n != 2 || err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%d changes, %v", n, err)
	}
}

func elf(needed ...string) string { return string(elftest.File{Needed: needed}.Bytes()) }

// files are changes with these contents.
func files(contents map[string]string, links ...string) snapshot.Changes {
	return func(yield func(*snapshot.Entry, error) bool) {
		for _, p := range slices.Sorted(maps.Keys(contents)) {
			e := &snapshot.Entry{Path: p, Kind: snapshot.File, Mode: 0o755, Size: int64(len(contents[p]))}
			e.Open = func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(contents[p])), nil }
			if !yield(e, nil) {
				return
			}
		}
		for _, l := range links {
			p, target, _ := strings.Cut(l, " -> ")
			if !yield(&snapshot.Entry{Path: p, Kind: snapshot.Symlink, Target: target}, nil) {
				return
			}
		}
	}
}

func TestProgramsReachLibraries(t *testing.T) {
	base := tree(t, "lib -> usr/lib\nusr/lib/\nusr/local/bin/\nusr/bin/python3.11 x\nusr/bin/python3 -> python3.11\netc/ld.so.conf.d/arch.conf /usr/lib/arch\nopt/base/lib/")
	for _, p := range []string{"usr/lib/libc.so.6", "usr/lib/libpq.so.5", "usr/lib/arch/libarch.so.1", "opt/base/lib/libbase.so", "usr/lib/ld.so"} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(base, p)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(base, p), []byte(elf()), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	script := func(line string) string { return "#!" + line + "\n" }
	tests := []struct {
		name  string
		files map[string]string
		links []string
		want  []string
	}{
		{name: "a program on PATH", files: map[string]string{"usr/bin/x": elf("libpq.so.5", "libnowhere.so")}, want: []string{"libpq.so.5"}},
		{name: "a directory of ld.so.conf.d", files: map[string]string{"usr/bin/x": elf("libarch.so.1")}, want: []string{"libarch.so.1"}},
		{name: "the loader", files: map[string]string{"usr/bin/x": string(elftest.File{Interpreter: "/lib/ld.so"}.Bytes())}, want: []string{"/lib/ld.so"}},
		{name: "a program elsewhere", files: map[string]string{"opt/app/bin/x": elf("libpq.so.5")}},
		{name: "a link on PATH to a program elsewhere", files: map[string]string{"opt/app/bin/x": elf("libpq.so.5")}, links: []string{"usr/local/bin/x -> /opt/app/bin/x"}, want: []string{"libpq.so.5"}},
		{name: "a library in a default directory", files: map[string]string{"usr/lib/libx.so.1": elf("libpq.so.5")}, want: []string{"libpq.so.5"}},
		{name: "a library of its own, and what that reaches", files: map[string]string{"usr/bin/x": elf("libown.so"), "usr/lib/libown.so": elf("libpq.so.5")}, want: []string{"libpq.so.5"}},
		{
			name: "by $ORIGIN",
			files: map[string]string{
				"opt/app/bin/x":         string(elftest.File{Needed: []string{"libown.so"}, RunPath: "$ORIGIN/../lib"}.Bytes()),
				"opt/app/lib/libown.so": elf("libarch.so.1"), "opt/app/lib/libunused.so": elf("libpq.so.5"),
			},
			links: []string{"usr/bin/x -> ../../opt/app/bin/x"}, want: []string{"libarch.so.1"},
		},
		{name: "in a directory of the base that RUNPATH names", files: map[string]string{"usr/bin/x": string(elftest.File{Needed: []string{"libbase.so"}, RunPath: "/opt/base/lib"}.Bytes())}, want: []string{"libbase.so in /opt/base/lib"}},
		{name: "a script", files: map[string]string{"usr/bin/x": script("/usr/bin/python3 -I")}, want: []string{"/usr/bin/python3"}},
		{name: "a script by env", files: map[string]string{"usr/bin/x": script("/usr/bin/env -S python3 -I")}, want: []string{"python3"}},
		{name: "a script of an interpreter that is nowhere", files: map[string]string{"usr/bin/x": script("/usr/bin/ruby")}},
		{name: "a script elsewhere", files: map[string]string{"opt/app/foreign": script("/usr/bin/python3")}},
		{
			name:  "a script in a virtual environment that is on PATH",
			files: map[string]string{"usr/local/bin/x": script("/opt/venv/bin/python")},
			links: []string{"opt/venv/bin/python -> /usr/bin/python3"}, want: []string{"/usr/bin/python3.11"},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := &needs.Recorder{Site: needs.NewSite(names.New(base, ""), session), Covered: func(string) bool { return false }}
			for range r.Of(files(tt.files, tt.links...)) {
			}
			found, err := r.Needs()
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, n := range found {
				switch {
				case n.Kind == snapshot.NeedInterpreter:
					got = append(got, n.Path+n.Name)
				case n.Kind == snapshot.NeedLibrary && len(n.Search) > 0 && n.Search[0] == "/opt/base/lib":
					got = append(got, n.Soname+" in "+n.Search[0])
				case n.Kind == snapshot.NeedLibrary:
					got = append(got, n.Soname)
				}
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("needs (-want +got):\n%s", diff)
			}
			site := needs.NewSite(names.New(base, ""), session)
			if unmet, err := site.Unmet(found); unmet != "" || err != nil {
				t.Errorf("where it was recorded: %q, %v", unmet, err)
			}
			empty := needs.NewSite(names.New(tree(t, ""), ""), session)
			if unmet, err := empty.Unmet(found); (unmet != "") != (len(tt.want) > 0) || err != nil {
				t.Errorf("in an empty root: %q, %v", unmet, err)
			}
		})
	}
}

// TestVersionsOfSymbols takes the C library of this machine, and a program that uses it.
func TestVersionsOfSymbols(t *testing.T) {
	program, err := os.ReadFile("/bin/ls")
	if err != nil {
		t.Skip(err)
	}
	r := &needs.Recorder{Site: needs.NewSite(names.New("/", ""), session), Covered: func(string) bool { return false }}
	for range r.Of(files(map[string]string{"usr/bin/a-program-of-this-test": string(program)})) {
	}
	found, err := r.Needs()
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(found, func(n snapshot.Need) bool { return n.Soname == "libc.so.6" })
	if i < 0 {
		t.Skip("ls of this machine is not built for glibc")
	}
	if v := found[i].Versions; !slices.ContainsFunc(v, func(s string) bool { return strings.HasPrefix(s, "GLIBC_2.") }) {
		t.Errorf("versions of libc: %q", v)
	}
	site := needs.NewSite(names.New("/", ""), session)
	if unmet, err := site.Unmet(found); unmet != "" || err != nil {
		t.Errorf("here: %q, %v", unmet, err)
	}
	found[i].Versions = append(found[i].Versions, "GLIBC_99.0")
	if unmet, err := site.Unmet(found); unmet != "needs GLIBC_99.0 of libc.so.6, which is older here" || err != nil {
		t.Errorf("of a later glibc: %q, %v", unmet, err)
	}
}

func TestPeersOfNPM(t *testing.T) {
	base := tree(t, `usr/lib/node_modules/react/package.json {"name":"react","version":"18.2.0"}`)
	lines := `usr/lib/node_modules/ui/
		usr/lib/node_modules/ui/package.json {"name":"ui","peerDependencies":{"react":"^18","vue":"*","own":"1"},"peerDependenciesMeta":{"vue":{"optional":true}}}
		usr/lib/node_modules/own/
		usr/lib/node_modules/own/package.json {"name":"own","version":"1.0.0"}`
	list := slices.DeleteFunc(record(t, base, lines), func(n snapshot.Need) bool {
		return n.Kind != snapshot.NeedPackage || n.Type == snapshot.PackageOwn
	})
	if len(list) != 1 || list[0].Name != "react" {
		t.Fatalf("needs %+v", list)
	}
	for _, tt := range []struct{ version, want string }{
		{"18.3.1", ""},
		{"19.0.0", "needs the npm package react ^18, which is 19.0.0 here"},
		{"", "needs the npm package react, which this machine lacks"},
	} {
		root := tree(t, "")
		if tt.version != "" {
			root = tree(t, `usr/lib/node_modules/react/package.json {"version":"`+tt.version+`"}`)
		}
		if got, err := needs.NewSite(names.New(root, ""), session).Unmet(list); got != tt.want || err != nil {
			t.Errorf("react %s: %q, %v, want %q", tt.version, got, err, tt.want)
		}
	}
}

// A SNAPSHOT has no password of the machine, and all else as it is.
func TestWithoutSecrets(t *testing.T) {
	files := map[string]string{"etc/hosts": "x:HASH:\n", "etc/shadow": "root:HASH:1::\ndaemon:*:1::\n", "etc/shadow-": "root:HASH:1::\n"}
	want := map[string]string{"etc/hosts": "x:HASH:\n", "etc/shadow": "root:*omitted*:1::\ndaemon:*:1::\n", "etc/shadow-": "root:*omitted*:1::\n"}
	changes := func(yield func(*snapshot.Entry, error) bool) {
		for _, p := range slices.Sorted(maps.Keys(files)) {
			open := func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(files[p])), nil }
			if !yield(&snapshot.Entry{Path: p, Kind: snapshot.File, Size: int64(len(files[p])), Open: open}, nil) {
				return
			}
		}
	}
	for e, err := range needs.WithoutSecrets(changes) {
		if err != nil {
			t.Fatal(err)
		}
		f, err := e.Open()
		if err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(f); err != nil || string(got) != want[e.Path] || e.Size != int64(len(got)) {
			t.Errorf("%s is packed as %q, %d bytes, %v", e.Path, got, e.Size, err)
		}
	}
}
