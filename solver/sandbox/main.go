package sandbox

import (
	"errors"
	"os"
	"sync/atomic"

	"github.com/moby/sys/reexec"
)

// Main makes this program a sandbox's helper, if a sandbox started it as one: then
// it does not return. A program that builds steps calls it first in its main
// function, and a test in TestMain:
//
//	func main() {
//		sandbox.Main()
//		...
//	}
func Main() {
	mainCalled.Store(true)
	if reexec.Init() {
		os.Exit(0)
	}
}

var mainCalled atomic.Bool

// errNoMain says what to add to a program that would run as a whole, instead of
// the helper, when it is started again.
var errNoMain = errors.New("RUN needs this program as its helper: add the line \"sandbox.Main()\" at the top of func main (package github.com/clayer/clayer/solver/sandbox)")

// CheckMain returns an error if this program did not call Main. The sandboxes ask
// before they start a helper.
func CheckMain() error {
	if !mainCalled.Load() {
		return errNoMain
	}
	return nil
}
