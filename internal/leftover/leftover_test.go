//go:build linux

package leftover

import (
	"os/exec"
	"strings"
	"testing"
)

func TestChildrenAreSeen(t *testing.T) {
	if err := Check(); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("sleep", "1000")
	if err := cmd.Start(); err != nil {
		t.Skip(err)
	}
	if got := children(); len(got) != 1 || !strings.Contains(got[0], "1000") && !strings.Contains(got[0], "leftover") { // before or after its exec
		t.Errorf("one child: %q", got)
	}
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	if got := children(); len(got) > 0 {
		t.Errorf("none is left: %q", got)
	}
}
