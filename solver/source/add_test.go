package source

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
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
		{name: "names of one file, of which an archive has two", src: "links names.tar", want: `
			d 0755 z
			D 0755 z/d
			f 0644 z/d/c "file"
			h z/d/e => z/d/c
			f 0600 7:8 z/d/a "a"
			f 0600 7:8 z/d/b "b"`},
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
			writeTar(t, filepath.Join(dir, "names.tar"), "d/a a", "d/b b")
			makeTree(t, dir, "links/d/a file")
			for _, name := range []string{"b", "c", "e"} {
				if err := os.Link(filepath.Join(dir, "links/d/a"), filepath.Join(dir, "links/d", name)); err != nil {
					t.Fatal(err)
				}
			}
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

func TestArchiveThatChangesAfterItsPin(t *testing.T) {
	for name, edit := range map[string]func(p string) error{
		"same size":    func(p string) error { writeTar(t, p, "d/", "d/x two"); return nil },
		"another name": func(p string) error { writeTar(t, p, "d/", "d/y one"); return nil },
		"no tar":       func(p string) error { return os.WriteFile(p, make([]byte, 4096), 0o644) },
		"unread":       func(p string) error { return edited(p, -1) },
		"emptied":      func(p string) error { return os.Truncate(p, 0) },
		"repacked":     func(p string) error { writeTar(t, p, "e/", "e/x one"); return nil },
	} {
		for _, late := range []bool{false, true} {
			t.Run(fmt.Sprint(name, late), func(t *testing.T) {
				dir := t.TempDir()
				file := filepath.Join(dir, "a.tar")
				writeTar(t, file, "d/", "d/x one")
				c := &frontend.Copy{Sources: []string{"a.tar"}, Dest: "/z", Unpack: true}
				r := &Resolver{}
				pin, err := r.Copy(t.Context(), dir, c)
				if err != nil {
					t.Fatal(err)
				}
				change := func() {
					if err := edit(file); err != nil {
						t.Fatal(err)
					}
				}
				if !late {
					change()
				}
				place, err := r.CopyChanges(t.Context(), dir, c, pin)
				got := ""
				if err == nil {
					changes := placed(t, t.TempDir(), place)
					if late {
						change()
					}
					got, err = text(t, changes)
				}
				if f := (*Fault)(nil); !errors.As(err, &f) || f.Message != `"a.tar" changed while it was copied` {
					t.Errorf("error = %v\n%s", err, got)
				}
			})
		}
	}
}

// edited changes a byte of a file, counted from its end.
func edited(p string, at int) error {
	b, err := os.ReadFile(p)
	if err == nil {
		b[len(b)+at] ^= 1
		err = os.WriteFile(p, b, 0o644)
	}
	return err
}
