package doctor

import (
	"os"
	"testing"

	"github.com/clayer/clayer/solver/sandbox"
)

// TestMain lets the sandbox's helper be this program too.
func TestMain(m *testing.M) {
	sandbox.Main()
	os.Exit(m.Run())
}
