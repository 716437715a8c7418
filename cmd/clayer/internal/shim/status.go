package shim

import (
	"cmp"
	"fmt"
	"io"
	"os"

	"github.com/clayer/clayer/solver"
)

// WritePacking prints of which lines that shims wrote the snapshots are being made.
func WritePacking(w io.Writer) {
	for _, n := range Notes(os.Getenv("PATH")) {
		if n.Making() {
			fmt.Fprintf(w, "clayer: %s: %s: its snapshot is being made; clayer solve waits for it\n", n.File, n.Text)
		}
	}
}

// WriteNotes prints which lines that shims wrote have no snapshot, or none yet.
func WriteNotes(w io.Writer, st *solver.RootStatus) {
	WritePacking(w)
	applied := make(map[string]bool)
	for _, l := range st.State.Layers {
		for _, s := range l.Steps {
			applied[s.Text] = true
		}
	}
	for _, n := range Notes(os.Getenv("PATH")) {
		switch what := fmt.Sprintf("clayer: %s: %s", n.File, n.Text); {
		case n.Making():
		case n.Store:
			fmt.Fprintf(w, "%s is applied, but its snapshot is in no store: %s\n", what, n.Error)
		case !applied[n.Text]:
			fmt.Fprintf(w, "%s has no snapshot, and the next solve runs it: %s\n", what, cmp.Or(n.Error, "clayer was cut off"))
		}
	}
}
