package dag

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/clayer/clayer/frontend"
)

// WriteText writes the plan for people, as a tree: a line for each layer, below
// it one for each of its steps, in the order of the file, and a last one for
// all of several layers. ✓ is present, ↓ cached, ▸ to run, · sets variables
// alone. The first line tells what is undone before, if anything.
func (p *Plan) WriteText(w io.Writer) error {
	var b strings.Builder
	if n := len(p.Undo); n > 0 {
		fmt.Fprintf(&b, "%s to undo first", Count(n, "applied step"))
		if gone := p.Gone(); gone > 0 {
			fmt.Fprintf(&b, ", %d of them for good", gone)
		}
		b.WriteString("\n\n")
	}
	for i := range p.Layers {
		if i > 0 {
			b.WriteByte('\n')
		}
		p.Layers[i].writeText(&b, p.Keys)
	}
	switch len(p.Layers) {
	case 0:
		b.WriteString("no layers\n")
	case 1:
	default:
		fmt.Fprintf(&b, "\n%s   %s   %s\n", Count(len(p.Layers), "layer"), Count(p.Totals().Steps, "step"), p.Totals())
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// maxText is the widest instruction that is shown whole, in runes; with the
// columns beside it a line fits into 80 in most cases.
const maxText = 46

func (pl *PlannedLayer) writeText(b *strings.Builder, keys *Keys) {
	t := pl.Totals()
	on := ""
	if pl.Layer.On != nil && !pl.Layer.Ordered {
		on = "   on " + pl.Layer.On.Name
	}
	fmt.Fprintf(b, "%s   %s   %s%s\n", pl.Layer.File.Path, Count(t.Steps, "step"), t, on)

	items := slices.Clone(pl.Items)
	slices.SortStableFunc(items, byLine)
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
		mark, state := it.State.mark(), it.State.String()
		if it.State == Variables {
			state = it.Why
		}
		line := fmt.Sprintf("%s %s %*d  %s%s  %-7s", branch, mark, num, it.Step.Pos().Line, text,
			strings.Repeat(" ", max(0, width-len([]rune(text)))), state)
		switch {
		case it.State == Cached:
			line += fmt.Sprintf("  %-4s %7s", it.Found.Store, Size(it.Found.Size))
		case it.State == ToRun:
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
func (s State) mark() string {
	return [...]string{Present: "✓", Cached: "↓", ToRun: "▸", Variables: "·"}[s]
}

// String says the totals in words: "1 to run, 2 cached (dir, 41 MB)".
func (t Totals) String() string {
	var parts []string
	if t.ToRun > 0 {
		s := fmt.Sprintf("%d to run", t.ToRun)
		if t.Estimate >= time.Second {
			s += fmt.Sprintf(" (~%s", t.Estimate.Round(time.Second))
			if t.Unknown > 0 {
				s += fmt.Sprintf(", and %d never timed", t.Unknown)
			}
			s += ")"
		}
		parts = append(parts, s)
	}
	if t.Cached > 0 {
		parts = append(parts, fmt.Sprintf("%d cached (%s, %s)", t.Cached, strings.Join(t.Stores, ", "), Size(t.CachedBytes)))
	}
	if t.Present > 0 {
		parts = append(parts, fmt.Sprintf("%d present", t.Present))
	}
	if len(parts) == 0 {
		return "nothing to do"
	}
	return strings.Join(parts, ", ")
}

// Size writes a number of bytes in units of 1000, three digits at most: "41 MB".
func Size(n int64) string {
	if n < 1000 {
		return fmt.Sprintf("%d B", n)
	}
	f, unit := float64(n), 0
	for f >= 999.5 && unit < len(units)-1 {
		f /= 1000
		unit++
	}
	if f < 9.95 {
		return fmt.Sprintf("%.1f %s", f, units[unit])
	}
	return fmt.Sprintf("%.0f %s", f, units[unit])
}

var units = []string{"B", "kB", "MB", "GB", "TB", "PB", "EB"}

// Count says how many there are of something: "1 step", "2 steps".
func Count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
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

// label is how a source is shown: a URL without what may be secret in it, or
// the names of local files.
func (src *Source) label() string {
	switch in := src.Steps[0].Instr.(type) {
	case *frontend.Fetch:
		source, _, _ := strings.Cut(in.Source, "?")
		return source
	case *frontend.Copy:
		names := slices.Clone(in.Sources)
		for _, inl := range in.Inline {
			names = append(names, "<<"+inl.Name)
		}
		return strings.Join(names, " ")
	}
	panic(fmt.Sprintf("dag: source of %T", src.Steps[0].Instr))
}
