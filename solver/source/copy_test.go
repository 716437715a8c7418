package source

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/clayer/clayer/cache/snapshot"
	"github.com/clayer/clayer/frontend"
	"github.com/clayer/clayer/solver/internal/archive"
	"github.com/clayer/clayer/solver/internal/names"
)

// makeTree makes a directory of lines: "name content", "dir/", "link -> target",
// "name* content" for one that may be executed.
func makeTree(t testing.TB, dir string, lines ...string) {
	t.Helper()
	for _, l := range lines {
		name, content, _ := strings.Cut(l, " ")
		mode := os.FileMode(0o664)
		if strings.HasSuffix(name, "*") {
			name, mode = name[:len(name)-1], 0o775
		}
		p := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		var err error
		if target, ok := strings.CutPrefix(content, "-> "); ok {
			err = os.Symlink(target, p)
		} else if strings.HasSuffix(name, "/") {
			err = os.MkdirAll(p, 0o755)
		} else if err = os.WriteFile(p, []byte(strings.ReplaceAll(content, `\n`, "\n")), mode); err == nil {
			err = os.Chmod(p, mode)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// copies are COPY instructions on the tree of TestCopy, and their entries.
var copies = []struct {
	name   string
	tree   []string // besides base
	chmod  map[string]os.FileMode
	src    string // by blanks
	inline []frontend.Inline
	dest   string
	owner  frontend.Ownership
	isDir  string // directories that the root has
	want   string
	err    string
}{
	{name: "a file to a name", src: "a", dest: "/opt/z", want: `f 0644 opt/z "one"`},
	{name: "a file into a directory", src: "b", dest: "/opt/", want: "d 0755 opt\nf 0755 opt/b \"two\""},
	{name: "a file into a directory that is there", src: "b", dest: "/usr/bin", isDir: "/usr/bin", want: "d 0755 usr/bin\nf 0755 usr/bin/b \"two\""},
	{name: "modes, without what a umask of 002 leaves", tree: []string{"m/s/f x"}, chmod: map[string]os.FileMode{"m/s": 0o775 | os.ModeSetgid, "m/s/f": 0o664 | os.ModeSetuid}, src: "m", dest: "/z", want: "d 0755 z\nD 2755 z/s\nf 4644 z/s/f \"x\""},
	{name: "a file into the root", src: "a", dest: "/", want: `f 0644 a "one"`},
	{name: "two files make dest a directory", src: "a b", dest: "/opt", want: "d 0755 opt\nf 0644 opt/a \"one\"\nf 0755 opt/b \"two\""},
	{name: "the content of a directory", src: "d", dest: "/opt/z", want: `
		d 0755 opt/z
		D 0755 opt/z/e
		f 0644 opt/z/e/y "four"
		l opt/z/l -> ../a
		f 0644 opt/z/x "three"`},
	{name: "an absolute source is the directory's", src: "/d/e/", dest: "/", want: `f 0644 y "four"`},
	{name: "an empty directory", src: "empty", dest: "/z", want: `d 0755 z`},
	{name: "everything", src: ".", dest: "/z", want: `
		d 0755 z
		f 0644 z/.hidden "h"
		f 0644 z/a "one"
		f 0755 z/b "two"
		D 0755 z/d
		D 0755 z/d/e
		f 0644 z/d/e/y "four"
		l z/d/l -> ../a
		f 0644 z/d/x "three"
		D 0755 z/empty`},
	{name: "a pattern", src: "[ab]", dest: "/z/", want: "d 0755 z\nf 0644 z/a \"one\"\nf 0755 z/b \"two\""},
	{name: "a pattern further in", src: "*/?", dest: "/z/", want: `
		d 0755 z
		f 0644 z/l "one"
		f 0644 z/x "three"
		f 0644 z/y "four"`},
	{name: "a pattern and a name after it", src: "*/x", dest: "/z", want: `f 0644 z "three"`},
	{name: "an escaped name", tree: []string{"[1] odd"}, src: `\[1]`, dest: "/z/", want: "d 0755 z\nf 0644 z/[1] \"odd\""},
	{name: "sources that have the same path", tree: []string{"f/x later"}, src: "d/x f/x", dest: "/z/", want: "d 0755 z\nf 0644 z/x \"later\""},
	{name: "a directory and a file of one path", tree: []string{"f/e later"}, src: "d f", dest: "/z/", err: `"e" is a directory in one source and a file in another`},
	{name: "heredocs", src: "a", inline: []frontend.Inline{{Name: "h", Content: "text\n"}}, dest: "/z/", want: "d 0755 z\nf 0644 z/a \"one\"\nf 0644 z/h \"text\\n\""},
	{name: "a heredoc to a name", inline: []frontend.Inline{{Name: "h", Content: "text\n"}}, dest: "/z", want: `f 0644 z "text\n"`},
	{name: "a heredoc with a bad name", inline: []frontend.Inline{{Name: "../h"}}, dest: "/z", err: "is no file name"},
	{name: "chmod of dest, where it is created, without special bits", tree: []string{"m/s/f one"}, src: "m", dest: "/z", owner: frontend.Ownership{Chmod: "1640"}, want: "d 0640 z\nD 1640 z/s\nf 1640 z/s/f \"one\""},
	{name: "chown and chmod", src: "d", dest: "/z", owner: frontend.Ownership{Chown: "1:2", Chmod: "644"}, want: `
		d 0644 1:2 z
		D 0644 1:2 z/e
		f 0644 1:2 z/e/y "four"
		l 1:2 z/l -> ../a
		f 0644 1:2 z/x "three"`},
	{name: "a source that is a link", tree: []string{"link -> d/e/y"}, src: "link", dest: "/z/", want: "d 0755 z\nf 0644 z/link \"four\""},
	{name: "a source that is a link to a directory", tree: []string{"link -> d/../d/e"}, src: "link", dest: "/z/", want: "d 0755 z\nf 0644 z/y \"four\""},
	{name: "a link on the way", tree: []string{"link -> d"}, src: "link/e/y", dest: "/z", want: `f 0644 z "four"`},

	{name: "nothing of that name", src: "none", dest: "/z", err: `source "none": no such file`},
	{name: "nothing that matches", src: "*.go", dest: "/z/", want: ""},
	{name: "nothing that matches, and a file", src: "*.go a", dest: "/z/", want: "d 0755 z\nf 0644 z/a \"one\""},
	{name: "nothing that matches but what is ignored", tree: []string{`.dockerignore a`}, src: "[a]", dest: "/z/", want: ""},
	{name: "a pattern that matches an ignored directory", tree: []string{`.dockerignore d\n!a`}, src: "d*", dest: "/z/", want: "d 0755 z"},
	{name: "a malformed pattern", src: "[a", dest: "/z", err: "malformed pattern"},
	{name: "out of the directory", src: "../x", dest: "/z", err: `source "../x" leaves the Containerfile's directory`},
	{name: "out of the directory and back", src: "d/../../x", dest: "/z", err: "leaves the Containerfile's directory"},
	{name: "a link out of the directory", tree: []string{"link -> ../../etc/passwd"}, src: "link", dest: "/z", err: "is a link that leaves"},
	{name: "an absolute link", tree: []string{"link -> /etc/passwd"}, src: "link", dest: "/z", err: "is a link that leaves"},
	{name: "links that the directory is the root of", tree: []string{"abs -> /d/e", "up -> ../../a"}, src: "abs/y up", dest: "/z/", want: "d 0755 z\nf 0644 z/up \"one\"\nf 0644 z/y \"four\""},
	{name: "a link out of the directory on the way", tree: []string{"link -> .."}, src: "link/x", dest: "/z", err: "is a link that leaves"},
	{name: "a link out of the directory, matched by a pattern", tree: []string{"link -> /etc"}, src: "li*", dest: "/z/", err: "is a link that leaves"},
	{name: "a pattern below a link out of the directory", tree: []string{"link -> /etc"}, src: "link/*", dest: "/z/", err: "is a link that leaves"},
	{name: "a link to itself", tree: []string{"link -> link"}, src: "link", dest: "/z", err: "too many links"},
	{name: "a link to nothing", tree: []string{"link -> none"}, src: "link", dest: "/z", err: "no such file"},

	{name: "ignored", tree: []string{`.dockerignore d\n*.hidden\nempty`}, src: ".", dest: "/z", want: `
		d 0755 z
		f 0644 z/.dockerignore "d\n*.hidden\nempty"
		f 0644 z/a "one"
		f 0755 z/b "two"`},
	{name: "an exception below an ignored directory", tree: []string{`.dockerignore *\n!d/e`}, src: ".", dest: "/z", want: `
		d 0755 z
		D 0755 z/d
		D 0755 z/d/e
		f 0644 z/d/e/y "four"`},
	{name: "an ignored source", tree: []string{`.dockerignore a`}, src: "a", dest: "/z", err: `source "a" is left out by .dockerignore`},
	{name: "a source below an ignored directory", tree: []string{`.dockerignore d`}, src: "d/e/y", dest: "/z", err: "is left out by .dockerignore"},
	{name: "an ignored directory with an exception elsewhere", tree: []string{`.dockerignore d\n!a`}, src: "d", dest: "/z", err: "is left out by .dockerignore"},
	{name: "a link is no way around", tree: []string{`.dockerignore d`, "link -> d"}, src: "link", dest: "/z", err: "is left out by .dockerignore"},
	{name: "what an exception includes is ignored again", tree: []string{`.dockerignore d/*\n!d/e/*\n*/e`}, src: "d", dest: "/z", want: "d 0755 z"},
	{name: "an ignored link is not there", tree: []string{`.dockerignore link`, "link -> a"}, src: "link", dest: "/z", err: "is left out by .dockerignore"},
	{name: "an ignored link doesn't match", tree: []string{`.dockerignore link`, "link -> d"}, src: "lin? link/* b", dest: "/z/", want: "d 0755 z\nf 0755 z/b \"two\""},
	{name: "what is ignored doesn't match", tree: []string{`.dockerignore b`}, src: "[ab]", dest: "/z", want: `f 0644 z "one"`},
	{name: "the Containerfile's own comes first", tree: []string{`.dockerignore a`, `Containerfile.mojo.dockerignore b`}, src: "[ab]", dest: "/z", want: `f 0644 z "one"`},
	{name: "a malformed line", tree: []string{`.dockerignore [a`}, src: "a", dest: "/z", err: ".dockerignore: "},
}

func TestCopy(t *testing.T) {
	base := []string{"a one", "b* two", "d/x three", "d/e/y four", "d/l -> ../a", "empty/", ".hidden h"}
	for _, tt := range copies {
		t.Run(tt.name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "ctx")
			makeTree(t, dir, base...)
			makeTree(t, dir, tt.tree...)
			for name, mode := range tt.chmod {
				if err := os.Chmod(filepath.Join(dir, name), mode); err != nil {
					t.Fatal(err)
				}
			}
			c := &frontend.Copy{Sources: strings.Fields(tt.src), Inline: tt.inline, Dest: tt.dest, Owner: tt.owner}
			c.Pos.File = filepath.Join(dir, "Containerfile.mojo")
			r := &Resolver{}
			root := t.TempDir()
			if tt.isDir != "" {
				makeTree(t, root, tt.isDir[1:]+"/")
			}
			pin, err := r.Copy(t.Context(), dir, c)
			var got string
			if err == nil {
				place, cerr := r.CopyChanges(t.Context(), dir, c, pin)
				if cerr != nil {
					t.Fatal(cerr)
				}
				got, err = text(t, placed(t, root, place))
			}
			if tt.err != "" {
				var fault *Fault
				if err == nil || !strings.Contains(err.Error(), tt.err) {
					t.Errorf("error = %v, want %q\n%s", err, tt.err, got)
				} else if !errors.As(err, &fault) && tt.name != "a link to itself" {
					t.Errorf("%v is no Fault", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if got != want(tt.want) {
				t.Errorf("got\n%swant\n%s", got, want(tt.want))
			}
			again, err := new(Resolver).Copy(t.Context(), dir, c)
			if err != nil || again != pin {
				t.Errorf("pinned again: %v, %v; before %v", again, err, pin)
			}
		})
	}
}

// placed returns the entries of a step in a root.
func placed(t testing.TB, root string, place Placer) snapshot.Changes {
	t.Helper()
	changes, err := place(names.New(root, ""))
	if err != nil {
		t.Fatal(err)
	}
	return changes
}

func TestCopyPin(t *testing.T) {
	tests := []struct {
		name string
		edit func(dir string) error
		same bool
	}{
		{name: "times don't count", same: true, edit: func(d string) error {
			return os.Chtimes(filepath.Join(d, "d/x"), epoch, epoch)
		}},
		{name: "nor does the umask", same: true, edit: func(d string) error {
			return errors.Join(os.Chmod(filepath.Join(d, "d/x"), 0o644), os.Chmod(filepath.Join(d, "d"), 0o775))
		}},
		{name: "who may execute does", edit: func(d string) error { return os.Chmod(filepath.Join(d, "d/x"), 0o755) }},
		{name: "who may read does", edit: func(d string) error { return os.Chmod(filepath.Join(d, "d/x"), 0o600) }},
		{name: "content does", edit: func(d string) error { return os.WriteFile(filepath.Join(d, "d/x"), []byte("tree"), 0o644) }},
		{name: "names do", edit: func(d string) error { return os.Rename(filepath.Join(d, "d/x"), filepath.Join(d, "d/y")) }},
		{name: "links do", edit: func(d string) error {
			return errors.Join(os.Remove(filepath.Join(d, "d/l")), os.Symlink("b", filepath.Join(d, "d/l")))
		}},
		{name: "an empty directory does", edit: func(d string) error { return os.Mkdir(filepath.Join(d, "d/new"), 0o755) }},
		{name: "what is elsewhere doesn't", same: true, edit: func(d string) error { return os.WriteFile(filepath.Join(d, "other"), nil, 0o644) }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			makeTree(t, dir, "d/x three", "d/l -> a", "a one")
			c := &frontend.Copy{Sources: []string{"d"}, Dest: "/z"}
			r := &Resolver{}
			before, err := r.Copy(t.Context(), dir, c)
			if err != nil {
				t.Fatal(err)
			}
			if before.Size != 5 {
				t.Errorf("size %d", before.Size)
			}
			// A change of encoding is a change of key: it must not come by accident.
			const golden = "sha256:092a0461d38ddbb818216eff43df4dff8fa9634d27a64d86d50e2f029a2bf9f0"
			if before.Digest.String() != golden {
				t.Errorf("pin %s, want %s", before.Digest, golden)
			}
			if err := tt.edit(dir); err != nil {
				t.Fatal(err)
			}
			after, err := new(Resolver).Copy(t.Context(), dir, c)
			if err != nil {
				t.Fatal(err)
			}
			if (after == before) != tt.same {
				t.Errorf("pin %v, before %v", after, before)
			}
		})
	}
}

func TestFileThatChangesAfterItsPin(t *testing.T) {
	for name, edit := range map[string]func(p string) error{
		"same size": func(p string) error { return os.WriteFile(p, []byte("tree!"), 0o644) },
		"longer":    func(p string) error { return os.WriteFile(p, []byte("three and more"), 0o644) },
		"shorter":   func(p string) error { return os.WriteFile(p, []byte("th"), 0o644) },
		"emptied":   func(p string) error { return os.Truncate(p, 0) },
		"gone":      os.Remove,
		"a pipe":    func(p string) error { return errors.Join(os.Remove(p), syscall.Mkfifo(p, 0o644)) },
		"a link out": func(p string) error {
			return errors.Join(os.Remove(p), os.Symlink("/etc/passwd", p))
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			makeTree(t, dir, "d/x three")
			c := &frontend.Copy{Sources: []string{"d"}, Dest: "/z"}
			r := &Resolver{}
			pin, err := r.Copy(t.Context(), dir, c)
			if err != nil {
				t.Fatal(err)
			}
			place, err := r.CopyChanges(t.Context(), dir, c, pin)
			if err != nil {
				t.Fatal(err)
			}
			changes := placed(t, t.TempDir(), place)
			if err := edit(filepath.Join(dir, "d/x")); err != nil {
				t.Fatal(err)
			}
			if got, err := text(t, changes); err == nil || !strings.Contains(err.Error(), "d/x") {
				t.Errorf("error = %v\n%s", err, got)
			}
			// A pin of before is none of now.
			if _, err := new(Resolver).CopyChanges(t.Context(), dir, c, Pin{Digest: "sha256:0"}); err == nil {
				t.Error("another pin is accepted")
			}
		})
	}
}

func TestCopyRefusesWhatIsNoFile(t *testing.T) {
	dir := t.TempDir()
	makeTree(t, dir, "d/a x")
	if err := unix.Mknod(filepath.Join(dir, "d/pipe"), unix.S_IFSOCK|0o644, 0); err != nil {
		t.Fatal(err)
	}
	for _, src := range []string{"d", "d/pipe", "d/p*"} {
		_, err := new(Resolver).Copy(t.Context(), dir, &frontend.Copy{Sources: []string{src}, Dest: "/z"})
		if err == nil || !strings.Contains(err.Error(), `"d/pipe" is a socket or a device`) {
			t.Errorf("%s: error = %v", src, err)
		}
	}
	makeTree(t, dir, ".dockerignore **/pipe")
	if _, err := new(Resolver).Copy(t.Context(), dir, &frontend.Copy{Sources: []string{"d"}, Dest: "/z"}); err != nil {
		t.Error(err)
	}
}

func TestCopyCanBeCancelled(t *testing.T) {
	dir := t.TempDir()
	makeTree(t, dir, "d/a x")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := new(Resolver).Copy(ctx, dir, &frontend.Copy{Sources: []string{"d"}, Dest: "/z"})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("error = %v", err)
	}
}

func BenchmarkCopyPin(b *testing.B) {
	dir := b.TempDir()
	for i := range 2000 {
		makeTree(b, dir, fmt.Sprintf("src/%02d/%04d %s", i%40, i, strings.Repeat("x", 8<<10)))
	}
	c := &frontend.Copy{Sources: []string{"src"}, Dest: "/z"}
	b.SetBytes(2000 * 8 << 10)
	for b.Loop() {
		if _, err := new(Resolver).Copy(b.Context(), dir, c); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkUnpack(b *testing.B) {
	var lines []string
	for i := range 2000 {
		lines = append(lines, fmt.Sprintf("f 0644 d/%02d/%04d %s", i%40, i, strings.Repeat("x", 8<<10)))
	}
	s := newSite(b, map[string][]byte{"/a": compressed(archive.TarGzip, tarOf(lines...))})
	r := newResolver(b)
	f := &frontend.Fetch{Source: s.URL + "/a", Dest: "/z"}
	pin, err := r.Fetch(b.Context(), f)
	if err != nil {
		b.Fatal(err)
	}
	b.SetBytes(2000 * 8 << 10)
	for b.Loop() {
		place, err := r.FetchChanges(b.Context(), f, pin)
		if err != nil {
			b.Fatal(err)
		}
		for e, err := range placed(b, b.TempDir(), place) {
			if err != nil {
				b.Fatal(err)
			}
			if e.Open != nil {
				rc, err := e.Open()
				if err != nil {
					b.Fatal(err)
				}
				io.Copy(io.Discard, rc)
				rc.Close()
			}
		}
	}
}
