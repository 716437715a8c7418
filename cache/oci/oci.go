// Package oci stores snapshots in a repository of an OCI registry.
//
//	layer-<name>-<key16>   a layer that is whole: an image whose layers are its steps
//	step-<key>             a step, by its whole chain key: an artifact with the snapshot as its one layer
//	variant-<key>.<id>     each of the snapshots of a step, likewise: id is a digest of what it needs and was built on
//
// All carry what this program needs to know in an annotation of the manifest,
// so that a look-up is one request: of a whole layer by its tag, else one for
// each step at the same time. A step is tagged as soon as its snapshot is
// there: what an interrupted session pushed is found by the next one.
//
// Blobs are named by their digests, so steps and layers share them, and the
// same bytes are never sent twice. What no manifest names any more is freed by
// the registry's own garbage collection.
//
// The formats are those of the OCI image and distribution specifications, 1.1.
package oci

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"strings"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
	specs "github.com/opencontainers/image-spec/specs-go/v1"
	spec "oras.land/oras-go/v2/registry"
	"oras.land/oras-go/v2/registry/remote"

	"github.com/clayer/clayer/cache"
	"github.com/clayer/clayer/cache/registry"
	"github.com/clayer/clayer/cache/snapshot"
	"github.com/clayer/clayer/cache/transfer"
	"github.com/clayer/clayer/dag/key"
)

const (
	layerPrefix = "layer-"
	stepPrefix  = "step-"

	variantPrefix = "variant-" // the last in order

	// stepType says what a step's manifest is.
	stepType = "application/vnd.clayer.step.v1+json"
	// stepAnnotation carries the step's Descriptor.
	stepAnnotation = "dev.clayer.step"
)

// atOnce is how many requests for manifests are under way at a time.
const atOnce = 8

// Options say how to store. The zero Options is the default, without a login.
type Options struct {
	Login registry.Login

	// Name is how the store is called in output; "" means "oci". Where a session
	// has several of them, each needs one of its own.
	Name string

	// Temp is the directory for blobs that are being read; "" means the system's.
	Temp string

	// Transfer is how requests are sent. Its Transport is asked for what the
	// registry's, and others', hosts have; credentials are added before.
	Transfer transfer.Options
}

// Store is a repository. It is safe for concurrent use, and for several
// sessions on several machines.
type Store struct {
	ref    registry.Repository
	client *registry.Client
	repo   *remote.Repository
	tr     *transfer.Client
	name   string
	temp   string

	mu    sync.Mutex
	held  map[key.Key]cache.Descriptor // steps that are known to be there
	empty bool                         // the config of steps is there

	refused transfer.Refusals
}

// ParseRepository reads HOST/REPOSITORY, "ghcr.io/me/env".
func ParseRepository(s string) (registry.Repository, error) {
	bad := func(why string) (registry.Repository, error) {
		return registry.Repository{}, fmt.Errorf("want HOST/REPOSITORY, as in ghcr.io/me/env: %s", why)
	}
	switch {
	case strings.Contains(s, "://"):
		return bad("no scheme goes before the host")
	case strings.Contains(s, "@"): // never quoted: a password may stand before it
		return bad("neither a login nor a digest belongs there; see clayer cache --help for logins")
	}
	host, path, ok := strings.Cut(s, "/")
	if !ok || host == "" || path == "" {
		return bad(fmt.Sprintf("%q has no repository", s))
	}
	if !strings.ContainsAny(host, ".:") && host != "localhost" {
		return bad(fmt.Sprintf("%q is no host", host))
	}
	if strings.Contains(path, ":") {
		return bad(fmt.Sprintf("%q has a tag; the tags are chosen here", s))
	}
	ref, err := spec.ParseReference(s)
	if err != nil {
		return bad(fmt.Sprintf("%q is none; a repository is made of a-z, 0-9, and single . _ - between them", s))
	}
	return ref, nil
}

// New returns the store of a repository. Nothing is asked of it yet.
func New(ref registry.Repository, opt Options) *Store {
	c := registry.NewClient(ref, opt.Login, opt.Transfer)
	return &Store{ref: ref, client: c, repo: c.Repository, tr: c.Transfer, name: cmp.Or(opt.Name, "oci"), temp: opt.Temp, held: make(map[key.Key]cache.Descriptor)}
}

// Name returns the name of Options.
func (s *Store) Name() string { return s.name }

// Location returns the registry and the repository.
func (s *Store) Location() string { return "oci:" + s.ref.String() }

// Writable returns why the registry has refused in this process.
func (s *Store) Writable() error { return s.refused.Writing() }

func blobOf(d cache.Descriptor) specs.Descriptor {
	return specs.Descriptor{MediaType: snapshot.MediaType, Digest: d.Digest, Size: d.Size}
}

func stepTag(k key.Key) string { return stepPrefix + k.String() }

// layerTag returns the tag of a layer: as it is called everywhere, where the
// registry takes that, else with a digest in place of the name.
func layerTag(tag string) string {
	if r := (spec.Reference{Reference: tag}); r.ValidateReferenceAsTag() == nil {
		return tag
	}
	sum := sha256.Sum256([]byte(tag))
	return layerPrefix + hex.EncodeToString(sum[:20])
}

// know notes that steps are there.
func (s *Store) know(ds ...cache.Descriptor) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, d := range ds {
		s.held[d.Key] = d
	}
}

// forget notes that a blob is not there.
func (s *Store) forget(blob digest.Digest) {
	s.mu.Lock()
	defer s.mu.Unlock()
	maps.DeleteFunc(s.held, func(_ key.Key, d cache.Descriptor) bool { return d.Digest == blob })
}

func (s *Store) knows(d cache.Descriptor) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	h, ok := s.held[d.Key]
	return ok && h.Digest == d.Digest && h.Size == d.Size && h.VariantID() == d.VariantID()
}

// abandoned is how old a step must be that no layer has, to be taken for one
// that no session resumes.
const abandoned = 14 * 24 * time.Hour
