package overlay

import (
	"errors"
	"os"
	"testing"

	"github.com/clayer/clayer/solver/sandbox"
	"github.com/clayer/clayer/solver/sandbox/helper"
)

func TestMain(m *testing.M) {
	sandbox.Main()
	os.Exit(m.Run())
}

// What a view wrote goes also if somebody ended its file helper.
func TestCloseWithoutTheFileHelper(t *testing.T) {
	work := t.TempDir()
	s, err := NewWay(false, sandbox.Options{Root: "/", Work: work})
	if errors.Is(err, sandbox.ErrUnavailable) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	v, err := s.View(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := v.files.(*fileHelper).cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := v.Close(); err != nil {
		t.Error(err)
	}
	if left, _ := os.ReadDir(work); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
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
