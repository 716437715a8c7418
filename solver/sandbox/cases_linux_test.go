package sandbox_test

import "bytes"

// A runCase is a RUN, or several, and what the last of them changed: the same
// in every sandbox. Scripts run in /w; see makeRoot for what is there.
type runCase struct {
	name     string
	scripts  []string
	want     string
	more     string // what a sandbox in place reports without digests, where that is more: the safe side
	rootOnly bool   // needs ids or devices that a user namespace has not
	partly   bool   // what is left out is seen in what is not
	rootFits bool   // nobody cannot apply it
	isolated bool   // not in place
	xattr    bool   // more is reported because a change of an xattr moves ctime
}

var runCases = []runCase{
	{name: "nothing", scripts: []string{`true`}},
	{name: "only reading", scripts: []string{`cat f d/x >/dev/null; ls -lR . >/dev/null`}},
	{name: "create", scripts: []string{`echo new >n`}, want: `
			dir w 0755
			file w/n 0644 4`},
	{name: "create in a new directory", scripts: []string{`mkdir -p p/q; echo 1 >p/q/r`}, want: `
			dir w 0755
			dir w/p 0755
			dir w/p/q 0755
			file w/p/q/r 0644 2`},
	{name: "an edit of the same size with the mtime put back", scripts: []string{`touch -r f ref; echo HELLO >f; touch -r ref f; touch -r d ref; rm ref; touch -d '2001-02-03 04:05:06.123456789Z' .`}, want: `
			file w/f 0644 6`},
	{name: "the same edit again, in the upper directory", scripts: []string{
		`echo HELLO >f; touch -d @1 f`, `echo hullo >f; touch -d @1 f`}, want: `
			file w/f 0644 6`},
	{name: "truncate", scripts: []string{`truncate -s 0 f`}, want: `file w/f 0644 0`},
	{name: "append", scripts: []string{`echo more >>f`}, want: `file w/f 0644 11`},
	{name: "touch", scripts: []string{`touch f`}, want: `file w/f 0644 6`},
	{name: "delete a file", scripts: []string{`rm f`}, want: `
			dir w 0755
			delete w/f`},
	{name: "delete a directory", scripts: []string{`rm -r tree`}, want: `
			dir w 0755
			delete w/tree`},
	{name: "delete what an earlier step made", scripts: []string{`mkdir n; echo 1 >n/a`, `rm -r n`}, want: `
			dir w 0755
			delete w/n`},
	{name: "a directory becomes a file", scripts: []string{`rm -r d; echo f >d`}, want: `
			dir w 0755
			file w/d 0644 2`},
	{name: "and a directory again, in a second step", scripts: []string{`rm -r d; echo f >d`, `rm d; mkdir d; echo n >d/x`}, want: `
			dir w 0755
			dir w/d 0755
			file w/d/x 0644 2`},
	{name: "a file becomes a directory", scripts: []string{`rm f; mkdir f`}, want: `
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
	{name: "delete and recreate a directory in one step", scripts: []string{`rm -r d; mkdir d; echo x >d/x`}, want: `
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
		`rm -r d; mkdir d; echo x >d/x; echo k >d/k`, `rm -r d; mkdir d; echo K >d/k`}, want: `
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
	{name: "a link into what is left out tells nothing", scripts: []string{`ln f /run/fl`}, partly: true, rootOnly: true, more: `file w/f 0644 6`},
	{name: "a link from one directory of temporary files to the other", scripts: []string{`mkdir /var/tmp; echo 1 >/tmp/n; ln /tmp/n /var/tmp/n; settle /tmp; settle /var/tmp`}, partly: true, rootOnly: true, isolated: true, want: `
			file tmp/n 0644 2
			dir var 0755
			implied dir var/tmp 0755
			file var/tmp/n 0644 2`},
	{name: "a root gets no link to a temporary file", scripts: []string{`echo 1 >/tmp/n; ln /tmp/n n; ln n m; settle /tmp`}, partly: true, rootOnly: true, want: `
			file tmp/n 0644 2
			dir w 0755
			file w/m 0644 2
			link w/n -> w/m`},
	{name: "symlink to directory", scripts: []string{`rm ld; mkdir ld`}, want: `
			dir w 0755
			dir w/ld 0755`},
	{name: "directory to symlink", scripts: []string{`rm -r e; ln -s d e`}, want: `
			dir w 0755
			symlink w/e -> d`},
	{name: "another target", scripts: []string{`ln -sfn g l`}, want: `
			dir w 0755
			symlink w/l -> g`},
	{name: "chmod", scripts: []string{`chmod 4711 f`}, want: `file w/f 4711 6`},
	{name: "chmod of a directory", scripts: []string{`chmod 1777 d`}, want: `dir w/d 1777`},
	{name: "chmod to what it was", scripts: []string{`chmod 0644 f; chmod 0755 d`}, more: `file w/f 0644 6`},
	{name: "chown", scripts: []string{`chown 12:34 f`}, want: `file w/f 0644 6 12:34`, rootOnly: true},
	{name: "chown to what it was", scripts: []string{`chown 0:0 f d`}, more: `file w/f 0644 6`},
	{name: "opened for writing and left alone", scripts: []string{`: >>f; : >>d/x`}},
	{name: "written with the same bytes and time", scripts: []string{`cp -p f /tmp/f; cat /tmp/f >f; touch -r /tmp/f f; rm /tmp/f`}, more: `file w/f 0644 6`},
	{name: "a user xattr", scripts: []string{`setx f user.k 6162`}, want: `file w/f 0644 6 user.k=6162`},
	{name: "an xattr of a directory", scripts: []string{`setx d user.k 61`}, want: `dir w/d 0755 user.k=61`},
	{name: "a capability", scripts: []string{`setx g security.capability 0100000200040000000000000000000000000000`},
		want: `file w/g 0755 6 security.capability=0100000200040000000000000000000000000000`, rootFits: true},
	{name: "a sparse file", scripts: []string{`holes s`}, want: `
			dir w 0755
			file w/s 0644 1056768 data [{0 4096} {1052672 4096}]`},
	{name: "nothing but a hole", scripts: []string{`truncate -s 1M s`}, want: `
			dir w 0755
			file w/s 0644 1048576 data []`},
	{name: "fifo", scripts: []string{`mkfifo p; chmod 0640 p`}, want: `
			dir w 0755
			fifo w/p 0640`},
	{name: "device", scripts: []string{`mknod null c 1 3; chmod 0666 null`}, want: `
			dir w 0755
			char w/null 0666 1:3`, rootOnly: true},
	{name: "a socket is left out", scripts: []string{`mksock s`}, want: `dir w 0755`},
	{name: "a socket in the place of a file", scripts: []string{`rm f; mksock f`}, want: `
			dir w 0755
			delete w/f`},
	{name: "an empty directory", scripts: []string{`mkdir -m 0700 n`}, want: `
			dir w 0755
			dir w/n 0700`},
	{name: "the time of a directory", scripts: []string{`touch -d @5 d`}, want: `dir w/d 0755`},
	{name: "come and gone", scripts: []string{`echo 1 >n; rm n`}, want: `dir w 0755`},
	{name: "odd names", scripts: []string{`mkdir o; odd o`, `rm o/*; touch -d @1 o`}, want: `
			dir w/o 0755
			delete w/o/ 
			delete w/o/-rf
			delete w/o/bad` + "\xff\xfe" + `utf8
			delete w/o/new` + "\nline" + `
			delete w/o/` + string(bytes.Repeat([]byte("n"), 255))},
	{name: "files and directories that nobody may read", scripts: []string{`mkdir n; echo 1 >n/a; chmod 0 n/a n`}, want: `
			dir w 0755
			dir w/n 0000
			file w/n/a 0000 2`, rootFits: true},
	{name: "/run is left out", scripts: []string{`mkdir /run/d; echo 1 >/run/d/x`}},
	{name: "what stays in /tmp", scripts: []string{`mkdir /tmp/d; echo 1 >/tmp/d/x; echo 2 >/tmp/y; settle /tmp`, `rm /tmp/d/x; echo 3 >/tmp/d/z; settle /tmp`}, want: `
			delete tmp/d/x
			file tmp/d/z 0644 2`},
	{name: "/tmp itself is removed", scripts: []string{`echo 1 >/tmp/y; settle /tmp`, `rm -r /tmp`}, isolated: true, want: `
			delete tmp/y`},
	{name: "caches in /tmp are left out", scripts: []string{`mkdir -p /tmp/h/.cache/pip; echo 1 >/tmp/h/.cache/pip/x; settle /tmp`}, want: `
			dir tmp/h 0755
			dir tmp/h/.cache 0755`},
	{name: "a new top-level directory", scripts: []string{`mkdir /opt; echo 1 >/opt/x`, `echo 2 >/opt/y; rm /opt/x`}, want: `
			dir opt 0755
			delete opt/x
			file opt/y 0644 2`},
	{name: "clayer's own state is hidden", isolated: true, scripts: []string{`test -z "$(ls /var/lib/clayer)"; ! (echo 1 >/var/lib/clayer/x) 2>/dev/null`}},
	{name: "swap two files", scripts: []string{`mv f t; mv g f; mv t g`}, want: `
			dir w 0755
			file w/f 0755 6
			file w/g 0644 6`},
	{name: "swap two links of a group with another file", scripts: []string{`mv h1 t; mv f h1; mv t f`}, want: `
			dir w 0755
			file w/f 0644 7
			file w/h1 0644 6
			link w/h2 -> w/f`},
	{name: "a file, a directory and the file again", scripts: []string{`cp -p f /tmp/k; rm f; mkdir f; rmdir f; cp -p /tmp/k f; rm /tmp/k`}, want: `
			dir w 0755`, more: `
			dir w 0755
			file w/f 0644 6`},
	{name: "an edit that is taken back, the times too", scripts: []string{`cp -p f /tmp/k; echo other >f; cat /tmp/k >f; touch -r /tmp/k f; rm /tmp/k`}, more: `file w/f 0644 6`},
	{name: "links to nowhere and absolute ones", scripts: []string{`ln -s nowhere n1; ln -s /w/f n2; ln -s / n3`}, want: `
			dir w 0755
			symlink w/n1 -> nowhere
			symlink w/n2 -> /w/f
			symlink w/n3 -> /`},
	{name: "a link that becomes a directory and a link again", scripts: []string{`rm ld; mkdir ld; rmdir ld; ln -s d ld; touch -h -d '2001-02-03 04:05:06.123456789Z' ld`}, want: `dir w 0755`},
	{name: "what is below a linked directory is deleted", scripts: []string{`rm ld/x`}, want: `
			dir w/d 0755
			delete w/d/x`},
	{name: "an xattr is taken away", scripts: []string{`unsetx xa user.k`}, want: `file w/xa 0644 3`},
	{name: "an xattr gets another value, and its own again", scripts: []string{`setx xa user.k 6363; setx xa user.k 6162`}, xattr: true, more: `file w/xa 0644 3 user.k=6162`},
	{name: "a capability is taken away", scripts: []string{
		`setx g security.capability 0100000200040000000000000000000000000000`, `unsetx g security.capability`}, want: `file w/g 0755 6`, rootFits: true},
	{name: "an ACL", scripts: []string{`setx f system.posix_acl_access 0200000001000600ffffffff02000400e803000004000400ffffffff10000400ffffffff20000400ffffffff`},
		want: `file w/f 0644 6 system.posix_acl_access=0200000001000600ffffffff02000400e803000004000400ffffffff10000400ffffffff20000400ffffffff`, rootOnly: true},
	{name: "setuid and setgid", scripts: []string{`chmod 6755 g; chmod 2755 d`}, want: `
			dir w/d 2755
			file w/g 6755 6`},
	{name: "times in the future and before all time", scripts: []string{`touch -d '2199-01-01Z' f; touch -d '1960-01-01Z' g`}, want: `
			file w/f 0644 6
			file w/g 0755 6`},
	{name: "a copy that keeps its time over a file of the same size", scripts: []string{`echo HELLO >/tmp/k; touch -r f /tmp/k; cp -p /tmp/k f; rm /tmp/k`}, want: `file w/f 0644 6`},
	{name: "an empty file in place of one", scripts: []string{`rm f; : >f`}, want: `
			dir w 0755
			file w/f 0644 0`},
	{name: "a directory is deleted, a file of its name comes and goes, the directory is back", scripts: []string{`rm -r e; : >e; rm e; mkdir e`}, want: `
			dir w 0755
			dir w/e 0755`},
	{name: "a tree takes the place of a tree", scripts: []string{`rm -r d; mv tree d`}, want: `
			dir w 0755
			dir w/d/a 0755
			file w/d/a/1 0644 2
			file w/d/a/2 0644 2
			file w/d/a/3 0644 2
			file w/d/a/4 0644 2
			file w/d/a/5 0644 2
			dir w/d/a/b 0755
			file w/d/a/b/b 0644 2
			delete w/d/s
			delete w/d/x
			delete w/d/y
			delete w/tree`},
	{name: "open for writing when the command ends", scripts: []string{`sh -c 'exec 3>o; echo 1 >&3; sleep 600' & while ! test -s o; do sleep 0.01; done`}, want: `
			dir w 0755
			file w/o 0644 2`},
	{name: "the working directory is made", scripts: []string{`rm -r /w/e`}, want: `
			dir w 0755
			delete w/e`},
	{name: "many steps, each as exact as the first", scripts: []string{`echo 1 >f`, `echo 2 >f`, `echo 3 >f; rm g`, `echo 3 >f; touch -d @7 f`, `true`}},
}
