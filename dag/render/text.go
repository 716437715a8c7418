// Package render writes plans: as text, JSON, graphs and pages.
package render

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/clayer/clayer/dag"
	"github.com/clayer/clayer/internal/sizes"
)

// Text writes the plan as a tree: a line for each layer, below it a line for each
// of its steps, in the order of the file, and a last line for all layers if there
// are several. ✓ is present, ↓ cached, ▸ to run, · sets variables only. If steps
// are undone before, the first line counts them.
func Text(w io.Writer, p *dag.Plan) error {
	var b strings.Builder
	if n := len(p.Undo); n > 0 {
		fmt.Fprintf(&b, "%s to undo first", sizes.Count(n, "applied step"))
		if gone := p.Gone(); gone > 0 {
			fmt.Fprintf(&b, ", %d of them for good", gone)
		}
		b.WriteString("\n\n")
	}
	for i := range p.Layers {
		if i > 0 {
			b.WriteByte('\n')
		}
		layer(&b, &p.Layers[i], p.Keys, "")
	}
	for _, st := range p.Stages {
		b.WriteByte('\n')
		pl := st.Stage()
		layer(&b, pl, st.Keys, "   stage "+pl.Layer.File.Stage)
	}
	switch len(p.Layers) {
	case 0:
		b.WriteString("no layers\n")
	case 1:
	default:
		fmt.Fprintf(&b, "\n%s   %s   %s\n", sizes.Count(len(p.Layers), "layer"), sizes.Count(p.Totals().Steps, "step"), p.Totals())
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// maxText is the widest instruction that is shown whole, in runes; with the
// columns beside it a line fits into 80 in most cases.
const maxText = 46

// layer writes a layer, or a stage.
func layer(b *strings.Builder, pl *dag.PlannedLayer, keys *dag.Keys, stage string) {
	t := pl.Totals()
	on := ""
	if pl.Layer.On != nil && !pl.Layer.Ordered {
		on = "   on " + pl.Layer.On.Name
	}
	fmt.Fprintf(b, "%s%s   %s   %s%s\n", pl.Layer.File.Path, stage, sizes.Count(t.Steps, "step"), t, on)

	items := byLine(pl)
	width, num := 0, 1
	for _, it := range items {
		width = max(width, min(maxText, len([]rune(it.Step.Text()))))
		num = max(num, len(fmt.Sprint(it.Step.Pos().Line)))
	}
	for i, it := range items {
		text := cut(it.Step.Text(), maxText)
		branch := "├─"
		if i == len(items)-1 {
			branch = "└─"
		}
		mark, state := mark(it.State), it.State.String()
		if it.State == dag.Variables {
			state = it.Why
		}
		line := fmt.Sprintf("%s %s %*d  %s%s  %-7s", branch, mark, num, it.Step.Pos().Line, text,
			strings.Repeat(" ", max(0, width-len([]rune(text)))), state)
		switch {
		case it.State == dag.Cached:
			line += fmt.Sprintf("  %-4s %7s", it.Found.Store, sizes.Format(it.Found.Size))
		case it.State == dag.ToRun:
			if it.Estimate >= time.Second {
				line += fmt.Sprintf("  ~%s", it.Estimate.Round(time.Second))
			}
			line += "  " + it.Why
		}
		if commit := keys.Commit[it.Step]; commit != "" {
			line += fmt.Sprintf("  commit %.12s", commit)
		}
		b.WriteString(strings.TrimRight(line, " ") + "\n")
	}
}

// mark is a state as a sign.
func mark(s dag.State) string {
	return [...]string{dag.Present: "✓", dag.Cached: "↓", dag.ToRun: "▸", dag.Variables: "·"}[s]
}

// cut shortens s to n runes, and makes control characters harmless to a terminal.
func cut(s string, n int) string {
	r := []rune(s)
	for i, c := range r {
		if c < ' ' || c == 0x7f {
			r[i] = ' '
		}
	}
	if len(r) > n {
		r = append(r[:n-1], '…')
	}
	return string(r)
}

// byLine returns the items of a layer in the order of its file.
func byLine(pl *dag.PlannedLayer) []dag.Item {
	return slices.SortedStableFunc(slices.Values(pl.Items), func(a, b dag.Item) int {
		return cmp.Compare(a.Step.Pos().Line, b.Step.Pos().Line)
	})
}
