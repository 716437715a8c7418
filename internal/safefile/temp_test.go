package safefile

import (
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

func isPart(name string) bool { return strings.HasPrefix(name, "part-") }

func TestSweepRemovesWhatIsNotOpen(t *testing.T) {
	root, dir, _ := tree(t)
	live, name, err := CreateTemp(root, "sub/part-")
	if err != nil {
		t.Fatal(err)
	}
	defer live.Close()
	old := time.Now().Add(-48 * time.Hour)
	if err := os.Chtimes(filepath.Join(dir, name), old, old); err != nil { // its writer is slow
		t.Fatal(err)
	}
	dead, deadName, err := CreateTemp(root, "sub/part-")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := dead.WriteString("half"); err != nil {
		t.Fatal(err)
	}
	dead.Close()
	for _, link := range []string{"part-link", "part-dir"} {
		if err := os.Symlink("../file", filepath.Join(dir, "sub", link)); err != nil {
			t.Fatal(err)
		}
	}
	freed, err := Sweep(root, "sub", isPart)
	if err != nil || freed != 4 {
		t.Errorf("freed %d, %v, want 4 bytes", freed, err)
	}
	for name, want := range map[string]bool{name: true, deadName: false, "sub/file": true, "sub/part-link": true, "file": true} {
		if _, err := os.Lstat(filepath.Join(dir, name)); (err == nil) != want {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := Sweep(root, "nothing", isPart); err != nil {
		t.Error(err)
	}
	if _, err := Sweep(root, "outside", isPart); err == nil {
		t.Error("a link to elsewhere was swept")
	}
}

// A file that was just made is never taken from who made it.
func TestSweepBesideCreateTemp(t *testing.T) {
	root, dir, _ := tree(t)
	stop := make(chan struct{})
	var sweeper, makers sync.WaitGroup
	sweeper.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				if _, err := Sweep(root, ".", isPart); err != nil {
					t.Error(err)
				}
			}
		}
	})
	for range 4 {
		makers.Go(func() {
			for range 200 {
				f, name, err := CreateTemp(root, "part-")
				if err != nil {
					t.Error(err)
					return
				}
				if _, err := os.Lstat(filepath.Join(dir, name)); err != nil {
					t.Error(err)
				}
				f.Close()
			}
		})
	}
	makers.Wait()
	close(stop)
	sweeper.Wait()
}
