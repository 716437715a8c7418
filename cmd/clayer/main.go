// Command clayer makes an ephemeral machine yours: see the README.
package main

import (
	"os"

	"github.com/clayer/clayer/solver/sandbox"
)

func main() {
	sandbox.Main() // the sandbox's helper is this program under another name
	os.Exit(run(os.Args[1:], os.Stdout, os.Stderr))
}
