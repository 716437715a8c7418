package survey

import (
	"slices"

	"github.com/opencontainers/go-digest"

	"github.com/clayer/clayer/cache"
	"github.com/clayer/clayer/dag"
	"github.com/clayer/clayer/dag/key"
	"github.com/clayer/clayer/solver/internal/record"
)

// BuiltOn returns the digest of the snapshot that a step stands on: of the last step before
// it in its chain that looks at the root, and of which snapshot returns one. "": of none. A
// step that does not look at the root stands on nothing.
func BuiltOn(s *dag.Step, snapshot func(*dag.Step) digest.Digest) digest.Digest {
	if !s.LooksAtRoot() {
		return ""
	}
	l, steps := s.Layer, s.Layer.Steps[:s.Index]
	for {
		for _, before := range slices.Backward(steps) {
			if before.LooksAtRoot() {
				if d := snapshot(before); d != "" {
					return d
				}
			}
		}
		if l.On == nil || l.Ordered {
			return ""
		}
		l = l.On
		steps = l.Steps
	}
}

// MadeOf returns what a step made that is in the root: nothing that counts where it found
// something else than its chain describes.
func MadeOf(a record.Applied) dag.Made {
	switch {
	case a.Differs:
		return dag.Made{}
	case a.LeftOut:
		return dag.Made{LeftOut: true}
	}
	return dag.Made{DiffID: a.DiffID}
}

// Made returns what a step makes that the root has, or that is restored.
func (sv *Survey) Made(s *dag.Step, keys *dag.Keys) dag.Made {
	k := keys.Step[s]
	switch {
	case sv.Answers.Present[s]:
		return MadeOf(sv.Applied(k))
	case sv.Answers.Unmet[k] != "":
		return dag.Made{}
	}
	return dag.Made{DiffID: sv.Found[k].DiffID}
}

// Changing returns the digest of a snapshot, and "" of one that changes nothing: what
// follows it stands on the one before.
func Changing(d cache.Descriptor) digest.Digest {
	if d.Entries == 0 {
		return ""
	}
	return d.Digest
}

// Snapshot returns the digest of what a step is restored from, or was applied from; "" if it
// is to run, changes nothing, or is in no store.
func (sv *Survey) Snapshot(s *dag.Step, keys *dag.Keys) digest.Digest {
	k := keys.Step[s]
	if sv.Answers.Present[s] {
		a := sv.Applied(k)
		if a.LeftOut {
			return ""
		}
		return Changing(cache.Descriptor{Digest: a.Digest, Entries: a.Entries})
	}
	if sv.Answers.Unmet[k] != "" {
		return ""
	}
	return Changing(sv.Found[k].Descriptor)
}

// Choose has a cached step restored from another snapshot. What it needs is checked when it
// is applied.
func (sv *Survey) Choose(k key.Key, f cache.Found) {
	sv.Find(k, f)
	sv.Late[k] = len(f.Needs) > 0
}

// Find notes which snapshot a store has of a step, by its first key.
func (sv *Survey) Find(k key.Key, f cache.Found) {
	sv.Found[k] = f
	sv.Answers.Cached[k] = FoundOf(f)
}

// FoundOf is what a plan says of a snapshot that a store has.
func FoundOf(f cache.Found) dag.Found {
	return dag.Found{Store: f.Store, Size: f.Size, Variant: f.Variant, ByContent: f.ByContent(), Cutoff: !f.Cutoff.IsZero()}
}

// CoveredLayers returns the layers whose steps the keys of a layer's steps cover.
func CoveredLayers(l *dag.Layer) map[*dag.Layer]bool {
	chain := make(map[*dag.Layer]bool)
	for ; l != nil; l = l.On {
		chain[l] = true
		if l.Ordered {
			break
		}
	}
	return chain
}

// Covered returns the steps before one that its key covers, in order.
func (sv *Survey) Covered(s *dag.Step) []*dag.Item {
	chain := CoveredLayers(s.Layer)
	return slices.DeleteFunc(slices.Clone(sv.Before(s)), func(it *dag.Item) bool { return !chain[it.Step.Layer] })
}
