package emulate

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/clayer/clayer/solver/sandbox"
)

// TestWhatAUserReaches links a cache mount to its directory where the user gets there, and
// makes an empty one elsewhere; a secret is no link to what is this process's alone.
func TestWhatAUserReaches(t *testing.T) {
	for _, reaches := range []bool{true, false} {
		dir := t.TempDir()
		source, cache, secret := filepath.Join(dir, "source"), filepath.Join(dir, "cache"), filepath.Join(dir, "secret")
		if err := os.Mkdir(source, 0o755); err != nil {
			t.Fatal(err)
		}
		var warned []string
		m := &Mounts{Root: "/", Warn: func(format string, args ...any) { warned = append(warned, fmt.Sprintf(format, args...)) }}
		m.Reaches = func(path string) bool { return reaches && path == source }
		if err := m.Open([]sandbox.Mount{{Target: cache, Source: source}, {Target: secret, Content: []byte("hush")}}); err != nil {
			t.Fatal(err)
		}
		for i := range 2 {
			if err := m.Put(i); err != nil {
				t.Fatal(err)
			}
		}
		link, _ := os.Readlink(cache)
		if isLink := link == source; isLink != reaches {
			t.Errorf("reached %v: the cache leads to %q", reaches, link)
		}
		if said := strings.Contains(strings.Join(warned, "\n"), "cannot reach "+source); said == reaches {
			t.Errorf("reached %v: warnings %q", reaches, warned)
		}
		if st, err := os.Lstat(secret); err != nil || !st.Mode().IsRegular() || st.Mode().Perm() != 0o400 {
			t.Errorf("reached %v: the secret is %v, error %v", reaches, st, err)
		}
		m.Remove()
		if left, _ := os.ReadDir(dir); len(left) != 1 {
			t.Errorf("reached %v: %v are left", reaches, left)
		}
	}
}
