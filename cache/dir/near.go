package dir

import (
	"cmp"
	"context"
	"slices"

	"github.com/clayer/clayer/cache"
	"github.com/clayer/clayer/cache/delta"
	"github.com/clayer/clayer/internal/order"
)

const (
	nearLayers = 4 // how many layers of a name are looked at
	nearAlike  = 8 // how many snapshots of them, by their instructions
	nearLarge  = 4 // how many beside, by size: instructions are split and joined
)

// Near returns the snapshots of the newest layers of the same name whose instructions are
// most like that of a descriptor, and the largest ones.
func (d *Dir) Near(ctx context.Context, desc cache.Descriptor) []delta.Source {
	older := d.older(ctx, desc.Layer)
	var all []delta.Source
	add := func(most int) {
		for _, o := range older[:min(most, len(older))] {
			all = append(all, delta.Source{Frames: o.Frames, Size: o.Size, Open: func() (delta.File, error) { return d.openOlder(o) }})
		}
		older = older[min(most, len(older)):]
	}
	order.Stable(older, func(a, b cache.Descriptor) int {
		return cmp.Compare(alike(b.Text, desc.Text), alike(a.Text, desc.Text))
	})
	add(nearAlike)
	order.Stable(older, func(a, b cache.Descriptor) int { return cmp.Compare(b.Size, a.Size) })
	add(nearLarge)
	return all
}

// alike returns how many bytes two texts begin with that are the same.
func alike(a, b string) (n int) {
	for n < min(len(a), len(b)) && a[n] == b[n] {
		n++
	}
	return n
}

// older returns the snapshots with known frames of the newest layers of a name, as they were
// when the process first asked.
func (d *Dir) older(ctx context.Context, name string) []cache.Descriptor {
	d.nearMu.Lock()
	defer d.nearMu.Unlock()
	if known, ok := d.near[name]; ok {
		return slices.Clone(known)
	}
	var all []cache.Descriptor
	seen := make(map[string]bool)
	for _, m := range d.newest(ctx, name) {
		for _, o := range m.Steps {
			if len(o.Frames) > 0 && valid(o.Digest) && !seen[string(o.Digest)] {
				seen[string(o.Digest)] = true
				o.Record, o.Needs = nil, nil
				all = append(all, o)
			}
		}
	}
	if d.near == nil {
		d.near = make(map[string][]cache.Descriptor)
	}
	d.near[name] = all
	return slices.Clone(all)
}

// newest returns the newest layers of a name, as far as they can be read.
func (d *Dir) newest(ctx context.Context, name string) (ms []cache.Manifest) {
	root, err := d.root()
	if err != nil {
		return nil
	}
	defer root.Close()
	idx, _ := readIndex(root) // what is damaged is listed as far as it goes
	if idx == nil {
		return nil
	}
	for _, e := range slices.Backward(idx.Manifests) { // what was completed last is last
		if len(ms) == nearLayers || ctx.Err() != nil {
			break
		}
		if !e.mayBeLayer() || !isTagOf(e.tag(), name) {
			continue
		}
		if m, err := readManifest(root, e.Descriptor); err == nil && m.Name == name {
			ms = append(ms, m)
		}
	}
	return ms
}

// isTagOf reports whether a tag is that of a layer of a name.
func isTagOf(tag, name string) bool {
	begin := "layer-"
	if name != "" {
		begin += name + "-"
	}
	return len(tag) == len(begin)+16 && tag[:len(begin)] == begin
}

func (d *Dir) openOlder(desc cache.Descriptor) (delta.File, error) {
	root, err := d.root()
	if err != nil {
		return nil, err
	}
	defer root.Close()
	return openBlob(root, desc)
}
