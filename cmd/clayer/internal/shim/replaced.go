package shim

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"slices"
	"strings"
	"time"

	"github.com/clayer/clayer/internal/lazyregexp"
)

// simulationTime is how long an install waits for apt to say what it will do.
const simulationTime = 10 * time.Second

// replaced returns the packages that an install by apt will replace or remove, as apt says
// it. Nothing, where it does not.
func (o Options) replaced(ctx context.Context, argv []string) []string {
	if argv[0] != "apt" && argv[0] != "apt-get" {
		return nil
	}
	program := find(argv[0], o.Dir, o.Path)
	if program == "" {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, simulationTime)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, slices.Concat([]string{"--simulate"}, argv[1:])...)
	cmd.Env = append(os.Environ(), offVar+"=off", "LC_ALL=C")
	cmd.WaitDelay = time.Second
	out, _ := cmd.Output() // an install that will fail replaces nothing
	return upgrades(out)
}

// upgrade is a line of apt's of a package that it has: "Inst libc6 [2.36-9] (2.36-10 ..".
var upgrade = lazyregexp.New(`^(?:Inst|Remv|Purg) (\S+) \[`)

func upgrades(out []byte) (names []string) {
	for line := range bytes.Lines(out) {
		if m := upgrade().FindSubmatch(line); m != nil {
			name, _, _ := strings.Cut(string(m[1]), ":")
			names = append(names, name)
		}
	}
	return names
}
