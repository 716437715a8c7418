package cache

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"slices"

	"github.com/opencontainers/go-digest"
)

// MaxVariants is how many snapshots a store has under one key: a machine may differ from
// the one that built a step in what the snapshot needs, and builds one of its own.
const MaxVariants = 4

// AllVariants as Descriptor.Replaces is for a step that was built again on purpose.
const AllVariants digest.Digest = "*"

// VariantID names what makes a snapshot differ from the others under its key: what it was built on
// and what it needs. Two that are equal in that are of use to the same machines.
func (d Descriptor) VariantID() string {
	data, err := json.Marshal(struct {
		On    digest.Digest `json:"on"`
		Needs []Need        `json:"needs"`
	}{d.On, d.Needs})
	if err != nil {
		panic("cache: " + err.Error()) // structs of plain values
	}
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:8])
}

// Variants is what a store has under one key, the first snapshot first.
type Variants []Descriptor

// Place returns what a Put of d does: d takes the place of the i-th snapshot, or follows
// the last one if i is their number. It reports false where d is not stored.
//
//   - What d says to replace is replaced, and so is what is recorded of another step.
//   - A snapshot of the same variant stays: what was built on it would have no use.
//   - Where there are fewer than MaxVariants, d is added.
//   - Otherwise the oldest gives way, but for the first: earlier programs know no other.
func (v Variants) Place(d Descriptor) (i int, stores bool) {
	if d.Replaces == AllVariants {
		return 0, true
	}
	if d.Replaces != "" {
		if i := slices.IndexFunc(v, func(o Descriptor) bool { return o.Digest == d.Replaces }); i >= 0 {
			return i, true
		}
	}
	if i := slices.IndexFunc(v, func(o Descriptor) bool {
		return len(o.Record) > 0 && len(d.Record) > 0 && len(o.Record.Changed(d.Record)) > 0
	}); i >= 0 {
		return i, true
	}
	if len(v) == 0 {
		return 0, true
	}
	id := d.VariantID()
	if i := slices.IndexFunc(v, func(o Descriptor) bool { return o.VariantID() == id }); i >= 0 {
		return i, v[i].Digest == d.Digest && v[i].Size == d.Size
	}
	if len(v) < MaxVariants {
		return len(v), true
	}
	oldest := 1
	for i := 2; i < MaxVariants; i++ {
		if v[i].Created.Before(v[oldest].Created) {
			oldest = i
		}
	}
	return oldest, true
}

// Twin returns the digest of the snapshot that a store, which has these, has for machines
// that d is for: that of d itself, or of other bytes. "": it has none.
func Twin(d Descriptor, there []Found) digest.Digest {
	id := d.VariantID()
	if i := slices.IndexFunc(there, func(f Found) bool { return f.VariantID() == id }); i >= 0 {
		return there[i].Digest
	}
	return ""
}

// Covers reports whether a complete layer that a store has stays where m is to be listed
// under its tag: it has the same steps, of which m may name other variants.
func (m *Manifest) Covers(listed Manifest) bool {
	return listed.Name == m.Name && listed.Version == m.Version &&
		slices.EqualFunc(listed.Steps, m.Steps, func(a, b Descriptor) bool {
			return a.Key == b.Key && (b.Replaces == "" || a.Digest == b.Digest)
		})
}
