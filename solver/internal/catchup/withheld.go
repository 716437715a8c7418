package catchup

import (
	"context"
	"errors"

	"github.com/clayer/clayer/cache"
	"github.com/clayer/clayer/dag"
	"github.com/clayer/clayer/dag/key"
	"github.com/clayer/clayer/frontend"
)

// Withhold stops the layers of the plan that hold a credential, as far as that is known: all
// of a layer, as later steps of it may have copied it, and what builds on one where it can't
// be searched. A stage is noted as a whole: what copies from it knows its last key.
func (l Listing) Withhold() {
	if l.Withheld.IsEmpty() {
		return
	}
	holds := make(map[*dag.Layer]*cache.SecretError)
	for i := range l.Plan.Layers {
		pl := &l.Plan.Layers[i]
		var own *cache.SecretError
		for _, it := range pl.Items {
			if own = l.Withheld.Has(it.Key); own != nil {
				break
			}
		}
		why := own
		if why == nil {
			why = holds[pl.Layer.On]
		}
		if why == nil {
			continue
		}
		holds[pl.Layer] = why
		if own != nil && !own.Unsearched || !l.Withheld.Searches(why.Name) {
			l.Withheld.Stop(pl.Layer.Name, &cache.SecretError{Path: why.Path, Name: why.Name, Unsearched: why.Unsearched || own == nil})
		}
		if l.IsStage {
			l.Withheld.Suspect(pl.Key, why)
		}
	}
}

// A Store puts what a solve builds of a plan. Layers of a shortfall are not listed in it:
// what is known of them is the key of a part.
type Store struct {
	*cache.Tier
	Listing Listing
}

// Put notes what the snapshot holds of credentials, whichever store gets it.
func (s Store) Put(ctx context.Context, d cache.Descriptor, b *cache.Blob) error {
	secret := (*cache.SecretError)(nil)
	if err := s.Listing.Withheld.Examine(ctx, d, b); err != nil && !errors.As(err, &secret) {
		return err
	}
	if why := s.copies(ctx, d.Key); why != nil && !s.Listing.Withheld.Searches(why.Name) {
		s.Listing.Withheld.Suspect(d.Key, why)
		if second, ok := d.Second(); ok {
			s.Listing.Withheld.Suspect(second.Key, why)
		}
	}
	s.Listing.Withhold()
	return s.Tier.Put(ctx, d, b)
}

// copies returns what is known of the stages that a step copies from, or mounts.
func (s Store) copies(ctx context.Context, k key.Key) *cache.SecretError {
	if s.Listing.Withheld.IsEmpty() {
		return nil
	}
	for i := range s.Listing.Plan.Layers {
		for _, it := range s.Listing.Plan.Layers[i].Items {
			if it.Key != k {
				continue
			}
			for _, f := range frontend.Uses(it.Step.Instr) {
				last, err := s.Listing.Last(ctx, f)
				if err != nil {
					continue // it was built: its key is known
				}
				k, err := key.Parse(last.Encoded())
				if err != nil {
					continue
				}
				if why := s.Listing.Withheld.Has(k); why != nil {
					return why
				}
			}
		}
	}
	return nil
}

// Complete lists a layer that is whole.
func (s Store) Complete(ctx context.Context, m cache.Manifest) error {
	s.Listing.Withhold()
	if !s.Listing.Lists(&m) {
		return nil
	}
	return s.Tier.Complete(ctx, m)
}
