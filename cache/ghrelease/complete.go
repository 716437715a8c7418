package ghrelease

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/opencontainers/go-digest"

	"github.com/clayer/clayer/cache"
	"github.com/clayer/clayer/cache/github"
	"github.com/clayer/clayer/dag/key"
	"github.com/clayer/clayer/internal/sizes"
)

// unique makes two drafts of one second differ.
func unique() string { return rand.Text()[:8] }

// maxSuffix is how many releases may ask for one tag.
const maxSuffix = 20

// Complete publishes the draft that has the layer's steps, with manifest.json
// in it, under the layer's tag. Steps of other releases are referred to; other
// drafts that have some are published too, without a manifest.
func (s *Store) Complete(ctx context.Context, m cache.Manifest) error {
	if known, whole := s.knows(m); whole {
		return nil
	} else if !known {
		// Nothing of it was put here, or found here: it came from a nearer
		// store, which needs no network.
		return fmt.Errorf("complete %s: %w", m.Tag(), cache.ErrNotCached)
	}
	done, err := s.write(ctx)
	if err != nil {
		return err
	}
	defer done()
	if err := s.ready(ctx); err != nil {
		return s.refuse(err)
	}
	for again := 4; ; again-- {
		if err = s.complete(ctx, m); err == nil {
			s.forgetAsked()
			return nil
		}
		if again > 0 && overtaken(err) {
			// Another session published or removed what we had in view, and may
			// have published this very layer.
			if err = s.listAgain(ctx); err == nil {
				continue
			}
		}
		return fmt.Errorf("complete %s: %w", m.Tag(), s.refuse(err))
	}
}

// forgetAsked forgets which manifests there were.
func (s *Store) forgetAsked() {
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.asked)
}

// overtaken reports whether an error may be due to what another session did since
// the releases were listed.
func overtaken(err error) bool {
	return github.Is(err, github.NotFound) || github.Is(err, github.Immutable) || errors.Is(err, github.ErrOtherBytes) ||
		errors.Is(err, errConflict) || errors.Is(err, errGone)
}

// errGone says that a step that was here is not any more.
var errGone = fmt.Errorf("%w: it was there a moment ago", cache.ErrNotCached)

// knows reports whether this session has met a step of the layer here, and
// whether it has met the layer as it is.
func (s *Store) knows(m cache.Manifest) (known, whole bool) {
	known = slices.ContainsFunc(m.Steps, func(d cache.Descriptor) bool { return s.met(d.Key) })
	s.mu.Lock()
	defer s.mu.Unlock()
	a, ok := s.asked[m.Tag()]
	if ok && a.err == nil {
		h := held{record: a.rec}
		whole = a.rec.Layer.Name == m.Name && a.rec.Layer.Key == m.Key && h.sameSteps(m)
	}
	return known, whole
}

// met reports whether this session has met a step here.
func (s *Store) met(k key.Key) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for at := range s.located {
		if at.key == k {
			return true
		}
	}
	return false
}

func (s *Store) complete(ctx context.Context, m cache.Manifest) error {
	beside := false
	for _, old := range s.wholes(m) {
		if old.sameSteps(m) {
			return nil
		}
		listed, _ := s.manifest(old)
		beside = beside || !old.Layer.Beside && m.Covers(listed)
	}
	places, err := s.places(m)
	if err != nil {
		return err
	}
	target, err := s.target(ctx, m, places)
	if err != nil {
		return err
	}
	rec := record{Name: m.Name, Steps: maps.Clone(target.Steps)}
	rec.Layer = &layer{Version: m.Version, Name: m.Name, Key: m.Key, Platform: m.Platform, Project: m.Project, From: m.From, Created: m.Created, Keys: []key.Key{}, LeftOut: m.LeftOut, Beside: beside}
	for i, d := range m.Steps {
		st := places[i].step
		st.Descriptor = d
		st.Tag = ""
		if places[i].id != target.ID {
			if st.Tag, err = s.shared(ctx, places[i]); err != nil {
				return err
			}
		}
		rec.Steps[d.Key] = &st
		rec.Layer.Keys = append(rec.Layer.Keys, d.Key)
	}
	return s.publish(ctx, m, target, rec)
}

// places returns where the steps of a layer are: in one release if one has them all,
// a published one if possible, so that what several sessions push at once is not
// made up of pieces of each.
func (s *Store) places(m cache.Manifest) ([]location, error) {
	var together []location
	for _, h := range s.all() {
		var list []location
		for _, d := range m.Steps {
			if st := h.Steps[d.Key]; st != nil && sameBytes(d)(st) && st.Tag == "" && h.has(st) {
				list = append(list, h.at(st))
			}
		}
		if len(list) == len(m.Steps) && len(list) > 0 && (together == nil || !h.Draft || together[0].tag == "") {
			together = list
		}
	}
	if together != nil {
		return together, nil
	}
	places := make([]location, len(m.Steps))
	for i, d := range m.Steps {
		loc, ok := s.lookup(d.Key, sameBytes(d))
		if !ok {
			err := cache.ErrNotCached
			if s.met(d.Key) {
				err = errGone
			}
			return nil, fmt.Errorf("step %s: %w", d.Key.Short(), err)
		}
		places[i] = loc
	}
	return places, nil
}

// wholes returns the releases of the layer.
func (s *Store) wholes(m cache.Manifest) []*held {
	return slices.DeleteFunc(s.all(), func(h *held) bool {
		if !h.whole() || h.Layer.Name != m.Name || h.Layer.Key != m.Key {
			return true
		}
		_, ok := s.manifest(h)
		return !ok
	})
}

// sameSteps reports whether a release's layer has the steps, and their bytes.
func (h *held) sameSteps(m cache.Manifest) bool {
	return slices.EqualFunc(h.Layer.Keys, m.Steps, func(k key.Key, d cache.Descriptor) bool {
		return k == d.Key && h.Steps[k] != nil && h.Steps[k].Digest == d.Digest
	})
}

// target returns the draft that becomes the layer's release: one that has
// steps of it, else a new one.
func (s *Store) target(ctx context.Context, m cache.Manifest, places []location) (*held, error) {
	for _, loc := range places {
		if loc.tag == "" {
			if h, err := s.release(ctx, loc); err == nil && len(h.Assets) < github.MaxAssets-1 {
				return h, nil
			}
		}
	}
	tag, title := m.Tag(), titleOf(m)+" ("+unique()+")"
	rec := record{Name: m.Name, Steps: make(map[key.Key]*step)}
	text, err := rec.body()
	if err != nil {
		return nil, err
	}
	r, err := s.gh.NewDraft(ctx, s.repo, github.Change{Tag: &tag, Title: &title, Body: &text})
	if err != nil {
		return nil, err
	}
	h := &held{*r, rec}
	s.remember(h)
	return h, nil
}

// titleOf says what a release is, so that a list of them is in order of time.
func titleOf(m cache.Manifest) string {
	name := m.Name
	if name == "" {
		name = "unnamed"
	}
	var size int64
	for _, d := range m.Steps {
		size += d.Size
	}
	return fmt.Sprintf("%s %s: %d steps, %s", m.Created.UTC().Format("2006-01-02 15:04:05"), name, len(m.Steps), sizes.Format(size))
}

// shared returns the tag under which others may read a step's files. A draft
// that has them is published for that.
func (s *Store) shared(ctx context.Context, loc location) (string, error) {
	if loc.tag != "" {
		return loc.tag, nil
	}
	h, err := s.release(ctx, loc)
	if err != nil {
		return "", err
	}
	if !h.Draft { // by now
		return h.Tag, nil
	}
	title := fmt.Sprintf("%s %s: further steps", loc.step.Created.UTC().Format("2006-01-02 15:04:05"), h.Name)
	return s.publishAs(ctx, h, cache.Tag(h.Name, loc.step.Key), github.Change{Title: &title})
}

// publishAs publishes a draft under the first of the tags tag, tag.2, ... that is
// free, and returns it. A tag that an immutable release had is never free again.
func (s *Store) publishAs(ctx context.Context, h *held, tag string, ch github.Change) (string, error) {
	for n := 1; n <= maxSuffix; n++ {
		try := tag
		if n > 1 {
			try = fmt.Sprintf("%s.%d", tag, n)
		}
		if s.taken(try, h) {
			continue
		}
		ch.Tag = &try
		r, err := s.gh.Publish(ctx, s.repo, h.ID, ch)
		switch {
		case err == nil:
			s.change(h, func(h *held) {
				assets := h.Assets
				h.Release = *r
				h.Assets = assets
			})
			return try, nil
		case github.Is(err, github.Exists):
			// Another session was faster. What it made is looked at by the caller.
			if other, err := s.gh.ReleaseByTag(ctx, s.repo, try); err == nil {
				if o, ok := hold(*other); ok {
					s.remember(o)
					return "", errConflict
				}
			}
		case !github.Is(err, github.UsedTag):
			return "", err
		}
	}
	return "", fmt.Errorf("all tags from %s to %s.%d are used", tag, tag, maxSuffix)
}

// errConflict says that another session published under the tag meanwhile.
var errConflict = errors.New("another session published it")

// taken reports whether a published release that is known has the tag.
func (s *Store) taken(tag string, but *held) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, h := range s.releases {
		if h != but && !h.Draft && h.Tag == tag {
			return true
		}
	}
	return false
}

// publish writes manifest.json and text of the draft and makes it the layer's
// release.
func (s *Store) publish(ctx context.Context, m cache.Manifest, h *held, rec record) error {
	if err := s.putManifest(ctx, h, rec); err != nil {
		return err
	}
	text, err := rec.body()
	if err != nil {
		return err
	}
	title := titleOf(m)
	change := github.Change{Title: &title, Body: &text}
	before := h.record
	s.change(h, func(h *held) { h.record = rec })
	tag, err := s.publishAs(ctx, h, m.Tag(), change)
	if errors.Is(err, errConflict) {
		if slices.ContainsFunc(s.wholes(m), func(h *held) bool { return h.sameSteps(m) }) {
			s.change(h, func(h *held) { h.record = before })
			return s.dropCopy(ctx, h)
		}
	}
	if err != nil {
		return err
	}
	if rec.Layer.Beside {
		return nil
	}
	if err := s.point(ctx, m, rec, tag); err != nil || tag == m.Tag() {
		return err
	}
	// A session that has the layer under its plain tag may just have dropped this, as a copy.
	if _, err := s.gh.Release(ctx, s.repo, h.ID); github.Is(err, github.NotFound) {
		return errors.Join(err, s.pointBack(ctx, m))
	}
	return nil
}

// putManifest uploads manifest.json; one that a killed session left is replaced.
func (s *Store) putManifest(ctx context.Context, h *held, rec record) error {
	data, err := rec.manifest()
	if err != nil {
		return err
	}
	p := part{manifestName, int64(len(data)), digest.FromBytes(data)}
	if old := h.asset(manifestName); old != nil {
		if old.Digest == p.Digest && old.Whole() {
			return nil
		}
		if err := s.removeAsset(ctx, h, old); err != nil {
			return err
		}
	}
	err = s.upload(ctx, h, p, bytes.NewReader(data))
	if errors.Is(err, github.ErrOtherBytes) {
		assets, aerr := s.gh.Assets(ctx, s.repo, h.ID)
		if aerr != nil {
			return aerr
		}
		s.change(h, func(h *held) { h.Assets = assets })
		if err := s.removeAsset(ctx, h, h.asset(manifestName)); err != nil {
			return err
		}
		err = s.upload(ctx, h, p, bytes.NewReader(data))
	}
	return err
}

func (s *Store) removeAsset(ctx context.Context, h *held, a *github.Asset) error {
	if a == nil {
		return nil
	}
	id := a.ID
	if err := s.gh.DeleteAsset(ctx, s.repo, id); err != nil {
		return err
	}
	s.change(h, func(h *held) {
		h.Assets = slices.DeleteFunc(slices.Clone(h.Assets), func(x github.Asset) bool { return x.ID == id })
	})
	return nil
}

// point has the release with the layer's plain tag, which readers ask first,
// lead to one that had to take another tag: a layer that was built again.
func (s *Store) point(ctx context.Context, m cache.Manifest, rec record, tag string) error {
	if tag == m.Tag() {
		return nil
	}
	for _, h := range s.plain(m) {
		led := record{Name: rec.Name, Layer: rec.Layer, Steps: make(map[key.Key]*step)}
		for k, st := range rec.Steps {
			far := *st
			far.Tag = cmp.Or(far.Tag, tag)
			led.Steps[k] = &far
		}
		if err := s.putManifest(ctx, h, led); err != nil {
			return err
		}
	}
	return nil
}

// pointBack takes point back: the plain release is what its text says.
func (s *Store) pointBack(ctx context.Context, m cache.Manifest) error {
	for _, h := range s.plain(m) {
		var err error
		if h.Layer == nil {
			err = s.removeAsset(ctx, h, h.asset(manifestName))
		} else {
			err = s.putManifest(ctx, h, h.record)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// plain returns the releases with the layer's plain tag that can be changed: one, or
// none.
func (s *Store) plain(m cache.Manifest) []*held {
	return slices.DeleteFunc(s.all(), func(h *held) bool { return h.Tag != m.Tag() || h.Draft || h.Immutable })
}

// dropCopy removes a draft that has nothing that is not published elsewhere, as it
// is by now: another session may have put something into it.
func (s *Store) dropCopy(ctx context.Context, h *held) error {
	r, err := s.gh.Release(ctx, s.repo, h.ID)
	if github.Is(err, github.NotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	now, ok := hold(*r)
	if !ok || !now.Draft {
		return nil
	}
	for k, st := range now.Steps {
		if loc, ok := s.elsewhere(k, st, h.ID, ""); !ok || loc.tag == "" {
			return nil
		}
	}
	if err := s.gh.Delete(ctx, s.repo, r); err != nil && !github.Is(err, github.NotFound) {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.releases, h.ID)
	return nil
}

// elsewhere finds a step in another published release than the one of that id, and
// the one of that tag.
func (s *Store) elsewhere(k key.Key, st *step, id int64, tag string) (location, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, o := range s.releases {
		if x := o.Steps[k]; o.ID != id && o.Tag != tag && x != nil && x.Digest == st.Digest && !o.Draft && o.has(x) {
			return o.at(x), true
		}
	}
	return location{}, false
}
