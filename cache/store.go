// Package cache says what a store of snapshots is, and holds the policies that
// work on any store: several stores in order, verification, retention.
//
// A Store has the snapshot of a step under its chain key, as a Descriptor and a
// Blob, and the Manifest of each layer that is complete. Packages dir, ghrelease
// and oci are stores; package storetest has the suite that a store passes. Stores
// around stores add the rest: Tiered asks several, the nearest first, and Guarded
// lets no credential leave the machine.
//
// A Blob is a snapshot on its way from a store, or to one. Nothing of it is to be
// used before it is verified: function Fetch returns it so.
package cache

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/clayer/clayer/cache/delta"
	"github.com/clayer/clayer/cache/snapshot"
	"github.com/clayer/clayer/cache/snapshot/frames"
	"github.com/clayer/clayer/dag/key"
)

// Version is that of the descriptors and manifests that this program writes, and the
// encoding of their keys. docs/format.md describes it. What has a higher one is for a
// later program; what has none is of the first.
const Version = key.Encoding

// A Descriptor says what a store holds under a key.
type Descriptor struct {
	Version int           `json:"version,omitempty"`
	Key     key.Key       `json:"key"`
	Layer   string        `json:"layer,omitempty"`  // the name of the layer it was made for; "" for an unnamed one
	Digest  digest.Digest `json:"digest"`           // of the blob
	Size    int64         `json:"size"`             // bytes of the blob
	CRC32C  uint32        `json:"crc32c,omitempty"` // of the blob; 0: not known
	DiffID  digest.Digest `json:"diffID"`           // of the uncompressed tar stream, as OCI image configs have it
	Entries int           `json:"entries"`          // how many changes it holds; 0: the step changed nothing
	Bytes   int64         `json:"bytes"`            // bytes of file content, unpacked
	Record  key.Record    `json:"record,omitempty"`
	Text    string        `json:"text,omitempty"` // the instruction, as people read it; never with secrets in it
	Took    time.Duration `json:"took,omitempty"` // how long the step ran
	Created time.Time     `json:"created"`

	// Needs is what the snapshot took from outside of itself and of the steps that its
	// key covers. nil: nobody noted it, as of snapshots of earlier programs.
	Needs []Need `json:"needs,omitzero"`

	// On is the digest of the snapshot that it was built on: of the last step before it in
	// its chain that looks at the root. "": of none, or nobody noted it.
	On digest.Digest `json:"on,omitempty"`

	// Frames lists the frames of the blob. It is a hint for who has some of them already,
	// and is verified by no store. nil: not known.
	Frames frames.List `json:"frames,omitempty"`

	// Cutoff is a second key, which covers the DiffIDs of the steps before it in place of
	// their keys. A snapshot that was found by it has it as its Key, too. Zero: it has none.
	Cutoff key.Key `json:"cutoff,omitzero"`

	// Replaces is the digest of a snapshot of the key that turned out to be of no use, or
	// AllVariants: what a Put of this one takes the place of. No store has it.
	Replaces digest.Digest `json:"-"`
}

// ByContent reports whether the snapshot was found by its second key.
func (d Descriptor) ByContent() bool { return d.Key == d.Cutoff && !d.Key.IsZero() }

// Second returns what a store has of the snapshot under its second key; false where it has
// nothing there.
func (d Descriptor) Second() (Descriptor, bool) {
	if d.Cutoff.IsZero() || d.ByContent() {
		return d, false
	}
	d.Key = d.Cutoff
	return d, true
}

// keys returns those that the snapshot is found by.
func (d Descriptor) keys() []key.Key {
	if _, ok := d.Second(); !ok {
		return []key.Key{d.Key}
	}
	return []key.Key{d.Key, d.Cutoff}
}

// A Nearby is a store that has its blobs at hand.
type Nearby interface {
	// Near returns blobs that may have frames of that of d: older ones of its layer, the
	// likeliest first.
	Near(ctx context.Context, d Descriptor) []delta.Source
}

// A Need is one of the things that a snapshot takes from the root that it is applied to.
type Need = snapshot.Need

// A Manifest lists the steps of a layer in order: a layer that is complete.
type Manifest struct {
	Version  int          `json:"version,omitempty"`
	Name     string       `json:"name,omitempty"`    // "" for an unnamed layer
	Key      key.Key      `json:"key"`               // the layer's last chain key
	Platform string       `json:"platform"`          // as dag.Base writes it; "linux/amd64 debian 12 python3.11"
	Project  string       `json:"project,omitempty"` // whose layer it is, "owner/repo"; "": not known
	From     key.Key      `json:"from,omitzero"`     // the key of the layer that it builds on by FROM; zero for none
	Steps    []Descriptor `json:"steps"`
	LeftOut  []LeftOut    `json:"leftOut,omitempty"` // in order
	Created  time.Time    `json:"created"`
	Store    string       `json:"-"` // of those that a Tier lists: the name of the store that has it
}

// A LeftOut is a step of a layer that has no snapshot in any store: a package manager
// found its packages, so that a snapshot would install nothing elsewhere. A session
// that restores the layer runs it. It is not in Steps, so that a program that knows
// nothing of it has the other steps, and runs it as one that is not cached.
type LeftOut struct {
	Key    key.Key       `json:"key"`
	Index  int           `json:"index"` // how many steps of the layer, these ones included, are before it
	Record key.Record    `json:"record,omitempty"`
	Text   string        `json:"text,omitempty"`
	Took   time.Duration `json:"took,omitempty"`
}

// BoundFrames leaves out all lists of frames where they would take half of the 4 MiB that
// some stores have for a manifest: those of some 40,000 frames, or 80 GB unpacked.
func (m *Manifest) BoundFrames() {
	n := 0
	for i := range m.Steps {
		n += len(m.Steps[i].Frames)
	}
	if n <= 3<<19 { // in base64 a third more
		return
	}
	for i := range m.Steps {
		m.Steps[i].Frames = nil
	}
}

// Tag returns the manifest's name in a store: layer-<name>-<key16>, and
// layer-<key16> for an unnamed layer.
func (m *Manifest) Tag() string { return Tag(m.Name, m.Key) }

// Tag returns the name under which a layer is known in a store.
func Tag(name string, k key.Key) string {
	if name == "" {
		return "layer-" + k.Short()
	}
	return "layer-" + name + "-" + k.Short()
}

// MountPrefix is what the names of manifests begin with that are no layers: each has the
// content of a cache mount as its only step. No layer has such a name.
const MountPrefix = "mount."

// IsMount reports whether the manifest is of a cache mount.
func (m *Manifest) IsMount() bool { return strings.HasPrefix(m.Name, MountPrefix) }

// ErrNotCached says that a store does not hold, or no longer holds, what was
// asked for. A blob that is corrupt counts as not there.
var ErrNotCached = errors.New("not cached")

// ErrUnread says that what a store has could not be read: it may be good, and nothing is
// to take its place.
var ErrUnread = errors.New("could not be read")

// ErrReadOnly says that nothing can ever be put into a store, or removed from it, since it
// is of a kind that is only read. Nobody has to be warned of that.
var ErrReadOnly = errors.New("this store is read-only")

// ErrUnlisted says that a store has no list of what is in it: it finds a step by its key,
// lists no layers, and removes none.
var ErrUnlisted = errors.New("this store cannot list or remove what it has")

// Found is what a store has under a key.
type Found struct {
	Descriptor
	Store   string // the name of the store that has it
	Variant int    // which of several snapshots under its key, as Variants lists them, from 2; 0: the one that Find returns
}

// Store has snapshots, found by chain key, and lists the layers that they make up. Its
// methods are safe for concurrent use, also by several processes.
type Store interface {
	// Name is how the store is called in output: "dir", "github", "oci".
	Name() string

	// Location is where it is; no two stores of a user have the same:
	// "github:owner/repo".
	Location() string

	// Writable returns why nothing can be put into it, as far as that is known
	// without a request; nil if it is worth trying, ErrReadOnly if it never is.
	Writable() error

	// Find reports which of the keys it has, in one round trip where it can.
	// tag is a hint: that of the layer which the keys belong to, as Tag
	// returns it. The answer may be in part beside an error. Of several snapshots of
	// a key it returns one: the first, or that which the layer of the tag has, all of which
	// it may return. What is found by its second key has that as its Key.
	Find(ctx context.Context, tag string, keys []key.Key) (map[key.Key]Found, error)

	// Variants returns all snapshots that it has under the keys, first the one that
	// Find returns. It may take requests for each key: it is for keys of which that
	// one is of no use here. The answer may be in part beside an error.
	Variants(ctx context.Context, tag string, keys []key.Key) (map[key.Key][]Found, error)

	// Fetch fills b, which is not verified, with the bytes of d. A nil error means
	// that b is complete, or verified if the store verified it; use the function
	// Fetch for a verified one. The error wraps ErrNotCached when the blob is not
	// there. Fetch does not close b: after an error, another store may fill it.
	Fetch(ctx context.Context, d Descriptor, b *Blob) error

	// Put stores the bytes of b, which is complete or verified and stays so, under
	// d.Key. It does not close b, and may link its file. Bytes that are not those of
	// d are an error. Put adds a snapshot to those of its key and replaces none, but
	// as Variants.Place says. A nil error means that the store now has a snapshot for
	// machines like this one, not that this call sent it: another session may have
	// been faster, with other bytes. Put may be called concurrently, also for the same
	// key: nothing of another variant is lost.
	Put(ctx context.Context, d Descriptor, b *Blob) error

	// Complete records that the layer is whole. All its steps have been Put. A layer
	// that is whole with the same steps stays, as Manifest.Covers has it.
	Complete(ctx context.Context, m Manifest) error

	// List returns the complete layers, newest first. ErrUnlisted says that the store never
	// can; Remove returns it too then.
	List(ctx context.Context) ([]Manifest, error)

	// Interrupted returns the layers that are not whole, with the steps that arrived;
	// none where the store does not know.
	Interrupted(ctx context.Context) ([]Manifest, error)

	// Remove forgets the layers, and the steps that no other layer needs, with all
	// snapshots that these have.
	// A manifest that is not there is no error. It returns how many bytes
	// of blobs it freed.
	Remove(ctx context.Context, ms []Manifest) (int64, error)
}
