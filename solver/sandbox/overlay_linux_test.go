package sandbox

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestWhatARunChanged(t *testing.T) {
	// Scripts run in /w, see makeRoot for what is there. The last of them is told.
	tests := []struct {
		name     string
		scripts  []string
		want     string
		rootOnly bool // needs ids or devices that a user namespace has not
		partly   bool // what is left out is seen in what is not
		rootFits bool // nobody cannot apply it
	}{
		{name: "nothing", scripts: []string{`true`}},
		{name: "only reading", scripts: []string{`cat f d/x >/dev/null; ls -lR . >/dev/null`}},
		{name: "create", scripts: []string{`echo new >n`}, want: `
			dir w 0755
			file w/n 0644 4`},
		{name: "create in a new folder", scripts: []string{`mkdir -p p/q; echo 1 >p/q/r`}, want: `
			dir w 0755
			dir w/p 0755
			dir w/p/q 0755
			file w/p/q/r 0644 2`},
		{name: "an edit of the same size with the mtime put back", scripts: []string{`touch -r f ref; echo HELLO >f; touch -r ref f; touch -r d ref; rm ref; touch -d '2001-02-03 04:05:06.123456789Z' .`}, want: `
			file w/f 0644 6`},
		{name: "the same edit again, in the upper folder", scripts: []string{
			`echo HELLO >f; touch -d @1 f`, `echo hullo >f; touch -d @1 f`}, want: `
			file w/f 0644 6`},
		{name: "truncate", scripts: []string{`truncate -s 0 f`}, want: `file w/f 0644 0`},
		{name: "append", scripts: []string{`echo more >>f`}, want: `file w/f 0644 11`},
		{name: "touch", scripts: []string{`touch f`}, want: `file w/f 0644 6`},
		{name: "delete a file", scripts: []string{`rm f`}, want: `
			dir w 0755
			delete w/f`},
		{name: "delete a folder", scripts: []string{`rm -r tree`}, want: `
			dir w 0755
			delete w/tree`},
		{name: "delete what an earlier step made", scripts: []string{`mkdir n; echo 1 >n/a`, `rm -r n`}, want: `
			dir w 0755
			delete w/n`},
		{name: "a folder becomes a file", scripts: []string{`rm -r d; echo f >d`}, want: `
			dir w 0755
			file w/d 0644 2`},
		{name: "and a folder again, in a second step", scripts: []string{`rm -r d; echo f >d`, `rm d; mkdir d; echo n >d/x`}, want: `
			dir w 0755
			dir w/d 0755
			file w/d/x 0644 2`},
		{name: "a file becomes a folder", scripts: []string{`rm f; mkdir f`}, want: `
			dir w 0755
			dir w/f 0755`},
		{name: "rename a file", scripts: []string{`mv f F`}, want: `
			dir w 0755
			file w/F 0644 6
			delete w/f`},
		{name: "rename a tree", scripts: []string{`mv d D`}, want: `
			dir w 0755
			dir w/D 0755
			dir w/D/s 0755
			file w/D/s/z 0644 2
			file w/D/x 0644 2
			file w/D/y 0644 2
			delete w/d`},
		{name: "rename a tree over a tree", scripts: []string{`rm -r e; mv d e; mkdir d; echo q >d/q`}, want: `
			dir w 0755
			dir w/d 0755
			file w/d/q 0644 2
			delete w/d/s
			delete w/d/x
			delete w/d/y
			dir w/e/s 0755
			file w/e/s/z 0644 2
			file w/e/x 0644 2
			file w/e/y 0644 2`},
		{name: "delete and recreate a folder in one step", scripts: []string{`rm -r d; mkdir d; echo x >d/x`}, want: `
			dir w 0755
			dir w/d 0755
			delete w/d/s
			file w/d/x 0644 2
			delete w/d/y`},
		{name: "delete in one, recreate in the next", scripts: []string{`rm -r d`, `mkdir d; echo x >d/x`}, want: `
			dir w 0755
			dir w/d 0755
			file w/d/x 0644 2`},
		{name: "delete and recreate what an earlier step made opaque", scripts: []string{
			`rm -r d; mkdir d; echo x >d/x; echo k >d/k`, `rm -r d; mkdir d; echo k >d/k`}, want: `
			dir w 0755
			dir w/d 0755
			file w/d/k 0644 2
			delete w/d/x`},
		{name: "a whiteout in one step, the file again in the next", scripts: []string{`rm f`, `echo back >f`}, want: `
			dir w 0755
			file w/f 0644 5`},
		{name: "an edit deep in the tree", scripts: []string{`echo B >>tree/a/b/b`}, want: `
			file w/tree/a/b/b 0644 4`},
		{name: "a delete deep in the tree", scripts: []string{`rm tree/a/3`}, want: `
			dir w/tree/a 0755
			delete w/tree/a/3`},
		{name: "a new hard link to an old file", scripts: []string{`ln f fl`}, want: `
			dir w 0755
			file w/f 0644 6
			link w/fl -> w/f`},
		{name: "new hard links", scripts: []string{`echo 1 >n1; ln n1 n2; mkdir k; ln n1 k/n3`}, want: `
			dir w 0755
			dir w/k 0755
			file w/k/n3 0644 2
			link w/n1 -> w/k/n3
			link w/n2 -> w/k/n3`},
		{name: "one more link to a group of an earlier step", scripts: []string{`echo 1 >n1; ln n1 n2`, `ln n2 a`}, want: `
			dir w 0755
			file w/a 0644 2
			link w/n1 -> w/a
			link w/n2 -> w/a`},
		{name: "a write through one name of a group", scripts: []string{`echo 1 >n1; ln n1 n2`, `echo 22 >n2`}, want: `
			file w/n1 0644 3
			link w/n2 -> w/n1`},
		{name: "a broken link group", scripts: []string{`echo 1 >n1; ln n1 n2`, `cp n2 t; mv t n2`}, want: `
			dir w 0755
			file w/n2 0644 2`},
		{name: "a link group of the root loses a name", scripts: []string{`rm h1`}, want: `
			dir w 0755
			delete w/h1`},
		{name: "a link group of the root gets a name", scripts: []string{`ln h2 h3`}, want: `
			dir w 0755
			file w/h1 0644 7
			link w/h2 -> w/h1
			link w/h3 -> w/h1`},
		{name: "a write through one name of a link group of the root", scripts: []string{`echo x >>h2; test "$(cat h1)" = "$(cat h2)"`}, want: `
			file w/h1 0644 9
			link w/h2 -> w/h1`},
		{name: "the same in two steps", scripts: []string{`rm h2; ln h1 k`, `echo x >>k; test "$(cat h1)" = "$(cat k)"`}, want: `
			file w/h1 0644 9
			link w/k -> w/h1`},
		{name: "a link group of the root is renamed", scripts: []string{`mv h1 z1; mv h2 z2`}, want: `
			dir w 0755
			delete w/h1
			delete w/h2
			file w/z1 0644 7
			link w/z2 -> w/z1`},
		{name: "a link group of the root is broken up", scripts: []string{`cp -p h1 t; mv t h1`}, want: `
			dir w 0755
			file w/h1 0644 7`},
		{name: "equal files become one", scripts: []string{`echo 1 >n; cp -p n m`, `ln -f n m`}, want: `
			dir w 0755
			file w/m 0644 2
			link w/n -> w/m`},
		{name: "a link into what is left out tells nothing", scripts: []string{`ln f /tmp/fl`}, partly: true, rootOnly: true},
		{name: "symlink to folder", scripts: []string{`rm ld; mkdir ld`}, want: `
			dir w 0755
			dir w/ld 0755`},
		{name: "folder to symlink", scripts: []string{`rm -r e; ln -s d e`}, want: `
			dir w 0755
			symlink w/e -> d`},
		{name: "another target", scripts: []string{`ln -sfn g l`}, want: `
			dir w 0755
			symlink w/l -> g`},
		{name: "chmod", scripts: []string{`chmod 4711 f`}, want: `file w/f 4711 6`},
		{name: "chmod of a folder", scripts: []string{`chmod 1777 d`}, want: `dir w/d 1777`},
		{name: "chmod to what it was", scripts: []string{`chmod 0644 f; chmod 0755 d`}},
		{name: "chown", scripts: []string{`chown 12:34 f`}, want: `file w/f 0644 6 12:34`, rootOnly: true},
		{name: "chown to what it was", scripts: []string{`chown 0:0 f d`}},
		{name: "opened for writing and left alone", scripts: []string{`: >>f; : >>d/x`}},
		{name: "written with the same bytes and time", scripts: []string{`cp -p f /tmp/f; cat /tmp/f >f; touch -r /tmp/f f; rm /tmp/f`}},
		{name: "a user xattr", scripts: []string{`setx f user.k 6162`}, want: `file w/f 0644 6 user.k=6162`},
		{name: "an xattr of a folder", scripts: []string{`setx d user.k 61`}, want: `dir w/d 0755 user.k=61`},
		{name: "a capability", scripts: []string{`setx g security.capability 0100000200040000000000000000000000000000`},
			want: `file w/g 0755 6 security.capability=0100000200040000000000000000000000000000`, rootFits: true},
		{name: "a sparse file", scripts: []string{`holes s`}, want: `
			dir w 0755
			file w/s 0644 1056768 data [{0 4096} {1052672 4096}]`},
		{name: "nothing but a hole", scripts: []string{`truncate -s 1M s`}, want: `
			dir w 0755
			file w/s 0644 1048576 data []`},
		{name: "fifo", scripts: []string{`mkfifo -m 0640 p`}, want: `
			dir w 0755
			fifo w/p 0640`},
		{name: "device", scripts: []string{`mknod -m 0666 null c 1 3`}, want: `
			dir w 0755
			char w/null 0666 1:3`, rootOnly: true},
		{name: "a socket is left out", scripts: []string{`mksock s`}, want: `dir w 0755`},
		{name: "a socket in the place of a file", scripts: []string{`rm f; mksock f`}, want: `
			dir w 0755
			delete w/f`},
		{name: "an empty folder", scripts: []string{`mkdir -m 0700 n`}, want: `
			dir w 0755
			dir w/n 0700`},
		{name: "the time of a folder", scripts: []string{`touch -d @5 d`}, want: `dir w/d 0755`},
		{name: "come and gone", scripts: []string{`echo 1 >n; rm n`}, want: `dir w 0755`},
		{name: "odd names", scripts: []string{`mkdir o; odd o`, `rm o/*; touch -d @1 o`}, want: `
			dir w/o 0755
			delete w/o/ 
			delete w/o/-rf
			delete w/o/bad` + "\xff\xfe" + `utf8
			delete w/o/new` + "\nline" + `
			delete w/o/` + string(bytes.Repeat([]byte("n"), 255))},
		{name: "files and folders that nobody may read", scripts: []string{`mkdir n; echo 1 >n/a; chmod 0 n/a n`}, want: `
			dir w 0755
			dir w/n 0000
			file w/n/a 0000 2`, rootFits: true},
		{name: "/tmp is left out", scripts: []string{`mkdir /tmp/d; echo 1 >/tmp/d/x; echo 1 >/run/x`}},
		{name: "a new top-level folder", scripts: []string{`mkdir /opt; echo 1 >/opt/x`, `echo 2 >/opt/y; rm /opt/x`}, want: `
			dir opt 0755
			delete opt/x
			file opt/y 0644 2`},
		{name: "clayer's own state is hidden", scripts: []string{`test -z "$(ls /var/lib/clayer)"; ! (echo 1 >/var/lib/clayer/x) 2>/dev/null`}},
	}
	modes(t, func(t *testing.T, s *overlay) {
		for _, tt := range tests {
			t.Run(tt.name, func(t *testing.T) {
				if tt.rootOnly && !s.rooted {
					t.Skip("not in a user namespace")
				}
				v := newView(t, s)
				if tt.rootFits && os.Geteuid() != 0 {
					if got := trim(runAll(t, v, tt.scripts, func([]byte) {})); got != trim(tt.want) {
						t.Errorf("got:\n%swant:\n%s", got, trim(tt.want))
					}
					return
				}
				base, view := check(t, v, tt.scripts, tt.want)
				if base != view && !tt.partly {
					t.Errorf("- base and snapshots, + view\n%s", difference(base, view))
				}
			})
		}
	})
}

// check runs the scripts and compares the last one's changes. It returns the
// base with the snapshots applied, and the tree that the view shows: they are
// the same, which is what all this is for.
func check(t *testing.T, v *view, scripts []string, want string) (base, seen string) {
	t.Helper()
	dir := t.TempDir()
	for _, d := range []string{"w", "tmp"} {
		to := filepath.Join(dir, d)
		if err := os.Mkdir(to, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := copyTree(context.Background(), filepath.Join(v.s.Root, d), to, nil); err != nil {
			t.Fatal(err)
		}
	}
	got := runAll(t, v, scripts, func(blob []byte) { unpack(t, dir, blob) })
	if trim(got) != trim(want) {
		t.Errorf("got:\n%swant:\n%s", got, trim(want))
	}
	owners := ""
	if v.s.rooted {
		owners = "yes"
	}
	changes, seen, err := try(t, v, Command{Argv: []string{"manifest", "/w"}, Env: append(testEnv, "OWNERS="+owners)})
	if err != nil {
		t.Fatal(err, seen)
	}
	if changes != "" {
		t.Errorf("reading changed:\n%s", changes)
	}
	if base, err = manifest(filepath.Join(dir, "w"), v.s.rooted); err != nil {
		t.Fatal(err)
	}
	return base, seen
}

// runAll runs the scripts in /w, hands each one's changes on, packed, and
// returns those of the last as text.
func runAll(t *testing.T, v View, scripts []string, each func(blob []byte)) (last string) {
	t.Helper()
	for _, script := range scripts {
		ch, err := v.Run(context.Background(), Command{
			Argv: []string{"/bin/sh", "-ec", script}, Env: testEnv, Dir: "/w", Output: &testOutput{t}})
		if err != nil {
			t.Fatalf("%s: %v", script, err)
		}
		last = text(t, ch)
		each(pack(t, ch))
	}
	return last
}

func difference(a, b string) string {
	var d strings.Builder
	for l := range strings.Lines(a) {
		if !strings.Contains(b, l) {
			d.WriteString("- " + l)
		}
	}
	for l := range strings.Lines(b) {
		if !strings.Contains(a, l) {
			d.WriteString("+ " + l)
		}
	}
	return d.String()
}

type testOutput struct{ t *testing.T }

func (o *testOutput) Write(p []byte) (int, error) {
	o.t.Logf("%s", bytes.TrimRight(p, "\n"))
	return len(p), nil
}
