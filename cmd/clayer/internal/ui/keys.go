package ui

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"

	"github.com/clayer/clayer/cache"
	"github.com/clayer/clayer/dag"
	"github.com/clayer/clayer/dag/key"
	"github.com/clayer/clayer/internal/printable"
)

// Hashes are the keys of layers, as clayer hash prints them.
type Hashes struct {
	Layers    []Hash  `json:"layers"`
	Composite key.Key `json:"composite"`
}

// A Hash is the key of a layer.
type Hash struct {
	Name string  `json:"name"`
	File string  `json:"file"`
	Key  key.Key `json:"key"`
	Tag  string  `json:"tag"`
}

// NewHashes returns the keys of the layers of g.
func NewHashes(g *dag.Graph, keys *dag.Keys) *Hashes {
	h := &Hashes{Composite: keys.Composite(g)}
	for _, l := range g.Layers {
		k := keys.Layer[l]
		h.Layers = append(h.Layers, Hash{l.Name, l.File.Path, k, cache.Tag(l.Name, k)})
	}
	return h
}

// Text writes the tags, or whole keys with their files.
func (h *Hashes) Text(w io.Writer, full bool) {
	format, composite := "%[2]s\n", "composite-"+h.Composite.Short()
	if full {
		format, composite = "%[1]s  %[3]s\n", h.Composite.String()+"  (all)"
	}
	for _, l := range h.Layers {
		fmt.Fprintf(w, format, l.Key, l.Tag, l.File)
	}
	if len(h.Layers) > 1 {
		fmt.Fprintln(w, composite)
	}
}

// An Inspection is a layer with its instructions, as clayer inspect prints it.
type Inspection struct {
	Name         string        `json:"name"`
	File         string        `json:"file"`
	Key          key.Key       `json:"key"`
	Instructions []Instruction `json:"instructions"`
}

// An Instruction is one with its key.
type Instruction struct {
	Line   int        `json:"line"`
	Word   string     `json:"instruction"`
	Text   string     `json:"text"`
	Key    key.Key    `json:"key,omitzero"` // none: it makes no step
	Inputs key.Record `json:"inputs,omitempty"`

	Session []dag.SessionVar `json:"session,omitempty"` // that a RUN gets, or names of the ENV of layers before it
	Needs   []cache.Need     `json:"needs,omitempty"`   // of its snapshot, where one is here

	Variants []Variant `json:"variants,omitempty"` // further snapshots that are here, for machines that differ
}

// A Variant is one of several snapshots of a step.
type Variant struct {
	Digest digest.Digest `json:"digest"`
	On     digest.Digest `json:"on,omitempty"` // the snapshot that it was built on
	Needs  []cache.Need  `json:"needs,omitempty"`
}

// Inspect returns the layers of g with their instructions.
func Inspect(g *dag.Graph, keys *dag.Keys, snapshots map[key.Key][]cache.Descriptor) (all []Inspection) {
	for _, l := range g.Layers {
		steps := make(map[int]Instruction, len(l.Steps))
		for _, s := range l.Steps {
			in := Instruction{Line: s.Pos().Line, Word: s.Word(), Text: s.Text(), Key: keys.Step[s], Inputs: keys.Record(s), Session: s.Session()}
			for i, d := range snapshots[in.Key] {
				if i == 0 {
					in.Needs = d.Needs
				} else {
					in.Variants = append(in.Variants, Variant{d.Digest, d.On, d.Needs})
				}
			}
			steps[in.Line] = in
		}
		layer := Inspection{Name: l.Name, File: l.File.Path, Key: keys.Layer[l]}
		for _, in := range l.File.Instructions {
			m := in.Base()
			row, ok := steps[m.Pos.Line]
			if !ok {
				row = Instruction{Line: m.Pos.Line, Word: m.Word, Text: m.Text}
			}
			layer.Instructions = append(layer.Instructions, row)
		}
		all = append(all, layer)
	}
	return all
}

// WriteInspections writes layers with a line per instruction, and below a RUN the
// variables of the session that it names, and what its snapshot needs, or each of several.
// What all RUNs get is the last line.
func WriteInspections(w io.Writer, all []Inspection) {
	_ = Folded(w, 26, func(w io.Writer) error { writeInspections(w, all); return nil })
}

func writeInspections(w io.Writer, all []Inspection) {
	for i, l := range all {
		if i > 0 {
			fmt.Fprintln(w)
		}
		fmt.Fprintf(w, "%s   layer %s   key %s\n", l.File, l.Name, l.Key.Short())
		for _, in := range l.Instructions {
			k := "-" // makes no step
			if !in.Key.IsZero() {
				k = in.Key.Short()
			}
			fmt.Fprintf(w, "%4d  %-16s  %s\n", in.Line, k, in.Text)
			if named := namedVars(in.Session); len(named) > 0 {
				fmt.Fprintf(w, "%24sof the session: %s\n", "", strings.Join(named, ", "))
			}
			if len(in.Needs)+len(in.Variants) > 0 {
				fmt.Fprintf(w, "%24sneeds: %s\n", "", needed(in.Needs))
			}
			for _, v := range in.Variants {
				fmt.Fprintf(w, "%24sor needs: %s\n", "", needed(v.Needs))
			}
		}
	}
	if names := unnamedVars(all); len(names) > 0 {
		fmt.Fprintf(w, "\nRUN gets from the session, in no key: %s\n", strings.Join(names, ", "))
	}
}

// needed says what a snapshot needs; of much, the beginning.
func needed(needs []cache.Need) string {
	const most = 6
	if len(needs) == 0 {
		return "nothing"
	}
	var texts []string
	for _, n := range needs[:min(most, len(needs))] {
		texts = append(texts, printable.Line(n.String()))
	}
	if more := len(needs) - most; more > 0 {
		texts = append(texts, fmt.Sprintf("%d more", more))
	}
	return strings.Join(texts, ", ")
}

// namedVars says how the variables that a RUN names enter its key.
func namedVars(vars []dag.SessionVar) (texts []string) {
	for _, v := range vars {
		switch {
		case !v.Named:
		case v.InKey == dag.ByDigest:
			texts = append(texts, v.Name+" (its value is in the key)")
		default:
			texts = append(texts, v.Name+" (a credential: its value is in no key)")
		}
	}
	return texts
}

// unnamedVars returns the variables that RUNs get without naming them, sorted.
func unnamedVars(all []Inspection) (names []string) {
	for _, l := range all {
		for _, in := range l.Instructions {
			for _, v := range in.Session {
				if !v.Named && !slices.Contains(names, v.Name) {
					names = append(names, v.Name)
				}
			}
		}
	}
	slices.Sort(names)
	return names
}
