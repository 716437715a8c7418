// Command nomain uses a sandbox and does not call sandbox.Main first.
package main

import (
	"fmt"
	"os"

	"github.com/clayer/clayer/solver/sandbox"
	"github.com/clayer/clayer/solver/sandbox/inplace"
	"github.com/clayer/clayer/solver/sandbox/overlay"
)

func main() {
	kind := os.Args[1]
	opt := sandbox.Options{Root: "/", Work: os.Args[2]}
	if _, err := sandbox.Choose(kind, opt, overlay.Engine, inplace.Engine); err != nil {
		fmt.Println(err)
	}
	if _, err := sandbox.Check(kind, opt, overlay.Engine, inplace.Engine); err != nil {
		fmt.Println(err)
	}
}
