package dag

import (
	"slices"

	"github.com/opencontainers/go-digest"

	"github.com/clayer/clayer/dag/key"
)

// A step has a second key, which covers what the steps before it made in place of how they
// made it: it is the same where one of them was edited, or built again, and made the same.
// What a step looks at beside the root (ENV, ARG, the directory, the user) is among its own
// inputs, so that these are listed once for both keys. docs/keys.md has the whole of it.

// A Made is what a step made, as the second keys of those after it cover it. The zero Made is
// not known.
type Made struct {
	DiffID  digest.Digest // of its snapshot
	LeftOut bool          // it has none, since it changed nothing here: see cache.LeftOut
}

// A Chain is what the steps before one made. The zero Chain is not known, and neither is what
// follows it.
type Chain struct {
	made  key.Key
	steps bool // it has some: else a second key would say what the first one says
}

// Begin returns the chain of a layer on the bare root.
func (k *Keys) Begin() Chain { return Chain{made: k.base} }

// After returns the chain after a step that made m.
func (k *Keys) After(s *Step, before Chain, m Made) Chain {
	own := ""
	switch {
	case before.made.IsZero() || s.stored() != nil:
		return Chain{}
	case !s.ChangesRoot():
		if len(s.CacheBust) == 0 {
			return Chain{before.made, true}
		}
	case m.LeftOut:
		own = key.Sum("cutoff", s.inputs(key.Key{}, k.pin(s))).String()
	case m.DiffID == "":
		return Chain{}
	}
	return Chain{steps: true, made: key.Sum("made", func(w key.Writer) {
		w.Field(inPrevious, before.made.String())
		each(w, inCacheBust, s.CacheBust)
		option(w, "left-out", own)
		if own == "" && s.ChangesRoot() {
			w.Field("diffID", m.DiffID.String())
		}
	})}
}

// Cutoff returns the second key of a step; the zero Key where it has none.
func (k *Keys) Cutoff(s *Step, before Chain) key.Key {
	if before.made.IsZero() || !before.steps || !s.ChangesRoot() || s.stored() != nil {
		return key.Key{}
	}
	return key.Sum("cutoff", s.inputs(before.made, k.pin(s)))
}

// Until returns the chain before a step, by what made says of those before it.
func (k *Keys) Until(s *Step, made func(*Step) Made) Chain {
	return k.until(s.Layer, s.Index, made)
}

func (k *Keys) until(l *Layer, end int, made func(*Step) Made) Chain {
	c := k.Begin()
	if l.On != nil && !l.Ordered {
		c = k.until(l.On, len(l.On.Steps), made)
	}
	for _, s := range l.Steps[:end] {
		if c.made.IsZero() {
			return c
		}
		c = k.After(s, c, made(s))
	}
	return c
}

// pin returns what the source of a step is pinned to.
func (k *Keys) pin(s *Step) Pin {
	if s.Source == nil {
		return Pin{}
	}
	return k.pins[s.Source.ID]
}

// Differs returns the names of the inputs in which a step differs from that of a record,
// whatever the steps before them are.
func (k *Keys) Differs(s *Step, rec key.Record) []string {
	return slices.DeleteFunc(k.Record(s).Changed(rec), func(name string) bool { return name == inPrevious })
}
