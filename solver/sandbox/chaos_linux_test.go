package sandbox

import (
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
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
	for range 5 + r.IntN(20) {
		p, q := pick(), pick()
		switch r.IntN(17) {
		case 0, 1, 2:
			_ = os.WriteFile(p, fmt.Append(nil, "content ", r.IntN(3)), 0o644)
		case 3:
			_ = os.RemoveAll(p)
		case 4:
			_ = os.Remove(p)
		case 5, 6:
			_ = os.MkdirAll(p, 0o755)
		case 7, 8:
			_ = os.Rename(p, q)
		case 9:
			_ = os.Link(p, q)
		case 10:
			_ = os.Symlink(filepath.Base(q), p)
		case 11:
			_ = unix.Chmod(p, 0o700|r.Uint32N(0o100))
		case 12:
			_ = os.Chtimes(p, time.Time{}, time.Unix(r.Int64N(3), 0))
		case 13:
			_ = unix.Lsetxattr(p, "user.k", []byte{byte('0' + r.IntN(2))}, 0)
		case 14:
			// As tar and cp -p do: another content, the old time.
			if st, err := os.Stat(p); err == nil && st.Mode().IsRegular() {
				_ = os.WriteFile(p, fmt.Append(nil, "content ", r.IntN(3)), 0o644)
				_ = os.Chtimes(p, time.Time{}, st.ModTime())
			}
		case 15:
			// A folder that is another one of the same name.
			if st, err := os.Lstat(p); err == nil && st.IsDir() {
				_ = errors.Join(os.RemoveAll(p), os.Mkdir(p, 0o755), os.WriteFile(filepath.Join(p, "a"), nil, 0o600))
			}
		case 16:
			if f, err := os.OpenFile(p, os.O_WRONLY, 0); err == nil {
				f.Close() // copied up, and the same
			}
		}
	}
}

// TestSnapshotsGiveTheView is the closing property, for steps that nobody thought of.
func TestSnapshotsGiveTheView(t *testing.T) {
	n := uint64(15)
	if testing.Short() {
		n = 5
	}
	modes(t, func(t *testing.T, s *overlay) {
		for seed := range n {
			v := newView(t, s)
			// Overlayfs parts links of the lower tree when it copies one up,
			// which is no change of anyone's; those of the upper stay.
			scripts := []string{"rm h1 h2"}
			for step := range uint64(4) {
				scripts = append(scripts, fmt.Sprintf("chaos /w %d", 10*seed+step))
			}
			dir := t.TempDir()
			to := filepath.Join(dir, "w")
			if err := os.Mkdir(to, 0o755); err != nil {
				t.Fatal(err)
			}
			if err := copyTree(t.Context(), filepath.Join(s.Root, "w"), to, nil); err != nil {
				t.Fatal(err)
			}
			for i, script := range scripts {
				said := runAll(t, v, []string{script}, func(blob []byte) { unpack(t, dir, blob) })
				_, seen, err := try(t, v, Command{Argv: []string{"manifest", "/w"}, Env: testEnv})
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
