// Package fleet is the flags and commands for machines other than this one: clayer plan --as,
// and clayer base.
package fleet

import (
	"fmt"
	"io"
	"strings"

	"github.com/clayer/clayer/cache/image"
	"github.com/clayer/clayer/cmd/clayer/internal/ui"
	"github.com/clayer/clayer/cmd/clayer/internal/usage"
	"github.com/clayer/clayer/dag"
	"github.com/clayer/clayer/internal/errhint"
	"github.com/clayer/clayer/internal/printable"
	"github.com/clayer/clayer/internal/sizes"
	"github.com/clayer/clayer/solver/elsewhere"
)

// layoutPrefix begins a platform that is the one of a base.
const layoutPrefix = "oci-layout:"

// Platform returns the platform that --as names: as keys have it, or that of a base which was
// exported to a layout.
func Platform(as string) (string, error) {
	text := strings.Join(strings.Fields(as), " ")
	if dir, ok := strings.CutPrefix(as, layoutPrefix); ok {
		var err error
		if text, err = image.PlatformOf(dir); err != nil {
			return "", usage.Errorf("--as %s: %w", as, err)
		}
	}
	if err := elsewhere.CheckPlatform(text); err != nil {
		return "", errhint.With(usage.Errorf("--as: %w", err), "clayer doctor on that machine prints it, as base; oci-layout:DIR names a base that clayer base export wrote")
	}
	return text, nil
}

// Write writes what a solve would do on another machine: its steps, and below them the
// conditions, which only that machine can check.
func Write(w io.Writer, r *elsewhere.Report) {
	_ = ui.Folded(w, 14, func(w io.Writer) error { write(w, r); return nil })
}

func write(w io.Writer, r *elsewhere.Report) {
	fmt.Fprintf(w, "on a machine of %s that has nothing applied\n", r.Platform)
	restorable := 0
	for _, l := range r.Layers {
		count := make(map[elsewhere.State]int)
		number := 1
		for _, s := range l.Steps {
			count[s.State]++
			number = max(number, len(fmt.Sprint(s.Line)))
		}
		restorable += count[elsewhere.Restorable]
		fmt.Fprintf(w, "\n%s   %s   %d restorable, on conditions; %d to run\n", printable.Line(l.File),
			sizes.Count(count[elsewhere.Restorable]+count[elsewhere.ToRun], "step"), count[elsewhere.Restorable], count[elsewhere.ToRun])
		for _, s := range l.Steps {
			fmt.Fprintf(w, "  %*d  %-46s  %-10s", number, s.Line, shortened(s.Text, 46), s.State)
			switch s.State {
			case elsewhere.Restorable:
				fmt.Fprintf(w, "  %-4s %7s", s.Store, sizes.Format(s.Size))
			case elsewhere.ToRun:
				fmt.Fprintf(w, "  %s", printable.Line(s.Why))
			}
			fmt.Fprintln(w)
		}
	}
	if restorable > 0 {
		fmt.Fprintln(w, "\nConditions, which only that machine can check. It has to")
		conditions(w, r)
	} else if len(r.Unchecked.Variables) > 0 {
		fmt.Fprintln(w, "\nConditions of these keys, which only that machine can check. It has to")
		variables(w, r.Unchecked.Variables)
	}
	switch {
	case len(r.Stores) == 0:
		fmt.Fprintln(w, "\nNo store is named that another machine can reach: --repo or --store names one")
	case len(r.Platforms) > 0:
		fmt.Fprintln(w, "\nThe stores have layers of these names for other platforms:")
		for _, p := range r.Platforms {
			fmt.Fprintf(w, "  %s\n", printable.Line(p))
		}
	}
}

func conditions(w io.Writer, r *elsewhere.Report) {
	u := r.Unchecked
	for _, s := range r.Stores {
		item(w, "reach", s, nil)
	}
	for _, n := range u.Needs {
		item(w, "have", n.Text, n.At)
	}
	if len(u.Needs) == 0 && len(u.Unknown) == 0 {
		item(w, "have", "nothing else: the snapshots need nothing of its root", nil)
	}
	if len(u.Unknown) > 0 {
		item(w, "have", "what these steps need, which no store says", u.Unknown)
	}
	variables(w, u.Variables)
	for _, s := range u.Sources {
		item(w, "find", "the same as here in "+s.Text, s.At)
	}
}

func variables(w io.Writer, list []elsewhere.Variable) {
	for _, v := range list {
		switch v.InKey {
		case dag.ByName:
			item(w, "set", v.Name+", a credential, to any value", v.At)
		case dag.IfSet:
			item(w, "not set", v.Name+", which is not set here", v.At)
		default:
			item(w, "set", v.Name+" to the value that it has here", v.At)
		}
	}
}

// item writes a condition, and for which steps it is one.
func item(w io.Writer, verb, what string, at []string) {
	line := fmt.Sprintf("  %-7s  %s", verb, printable.Line(what))
	if len(at) > 0 {
		line += "   (" + printable.Line(strings.Join(at, ", ")) + ")"
	}
	fmt.Fprintln(w, line)
}

// shortened returns text in at most so many characters, on one line.
func shortened(text string, most int) string {
	r := []rune(printable.Line(strings.Join(strings.Fields(text), " ")))
	if len(r) > most {
		r = append(r[:most-1], '…')
	}
	return string(r)
}
