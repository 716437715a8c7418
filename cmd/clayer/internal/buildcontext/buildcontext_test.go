package buildcontext

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/clayer/clayer/frontend"
	"github.com/clayer/clayer/solver/layers"
)

// A layer that many copy from is looked at once: each of these copies twice from the one before
// it, so that there are 2 to the 60th ways to the first.
func TestUnusedOfManyLayers(t *testing.T) {
	const n = 60
	dir := t.TempDir()
	var path string
	for i := range n {
		text := "RUN true\n"
		if i > 0 {
			text = strings.Repeat(fmt.Sprintf("COPY --from=l%d /a /b\n", i-1), 2)
		}
		path = filepath.Join(dir, fmt.Sprintf("Containerfile.l%d", i))
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	f := &Flags{Named: []string{"other=" + dir}}
	opt, err := f.Options(frontend.Args{})
	if err != nil {
		t.Fatal(err)
	}
	files, err := layers.Load(t.Context(), []string{path}, opt)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan []string, 1)
	go func() { done <- f.Unused(files) }()
	select {
	case got := <-done:
		if len(got) != 1 || !strings.Contains(got[0], "reads from other") {
			t.Errorf("%q", got)
		}
	case <-time.After(20 * time.Second):
		t.Fatal("it looks at layers again and again")
	}
}
