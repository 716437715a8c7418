package sandbox_test

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/clayer/clayer/cache/snapshot"
	"github.com/clayer/clayer/internal/rounds"
	"github.com/clayer/clayer/solver/sandbox"
	"github.com/clayer/clayer/solver/sandbox/internal/treecopy"
)

// chaos makes some dozen random changes in dir. Most of what can fail does so
// now and then, which is no matter: the changes are what they are.
func chaos(dir string, r *rand.Rand) {
	var all []string
	_ = filepath.WalkDir(dir, func(p string, _ fs.DirEntry, err error) error {
		if err == nil && p != dir {
			all = append(all, p)
		}
		return nil
	})
	pick := func() string {
		if len(all) == 0 || r.IntN(4) == 0 {
			return filepath.Join(dir, string(rune('a'+r.IntN(6))))
		}
		p := all[r.IntN(len(all))]
		if r.IntN(3) == 0 {
			p = filepath.Join(p, string(rune('a'+r.IntN(4))))
		}
		all = append(all, p)
		return p
	}
	write := func(p string) { _ = os.WriteFile(p, fmt.Append(nil, "content ", r.IntN(3)), 0o644) }
	for range 5 + r.IntN(20) {
		p, q := pick(), pick()
		switch r.IntN(20) {
		case 0, 1, 2:
			write(p)
		case 3:
			_ = os.RemoveAll(p)
		case 4:
			_ = os.Remove(p)
		case 5, 6:
			_ = os.MkdirAll(p, 0o755)
		case 7, 8:
			move(p, q)
		case 9:
			_ = os.Link(p, q)
		case 10:
			_ = os.Symlink(filepath.Base(q), p)
		case 11:
			_ = unix.Fchmodat(unix.AT_FDCWD, p, 0o700|r.Uint32N(0o100), 0)
		case 12:
			_ = os.Chtimes(p, time.Time{}, time.Unix(r.Int64N(3), 0))
		case 13:
			_ = unix.Lsetxattr(p, "user.k", []byte{byte('0' + r.IntN(2))}, 0)
		case 14:
			// As tar and cp -p do: another content, the old time.
			if st, err := os.Stat(p); err == nil && st.Mode().IsRegular() {
				write(p)
				_ = os.Chtimes(p, time.Time{}, st.ModTime())
			}
		case 15:
			// A directory that is another one of the same name.
			if st, err := os.Lstat(p); err == nil && st.IsDir() {
				_ = errors.Join(os.RemoveAll(p), os.Mkdir(p, 0o755), os.WriteFile(filepath.Join(p, "a"), nil, 0o600))
			}
		case 16:
			if f, err := os.OpenFile(p, os.O_WRONLY, 0); err == nil {
				f.Close() // copied up, and the same
			}
		case 17:
			// Away and back again; a directory of the lower tree can't be renamed in an overlay.
			if st, err := os.Lstat(p); err != nil || st.IsDir() {
				continue
			}
			if err := os.Rename(p, filepath.Join(dir, "away")); err == nil {
				_ = os.Rename(filepath.Join(dir, "away"), p)
			}
		case 18:
			_ = unix.Lremovexattr(p, "user.k")
		case 19:
			// A copy in every respect, and yet another file.
			if st, err := os.Lstat(p); err == nil && st.Mode().IsRegular() {
				if out, err := os.ReadFile(p); err == nil && os.Remove(p) == nil {
					_ = errors.Join(os.WriteFile(p, out, 0o600), os.Chmod(p, st.Mode()), os.Chtimes(p, time.Time{}, st.ModTime()))
				}
			}
		}
	}
}

// move is mv: what rename can't do in an overlay, with directories of the lower
// tree, is done by copying. But not where that would part hard links.
func move(from, to string) {
	st, err := os.Lstat(from)
	if err != nil || !st.IsDir() {
		_ = os.Rename(from, to)
		return
	}
	err = filepath.WalkDir(from, func(p string, _ fs.DirEntry, err error) error {
		var st unix.Stat_t
		if err == nil {
			err = unix.Lstat(p, &st)
		}
		if err == nil && st.Mode&unix.S_IFMT != unix.S_IFDIR && st.Nlink > 1 {
			err = fs.SkipAll
		}
		if err == nil && st.Mode&0o700 != 0o700 && st.Mode&unix.S_IFMT == unix.S_IFDIR {
			err = fs.ErrPermission
		}
		if errors.Is(err, fs.SkipAll) {
			return fs.ErrPermission
		}
		return err
	})
	if err == nil && !strings.HasPrefix(to, from+"/") {
		_ = exec.Command("/bin/mv", "-T", from, to).Run()
	}
}

// TestSnapshotsGiveTheView is the closing property, for steps that nobody thought of.
func TestSnapshotsGiveTheView(t *testing.T) {
	n := uint64(rounds.Of(5, 8, 12))
	sandboxes(t, func(t *testing.T, b testBox) {
		for seed := range n {
			v, root := b.view(t)
			var scripts []string
			for step := range uint64(4) {
				scripts = append(scripts, fmt.Sprintf("chaos /w %d", 10*seed+step))
			}
			dir := t.TempDir()
			to := filepath.Join(dir, "w")
			if err := os.Mkdir(to, 0o755); err != nil {
				t.Fatal(err)
			}
			if err := treecopy.Tree(t.Context(), filepath.Join(root, "w"), to, nil); err != nil {
				t.Fatal(err)
			}
			for i, script := range scripts {
				said := runAll(t, v, []string{script}, func(blob []byte) { unpackBlob(t, dir, blob) })
				_, seen, err := try(t, v, sandbox.Command{Argv: []string{"manifest", "/w"}, Env: testEnv})
				if err != nil {
					t.Fatal(err, seen)
				}
				base, err := manifest(to, false)
				if err != nil {
					t.Fatal(err)
				}
				if base != seen {
					t.Fatalf("%q: - base and snapshots, + view\n%s\nfrom the changes\n%s",
						scripts[:i+1], difference(base, seen), said)
				}
			}
			if err := v.Close(); err != nil {
				t.Fatal(err)
			}
		}
	})
}

// A judged is what the slow judge knows of a path: all that a snapshot keeps,
// read with full digests, and which file it is.
type judged struct {
	line            string // of the manifest, without the group
	file, directory bool
	ino             uint64
	link            uint64 // how many names it has
}

var groupMark = regexp.MustCompile(` group "(\\.|[^"\\])*"`)

func judge(t testing.TB, dir string) map[string]judged {
	t.Helper()
	m, err := manifest(dir, true)
	if err != nil {
		t.Fatal(err)
	}
	all := make(map[string]judged)
	for l := range strings.Lines(m) {
		quoted, err := strconv.QuotedPrefix(l)
		if err != nil {
			t.Fatal(err)
		}
		p, _ := strconv.Unquote(quoted)
		var st unix.Stat_t
		if err := unix.Lstat(filepath.Join(dir, p), &st); err != nil {
			t.Fatal(err)
		}
		l = groupMark.ReplaceAllString(l, "")
		kind := st.Mode & unix.S_IFMT
		all[p] = judged{strings.TrimSpace(l), kind == unix.S_IFREG, kind == unix.S_IFDIR, st.Ino, uint64(st.Nlink)}
	}
	return all
}

// verdict says which paths have to be reported, and how: "file p" or "delete p".
func verdict(before, after map[string]judged) []string {
	changed := make(map[uint64]bool)
	was := make(map[uint64]uint64)
	var reported []string
	for range 2 {
		reported = nil
		for p, now := range after {
			old, there := before[p]
			same := there && old.line == now.line && !(old.file && old.link > 1 && old.ino != now.ino)
			if same && now.link > 1 && now.file {
				if o, ok := was[now.ino]; ok && o != old.ino {
					changed[now.ino] = true
				}
				was[now.ino] = old.ino
			}
			if !same && now.file {
				changed[now.ino] = true
			}
			if !same || now.file && now.link > 1 && changed[now.ino] {
				reported = append(reported, "file "+p)
			}
		}
	}
	for p := range before {
		_, there := after[p]
		up, above := after[filepath.Dir(p)]
		if !there && (filepath.Dir(p) == "." || above && up.directory && before[filepath.Dir(p)].directory) {
			reported = append(reported, "delete "+p)
		}
	}
	slices.Sort(reported)
	return reported
}

// TestRandomRuns compares the sandboxes with each other and with the judge.
func TestRandomRuns(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("not root")
	}
	t.Parallel()
	n := rounds.Of(30, 50, 400)
	seed := uint64(time.Now().UnixNano())
	if s := os.Getenv("CLAYER_TEST_SEED"); s != "" {
		var err error
		if seed, err = strconv.ParseUint(s, 10, 64); err != nil {
			t.Fatal(err)
		}
		n = 1
	}
	t.Logf("the first seed is %d, of %d", seed, n)
	s := newOverlay(t, true, sandbox.Options{})
	byCTime, ctimeRoot := newPlace(t, sandbox.CompareCTime)
	byDigest, digestRoot := newPlace(t, sandbox.CompareDigest)
	reset := func(v sandbox.InPlace, root string) {
		w := filepath.Join(root, "w")
		err := errors.Join(os.RemoveAll(w), os.Mkdir(w, 0o755), treecopy.Tree(t.Context(), filepath.Join(s.Root, "w"), w, nil))
		if err != nil {
			t.Fatal(err)
		}
		v.Stale()
	}
	for i := range uint64(n) {
		script := []string{fmt.Sprintf("chaos /w %d; settle /w", seed+i)}
		fail := func(format string, args ...any) {
			t.Errorf("CLAYER_TEST_SEED=%d: %s", seed+i, fmt.Sprintf(format, args...))
		}
		var packed [3][]byte
		v := newView(t, s)
		runAll(t, v, script, func(b []byte) { packed[0] = b })
		reset(byCTime, ctimeRoot)
		runAll(t, byCTime, script, func(b []byte) { packed[1] = b })
		reset(byDigest, digestRoot)
		before := judge(t, filepath.Join(digestRoot, "w"))
		runAll(t, byDigest, script, func(b []byte) { packed[2] = b })
		after := judge(t, filepath.Join(digestRoot, "w"))
		if err := v.Close(); err != nil {
			t.Fatal(err)
		}

		want := verdict(before, after)
		safe := false
		for k, name := range []string{"overlay", "inplace by ctime", "inplace by digest"} {
			got := reportedOf(t, packed[k])
			if name == "inplace by ctime" {
				// What it reports beyond is the same as before: the safe side.
				got = slices.DeleteFunc(got, func(l string) bool {
					p := strings.TrimPrefix(l, "file ")
					return !slices.Contains(want, l) && p != l && before[p].line == after[p].line
				})
			}
			if name == "overlay" {
				// Of a group that lost a name, what is left may be reported as it was.
				got = slices.DeleteFunc(got, func(l string) bool {
					p := strings.TrimPrefix(l, "file ")
					more := !slices.Contains(want, l) && p != l && before[p].line == after[p].line && before[p].link > 1
					safe = safe || more
					return more
				})
			}
			if !slices.Equal(got, want) {
				fail("%s:\n%s", name, difference(strings.Join(want, "\n")+"\n", strings.Join(got, "\n")+"\n"))
			}
		}
		if !safe && !bytes.Equal(packed[0], packed[2]) {
			fail("overlay\n%sinplace by digest\n%s", lines(t, packed[0]), lines(t, packed[2]))
		}
		if t.Failed() {
			for _, side := range []map[string]judged{before, after} {
				for _, p := range slices.Sorted(maps.Keys(side)) {
					t.Logf("%s inode %d of %d names", side[p].line, side[p].ino, side[p].link)
				}
				t.Log("and after it")
			}
			return
		}
	}
}

// reportedOf says which paths below /w a snapshot lists.
func reportedOf(t testing.TB, blob []byte) []string {
	t.Helper()
	var reported []string
	for e, err := range snapshot.Read(bytes.NewReader(blob)) {
		if err != nil {
			t.Fatal(err)
		}
		p, below := strings.CutPrefix(e.Path, "w/")
		switch {
		case !below:
		case e.Kind == snapshot.Delete:
			reported = append(reported, "delete "+p)
		default:
			reported = append(reported, "file "+p)
		}
	}
	slices.Sort(reported)
	return reported
}
