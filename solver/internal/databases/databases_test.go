package databases

import (
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

func db(t testing.TB, path string) Database {
	t.Helper()
	d, ok := Known(path)
	if !ok {
		t.Fatalf("%s is no known database", path)
	}
	return d
}

func TestKnown(t *testing.T) {
	for _, p := range []string{"etc/passwd", "etc/group", "etc/shadow", "etc/gshadow", "etc/subuid", "etc/subgid", "var/lib/dpkg/status", "var/lib/apt/extended_states", "lib/apk/db/installed", "var/lib/dpkg/triggers/File", "var/lib/dpkg/triggers/ldconfig"} {
		if _, ok := Known(p); !ok {
			t.Errorf("%s is not known", p)
		}
	}
	for _, p := range []string{"etc/hosts", "/etc/passwd", "passwd", "var/lib/dpkg/info/jq.list", "var/lib/dpkg/triggers/Unincorp"} {
		if _, ok := Known(p); ok {
			t.Errorf("%s is known", p)
		}
	}
}

const (
	base  = "root:x:0:0:root:/root:/bin/sh\ndaemon:x:1:1::/:/bin/false\n"
	bob   = "bob:x:1000:1000::/home/bob:/bin/sh\n"
	alice = "alice:x:1001:1001::/home/alice:/bin/sh\n"
)

// A change of a database that is made on one machine, applied on another.
func TestMerge(t *testing.T) {
	stanza := func(name, version string) string {
		return fmt.Sprintf("Package: %s\nStatus: install ok installed\nArchitecture: amd64\nVersion: %s\nDescription: a\n b\n .\n c\n\n", name, version)
	}
	cert := func(text string) string {
		return "-----BEGIN CERTIFICATE-----\n" + text + "\n-----END CERTIFICATE-----\n"
	}
	tests := []struct {
		name, path           string
		before, after        string
		here, want, conflict string
	}{
		{name: "a user is added", path: "etc/passwd", before: base, after: base + bob, here: base + alice, want: base + alice + bob},
		{name: "what is there already stays once", path: "etc/passwd", before: base, after: base + bob, here: base + bob + alice, want: base + bob + alice},
		{name: "the uid is taken", path: "etc/passwd", before: base, after: base + bob, here: base + strings.Replace(alice, "1001", "1000", 1), conflict: "bob: alice has its uid 1000 here"},
		{name: "the name is taken", path: "etc/passwd", before: base, after: base + bob, here: base + strings.Replace(bob, "1000", "1002", 1), conflict: "bob: is another one here"},
		{name: "a uid that two share there may be shared", path: "etc/passwd", before: base, after: base + "toor:x:0:0::/:/bin/sh\n", here: base + alice, want: base + alice + "toor:x:0:0::/:/bin/sh\n"},
		{name: "a user is removed", path: "etc/passwd", before: base + bob, after: base, here: base + bob + alice, want: base + alice},
		{name: "one that was another is not removed", path: "etc/passwd", before: base + bob, after: base, here: base + strings.Replace(bob, "sh", "zsh", 1), conflict: "bob: is another one here"},
		{name: "one that is gone already is gone", path: "etc/passwd", before: base + bob, after: base, here: base + alice, want: base + alice},
		{name: "a shell is changed", path: "etc/passwd", before: base, after: strings.Replace(base, "/bin/false", "/bin/sh", 1), here: base + alice, want: strings.Replace(base, "/bin/false", "/bin/sh", 1) + alice},
		{name: "a shell that was another is not changed", path: "etc/passwd", before: base, after: strings.Replace(base, "/bin/false", "/bin/sh", 1), here: strings.Replace(base, "/bin/false", "/bin/zsh", 1), conflict: "daemon: is another one here"},
		{name: "who is changed has to be there", path: "etc/passwd", before: base, after: strings.Replace(base, "/bin/false", "/bin/sh", 1), here: alice, conflict: "daemon: is not here"},
		{name: "NIS comes last", path: "etc/passwd", before: base + "+::::::\n", after: base + bob + "+::::::\n", here: base + alice + "+::::::\n", want: base + alice + bob + "+::::::\n"},
		{name: "a comment comes too", path: "etc/passwd", before: base, after: base + "# of bob\n" + bob, here: base + alice, want: base + alice + "# of bob\n" + bob},
		{name: "no end of the last line", path: "etc/passwd", before: base, after: base + bob, here: base + strings.TrimSpace(alice), want: base + alice + bob},
		{name: "no end of the added line", path: "etc/passwd", before: base, after: base + strings.TrimSpace(bob), here: base + alice, want: base + alice + strings.TrimSpace(bob)},
		{name: "a file that is not there", path: "etc/passwd", before: "", after: bob, here: "", want: bob},
		{name: "other line ends stay", path: "etc/passwd", before: base, after: base + bob, here: strings.ReplaceAll(base, "\n", "\r\n"), want: strings.ReplaceAll(base, "\n", "\r\n") + bob},

		{name: "a member is added", path: "etc/group", before: "sudo:x:27:\n", after: "sudo:x:27:bob\n", here: "sudo:x:27:alice\n", want: "sudo:x:27:alice,bob\n"},
		{name: "a member leaves", path: "etc/group", before: "sudo:x:27:bob,carol\n", after: "sudo:x:27:carol\n", here: "sudo:x:27:alice,bob\n", want: "sudo:x:27:alice\n"},
		{name: "a group that is there gets the members", path: "etc/group", before: "", after: "docker:x:999:bob\n", here: "docker:x:999:alice\n", want: "docker:x:999:alice,bob\n"},
		{name: "a group with another gid is another", path: "etc/group", before: "", after: "docker:x:999:bob\n", here: "docker:x:998:alice\n", conflict: "docker: is another one here"},
		{name: "the gid is taken", path: "etc/group", before: "", after: "docker:x:999:\n", here: "kvm:x:999:\n", conflict: "docker: kvm has its gid 999 here"},
		{name: "the group of a member is missing", path: "etc/group", before: "sudo:x:27:\n", after: "sudo:x:27:bob\n", here: "root:x:0:\n", conflict: "sudo:bob: the group is not here"},
		{name: "a group with members of its own stays", path: "etc/group", before: "docker:x:999:bob\n", after: "", here: "docker:x:999:alice,bob\n", conflict: "docker: has members of its own here"},
		{name: "a list that is missing", path: "etc/group", before: "sudo:x:27:\n", after: "sudo:x:27:bob\n", here: "sudo:x:27\nsudo\n", conflict: "sudo:bob: the group has no list of members here"},
		{name: "members of gshadow", path: "etc/gshadow", before: "sudo:*:adm:\n", after: "sudo:*:adm:bob\n", here: "sudo:*:adm:alice\n", want: "sudo:*:adm:alice,bob\n"},

		{name: "certificates of a machine's own", path: "etc/ssl/certs/ca-certificates.crt", before: cert("a") + cert("b"), after: cert("a") + cert("c"), here: cert("a") + cert("b") + cert("mine"), want: cert("a") + cert("mine") + cert("c")},
		{name: "certificates where none were", path: "etc/ssl/certs/ca-certificates.crt", before: "", after: cert("a") + cert("b"), here: cert("b") + cert("mine"), want: cert("a") + cert("b") + cert("mine")},
		{name: "certificates with their names", path: "etc/ssl/certs/ca-certificates.crt", before: "# A\n" + cert("a"), after: "# A\n" + cert("a") + "\n# B\n" + cert("b"), here: "# A\n" + cert("a") + strings.TrimSpace(cert("mine")), want: "# A\n" + cert("a") + cert("mine") + "\n# B\n" + cert("b")},

		{name: "ranges side by side", path: "etc/subuid", before: "", after: "bob:165536:65536\n", here: "alice:100000:65536\n", want: "alice:100000:65536\nbob:165536:65536\n"},
		{name: "ranges that overlap", path: "etc/subuid", before: "", after: "bob:165535:65536\n", here: "alice:100000:65536\n", want: "alice:100000:65536\nbob:165536:65536\n"},
		{name: "several ranges that overlap", path: "etc/subuid", before: "", after: "bob:100000:65536\ndave:165536:65536\n", here: "alice:100000:131072\n", want: "alice:100000:131072\nbob:231072:65536\ndave:296608:65536\n"},
		{name: "a range beyond which the last id would be taken", path: "etc/subuid", before: "", after: "bob:100000:65536\n", here: "alice:100000:4294801760\n", conflict: "bob: alice has its range 100000-165535 here"},
		{name: "a range beyond which there is none", path: "etc/subuid", before: "", after: "bob:100000:65536\n", here: "alice:100000:4294867295\n", conflict: "bob: alice has its range 100000-165535 here"},

		{name: "a package is added", path: "var/lib/dpkg/status", before: stanza("base", "1"), after: stanza("base", "1") + stanza("jq", "1"), here: stanza("base", "1") + stanza("zsh", "1"), want: stanza("base", "1") + stanza("zsh", "1") + stanza("jq", "1")},
		{name: "the same package is there", path: "var/lib/dpkg/status", before: "", after: stanza("jq", "1"), here: stanza("jq", "1"), want: stanza("jq", "1")},
		{name: "another version is there", path: "var/lib/dpkg/status", before: "", after: stanza("jq", "1"), here: stanza("jq", "2"), conflict: "jq:amd64: is another one here"},
		{name: "an upgrade", path: "var/lib/dpkg/status", before: stanza("jq", "1"), after: stanza("jq", "2"), here: stanza("a", "1") + stanza("jq", "1"), want: stanza("a", "1") + stanza("jq", "2")},
		{name: "an upgrade of another version", path: "var/lib/dpkg/status", before: stanza("jq", "1"), after: stanza("jq", "3"), here: stanza("jq", "2"), conflict: "jq:amd64: is another one here"},
		{name: "apk", path: "lib/apk/db/installed", before: "C:Q1a\nP:musl\nV:1\n\n", after: "C:Q1a\nP:musl\nV:1\n\nC:Q1b\nP:jq\nV:2\nF:usr\nR:jq\n\n", here: "C:Q1a\nP:musl\nV:1\n\nC:Q1c\nP:zsh\nV:1\n\n", want: "C:Q1a\nP:musl\nV:1\n\nC:Q1c\nP:zsh\nV:1\n\nC:Q1b\nP:jq\nV:2\nF:usr\nR:jq\n\n"},
		{name: "a list of names", path: "etc/apk/world", before: "alpine-base\n", after: "alpine-base\njq\n", here: "alpine-base\nzsh\n", want: "alpine-base\nzsh\njq\n"},
		{name: "a machine keeps its own backup", path: "etc/passwd-", before: base, after: base + bob, here: base + alice, want: base + alice},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d := db(t, tt.path)
			c, err := d.Diff([]byte(tt.before), []byte(tt.after))
			if err != nil {
				t.Fatal(err)
			}
			got, conflicts, err := d.Merge([]byte(tt.here), []byte(tt.after), c)
			if err != nil {
				t.Fatal(err)
			}
			if fmt.Sprint(conflicts) != "["+tt.conflict+"]" {
				t.Errorf("changes %+v conflict: %v, want [%s]", c, conflicts, tt.conflict)
			}
			if tt.conflict == "" && string(got) != tt.want {
				t.Errorf("changes %+v give\n%swant\n%s", c, got, tt.want)
			}
			checked, err := d.Check([]byte(tt.here), c, nil)
			if err != nil || !slices.Equal(checked, conflicts) {
				t.Errorf("Check returns %v, %v; Merge has %v", checked, err, conflicts)
			}
		})
	}
}

// Two steps that add members to a group are undone one by one, in either order.
func TestTwoMembers(t *testing.T) {
	d := db(t, "etc/group")
	var undo []Changes
	file := []byte("sudo:x:27:\n")
	for _, name := range []string{"alice", "bob"} {
		here := file
		c := Changes{Set: []string{"sudo:" + name}}
		var err error
		if file, _, err = d.Merge(here, []byte("sudo:x:27:"+name+"\n"), c); err != nil {
			t.Fatal(err)
		}
		u, err := d.Diff(file, here)
		if err != nil {
			t.Fatal(err)
		}
		undo = append(undo, u)
	}
	if string(file) != "sudo:x:27:alice,bob\n" {
		t.Fatalf("%s", file)
	}
	for i, want := range []string{"sudo:x:27:bob\n", "sudo:x:27:alice\n"} {
		got, conflicts, err := d.Merge(file, []byte("sudo:x:27:\n"), undo[i])
		if string(got) != want || len(conflicts) > 0 || err != nil {
			t.Errorf("without step %d: %q, %v, %v; want %q", i+1, got, conflicts, err, want)
		}
	}
}

// Drift is about the records of the changes, and no other.
func TestDrift(t *testing.T) {
	d := db(t, "etc/passwd")
	undo, err := d.Diff([]byte(base+bob), []byte(base))
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ here, want string }{
		{base + bob, "[]"},
		{base + alice + bob, "[]"},
		{alice + bob, "[]"},
		{base + alice, "[bob: is missing]"},
		{base + strings.Replace(bob, "/bin/sh", "/bin/zsh", 1), "[bob: was changed]"},
	} {
		got, err := d.Drift([]byte(tt.here), undo)
		if err != nil || fmt.Sprint(got) != tt.want {
			t.Errorf("drift of %q: %v, %v; want %s", tt.here, got, err, tt.want)
		}
	}
}

// Changes that do not lead to the file that comes with them are refused.
func TestForeignChanges(t *testing.T) {
	for _, tt := range []struct {
		path, result string
		c            Changes
	}{
		{"etc/passwd", base, Changes{Set: []string{"bob>123456789abc"}}},
		{"etc/passwd", base + bob, Changes{Set: []string{"bob>123456789abc"}}},
		{"etc/passwd", base + bob, Changes{Set: []string{"bob"}}},
		{"etc/passwd", base + bob, Changes{Removed: []string{"bob=123456789abc"}}},
		{"etc/passwd", base, Changes{Set: []string{""}}},
		{"etc/passwd", base + bob, Changes{Set: []string{"bob(1001)>" + digest(bob[:len(bob)-1])}}},
		{"etc/subuid", "bob:x\n", Changes{Set: []string{"bob(100000-165535)>" + digest("bob:x")}}},
		{"etc/passwd", base, Changes{Set: []string{"bob(x)"}}},
		{"etc/passwd", base, Changes{Set: []string{"bob(1"}}},
		{"etc/group", "sudo:x:27:\n", Changes{Set: []string{"sudo:bob"}}},
		{"etc/group", "sudo:x:27:bob\n", Changes{Removed: []string{"sudo:bob"}}},
	} {
		if got, _, err := db(t, tt.path).Merge([]byte(tt.result), []byte(tt.result), tt.c); err == nil {
			t.Errorf("%+v of %q gives %q, want an error", tt.c, tt.result, got)
		}
	}
	d := db(t, "etc/passwd")
	huge := make([]byte, MaxSize+1)
	if _, err := d.Diff(nil, huge); err == nil {
		t.Error("a file that is too large is compared")
	}
	if _, _, err := d.Merge(huge, nil, Changes{}); err == nil {
		t.Error("a file that is too large is merged")
	}
}

func TestNames(t *testing.T) {
	c := Changes{Set: []string{"bob(1000)>1a2b", "libstdc++6:amd64=1a2b>3c4d", "sudo:bob"}, Removed: []string{"games=1a2b"}}
	if got := strings.Join(c.Names(), " "); got != "bob libstdc++6:amd64 sudo:bob games" {
		t.Error(got)
	}
}

// machine makes up databases.
type machine struct{ *rand.Rand }

func newMachine(t *testing.T) machine {
	seed := uint64(time.Now().UnixNano())
	if s := os.Getenv("DATABASES_TEST_SEED"); s != "" {
		seed, _ = strconv.ParseUint(s, 10, 64)
	}
	t.Logf("DATABASES_TEST_SEED=%d", seed)
	return machine{rand.New(rand.NewPCG(seed, 0))}
}

func (m machine) one(of ...string) string { return of[m.IntN(len(of))] }

func (m machine) name() string {
	return m.one("root", "bob", "alice", "carol", "sudo", "g++", "libc6", "日本", "a b", "x(1)", "a=b", "\xff", strings.Repeat("n", 300)) + m.one("", "", "1", "2", "3")
}

func (m machine) record(d Database) string {
	name, n := m.name(), m.IntN(12)
	eol := m.one("\n", "\n", "\n", "\n", "\r\n")
	if m.IntN(8) == 0 && !d.format.isStanzas() {
		return m.one("# a comment", "+::::::", "-bob::::::", "", "garbage", ":", "+@group::::::", " ") + eol
	}
	var members []string
	for range m.IntN(4) {
		members = append(members, m.one("bob", "alice", "carol", "dave", "", "bob"))
	}
	switch d.format {
	case users:
		return fmt.Sprintf("%s:x:%d:%d::/:%s%s", name, n, n, m.one("/bin/sh", "/bin/bash"), eol)
	case groups, gshadow:
		return m.one(fmt.Sprintf("%s:x:%d:%s%s", name, n, strings.Join(members, ","), eol), fmt.Sprintf("%s:x:%d:%s%s", name, n, strings.Join(members, ","), eol), fmt.Sprintf("%s:x:%d%s", name, n, eol))
	case ranges:
		return fmt.Sprintf("%s:%d:%d%s", name, 10*n, m.IntN(20), eol)
	case dpkg:
		return fmt.Sprintf("Package: %s\nArchitecture: %s\nVersion: %d\nDescription: x\n .\n y\n%s", name, m.one("amd64", "all"), n, m.one("\n", "\n", "\n\n", " \n"))
	case apk:
		return fmt.Sprintf("C:Q1\nP:%s\nV:%d\n\n", name, n)
	}
	return fmt.Sprintf("%s:%d:%s%s", name, n, strings.Join(members, ","), eol)
}

func (m machine) file(d Database) []byte {
	var b strings.Builder
	if d.format.isStanzas() && m.IntN(4) == 0 {
		b.WriteString("\n\n")
	}
	for range m.IntN(12) {
		b.WriteString(m.record(d))
	}
	return m.cut([]byte(b.String()))
}

// cut may cut off the end of the last line.
func (m machine) cut(file []byte) []byte {
	if m.IntN(4) == 0 {
		return []byte(strings.TrimRight(string(file), "\r\n"))
	}
	return file
}

// edit changes a file as a step does: the records that stay keep their order.
func (m machine) edit(d Database, file []byte) []byte {
	var out []record
	for _, r := range d.format.parse(file) {
		for m.IntN(6) == 0 {
			out = append(out, d.format.parse([]byte(m.record(d)))...)
		}
		switch m.IntN(6) {
		case 0:
			continue
		case 1:
			if !r.listed || m.IntN(2) == 0 {
				r.body += m.one(":", "x", " 1")
				if r.listed {
					r.body += ":"
				}
			} else {
				r.members = parseMembers(m.one("", "bob", "alice,bob", "bob,eve,dave"))
			}
		}
		out = append(out, r)
	}
	for m.IntN(2) == 0 {
		out = append(out, d.format.parse([]byte(m.record(d)))...)
	}
	return m.cut(d.format.text(out))
}

func all() (list []Database) {
	for p := range known {
		if d, _ := Known(p); !d.IsBackup() && !d.IsIndex() {
			list = append(list, d)
		}
	}
	slices.SortFunc(list, func(a, b Database) int { return strings.Compare(a.path, b.path) })
	return list
}

// sameOrder reports whether the records of both files come in one order, and so those of
// a group.
func sameOrder(d Database, before, after []byte) bool {
	old, now := d.format.parse(before), d.format.parse(after)
	same := func(a, b []record) bool {
		at, last := make(map[string]int), 0
		for i, r := range a {
			at[r.key] = i + 1
		}
		for _, r := range b {
			if i := at[r.key]; i > 0 && i < last {
				return false
			} else if i > 0 {
				last = i
			}
		}
		return true
	}
	was := index(old)
	for i := range now {
		if o := was[now[i].key]; o != nil && !same(o.members, now[i].members) {
			return false
		}
	}
	return same(old, now)
}

func sorted(d Database, file []byte) string {
	var bodies []string
	for _, r := range d.format.parse(file) {
		if r.body != "" {
			bodies = append(bodies, r.body)
		}
	}
	slices.Sort(bodies)
	return strings.Join(bodies, "\n")
}

func TestMergeOntoItsOwn(t *testing.T) {
	m := newMachine(t)
	for range 150 {
		for _, d := range all() {
			before := m.file(d)
			after := m.edit(d, before)
			c, err := d.Diff(before, after)
			if err != nil {
				t.Fatal(err)
			}
			got, conflicts, err := d.Merge(before, after, c)
			if err != nil || len(conflicts) > 0 {
				t.Fatalf("%s: %q to %q: %+v: %v, %v", d, before, after, c, conflicts, err)
			}
			if string(got) != string(after) && sameOrder(d, before, after) {
				t.Fatalf("%s: %q with %+v\ngives %q\nwant  %q", d, before, c, got, after)
			}
			if again, _, err := d.Merge(got, after, c); err != nil || string(again) != string(got) {
				t.Fatalf("%s: %q with %+v twice gives %q, %v", d, got, c, again, err)
			}
		}
	}
}

// What a merge changed is undone exactly, but for the order of records that have one name, and with it nothing that the machine changed
// meanwhile.
func TestUndo(t *testing.T) {
	m := newMachine(t)
	for range 150 {
		for _, d := range all() {
			before, here := m.file(d), m.file(d)
			if m.IntN(2) == 0 {
				here = m.edit(d, before)
			}
			after := m.edit(d, before)
			c, err := d.Diff(before, after)
			if err != nil {
				t.Fatal(err)
			}
			merged, conflicts, err := d.Merge(here, after, c)
			if err != nil {
				t.Fatal(err)
			}
			if checked, err := d.Check(here, c, nil); err != nil || len(conflicts) != len(checked) && !slices.ContainsFunc(conflicts, func(c Conflict) bool { return strings.Contains(c.Why, "members") }) {
				t.Fatalf("%s: %q with %+v: Check %v, %v; Merge %v", d, here, c, checked, err, conflicts)
			}
			undo, err := d.Diff(merged, here)
			if err != nil {
				t.Fatal(err)
			}
			if drift, err := d.Drift(merged, undo); err != nil || len(drift) > 0 {
				t.Fatalf("%s: %q has drift from itself: %v, %v", d, merged, drift, err)
			}
			back, left, err := d.Merge(merged, here, undo)
			if err != nil || len(left) > 0 || string(back) != string(here) && (sameOrder(d, merged, here) || sorted(d, back) != sorted(d, here)) {
				t.Fatalf("%s: %q with %+v of %q\nand back: %q, %v, %v\nwant %q", d, merged, undo, after, back, left, err, here)
			}
			// A record of the machine's own comes between.
			own := d.format.parse([]byte(strings.Replace(m.record(d), m.name(), "own", 1)))
			now := d.format.parse(merged)
			at := m.IntN(len(now) + 1)
			mixed := d.format.text(slices.Insert(now, at, own...))
			back, _, err = d.Merge(mixed, here, undo)
			if err != nil {
				t.Fatalf("%s: %q: %v", d, mixed, err)
			}
			for _, r := range own {
				if !strings.Contains(string(back), r.body) {
					t.Fatalf("%s: %q was undone in %q: %q", d, r.body, mixed, back)
				}
			}
		}
	}
}

func fuzzCorpus(f *testing.F) {
	f.Add(uint8(0), []byte(base), []byte(base+bob), []byte(base+alice), "bob(1000)>1a2b\nsudo:bob", "games=1a2b")
	f.Add(uint8(3), []byte("sudo:x:27:\n"), []byte("sudo:x:27:bob,,\r\n+:::\n"), []byte("sudo\nsudo:x"), "sudo:bob\n:\n:x\n#", "=\n>\n(\n()\n(1-0)")
	f.Add(uint8(9), []byte("Package: a\n\n\n"), []byte("\n\nPackage:\n \n\t\nb"), []byte("\x00\n\xff:"), "", "\n")
	f.Add(uint8(5), []byte("a:1:4294967295\nb:4294967295:9\n"), []byte("a:0:0\n"), []byte("c:18446744073709551615:18446744073709551615\n"), "a(0-4294967295)>x", "")
}

// Whatever the files and the changes are, nothing panics, and no file becomes larger than
// those that it comes from.
func FuzzMerge(f *testing.F) {
	fuzzCorpus(f)
	list := all()
	f.Fuzz(func(t *testing.T, i uint8, before, after, here []byte, set, removed string) {
		d := list[int(i)%len(list)]
		c, err := d.Diff(before, after)
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range []Changes{c, {Set: strings.Split(set, "\n"), Removed: strings.Split(removed, "\n")}} {
			got, _, err := d.Merge(here, after, c)
			if err == nil && len(got) > len(here)+len(after)+2*len(c.Set)+2 {
				t.Errorf("%q with %q and %+v: %d bytes", here, after, c, len(got))
			}
			_, _ = d.Check(here, c, nil)
			_, _ = d.Drift(here, c)
		}
		if text := d.format.text(d.format.parse(here)); string(text) != string(here) {
			t.Errorf("%q is written as %q", here, text)
		}
		if merged, conflicts, err := d.Merge(before, after, c); err != nil || len(conflicts) > 0 {
			t.Errorf("%q to %q with %+v: %q, %v, %v", before, after, c, merged, conflicts, err)
		}
	})
}

// Files and changes that are made to take long do not.
func TestLarge(t *testing.T) {
	const n = 50_000
	var a, b strings.Builder
	for i := range n {
		fmt.Fprintf(&a, "u%d:x:%d:0::/:/bin/sh\n", i, i)
		fmt.Fprintf(&b, "v%d:x:%d:0::/:/bin/sh\n", i, n+i%2)
	}
	members := "g:x:1:" + strings.Repeat("m,", n)
	stanzas := strings.Repeat("Package: a\n\n", n)
	start := time.Now()
	for _, tt := range []struct{ path, before, after string }{
		{"etc/passwd", a.String(), b.String()},
		{"etc/group", "g:x:1:\n", members},
		{"etc/subuid", "", strings.Repeat("a:0:4294967295\n", n)},
		{"var/lib/dpkg/status", "", stanzas},
		{"var/lib/dpkg/status", "", strings.Repeat("\n", 1<<20)},
	} {
		d := db(t, tt.path)
		c, err := d.Diff([]byte(tt.before), []byte(tt.after))
		if err != nil {
			t.Fatal(err)
		}
		got, _, err := d.Merge([]byte(tt.before), []byte(tt.after), c)
		if err != nil || string(got) != tt.after {
			t.Errorf("%s: %d bytes of %d, %v", d, len(got), len(tt.after), err)
		}
	}
	if took := time.Since(start); took > 30*time.Second {
		t.Errorf("it took %v", took)
	}
}
