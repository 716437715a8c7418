package doctor

import (
	"os"
	"testing"

	"github.com/moby/sys/reexec"
)

// TestMain lets the sandbox's helper be this program too.
func TestMain(m *testing.M) {
	if reexec.Init() {
		return
	}
	os.Exit(m.Run())
}
