package downloads

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
)

func TestPrune(t *testing.T) {
	d := &Dir{Path: t.TempDir()}
	now := time.Now()
	put := func(content string, age time.Duration) string {
		p, err := d.NewPart()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := p.Write([]byte(content)); err != nil {
			t.Fatal(err)
		}
		p.Store(digest.FromString(content))
		name := filepath.Join(d.Path, bytesPath(digest.FromString(content)))
		os.Chtimes(name, now.Add(-age), now.Add(-age))
		return name
	}
	old, older, fresh := put("old", 48*time.Hour), put("older", 72*time.Hour), put("fresh", 0)
	dead, _ := d.NewPart()
	dead.f.Close()
	live, _ := d.NewPart()
	defer live.f.Close()
	os.Chtimes(live.f.Name(), now.Add(-48*time.Hour), now.Add(-48*time.Hour))

	there := func(name string) bool { _, err := os.Stat(name); return err == nil }
	if freed, err := d.Prune(8); err != nil || freed != 5 {
		t.Errorf("freed %d, error %v", freed, err)
	}
	if there(older) || !there(old) || !there(fresh) || there(dead.f.Name()) || !there(live.f.Name()) {
		t.Error("not the longest unused and the dead part were removed")
	}
	if _, err := d.Prune(0); err != nil || there(old) || !there(fresh) {
		t.Errorf("what may be in use was removed, or what isn't stored: %v", err)
	}
	if _, err := (&Dir{Path: filepath.Join(d.Path, "none")}).Prune(0); err != nil {
		t.Error(err)
	}
}
