package databases

import (
	"strings"
	"testing"
)

// An index gets the records of a step, and loses them again: those of the machine stay.
func TestIndexes(t *testing.T) {
	const loader = "\"/usr/lib/libpixbufloader-%s.so\"\n\"%s\" 5 \"gdk-pixbuf\"\n\"\"\n"
	of := func(names ...string) string {
		text := "# GdkPixbuf Image Loader Modules file\n#\n"
		for _, n := range names {
			text += "\n" + strings.ReplaceAll(loader, "%s", n)
		}
		return text
	}
	tests := []struct{ path, before, after, here, merged string }{
		{"usr/lib/x86_64-linux-gnu/gdk-pixbuf-2.0/2.10.0/loaders.cache", of("png"), of("png", "svg"), of("jpeg", "png"), of("jpeg", "png", "svg")},
		{"usr/lib/x86_64-linux-gnu/gio/modules/giomodule.cache", "liba.so: gio-vfs\n", "liba.so: gio-vfs\nlibb.so: gio-tls\n", "libc.so: gio-x\n", "libc.so: gio-x\nlibb.so: gio-tls\n"},
		{"usr/share/applications/mimeinfo.cache", "", "[MIME Cache]\ntext/x=a.desktop;\n", "[MIME Cache]\ntext/x=b.desktop;\n", "[MIME Cache]\ntext/x=b.desktop;a.desktop;\n"},
		{"usr/share/info/dir", "H\n* Menu:\n\nA\n* a: (a).  A.\n", "H\n* Menu:\n\nA\n* a: (a).  A.\n* b: (b).  B.\n", "H\n* Menu:\n\nA\n* c: (c).  C.\n\nB\n* d: (d).  D.\n", "H\n* Menu:\n\nA\n* c: (c).  C.\n* b: (b).  B.\n\nB\n* d: (d).  D.\n"},
	}
	for _, tt := range tests {
		t.Run(tt.path, func(t *testing.T) {
			d := db(t, tt.path)
			c, err := d.Diff([]byte(tt.before), []byte(tt.after))
			if err != nil || c.IsEmpty() {
				t.Fatal(c, err)
			}
			got, conflicts, err := d.Merge([]byte(tt.here), []byte(tt.after), c)
			if string(got) != tt.merged || len(conflicts) > 0 || err != nil {
				t.Fatalf("merged %q, %v, %v\nwant   %q", got, conflicts, err, tt.merged)
			}
			undo, err := d.Diff(got, []byte(tt.here))
			if err != nil {
				t.Fatal(err)
			}
			if drift, err := d.Drift(got, undo); err != nil || len(drift) > 0 {
				t.Errorf("it has drift from itself: %v, %v", drift, err)
			}
			back, _, err := d.Merge(got, []byte(tt.here), undo)
			if string(back) != tt.here || err != nil {
				t.Errorf("undone %q, %v\nwant   %q", back, err, tt.here)
			}
		})
	}
}

// One that is not understood is changed by nobody.
func TestUnknownIndexes(t *testing.T) {
	d := db(t, "usr/share/glib-2.0/schemas/gschemas.compiled")
	for name, files := range map[string][3]string{
		"of the machine": {"", string(d.format.text(nil)), "what is this"},
		"of the step":    {"", "what is this", "and that"},
	} {
		c, err := d.Diff([]byte(files[0]), []byte(files[1]))
		if err != nil {
			t.Fatal(err)
		}
		c.Set = append(c.Set, "more>1a2b")
		if conflicts, err := d.Check([]byte(files[2]), c, nil); err != nil || len(conflicts) == 0 {
			t.Errorf("%s: %v, %v, want a conflict", name, conflicts, err)
		}
	}
}
