// Package sharedmounts puts the content of cache mounts (RUN --mount=type=cache) into stores,
// so that RUNs on a new machine find what package managers downloaded on another one.
//
// The content of a mount is packed as a snapshot. It is stored under a key of the mount's id
// and the machine's platform, which no step has, as the only step of a manifest that is no
// layer. No key and no snapshot of a step depends on it. Of several contents the newest
// counts: it takes the place of the one before.
package sharedmounts

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/clayer/clayer/cache"
	"github.com/clayer/clayer/dag/key"
	"github.com/clayer/clayer/internal/order"
	"github.com/clayer/clayer/solver/machine"
)

// What a record says of the content of a mount.
const (
	recordID       = "cache mount"
	recordPlatform = "platform"
	recordContent  = "content"
)

// Platform returns what mounts of one id differ by: what is downloaded for one distribution is
// of no use on another one.
func Platform(ctx context.Context) string { return machine.Platform(ctx, "/", "") }

// keyOf returns the key under which stores have a mount.
func keyOf(id, platform string) key.Key {
	return key.Sum("cache mount", func(w key.Writer) {
		w.Field("id", id)
		w.Field(recordPlatform, platform)
	})
}

// manifestOf returns the manifest that lists the content of a mount. Its key depends on the
// content: a store that cannot change what it has lists the next one beside it.
func manifestOf(d cache.Descriptor, platform string) cache.Manifest {
	return cache.Manifest{
		Version: cache.Version, Name: d.Layer, Platform: platform, Steps: []cache.Descriptor{d}, Created: d.Created,
		Key: key.Sum("content of a cache mount", func(w key.Writer) {
			w.Field("mount", d.Key.String())
			w.Field(recordContent, contentOf(d))
		}),
	}
}

// nameOf returns the name of a mount's manifests: its id, as far as names of tags allow.
func nameOf(id string) string {
	const most = 40
	name := strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= '0' && r <= '9', r == '_', r == '-':
			return r
		}
		return '-'
	}, strings.ToLower(id))
	name = strings.Trim(name, "-_")
	return cache.MountPrefix + cmp.Or(strings.Trim(name[max(0, len(name)-most):], "-_"), "cache")
}

func recordOf(id, platform, content string) key.Record {
	return key.Record{{Name: recordID, Value: id}, {Name: recordPlatform, Value: platform}, {Name: recordContent, Value: content}}
}

func recorded(d cache.Descriptor, name string) string {
	for _, in := range d.Record {
		if in.Name == name {
			return in.Value
		}
	}
	return ""
}

// contentOf returns what two packed mounts have in common that differ in times at most.
func contentOf(d cache.Descriptor) string {
	return cmp.Or(recorded(d, recordContent), d.Digest.String())
}

// A Stored mount is one that a store has.
type Stored struct {
	ID       string    `json:"id"`
	Platform string    `json:"platform"`
	Store    string    `json:"store"`
	Size     int64     `json:"size"`  // bytes of the packed content
	Bytes    int64     `json:"bytes"` // of the files
	Files    int       `json:"entries"`
	Created  time.Time `json:"created"`

	manifest cache.Manifest
}

// storedOf reads the manifest of a mount. What a store says must agree with itself: an id
// that is not that of the key is none.
func storedOf(m cache.Manifest, store string) (Stored, bool) {
	if !m.IsMount() || len(m.Steps) != 1 {
		return Stored{}, false
	}
	d := m.Steps[0]
	s := Stored{ID: recorded(d, recordID), Platform: recorded(d, recordPlatform), Store: store, Size: d.Size, Bytes: d.Bytes, Files: d.Entries, Created: d.Created, manifest: m}
	return s, s.ID != "" && keyOf(s.ID, s.Platform) == d.Key && nameOf(s.ID) == m.Name
}

// List returns the mounts that a store has, the newest first: of each id and platform the
// content that counts.
func List(ctx context.Context, s cache.Store) ([]Stored, error) {
	all, _, err := list(ctx, s)
	return all, err
}

// list returns the mounts, and manifests of content that newer one has replaced.
func list(ctx context.Context, s cache.Store) (all []Stored, old []cache.Manifest, err error) {
	ms, err := s.List(ctx)
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", s.Name(), err)
	}
	order.Stable(ms, cache.NewestFirst)
	seen := make(map[key.Key]bool)
	for _, m := range ms {
		st, ok := storedOf(m, s.Location())
		switch {
		case !ok:
		case seen[m.Steps[0].Key]:
			old = append(old, m)
		default:
			seen[m.Steps[0].Key] = true
			all = append(all, st)
		}
	}
	return all, old, nil
}

// Remove removes mounts from a store by their ids, of all platforms. It returns those that
// were there, and how many bytes that freed.
func Remove(ctx context.Context, s cache.Store, ids []string) (removed []Stored, freed int64, err error) {
	all, old, err := list(ctx, s)
	if err != nil {
		return nil, 0, err
	}
	var ms []cache.Manifest
	for _, st := range all {
		if slices.Contains(ids, st.ID) {
			removed, ms = append(removed, st), append(ms, st.manifest)
		}
	}
	for _, m := range old {
		if slices.Contains(ids, recorded(m.Steps[0], recordID)) {
			ms = append(ms, m)
		}
	}
	if len(ms) == 0 {
		return nil, 0, nil
	}
	if freed, err = s.Remove(ctx, ms); err != nil {
		err = fmt.Errorf("%s: %w", s.Name(), err)
	}
	return removed, freed, err
}

// removeOld removes content of a mount that is older than what a manifest lists. A store that
// cannot remove anything has bounds of its own.
func removeOld(ctx context.Context, s cache.Store, m cache.Manifest) error {
	ms, err := s.List(ctx)
	if errors.Is(err, cache.ErrUnlisted) {
		return nil
	}
	if err != nil {
		return err
	}
	ms = slices.DeleteFunc(ms, func(o cache.Manifest) bool {
		return !o.IsMount() || len(o.Steps) != 1 || o.Steps[0].Key != m.Steps[0].Key || o.Key == m.Key || o.Created.After(m.Created)
	})
	if len(ms) == 0 {
		return nil
	}
	_, err = s.Remove(ctx, ms)
	return err
}

// find returns what a store has of a mount.
func find(ctx context.Context, s cache.Store, k key.Key) (cache.Descriptor, error) {
	found, err := s.Find(ctx, "", []key.Key{k})
	if f, ok := found[k]; ok {
		return f.Descriptor, nil
	}
	if err == nil {
		err = cache.ErrNotCached
	}
	return cache.Descriptor{}, err
}
