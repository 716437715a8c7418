package render

import (
	"cmp"
	"fmt"
	"io"
	"strings"

	"github.com/clayer/clayer/dag"
)

// node is a vertex of a picture.
type node struct {
	id    string
	label string
	state dag.State
}

// vertices names every step s1, s2, ... and every source f1, f2, ...
func vertices(p *dag.Plan) (steps map[*dag.Step]node, sources map[*dag.Source]node) {
	steps = make(map[*dag.Step]node)
	for _, pl := range p.Layers {
		for _, it := range pl.Items {
			label := fmt.Sprintf("%d  %s", it.Step.Pos().Line, cut(it.Step.Text(), maxText))
			label += "\n" + cmp.Or(it.Why, it.State.String())
			steps[it.Step] = node{fmt.Sprintf("s%d", len(steps)+1), label, it.State}
		}
	}
	sources = make(map[*dag.Source]node)
	for _, ps := range p.Sources() {
		sources[ps.Source] = node{fmt.Sprintf("f%d", len(sources)+1), cut(ps.Source.Label(), maxText), ps.State}
	}
	return steps, sources
}

// ends returns the ids of an edge's two ends.
func ends(e dag.Edge, steps map[*dag.Step]node, sources map[*dag.Source]node) (from, to string) {
	if e.Source != nil {
		return steps[e.From].id, sources[e.Source].id
	}
	return steps[e.From].id, steps[e.To].id
}

// fill is the colour of a state, in #rrggbb.
func fill(s dag.State) string {
	return [...]string{dag.Present: "#e6e6e6", dag.Cached: "#d5e8d4", dag.ToRun: "#ffe6cc", dag.Variables: "#ffffff"}[s]
}

// DOT writes the plan as a graph in Graphviz's language. Arrows point
// from a step to what it depends on; order-only edges are dashed.
func DOT(w io.Writer, p *dag.Plan) error {
	var b strings.Builder
	b.WriteString("digraph clayer {\n  rankdir=BT;\n  node [shape=box, style=filled, fontname=\"monospace\"];\n")
	steps, sources := vertices(p)
	write := func(indent string, n node, more string) {
		fmt.Fprintf(&b, "%s%s [label=%s, fillcolor=%q%s];\n", indent, n.id, dotString(n.label), fill(n.state), more)
	}
	for i, pl := range p.Layers {
		fmt.Fprintf(&b, "  subgraph cluster_%d {\n    label=%s;\n", i, dotString(pl.Layer.Name))
		for _, it := range pl.Items {
			write("    ", steps[it.Step], "")
		}
		b.WriteString("  }\n")
	}
	for _, src := range p.Graph.Sources {
		write("  ", sources[src], ", shape=cds")
	}
	for _, e := range p.Graph.Edges() {
		from, to := ends(e, steps, sources)
		style := ""
		if e.OrderOnly {
			style = " [style=dashed]"
		}
		fmt.Fprintf(&b, "  %s -> %s%s;\n", from, to, style)
	}
	b.WriteString("}\n")
	_, err := io.WriteString(w, b.String())
	return err
}

func dotString(s string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`).Replace(s) + `"`
}

// Mermaid writes the plan as a Mermaid flowchart, as GitHub renders it in
// Markdown.
func Mermaid(w io.Writer, p *dag.Plan) error {
	var b strings.Builder
	b.WriteString("flowchart BT\n")
	steps, sources := vertices(p)
	for i, pl := range p.Layers {
		fmt.Fprintf(&b, "  subgraph l%d[%s]\n", i, mermaidString(pl.Layer.Name))
		for _, it := range pl.Items {
			n := steps[it.Step]
			fmt.Fprintf(&b, "    %s[%s]:::%s\n", n.id, mermaidString(n.label), class(n.state))
		}
		b.WriteString("  end\n")
	}
	for _, src := range p.Graph.Sources {
		n := sources[src]
		fmt.Fprintf(&b, "  %s([%s]):::%s\n", n.id, mermaidString(n.label), class(n.state))
	}
	for _, e := range p.Graph.Edges() {
		from, to := ends(e, steps, sources)
		arrow := "-->"
		if e.OrderOnly {
			arrow = "-.->"
		}
		fmt.Fprintf(&b, "  %s %s %s\n", from, arrow, to)
	}
	for _, s := range []dag.State{dag.Present, dag.Cached, dag.ToRun, dag.Variables} {
		fmt.Fprintf(&b, "  classDef %s fill:%s,stroke:#666,color:#000\n", class(s), fill(s))
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// class is the state as a Mermaid class name.
func class(s dag.State) string { return strings.ReplaceAll(s.String(), " ", "") }

// mermaidString quotes a label. Mermaid has no backslash escapes: what would
// end the string, or be read as markup, is written as an HTML entity.
func mermaidString(s string) string {
	return `"` + strings.NewReplacer(
		"&", "&amp;", `"`, "&quot;", "<", "&lt;", ">", "&gt;", "#", "#35;", "`", "#96;", "\n", "<br>",
	).Replace(s) + `"`
}
