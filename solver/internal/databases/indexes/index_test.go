package indexes

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// need skips a test on a machine without a program.
func need(t *testing.T, programs ...string) {
	t.Helper()
	for _, p := range programs {
		if _, err := exec.LookPath(p); err != nil {
			t.Skip("there is no ", p)
		}
	}
}

func run(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

func write(t *testing.T, p, content string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(p, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

func parse(t *testing.T, f Format, p string) []Record {
	t.Helper()
	file, err := os.ReadFile(p)
	if err != nil {
		t.Fatal(err)
	}
	records, ok := f.Parse(file)
	if !ok {
		t.Fatalf("%s is not understood", p)
	}
	return records
}

func sorted(records []Record) []Record {
	list := slices.Clone(records)
	slices.SortFunc(list, func(a, b Record) int { return strings.Compare(a.Text, b.Text) })
	return list
}

// merged writes the records of one index, and those of another that it lacks.
func merged(f Format, here, other []Record) []byte {
	all := slices.Clone(here)
	for _, r := range other {
		if !slices.Contains(here, r) {
			all = append(all, r)
		}
	}
	return f.Write(all)
}

const schema = `<schemalist>
<enum id='org.x.%[1]s.Kind'><value nick='one' value='1'/><value nick='two' value='2'/></enum>
<schema id='org.x.%[1]s' path='/org/x/%[1]s/' gettext-domain='d'>
<key name='flag' type='b'><default>true</default></key>
<key name='list' type='as'><default>['a','%[1]s']</default></key>
<key name='number' type='d'><range min='0' max='9'/><default>2.5</default></key>
<key name='kind' enum='org.x.%[1]s.Kind'><default>'two'</default></key>
<child name='below' schema='org.x.%[1]s.below'/>
</schema>
<schema id='org.x.%[1]s.below' path='/org/x/%[1]s/below/'><key name='text' type='s'><default>'x'</default></key></schema>
</schemalist>`

// GLib's own compiler, and its reader, are the oracles.
func TestSchemas(t *testing.T) {
	need(t, "glib-compile-schemas")
	dir := t.TempDir()
	compile := func(name string, schemas ...string) string {
		for _, s := range schemas {
			write(t, filepath.Join(dir, name, s+".gschema.xml"), fmt.Sprintf(schema, s))
		}
		run(t, "glib-compile-schemas", filepath.Join(dir, name))
		return filepath.Join(dir, name, "gschemas.compiled")
	}
	a, b, all := compile("a", "one", "two"), compile("b", "two", "three", "four"), compile("all", "one", "two", "three", "four")
	got := merged(Schemas, parse(t, Schemas, a), parse(t, Schemas, b))
	records, ok := Schemas.Parse(got)
	if !ok || !slices.Equal(sorted(records), sorted(parse(t, Schemas, all))) {
		t.Error("the merged file has other schemas than one of all")
	}
	mine := filepath.Join(dir, "mine")
	write(t, filepath.Join(mine, "gschemas.compiled"), string(got))
	need(t, "gsettings")
	list := func(dir string) string {
		t.Setenv("GSETTINGS_SCHEMA_DIR", dir)
		lines := strings.Split(run(t, "gsettings", "list-recursively"), "\n")
		slices.Sort(lines)
		return strings.Join(lines, "\n")
	}
	if got, want := list(mine), list(filepath.Dir(all)); got != want || !strings.Contains(got, "org.x.four.below text 'x'") {
		t.Errorf("gsettings lists\n%s\nwant\n%s", got, want)
	}
}

// GTK's own writer is the oracle, and its check of a cache.
func TestIcons(t *testing.T) {
	need(t, "gtk-update-icon-cache")
	dir := t.TempDir()
	theme := func(name string, icons ...string) string {
		top := filepath.Join(dir, name)
		write(t, filepath.Join(top, "index.theme"), "[Icon Theme]\nName=x\nComment=x\nDirectories=16x16/apps,scalable/apps\n[16x16/apps]\nSize=16\n[scalable/apps]\nSize=16\nType=Scalable\n")
		for _, icon := range icons {
			write(t, filepath.Join(top, "scalable/apps", icon+".svg"), "<svg/>")
			write(t, filepath.Join(top, "16x16/apps", icon+".xpm"), "x")
		}
		run(t, "gtk-update-icon-cache", "--force", "--quiet", "--index-only", top)
		return filepath.Join(top, "icon-theme.cache")
	}
	a, b, all := theme("a", "one", "two"), theme("b", "two", "three", "four"), theme("all", "one", "two", "three", "four")
	got := merged(Icons, parse(t, Icons, a), parse(t, Icons, b))
	records, ok := Icons.Parse(got)
	if !ok || len(records) != 8 || !slices.Equal(sorted(records), sorted(parse(t, Icons, all))) {
		t.Errorf("the merged file has %v, want %v", records, parse(t, Icons, all))
	}
	if err := os.WriteFile(all, got, 0o644); err != nil {
		t.Fatal(err)
	}
	run(t, "gtk-update-icon-cache", "--validate", filepath.Dir(all))
}

func TestText(t *testing.T) {
	tests := []struct {
		name             string
		format           Format
		here, other, all string
	}{
		{"types", Opens, "[MIME Cache]\nimage/png=a.desktop;b.desktop;\ntext/plain=a.desktop;\n", "[MIME Cache]\nimage/png=c.desktop;\nimage/x=c.desktop;\n",
			"[MIME Cache]\nimage/png=a.desktop;b.desktop;c.desktop;\nimage/x=c.desktop;\ntext/plain=a.desktop;\n"},
		{"menus", Info, "Head\nThis is.\n\n* Menu: \n\nEditors\n* nano: (nano).  Small editor.\n\nTools\n* Gzip: (gzip).   Compress\n  files.\n",
			"Head\nThis is.\n\n* Menu: \n\nEditors\n* ed: (ed).  The editor.\n* nano: (nano).  Small editor.\n\nOther\n* x: (x).  X.\n",
			"Head\nThis is.\n\n* Menu: \n\nEditors\n* nano: (nano).  Small editor.\n* ed: (ed).  The editor.\n\nTools\n* Gzip: (gzip).   Compress\n  files.\n\nOther\n* x: (x).  X.\n"},
		{"an entry of no section", Info, "* Menu:\n* a: (a).  A.\n", "* Menu:\n\nTools\n* b: (b).  B.\n", "* Menu:\n* a: (a).  A.\n\nTools\n* b: (b).  B.\n"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			here, ok1 := tt.format.Parse([]byte(tt.here))
			other, ok2 := tt.format.Parse([]byte(tt.other))
			if got := string(merged(tt.format, here, other)); !ok1 || !ok2 || got != tt.all {
				t.Errorf("%t, %t, merged\n%q, want\n%q", ok1, ok2, got, tt.all)
			}
			if again := tt.format.Write(here); string(again) != tt.here {
				t.Errorf("written again\n%q, want\n%q", again, tt.here)
			}
		})
	}
}

// TestInstallInfo reads what install-info writes, and it reads what is written here.
func TestInstallInfo(t *testing.T) {
	need(t, "install-info")
	dir := t.TempDir()
	menu := func(name string, entries ...string) string {
		p := filepath.Join(dir, name)
		for _, e := range entries {
			info := filepath.Join(dir, e+".info")
			write(t, info, "INFO-DIR-SECTION Tools "+e[:1]+"\nSTART-INFO-DIR-ENTRY\n* "+e+": ("+e+").  What\n   it is.\nEND-INFO-DIR-ENTRY\n")
			run(t, "install-info", info, p)
		}
		return p
	}
	a, b, all := menu("a", "one", "two"), menu("b", "two", "three"), menu("all", "one", "two", "three")
	write(t, filepath.Join(dir, "mine"), string(merged(Info, parse(t, Info, a), parse(t, Info, b))))
	if got, want := sorted(parse(t, Info, filepath.Join(dir, "mine"))), sorted(parse(t, Info, all)); !slices.Equal(got, want) {
		t.Errorf("the merged file has %q, want %q", got, want)
	}
	run(t, "install-info", "--remove", filepath.Join(dir, "three.info"), filepath.Join(dir, "mine"))
	if left := parse(t, Info, filepath.Join(dir, "mine")); slices.ContainsFunc(left, func(r Record) bool { return strings.Contains(r.Name, "three") }) {
		t.Errorf("install-info does not remove an entry: %q", left)
	}
}

const formats = 11

// FuzzParse gives files that lie: nothing fails, and what is understood is written as it is.
func FuzzParse(f *testing.F) {
	for _, p := range []string{"/usr/share/glib-2.0/schemas/gschemas.compiled", "/usr/share/icons/hicolor/icon-theme.cache", "/usr/share/info/dir", "/usr/share/mime/magic", "/usr/share/mime/treemagic", "/usr/share/mime/globs2"} {
		if file, err := os.ReadFile(p); err == nil && len(file) < 1<<16 {
			for i := range formats {
				f.Add(byte(i), file)
			}
		}
	}
	f.Add(byte(Schemas), Schemas.Write([]Record{{"a", string(appendItems(nil, []item{{"a", 'H', string(appendItems(nil, []item{{"k", 'v', "12345678"}}))}}))}}))
	f.Add(byte(Icons), Icons.Write([]Record{image{"a", "apps", 4}.record(), image{"b", "apps", 1}.record()}))
	f.Add(byte(Opens), []byte("[MIME Cache]\na=b;\n"))
	matches := string(match{begin: 2, span: 3, word: 4, bytes: "ab", mask: "\xff\x00"}.append(match{span: 1, word: 1, bytes: "x"}.append(nil)))
	f.Add(byte(Mime), Mime.Write([]Record{
		mimeRecord(kindAlias, 1, "a/b", "a/c"), mimeRecord(kindParent, 2, "a/c", "a/d"), mimeRecord(kindParent, 2, "a/c", "a/e"),
		mimeRecord(kindGlob, 3, "50", "*.png", "a/c"), mimeRecord(kindGlob, 3, "306", "*.ä", "a/c"), mimeRecord(kindGlob, 3, "60", "*.png", "a/c"),
		mimeRecord(kindGlob, 3, "50", "x", "a/c"), mimeRecord(kindGlob, 3, "50", "x*", "a/c"), mimeRecord(kindMagic, 3, "50", "a/c", "", matches),
		mimeRecord(kindMagic, 3, "0", "a/c", "", noMagic), mimeRecord(kindNamespace, 2, "u", "l", "a/c"), mimeRecord(kindIcon, 1, "a/c", "i"),
		mimeRecord(kindGeneric, 1, "a/c", "g"),
	}))
	f.Add(byte(MimeMagic), []byte(magicHead+"[50:a/b]\n"+matches+"[0:a/b]\n"+noMagic))
	f.Add(byte(MimeTreeMagic), []byte(treeHead+"[50:a/b]\n>\"x\"=any\n1>\"y\"=file\n"))
	f.Add(byte(MimeParents), []byte("a/b c/d\ne/f c/d\na/b x/y\n"))
	f.Fuzz(func(t *testing.T, format byte, file []byte) {
		fm := Format(format % formats)
		records, ok := fm.Parse(file)
		if !ok {
			return
		}
		again, ok := fm.Parse(fm.Write(slices.Clone(records)))
		if fm == Mime { // of two weights of a suffix the greater one is left
			records = again
			again, ok = fm.Parse(fm.Write(slices.Clone(records)))
		}
		if !ok || !slices.Equal(sorted(records), sorted(again)) && fm != Opens {
			t.Errorf("read %q, and of what was written %q", records, again)
		}
		if text := fm.Write(again); !bytes.Equal(text, fm.Write(records)) && fm == Info {
			t.Errorf("written %q, and then %q", fm.Write(records), text)
		}
	})
}
