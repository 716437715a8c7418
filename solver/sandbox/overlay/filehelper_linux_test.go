package overlay

import (
	"os"
	"testing"

	"github.com/clayer/clayer/solver/sandbox"
	"github.com/clayer/clayer/solver/sandbox/helper"
)

func TestMain(m *testing.M) {
	sandbox.Main()
	os.Exit(m.Run())
}

// A file helper that ends before it answers is an error, not a wait without end: Ctrl-C
// reaches a process that has just been started, before it can ignore it.
func TestFileHelperThatEnds(t *testing.T) {
	defer func(was string) { helper.Program = was }(helper.Program)
	helper.Program = "/bin/true"
	if k, err := startFileHelper(nil); err == nil {
		t.Errorf("a file helper that has ended was started: %v", k.close())
	}
}
