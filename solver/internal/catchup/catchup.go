// Package catchup puts into stores what they lack of the layers on this machine: those
// that were built before a store was named, or while it could not be written.
package catchup

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/clayer/clayer/cache"
	"github.com/clayer/clayer/cache/transfer"
	"github.com/clayer/clayer/dag"
	"github.com/clayer/clayer/dag/key"
	"github.com/clayer/clayer/internal/sizes"
	"github.com/clayer/clayer/solver/report"
)

// A Pusher puts layers into stores.
type Pusher struct {
	From   cache.Store // has the snapshots; nil: there is none
	Memory Memory
	Again  bool // stores are asked, and tried, whatever is remembered of them
	Report *report.Reporter

	pushed atomic.Int64
}

// Pushed returns how many snapshots stores got.
func (p *Pusher) Pushed() int { return int(p.pushed.Load()) }

// errGone says that a snapshot can't be put anywhere.
var errGone = errors.New("no store on this machine has its snapshot any more; build the layer again")

// parallel is how many blobs are under way at a time.
const parallel = 8

// Push puts into a store what it lacks of the layers, and warns once of what is not
// there then. It fails only if ctx ends.
func (p *Pusher) Push(ctx context.Context, s cache.Store, layers []Layer) error {
	var short lack
	known := p.Memory.load(s.Location())
	before := maps.Clone(known)
	for _, l := range layers {
		if err := p.layer(ctx, s, l, known, &short); err != nil {
			return err
		}
	}
	if !maps.Equal(known, before) {
		p.Memory.store(s.Location(), known)
	}
	if short.why != nil {
		p.Report.StoreFailed(s.Name(), &short)
	}
	return nil
}

// layer puts one layer. It notes in known what the store has then.
func (p *Pusher) layer(ctx context.Context, s cache.Store, l Layer, known remembered, short *lack) error {
	m := &l.Manifest
	if p.restoredFrom(s, l) {
		known.set(m, answer{})
		return nil
	}
	had, fresh := known.get(m)
	fresh = fresh && !p.Again
	if fresh && had.complete() {
		return nil
	}
	locked := s.Writable()
	if fresh && (locked != nil || had.Refused != "") {
		short.add(m, had.Missing, cause(locked, had.Refused))
		return nil
	}
	missing, err := lacking(ctx, s, m)
	if err == nil && locked == nil {
		missing, err = p.put(ctx, s, l, missing)
	}
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case err != nil:
		if final(s, err) {
			known.set(m, answer{Missing: len(missing), Refused: err.Error()})
		}
		short.add(m, len(missing), err)
	default: // with a store that can't be written, only what it lacks is known
		known.set(m, answer{Missing: len(missing)})
		if len(missing) > 0 {
			short.add(m, len(missing), locked)
		}
	}
	return nil
}

// final reports whether the next solve would get the same error.
func final(s cache.Store, err error) bool {
	var secret *cache.SecretError
	return errors.Is(err, errGone) || errors.As(err, &secret) || s.Writable() != nil && !transfer.Unreachable(err)
}

// restoredFrom reports whether all of a layer has just been found in a store.
func (p *Pusher) restoredFrom(s cache.Store, l Layer) bool {
	if p.From != nil && s.Name() == p.From.Name() {
		return false // one name, two stores
	}
	for _, d := range l.Manifest.Steps {
		if l.From[d.Key] != s.Name() {
			return false
		}
	}
	return true
}

// lacking returns the steps of a layer of which a store has no snapshot for machines like
// this one.
func lacking(ctx context.Context, s cache.Store, m *cache.Manifest) (missing []cache.Descriptor, err error) {
	keys := make([]key.Key, len(m.Steps))
	for i, d := range m.Steps {
		keys[i] = d.Key
	}
	found, err := s.Find(ctx, m.Tag(), keys)
	var others []key.Key // of which it has another one
	for _, d := range m.Steps {
		f, ok := found[d.Key]
		switch {
		case !ok:
			missing = append(missing, d)
		case f.VariantID() != d.VariantID():
			others = append(others, d.Key)
		}
	}
	if len(others) == 0 || err != nil {
		return missing, err
	}
	all, err := s.Variants(ctx, m.Tag(), others)
	for _, d := range m.Steps {
		if slices.Contains(others, d.Key) && cache.Twin(d, all[d.Key]) == "" {
			missing = append(missing, d)
		}
	}
	return missing, err
}

// put puts what is missing, and the layer. It returns what is missing still.
func (p *Pusher) put(ctx context.Context, s cache.Store, l Layer, missing []cache.Descriptor) ([]cache.Descriptor, error) {
	if len(missing) > 0 {
		var bytes int64
		for _, d := range missing {
			bytes += d.Size
		}
		text := fmt.Sprintf("%s%s, %s", sizes.Count(len(missing), "step"), ofLayers(named(&l.Manifest)), sizes.Format(bytes))
		p.Report.Emit(report.Event{Kind: report.Pushing, Store: s.Name(), Text: text, Bytes: bytes})
	}
	var mu sync.Mutex
	var left []cache.Descriptor
	var errs []error
	eg, gctx := errgroup.WithContext(ctx)
	eg.SetLimit(parallel)
	for _, d := range missing {
		eg.Go(func() error {
			err := p.putStep(gctx, s, l.Steps[d.Key], d)
			if err != nil {
				mu.Lock()
				defer mu.Unlock()
				left, errs = append(left, d), append(errs, err)
			}
			return nil
		})
	}
	_ = eg.Wait()
	if len(errs) > 0 {
		return left, errs[0]
	}
	err := s.Complete(ctx, l.Manifest)
	if errors.Is(err, cache.ErrNotCached) && len(missing) == 0 {
		return nil, nil // it has each step, and of some a snapshot that another machine built
	}
	return nil, err
}

func (p *Pusher) putStep(ctx context.Context, s cache.Store, step *dag.Step, d cache.Descriptor) error {
	if p.From == nil {
		return errGone
	}
	start := time.Now()
	var b cache.Blob
	defer b.Close()
	err := cache.Fetch(ctx, p.From, d, &b)
	if errors.Is(err, cache.ErrNotCached) {
		return errGone
	}
	if err != nil {
		return err
	}
	p.Report.Emit(report.Event{Kind: report.Storing, Step: step, Bytes: d.Size})
	if err := s.Put(ctx, d, &b); err != nil {
		return err
	}
	p.pushed.Add(1)
	p.Report.Emit(report.Event{Kind: report.Stored, Step: step, Bytes: d.Size, Took: time.Since(start)})
	return nil
}

func cause(locked error, refused string) error {
	if locked != nil {
		return locked
	}
	return errors.New(refused)
}

// A lack says what a store does not have of layers, and why.
type lack struct {
	steps  int
	layers []string
	why    error // the first layer's
}

func (k *lack) add(m *cache.Manifest, steps int, why error) {
	if steps == 0 && why == nil {
		return
	}
	k.steps += steps
	k.layers = append(k.layers, named(m)...)
	if k.why == nil {
		k.why = why
	}
}

func (k *lack) Error() string {
	of := ofLayers(k.layers)
	what := sizes.Count(k.steps, "step") + of + " not there"
	if k.steps == 0 {
		what = "the list" + of + " is not there"
	}
	return fmt.Sprintf("%s: %v", what, k.why)
}

func (k *lack) Unwrap() error { return k.why }

// named returns the name of a layer, if it has one.
func named(m *cache.Manifest) []string {
	if m.Name == "" {
		return nil
	}
	return []string{m.Name}
}

func ofLayers(names []string) string {
	switch len(names) {
	case 0:
		return ""
	case 1:
		return " of layer " + names[0]
	}
	return " of layers " + strings.Join(names, ", ")
}
