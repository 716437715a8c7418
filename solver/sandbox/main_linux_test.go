package sandbox_test

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/clayer/clayer/solver/sandbox"
)

// A program that does not call sandbox.Main is not started again as a whole: it gets
// an error at once, which says what to add.
func TestAProgramWithoutMain(t *testing.T) {
	if _, err := exec.LookPath("go"); err != nil {
		t.Skip(err)
	}
	if _, err := os.Stat("testdata/nomain"); err != nil {
		t.Skip("not in the directory of the package, as in internal/places")
	}
	exe := filepath.Join(t.TempDir(), "nomain")
	if out, err := exec.Command("go", "build", "-o", exe, "./testdata/nomain").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, kind := range sandbox.Kinds {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		out, err := exec.CommandContext(ctx, exe, kind, t.TempDir()).CombinedOutput()
		if err != nil || strings.Count(string(out), `add the line "sandbox.Main()"`) != 2 {
			t.Errorf("%s: %v\n%s", kind, err, out)
		}
	}
}
