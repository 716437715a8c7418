package ui

import (
	"encoding/json"
	"fmt"
	"io"
	"text/tabwriter"

	"github.com/clayer/clayer/cache"
	"github.com/clayer/clayer/internal/printable"
	"github.com/clayer/clayer/internal/sizes"
)

// WriteJSON writes a result as JSON.
func WriteJSON(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}

// A CachedLayer is a layer in a store.
type CachedLayer struct {
	cache.Manifest
	Tag      string `json:"tag"`
	Size     int64  `json:"size"` // bytes of all steps
	Complete bool   `json:"complete"`

	// Variants are further snapshots of its steps, for machines that differ.
	Variants []cache.Descriptor `json:"variants,omitempty"`
}

// CachedLayers lists complete layers, then those whose build was interrupted; variants are
// further snapshots of their steps, by tag.
func CachedLayers(complete, partial []cache.Manifest, variants map[string][]cache.Descriptor) []CachedLayer {
	all := []CachedLayer{}
	for i, m := range append(complete, partial...) {
		l := CachedLayer{Manifest: m, Tag: m.Tag(), Complete: i < len(complete), Variants: variants[m.Tag()]}
		for _, d := range m.Steps {
			l.Size += d.Size
		}
		all = append(all, l)
	}
	return all
}

// WriteCachedLayers writes a table of layers.
func WriteCachedLayers(w io.Writer, all []CachedLayer) error {
	return Folded(w, 4, func(w io.Writer) error { return writeCachedLayers(w, all) })
}

func writeCachedLayers(w io.Writer, all []CachedLayer) error {
	t := tabwriter.NewWriter(w, 0, 8, 3, ' ', 0)
	if len(all) > 0 {
		fmt.Fprintln(t, "TAG\tSTEPS\tSIZE\tCREATED\tSTATE\tPLATFORM")
	}
	for _, l := range all {
		state := "interrupted"
		if l.Complete {
			state = "complete"
			if n := len(l.LeftOut); n > 0 {
				state += fmt.Sprintf(", %d left out", n)
			}
		}
		fmt.Fprintf(t, "%s\t%d\t%s\t%s\t%s\t%s\n", printable.Line(l.Tag), len(l.Steps), sizes.Format(l.Size),
			l.Created.Local().Format(minute), state, printable.Line(l.Platform))
	}
	return t.Flush()
}
