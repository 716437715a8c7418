// Command clayer makes an ephemeral machine yours: see the README.
package main

import (
	"os"

	"github.com/moby/sys/reexec"
)

func main() {
	if reexec.Init() { // the sandbox's helper is this program under another name
		return
	}
	os.Exit(run(os.Args[1:], os.Stdout, os.Stderr))
}
