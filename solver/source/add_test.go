package source

import (
	"archive/tar"
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/clayer/clayer/frontend"
	"github.com/clayer/clayer/solver/internal/names"
)

// writeTar writes a tar of files, given as "name content"; one that ends in a slash is a
// directory of mode 0711, and "name = other" a hard link.
func writeTar(t testing.TB, path string, members ...string) {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, m := range members {
		name, content, _ := strings.Cut(m, " ")
		h := &tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o600, Uid: 7, Gid: 8, Size: int64(len(content)), ModTime: epoch}
		if to, ok := strings.CutPrefix(content, "= "); ok {
			h.Typeflag, h.Linkname, h.Size, content = tar.TypeLink, to, 0, ""
		} else if strings.HasSuffix(name, "/") {
			h.Typeflag, h.Mode = tar.TypeDir, 0o711
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(content)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, b.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
}

// Of several sources that have a path the last one has it, as if they were added one after
// the other.
func TestAddOfSeveralSources(t *testing.T) {
	for _, tt := range []struct{ name, src, root, want, err string }{
		{name: "an archive", src: "one.tar", want: `
			d 0755 z
			D 0711 7:8 z/d
			f 0600 7:8 z/d/x "one"
			h z/d/y => z/d/x`},
		{name: "a later file", src: "one.tar ctx", want: `
			d 0755 z
			D 0755 z/d
			f 0644 z/d/x "file"
			f 0600 7:8 z/d/y "one"`},
		{name: "a later archive", src: "ctx one.tar", want: `
			d 0755 z
			D 0711 7:8 z/d
			f 0600 7:8 z/d/x "one"
			h z/d/y => z/d/x`},
		{name: "two archives", src: "one.tar two.tar", want: `
			d 0755 z
			D 0711 7:8 z/d
			f 0600 7:8 z/d/y "one"
			f 0600 7:8 z/d/x "two"`},
		{name: "a directory and a file", src: "ctx bad.tar", err: `"d" is a directory in one source and a file in another`},
		{name: "a link in the root", src: "one.tar", root: "z/d -> other", want: `
			d 0755 z
			d 0711 7:8 z/d
			f 0600 7:8 z/d/x "one"
			h z/d/y => z/d/x`},
		{name: "a file in the root", src: "one.tar", root: "z/d file", err: "/z/d is a file, and not a directory"},
		{name: "a directory in the root", src: "one.tar", root: "z/d/x/", err: "/z/d/x is a directory, which a file would replace"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir, root := t.TempDir(), t.TempDir()
			makeTree(t, dir, "ctx/d/x file")
			writeTar(t, filepath.Join(dir, "one.tar"), "d/", "d/x one", "d/y = d/x")
			writeTar(t, filepath.Join(dir, "two.tar"), "d/x two")
			writeTar(t, filepath.Join(dir, "bad.tar"), "d file")
			makeTree(t, root, "z/other/")
			if tt.root != "" {
				makeTree(t, root, tt.root)
			}
			c := &frontend.Copy{Sources: strings.Fields(tt.src), Dest: "/z", Unpack: true}
			c.Pos.File = filepath.Join(dir, "Containerfile")
			r := &Resolver{}
			pin, err := r.Copy(t.Context(), dir, c)
			if err != nil {
				t.Fatal(err)
			}
			place, err := r.CopyChanges(t.Context(), dir, c, pin)
			var got string
			if err == nil {
				changes, perr := place(names.New(root, ""))
				if err = perr; err == nil {
					got, err = text(t, changes)
				}
			}
			switch {
			case tt.err != "":
				if err == nil || !strings.Contains(err.Error(), tt.err) {
					t.Errorf("error = %v, want %q\n%s", err, tt.err, got)
				}
			case err != nil:
				t.Error(err)
			case got != strings.ReplaceAll(strings.TrimPrefix(tt.want, "\n"), "\t", "")+"\n":
				t.Errorf("got\n%s\nwant%s", got, strings.ReplaceAll(tt.want, "\t", ""))
			}
		})
	}
}
