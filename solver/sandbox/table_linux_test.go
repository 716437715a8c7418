package sandbox_test

import (
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/clayer/clayer/internal/golden"
	"github.com/clayer/clayer/solver/sandbox"
)

// How others tell what a step changed, as small as it can be said. Each gets
// the tree before and after, and answers as the judge does: "file p", "delete p".
var peers = []struct {
	name     string
	reported func(t *testing.T, w, marker string, before, after map[string]quick) []string
}{
	// container-layer, the ancestor: everything in the directories that it knows.
	{"known directories", func(_ *testing.T, _, _ string, _, after map[string]quick) (reported []string) {
		for p := range after {
			reported = append(reported, "file "+p)
		}
		return reported
	}},
	// kaniko --use-new-run, and many a script: find -newer a file that was made before.
	{"`find -newer`", func(t *testing.T, w, marker string, _, _ map[string]quick) (reported []string) {
		out, err := exec.Command("find", w, "-mindepth", "1", "-newer", marker, "-printf", "%P\\0").Output()
		if err != nil {
			t.Fatal(err)
		}
		for p := range strings.SplitSeq(string(out), "\x00") {
			if p != "" {
				reported = append(reported, "file "+p)
			}
		}
		return reported
	}},
	// rsync's quick check, kaniko's redo, makisu: names, size and mtime.
	{"size and mtime", func(_ *testing.T, _, _ string, before, after map[string]quick) (reported []string) {
		for p, a := range after {
			if b, ok := before[p]; !ok || a != b {
				reported = append(reported, "file "+p)
			}
		}
		for p := range before {
			_, there := after[p]
			if !there && (filepath.Dir(p) == "." || after[filepath.Dir(p)].kind == unix.S_IFDIR) {
				reported = append(reported, "delete "+p)
			}
		}
		return reported
	}},
}

// quick is what a quick check looks at.
type quick struct {
	kind, mode uint32
	size       int64
	mtime      unix.Timespec
}

func quickCheck(t *testing.T, dir string) map[string]quick {
	t.Helper()
	all := make(map[string]quick)
	err := filepath.WalkDir(dir, func(p string, _ fs.DirEntry, err error) error {
		var st unix.Stat_t
		if err == nil {
			err = unix.Lstat(p, &st)
		}
		if rel, _ := filepath.Rel(dir, p); err == nil && rel != "." && st.Mode&unix.S_IFMT != unix.S_IFSOCK {
			all[rel] = quick{st.Mode & unix.S_IFMT, st.Mode & 0o7777, st.Size, st.Mtim}
			if st.Mode&unix.S_IFMT == unix.S_IFDIR {
				q := all[rel]
				q.size = 0
				all[rel] = q
			}
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// The rows of the table: failure modes that tools are known for.
var tableRows = []string{
	"only reading",
	"opened for writing and left alone",
	"create in a new directory",
	"an edit of the same size with the mtime put back",
	"a copy that keeps its time over a file of the same size",
	"written with the same bytes and time",
	"touch",
	"times in the future and before all time",
	"chmod",
	"chmod to what it was",
	"chown",
	"a user xattr",
	"a capability",
	"an ACL",
	"delete a file",
	"delete a directory",
	"delete and recreate a directory in one step",
	"a directory becomes a file",
	"a file becomes a directory",
	"directory to symlink",
	"another target",
	"rename a file",
	"rename a tree",
	"a tree takes the place of a tree",
	"swap two files",
	"a new hard link to an old file",
	"a link group of the root loses a name",
	"a write through one name of a link group of the root",
	"a link group of the root is broken up",
	"what is below a linked directory is deleted",
	"a sparse file",
	"fifo",
	"a socket is left out",
	"odd names",
}

// TestCorrectnessTable makes the table of docs/sandboxes.md: each cell is from a run.
func TestCorrectnessTable(t *testing.T) {
	needRoot(t)
	if inGVisor() {
		t.Skip("the table is of an ordinary Linux")
	}
	s := newOverlay(t, true, sandbox.Options{})
	if !s.Indexed() {
		t.Skip("the file system of the test root has no handles for its files")
	}
	var b strings.Builder
	b.WriteString("| what a RUN did | clayer overlay | clayer in place | in place, digests |")
	for _, p := range peers {
		b.WriteString(" " + p.name + " |")
	}
	b.WriteString("\n| --- | --- | --- | --- |" + strings.Repeat(" --- |", len(peers)) + "\n")
	for _, name := range tableRows {
		i := slices.IndexFunc(runCases, func(c runCase) bool { return c.name == name })
		if i < 0 {
			t.Fatalf("no case %q", name)
		}
		// Of several steps, the last is reported: the others make what it finds.
		scripts := runCases[i].scripts
		last := scripts[len(scripts)-1]
		var cells []string
		var want []string
		for _, compare := range []sandbox.Compare{sandbox.CompareDigest, sandbox.CompareCTime} {
			v, root := newPlace(t, compare)
			w := filepath.Join(root, "w")
			for _, script := range scripts[:len(scripts)-1] {
				runAll(t, v, []string{script}, func([]byte) {})
			}
			before, quickBefore := judge(t, w), quickCheck(t, w)
			marker := filepath.Join(root, "marker")
			if err := os.WriteFile(marker, nil, 0o644); err != nil {
				t.Fatal(err)
			}
			var reported []string
			runAll(t, v, []string{last}, func(blob []byte) { reported = reportedOf(t, blob) })
			verdict := verdict(before, judge(t, w))
			cells = append([]string{cell(verdict, reported)}, cells...)
			if compare == sandbox.CompareDigest {
				want = verdict
				continue
			}
			for _, p := range peers {
				cells = append(cells, cell(verdict, p.reported(t, w, marker, quickBefore, quickCheck(t, w))))
			}
		}
		v := newView(t, s)
		for _, script := range scripts[:len(scripts)-1] {
			runAll(t, v, []string{script}, func([]byte) {})
		}
		var reported []string
		runAll(t, v, []string{last}, func(blob []byte) { reported = reportedOf(t, blob) })
		cells = append([]string{cell(want, reported)}, cells...)
		fmt.Fprintf(&b, "| %s | %s |\n", name, strings.Join(cells, " | "))
		for k, c := range cells[:3] {
			if strings.Contains(c, "misses") || k != 1 && c != "exact" {
				t.Errorf("%s: %s", name, cells)
			}
		}
	}
	const begin, end = "<!-- table: TestCorrectnessTable -->\n", "<!-- end -->"
	file := filepath.Join("..", "..", "docs", "sandboxes.md")
	doc, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	head, rest, ok := bytes.Cut(doc, []byte(begin))
	old, tail, ok2 := bytes.Cut(rest, []byte(end))
	if !ok || !ok2 {
		t.Fatal("docs/sandboxes.md has no place for the table")
	}
	if *golden.Update {
		if err := os.WriteFile(file, slices.Concat(head, []byte(begin), []byte(b.String()), []byte(end), tail), 0o644); err != nil {
			t.Fatal(err)
		}
	} else if string(old) != b.String() {
		t.Errorf("docs/sandboxes.md tells another story (go test ./solver/sandbox -run TestCorrectnessTable -update):\n%s", difference(string(old), b.String()))
	}
}

// cell says what a tool got wrong.
func cell(want, got []string) string {
	missed, more := 0, 0
	for _, l := range want {
		if !slices.Contains(got, l) {
			missed++
		}
	}
	for _, l := range got {
		if !slices.Contains(want, l) {
			more++
		}
	}
	switch {
	case missed == 0 && more == 0:
		return "exact"
	case more == 0:
		return fmt.Sprintf("**misses %d**", missed)
	case missed == 0:
		return fmt.Sprintf("%d too many", more)
	}
	return fmt.Sprintf("**misses %d**, %d too many", missed, more)
}
