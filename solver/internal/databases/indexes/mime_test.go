package indexes

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// What two packages say of types of files, of one of them both.
const (
	packageA = `<mime-type type="application/x-a"><comment>A</comment>
<sub-class-of type="text/plain"/><alias type="application/a"/><icon name="a-icon"/><generic-icon name="x-office"/>
<glob pattern="*.aaa"/><glob pattern="*.AA" case-sensitive="true" weight="60"/><glob pattern="README.a"/><glob pattern="a[0-9]*.x"/>
<magic priority="60"><match type="string" value="aa\na" offset="0:10" mask="0xffff00ff"><match type="big16" value="0x1234" offset="4"/>
<match type="host32" value="7" offset="8"><match type="string" value="deep" offset="20"/></match></match><match value="zz" type="string" offset="2"/></magic>
<root-XML namespaceURI="http://a" localName="a"/>
<treemagic><treematch path="A/B" type="directory"><treematch path="c" match-case="true"/></treematch></treemagic></mime-type>
<mime-type type="application/x-both"><comment>Both of A</comment><glob-deleteall/><glob pattern="*.both"/>
<sub-class-of type="text/a"/><magic-deleteall/><magic><match type="string" value="BOTH" offset="0"/></magic></mime-type>`
	packageB = `<mime-type type="text/x-b"><comment>B</comment><sub-class-of type="text/plain"/><alias type="text/b"/>
<glob pattern="*.bbb"/><glob pattern="*.aaa" weight="40"/><glob pattern="*.ä"/><glob pattern="README.b"/>
<magic priority="60"><match type="string" value="[60:x/y]" offset="0"/></magic><magic priority="90"><match type="byte" value="1" offset="3"/></magic></mime-type>
<mime-type type="application/x-both"><comment>Both of B</comment><glob pattern="*.both" weight="70"/><glob pattern="*.bo"/>
<sub-class-of type="text/b"/><sub-class-of type="text/a"/><magic><match type="string" value="BOTH2" offset="0"/></magic><icon name="both"/></mime-type>
<mime-type type="x-content/b"><comment>B</comment><treemagic priority="70"><treematch path="B"/></treemagic></mime-type>`
)

var mimeFormats = map[string]Format{
	"mime.cache": Mime, "aliases": MimeLists, "types": MimeLists, "XMLnamespaces": MimeLists, "subclasses": MimeParents, "icons": MimeIcons,
	"generic-icons": MimeIcons, "globs": MimeGlobs, "globs2": MimeGlobs, "magic": MimeMagic, "treemagic": MimeTreeMagic,
}

// mimeOf writes a package to a directory of types.
func mimeOf(t *testing.T, dir, name, types string) {
	t.Helper()
	write(t, filepath.Join(dir, "packages", name+".xml"), `<?xml version="1.0" encoding="UTF-8"?>
<mime-info xmlns="http://www.freedesktop.org/standards/shared-mime-info">`+types+`</mime-info>`)
}

func read(t *testing.T, p string) []byte {
	t.Helper()
	file, err := os.ReadFile(p)
	if err != nil {
		t.Fatal(err)
	}
	return file
}

// update-mime-database is the oracle: what it makes of two packages has the records of what it
// makes of each, in the same order where it has one.
func TestMime(t *testing.T) {
	need(t, "update-mime-database")
	dir := t.TempDir()
	of := func(name string, packages map[string]string) string {
		for p, types := range packages {
			mimeOf(t, filepath.Join(dir, name), p, types)
		}
		run(t, "update-mime-database", filepath.Join(dir, name))
		return filepath.Join(dir, name)
	}
	packages := map[string]string{"a": packageA, "b": packageB}
	a, b, all := of("a", map[string]string{"a": packageA}), of("b", map[string]string{"b": packageB}), of("all", packages)
	mine := filepath.Join(dir, "mine")
	for name, f := range mimeFormats {
		here, other, want := parse(t, f, filepath.Join(a, name)), parse(t, f, filepath.Join(b, name)), parse(t, f, filepath.Join(all, name))
		got := merged(f, here, other)
		write(t, filepath.Join(mine, name), string(got))
		if records := parse(t, f, filepath.Join(mine, name)); !slices.Equal(sorted(records), sorted(want)) {
			t.Errorf("%s: merged %q\nwant %q", name, records, want)
		}
		switch name {
		case "aliases", "types", "XMLnamespaces", "magic", "treemagic":
			if want := read(t, filepath.Join(all, name)); !bytes.Equal(got, want) {
				t.Errorf("%s: merged\n%q\nwant\n%q", name, got, want)
			}
		case "globs2":
			if got, want := weights(got), weights(read(t, filepath.Join(all, name))); !slices.Equal(got, want) {
				t.Errorf("weights %q, want %q", got, want)
			}
		}
	}

	// The program makes the same of a directory that was merged.
	for p, types := range packages {
		mimeOf(t, mine, p, types)
	}
	before := make(map[string][]Record)
	for name, f := range mimeFormats {
		before[name] = sorted(parse(t, f, filepath.Join(mine, name)))
	}
	run(t, "update-mime-database", mine)
	for name, f := range mimeFormats {
		if after := sorted(parse(t, f, filepath.Join(mine, name))); !slices.Equal(before[name], after) {
			t.Errorf("%s: update-mime-database makes %q\nof %q", name, after, before[name])
		}
	}
}

// weights returns the weights of the lines of globs2.
func weights(file []byte) (list []string) {
	for line := range strings.Lines(string(file)) {
		weight, _, _ := strings.Cut(line, ":")
		list = append(list, weight)
	}
	return slices.Compact(list)
}

// GLib finds the same types by a cache that was merged as by one of the program.
func TestMimeReaders(t *testing.T) {
	need(t, "update-mime-database", "gio")
	dir := t.TempDir()
	cache := func(name string, packages ...string) string {
		for i, types := range packages {
			mimeOf(t, filepath.Join(dir, name, "mime"), string(rune('a'+i)), types)
		}
		run(t, "update-mime-database", filepath.Join(dir, name, "mime"))
		return filepath.Join(dir, name, "mime", "mime.cache")
	}
	a, b := parse(t, Mime, cache("a", packageA)), parse(t, Mime, cache("b", packageB))
	cache("all", packageA, packageB)
	write(t, filepath.Join(dir, "mine", "mime", "mime.cache"), string(merged(Mime, a, b)))
	files := []string{"info", "-a", "standard::fast-content-type,standard::content-type,standard::icon"}
	add := func(name, content string) {
		files = append(files, filepath.Join(dir, "files", name))
		write(t, files[len(files)-1], content)
	}
	for _, name := range []string{"x.aaa", "x.AA", "x.aA", "README.a", "readme.b", "a7z.x", "x.bbb", "x.ä", "x.bo", "x.both", "x"} {
		add(name, "\x00")
	}
	for i, content := range []string{"aa\na12", "aa\na\x124  ", "  zz", "[60:x/y] of b", "   \x01", "BOTH2", "BOTH"} {
		add("content"+string(rune('0'+i)), content)
	}
	t.Setenv("XDG_DATA_HOME", filepath.Join(dir, "none"))
	info := func(name string) string {
		t.Setenv("XDG_DATA_DIRS", filepath.Join(dir, name))
		return run(t, "gio", files...)
	}
	got, want := info("mine"), info("all")
	for _, name := range []string{"application/x-a", "text/x-b", "application/x-both"} {
		if strings.Count(want, "::content-type: "+name) < 3 {
			t.Errorf("too few files are %s:\n%s", name, want)
		}
	}
	if got != want {
		t.Errorf("GLib finds\n%s\nwant\n%s", got, want)
	}
	if only := info("a"); only == want {
		t.Error("the types of b change nothing")
	}
}

// What the program made of the types of all programs is written as it was, but for texts that
// the files have in no order.
func TestMimeOfMachine(t *testing.T) {
	const dir = "/usr/share/mime"
	if _, err := os.Stat(dir); err != nil {
		t.Skip("there is no ", dir)
	}
	for name, f := range mimeFormats {
		p := filepath.Join(dir, name)
		if _, err := os.Stat(p); err != nil {
			continue
		}
		records := parse(t, f, p)
		again, ok := f.Parse(f.Write(slices.Clone(records)))
		if !ok || !slices.Equal(sorted(records), sorted(again)) {
			t.Errorf("%s: %d records, and of what was written %d", name, len(records), len(again))
		}
		if name != "mime.cache" && !bytes.Equal(f.Write(slices.Clone(records)), read(t, p)) && !strings.HasPrefix(name, "globs") {
			t.Errorf("%s is written in another way", name)
		}
		t.Logf("%s: %d records", name, len(records))
	}
}
