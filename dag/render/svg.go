package render

import (
	"cmp"
	"fmt"
	"html"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/clayer/clayer/dag"
	"github.com/clayer/clayer/internal/sizes"
)

// The measures of a picture, in pixels. A character of its font has 6.6.
const (
	boxWidth   = 330
	boxHeight  = 38
	boxGap     = 16
	pillWidth  = 200
	pillHeight = 24
	columnGap  = 46
	headHeight = 56
	laneHeight = 14
	margin     = 16
	boxText    = 46 // characters that fit into a box
	pillText   = 27
)

type point struct{ x, y int }

// A layout is where everything stands: a column for each layer in the order of
// composition, with its steps from top to bottom, and the source of each step beside it.
type layout struct {
	steps         map[*dag.Step]point // top left corners
	sources       map[*dag.Source]point
	heads         map[*dag.Layer]point
	width, height int
}

func newLayout(p *dag.Plan) layout {
	l := layout{steps: make(map[*dag.Step]point), sources: make(map[*dag.Source]point), heads: make(map[*dag.Layer]point)}
	x := margin
	for _, pl := range p.Layers {
		fetches := slices.ContainsFunc(pl.Layer.Steps, func(s *dag.Step) bool { return s.Source != nil && s.Source.Steps[0] == s })
		if fetches {
			x += pillWidth + columnGap/2
		}
		l.heads[pl.Layer] = point{x, margin}
		y := margin + headHeight
		for _, s := range pl.Layer.Steps {
			l.steps[s] = point{x, y}
			if s.Source != nil && s.Source.Steps[0] == s {
				l.sources[s.Source] = point{x - pillWidth - columnGap/2, y + (boxHeight-pillHeight)/2}
			}
			y += boxHeight + boxGap
		}
		l.height = max(l.height, y)
		x += boxWidth + columnGap
	}
	l.width, l.height = max(x-columnGap+margin, 2*margin), l.height+margin-boxGap
	return l
}

// SVG writes the plan as a picture that needs nothing else: a column for
// each layer. Arrows point from what comes first to what depends on it;
// order-only edges are dashed.
func SVG(w io.Writer, p *dag.Plan) error {
	var b strings.Builder
	svg(&b, p)
	_, err := io.WriteString(w, b.String())
	return err
}

func svg(b *strings.Builder, p *dag.Plan) {
	l := newLayout(p)
	fmt.Fprintf(b, `<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" viewBox="0 0 %d %d" font-family="ui-monospace, monospace" font-size="11">`+"\n",
		l.width, l.height, l.width, l.height)
	b.WriteString(`<defs><marker id="arrow" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto"><path d="M0 0L8 4L0 8z" fill="#777"/></marker></defs>` + "\n")
	for _, e := range p.Graph.Edges() {
		l.edge(b, e)
	}
	for i := range p.Layers {
		pl := &p.Layers[i]
		at := l.heads[pl.Layer]
		fmt.Fprintf(b, `<text x="%d" y="%d" font-size="14" font-weight="bold" fill="currentColor">%s</text>`+"\n", at.x, at.y+14, svgText(pl.Layer.Name, 40))
		fmt.Fprintf(b, `<text x="%d" y="%d" fill="#777">%s</text>`+"\n", at.x, at.y+31, svgText(pl.Totals().String(), 56))
		for j := range pl.Items {
			it := &pl.Items[j]
			at := l.steps[it.Step]
			fmt.Fprintf(b, `<g><title>%s</title><rect x="%d" y="%d" width="%d" height="%d" rx="5" fill="%s" stroke="#888"/>`,
				html.EscapeString(cut(it.Step.Text(), 500)), at.x, at.y, boxWidth, boxHeight, fill(it.State))
			fmt.Fprintf(b, `<text x="%d" y="%d" fill="#000">%s</text>`, at.x+9, at.y+16, svgText(fmt.Sprintf("%d  %s", it.Step.Pos().Line, it.Step.Text()), boxText))
			fmt.Fprintf(b, `<text x="%d" y="%d" fill="#555">%s</text></g>`+"\n", at.x+9, at.y+30, svgText(outlook(it), boxText))
		}
	}
	for _, ps := range p.Sources() {
		at := l.sources[ps.Source]
		fmt.Fprintf(b, `<g><title>%s</title><rect x="%d" y="%d" width="%d" height="%d" rx="%d" fill="%s" stroke="#888"/>`,
			html.EscapeString(ps.Source.Label()), at.x, at.y, pillWidth, pillHeight, pillHeight/2, fill(ps.State))
		fmt.Fprintf(b, `<text x="%d" y="%d" fill="#000">%s</text></g>`+"\n", at.x+10, at.y+16, svgText(ps.Source.Label(), pillText))
	}
	b.WriteString("</svg>\n")
}

// edge draws from what comes first to what depends on it.
func (l layout) edge(b *strings.Builder, e dag.Edge) {
	to := l.steps[e.From]
	var path string
	switch {
	case e.Source != nil:
		from := l.sources[e.Source]
		a, z := point{from.x + pillWidth, from.y + pillHeight/2}, point{to.x, to.y + boxHeight/2}
		if a.y == z.y {
			path = fmt.Sprintf("M%d %dH%d", a.x, a.y, z.x)
		} else { // one that several steps share
			mid := z.x - columnGap/4
			path = fmt.Sprintf("M%d %dC%d %d %d %d %d %d", a.x, a.y, mid, a.y, mid, z.y, z.x, z.y)
		}
	case e.To.Layer == e.From.Layer:
		from := l.steps[e.To]
		path = fmt.Sprintf("M%d %dV%d", from.x+boxWidth/2, from.y+boxHeight, to.y)
	default:
		from := l.steps[e.To]
		a, z := point{from.x + boxWidth, from.y + boxHeight/2}, point{to.x + boxWidth/2, to.y}
		// By the gap beside the column and the lane above the boxes: no box hides it.
		path = fmt.Sprintf("M%d %dH%dV%dH%dV%d", a.x, a.y, a.x+columnGap/2, z.y-laneHeight, z.x, z.y)
	}
	dash := ""
	if e.OrderOnly {
		dash = ` stroke-dasharray="4 3"`
	}
	fmt.Fprintf(b, `<path d="%s" fill="none" stroke="#777"%s marker-end="url(#arrow)"/>`+"\n", path, dash)
}

// standing returns the mark and the state of a step.
func standing(it *dag.Item) string {
	if it.State == dag.Variables {
		return it.Why
	}
	return mark(it.State) + " " + it.State.String()
}

// outlook says in a few words what there is to do for a step.
func outlook(it *dag.Item) string {
	text := standing(it)
	switch {
	case it.State == dag.Cached:
		text += fmt.Sprintf(" · %s · %s", it.Found.Store, sizes.Format(it.Found.Size))
	case it.State == dag.ToRun:
		if it.Estimate >= time.Second {
			text += fmt.Sprintf(" · ~%s", it.Estimate.Round(time.Second))
		}
		text += " · " + it.Why
	}
	return text
}

func svgText(s string, n int) string { return html.EscapeString(cut(s, n)) }

// The page around the picture. It is not a template: a package for templates
// stops the linker from dropping functions that nothing calls.
const (
	pageHead = `<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>%s</title>
<style>
:root { color-scheme: light dark; }
body { font: 14px/1.5 system-ui, sans-serif; margin: 2rem; max-width: 80rem; }
h1 { font-size: 1.3rem; } h2 { font-size: 1.05rem; margin: 2rem 0 .5rem; }
figure { margin: 1rem 0; overflow-x: auto; } svg { max-width: 100%%; min-width: 50rem; height: auto; }
table { border-collapse: collapse; width: 100%%; }
td, th { text-align: left; padding: .3rem .7rem .3rem 0; border-top: 1px solid #8884; vertical-align: top; white-space: nowrap; }
td.step { white-space: normal; width: 60%%; } code { font: 12px ui-monospace, monospace; overflow-wrap: anywhere; }
.dim { opacity: .65; } .after { margin-left: 1em; } .key { display: inline-block; width: 1em; height: 1em; border: 1px solid #888; vertical-align: -2px; margin: 0 .3em 0 1em; }
</style>
`
	pageTable = "<table>\n<tr><th>line</th><th>step</th><th>state</th><th>size</th><th>time</th><th>why</th><th>key</th></tr>\n"
)

// HTML writes the plan as a page that needs nothing else: the picture, and
// every step of every layer.
func HTML(w io.Writer, p *dag.Plan) error {
	var b strings.Builder
	var names []string
	for _, pl := range p.Layers {
		names = append(names, pl.Layer.Name)
	}
	title := html.EscapeString("clayer: " + strings.Join(names, ", "))
	fmt.Fprintf(&b, pageHead, title)
	fmt.Fprintf(&b, "<h1>%s</h1>\n<p>%s</p>\n<figure>\n", title, html.EscapeString(p.Totals().String()))
	svg(&b, p)
	b.WriteString("</figure>\n<p class=dim>")
	for _, s := range []dag.State{dag.Present, dag.Cached, dag.ToRun} {
		fmt.Fprintf(&b, `<span class=key style="background:%s"></span>%s %s`, fill(s), mark(s), s)
	}
	b.WriteString("<span class=after>dashed: for order alone</span></p>\n")
	for i := range p.Layers {
		table(&b, &p.Layers[i], p.Keys)
	}
	b.WriteString("</html>\n")
	_, err := io.WriteString(w, b.String())
	return err
}

func table(b *strings.Builder, pl *dag.PlannedLayer, keys *dag.Keys) {
	fmt.Fprintf(b, "<h2>%s <span class=dim>%s · %s</span></h2>\n", html.EscapeString(pl.Layer.Name), html.EscapeString(pl.Layer.File.Path), html.EscapeString(pl.Totals().String()))
	b.WriteString(pageTable)
	for _, it := range byLine(pl) {
		size, took := "", ""
		if it.State == dag.Cached {
			size = sizes.Format(it.Found.Size)
		}
		if it.Estimate >= time.Second {
			took = "~" + it.Estimate.Round(time.Second).String()
		}
		why := it.Why
		switch {
		case it.State == dag.Cached:
			why = "from " + it.Found.Store
		case it.State == dag.Variables:
			why = ""
		}
		if commit := keys.Commit[it.Step]; commit != "" {
			why = strings.TrimPrefix(why+", commit "+commit[:min(12, len(commit))], ", ")
		}
		fmt.Fprintf(b, "<tr><td>%d</td><td class=step><code>%s</code></td><td>%s</td><td>%s</td><td>%s</td><td>%s</td><td><code class=dim>%s</code></td></tr>\n",
			it.Step.Pos().Line, html.EscapeString(cmp.Or(cut(it.Step.Text(), 500), " ")), standing(&it), size, took, html.EscapeString(why), it.Key.Short())
	}
	b.WriteString("</table>\n")
}
