package survey

import (
	"path"
	"slices"
	"strings"

	"github.com/clayer/clayer/cache/snapshot"
	"github.com/clayer/clayer/dag"
	"github.com/clayer/clayer/frontend"
)

// Scratch is what a step leaves in /tmp or /var/tmp: part of its snapshot, seen by the
// steps that build on it, and never in the root (snapshot.IsScratch). A view of the
// root therefore lacks that of the steps that are present: it is applied to the view from
// their snapshots.

// HasScratch reports whether a step that is present has scratch in its snapshot.
func (sv *Survey) HasScratch(it *dag.Item) bool { return it.State == dag.Present && sv.scratch[it.Key] }

// SeesScratchOf reports whether the steps of a layer see the scratch of another: their own,
// and that of the layers that theirs is FROM. A layer that it is only composed after is
// none of them.
func SeesScratchOf(l, other *dag.Layer) bool { return slices.Contains(scratchLayers(l), other) }

func scratchLayers(l *dag.Layer) []*dag.Layer {
	layers := []*dag.Layer{l}
	for !l.Ordered && l.On != nil {
		l = l.On
		layers = append(layers, l)
	}
	return layers
}

// PlacesScratch reports whether the dest of a FETCH, COPY or WORKDIR is scratch, as it is
// written.
func PlacesScratch(s *dag.Step) bool {
	dest := ""
	switch in := s.Instr.(type) {
	case *frontend.Copy:
		dest = in.Dest
	case *frontend.Fetch:
		dest = in.Dest
	case *frontend.Workdir:
		dest = in.Path
	}
	return snapshot.IsScratch(strings.Trim(path.Clean(dest), "/"))
}

// AskScratch says that links lead to scratch by which a step of a layer is placed, or checked.
func (sv *Survey) AskScratch(l *dag.Layer) {
	if sv.asked == nil {
		sv.asked = make(map[*dag.Layer]bool)
	}
	sv.asked[l] = true
}

// seesScratch reports whether what is in scratch directories decides about an item that
// is not present: all says that it is not known where links lead.
func seesScratch(it *dag.Item, all bool) bool {
	switch {
	case it.State == dag.Present:
		return false
	case all:
		return true
	case it.Step.IsPlaced():
		return PlacesScratch(it.Step)
	}
	return it.State == dag.ToRun && it.Step.LooksAtRoot()
}

// WantedScratch returns the steps that are present, and whose scratch is seen by others
// that are not; all says that it may be seen through any link, where nobody asks for it
// later.
func (sv *Survey) WantedScratch(all bool) map[*dag.Step]bool {
	wanted := make(map[*dag.Step]bool)
	for i := range sv.Plan.Layers {
		pl := &sv.Plan.Layers[i]
		for j := range pl.Items {
			if seesScratch(&pl.Items[j], all || sv.asked[pl.Layer]) {
				sv.AddScratch(wanted, pl.Layer)
				break
			}
		}
	}
	return wanted
}

// AddScratch adds those steps that are present, and whose scratch a layer's steps see.
func (sv *Survey) AddScratch(wanted map[*dag.Step]bool, l *dag.Layer) {
	for _, l := range scratchLayers(l) {
		for _, s := range l.Steps {
			if sv.HasScratch(sv.Plan.Item(s)) {
				wanted[s] = true
			}
		}
	}
}
