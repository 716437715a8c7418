package dir

import (
	"path"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/clayer/clayer/cache"
	"github.com/clayer/clayer/internal/safefile"
)

// A process that begins to write sweeps what others have left in tmp/: not what one
// has just linked there.
func TestSweepLeavesWhatIsBeingLinked(t *testing.T) {
	d := open(t, Options{})
	put(t, d, "a", "content")
	root, err := d.root()
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	tmp := tmpRoot(t, d)
	b, err := cache.Create(d.tmp())
	if err != nil {
		t.Fatal(err)
	}
	b.Packed(digest.FromString(""))
	temp := path.Join(tmpName, partPrefix+"x")
	if _, err := b.Link(tmp, partPrefix+"x"); err != nil {
		t.Skip("no anonymous files here:", err)
	}
	sweep := func() {
		if _, err := safefile.Sweep(root, tmpName, isTemp); err != nil {
			t.Error(err)
		}
	}
	sweep()
	if !exists(root, temp) {
		t.Error("it is gone")
	}
	b.Close()
	sweep()
	if exists(root, temp) {
		t.Error("what was left behind stays")
	}
}
