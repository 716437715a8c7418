package dag

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/clayer/clayer/dag/key"
)

// history is what is known of a layer's earlier solve, to explain new keys by.
// The indices are made on first use: most plans have nothing to explain.
type history struct {
	keys  *Keys
	layer *Layer
	old   []Old

	byKey    map[key.Key]*Old
	byInputs map[string]*Old // by all inputs but the key before; the first of equals
	now      map[string]bool // the layer's steps today, likewise
}

// newHistory leaves out ENV steps, which no store lists.
func newHistory(keys *Keys, l *Layer, old []Old) *history {
	h := &history{keys: keys, layer: l}
	for _, o := range old {
		if o.Record.Get(inInstruction) != "ENV" {
			h.old = append(h.old, o)
		}
	}
	return h
}

// place returns how many steps that change the root stand before s in its layer.
func place(s *Step) (n int) {
	for _, before := range s.Layer.Steps[:s.Index] {
		if before.ChangesRoot() {
			n++
		}
	}
	return n
}

// inputsID is a record as text, without the key before it.
func inputsID(r key.Record) string {
	var b strings.Builder
	for _, in := range r {
		if in.Name != inPrevious && !in.Note {
			fmt.Fprintf(&b, "%s\x00%s\x00", in.Name, in.Value)
		}
	}
	return b.String()
}

func (h *history) index() {
	if h.byKey != nil {
		return
	}
	h.byKey = make(map[key.Key]*Old, len(h.old))
	h.byInputs = make(map[string]*Old, len(h.old))
	h.now = make(map[string]bool, len(h.layer.Steps))
	for i := range h.old {
		o := &h.old[i]
		h.byKey[o.Key] = o
		if id := inputsID(o.Record); h.byInputs[id] == nil {
			h.byInputs[id] = o
		}
	}
	for _, s := range h.layer.Steps {
		h.now[inputsID(h.keys.Record(s))] = true
	}
}

// changed reports whether the step of a key is known to have changed something.
func (h *history) changed(k key.Key) bool {
	h.index()
	o := h.byKey[k]
	return o != nil && o.Changed
}

// mayMatch reports whether an earlier solve had a step of the same inputs, whatever was before
// it, whose snapshot has a second key.
func (h *history) mayMatch(s *Step) bool {
	if len(h.old) == 0 {
		return false
	}
	h.index()
	o := h.byInputs[inputsID(h.keys.Record(s))]
	return o != nil && o.Cutoff && !o.Recoded
}

// whyMayMatch is why a step runs that is restored if those before it make what it was built on.
func whyMayMatch(s, broken *Step) string {
	if broken.Layer != s.Layer {
		return fmt.Sprintf("unless line %d of layer %s makes the same again", broken.Pos().Line, broken.Layer.Name)
	}
	return fmt.Sprintf("unless line %d makes the same again", broken.Pos().Line)
}

// NotBuilt is why a step runs of whose layer no earlier solve is known.
const NotBuilt = "not built yet"

// EncodingChanged is why a step runs that was built before clayer computed keys as it
// does now. What is cached or applied under the old key cannot be found by the new one.
const EncodingChanged = "the encoding of keys changed"

// recoded returns the step of the earlier solve that stood in the place of s,
// if its key is of another encoding.
func (h *history) recoded(s *Step) *Old {
	if i := place(s); i < len(h.old) && h.old[i].Recoded {
		return &h.old[i]
	}
	return nil
}

// explain says why a step has to run, by the step of the earlier solve that it
// most likely was, and how long that one took (0 if unknown). unused is why it runs
// though a store has it; "" for one that no store has.
func (h *history) explain(s *Step, k key.Key, unused string) (why string, took time.Duration) {
	if len(h.old) == 0 {
		return cmp.Or(unused, NotBuilt), 0
	}
	h.index()
	if o := h.byKey[k]; o != nil {
		switch {
		case unused != "":
			return unused, o.Took
		case o.LeftOut:
			return "in no store, since it installed nothing", o.Took
		}
		return "no longer cached", o.Took
	}
	if unused != "" {
		return unused, 0
	}
	if o := h.recoded(s); o != nil {
		return EncodingChanged, o.Took
	}
	rec := h.keys.Record(s)

	// The same inputs but for the key before it: something before it changed.
	if o := h.byInputs[inputsID(rec)]; o != nil {
		switch {
		case s.Index > 0:
			return fmt.Sprintf("key of line %d changed", s.Layer.Steps[s.Index-1].Pos().Line), o.Took
		case h.old[0].Key != o.Key:
			return "moved to the front", o.Took
		case s.Layer.On != nil && !s.Layer.Ordered:
			return fmt.Sprintf("key of layer %s changed", s.Layer.On.Name), o.Took
		}
		return "platform, salt or base id changed", o.Took
	}

	// Otherwise the step that stood in the same place, unless that one still
	// stands somewhere in the layer: then this one is new.
	if i := place(s); i < len(h.old) {
		o := &h.old[i]
		if o.Record.Get(inInstruction) == rec.Get(inInstruction) && !h.now[inputsID(o.Record)] {
			return whatChanged(s, rec.Changed(o.Record)), o.Took
		}
	}
	return "new", 0
}

// whyUnused explains why a cached step is not restored: a step before it runs, and may have
// another result, or the root lacks what its snapshot needs.
func (a *Answers) whyUnused(k key.Key, broken *Step) string {
	if broken != nil {
		return fmt.Sprintf("cached, but line %d runs before it", broken.Pos().Line)
	}
	return "cached, but " + a.Unmet[k]
}

// whatChanged says in a few words which inputs of a step changed.
func whatChanged(s *Step, names []string) string {
	names = slices.DeleteFunc(names, func(n string) bool { return n == inPrevious })
	for i, n := range names {
		switch {
		case n == inCommand:
			return s.Word() + " changed"
		case n == inContent && (s.Word() == "COPY" || s.Word() == "RUN"):
			names[i] = "files"
		}
	}
	if len(names) == 0 || len(names) > 3 {
		return s.Word() + " changed"
	}
	return strings.Join(names, ", ") + " changed"
}
