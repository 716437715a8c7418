// Package s3 stores snapshots in a bucket of Amazon S3, or of a service that speaks its
// protocol.
//
//	clayer-store.json        says that there is a store, and whether the service has conditions
//	layers/<tag>.json        a layer that is whole: its manifest
//	keys/<hh>/<key>.json     a step, by its whole chain key: its descriptor
//	keys/<hh>/<key>.<id>.json  one of several snapshots of a step; id is a digest of what it needs and was built on
//	blobs/sha256/<hex>       a snapshot
//
// Everything that is looked up has a name that is known beforehand, so a look-up lists
// nothing: a whole layer is one request, else there is one for each step at the same time.
// A blob is there before the step that names it, and the steps before their layer: a
// session that ends between two requests leaves nothing that names what is missing.
//
// Several sessions may write at once. What is replaced is replaced on a condition
// (If-None-Match, If-Match) where the service has those. Where it has none, each snapshot
// that may have variants has an object of its own, which no other session writes
// something else to.
package s3

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/clayer/clayer/cache"
	"github.com/clayer/clayer/cache/transfer"
	"github.com/clayer/clayer/dag/key"
)

// Names of objects, below the prefix of the store.
const (
	markerName = "clayer-store.json"
	layersDir  = "layers/"
	keysDir    = "keys/"
	blobsDir   = "blobs/sha256/"
)

// Bounds of what is read.
const (
	maxManifest = 16 << 20
	maxStep     = 4 << 20
	maxPages    = 10_000 // of a listing
)

// atOnce is how many requests for small objects are under way at a time.
const atOnce = 16

// abandoned is how old something must be that no layer names, to be taken for what no
// session takes up again.
const abandoned = 14 * 24 * time.Hour

// Options say how a store is used. The zero Options is the default.
type Options struct {
	Name     string           // how it is called in output; "" means "s3"
	Temp     string           // the directory for blobs that arrive; "" means the system's
	Transfer transfer.Options // how bytes are moved; Wrap is set by New
	PartSize int64            // of an upload in several parts; 0 means 16 MiB; services take no less than 5 MiB
}

// A Store is a bucket, or what has a prefix in one. It is safe for concurrent use, and for
// several sessions on several machines.
type Store struct {
	at    Address
	login Login
	name  string
	temp  string
	part  int64
	tr    *transfer.Client
	send1 *signed

	refused transfer.Refusals

	sendsAll atomic.Bool // the service did not compose a blob of older ones

	asking sync.Mutex // held while the marker is read, or written
	mark   *marker    // nil: not read yet
	denied error      // why nothing may be read, unless a marker is written; nil: nothing is known

	mu   sync.Mutex
	held map[key.Key]cache.Descriptor // steps that are known to be there
}

// New returns the store at an address. Nothing is asked of it yet.
func New(at Address, login Login, opt Options) *Store {
	s := &Store{
		at: at, login: login, name: cmp.Or(opt.Name, "s3"), temp: opt.Temp, part: cmp.Or(opt.PartSize, 16<<20),
		held: make(map[key.Key]cache.Descriptor),
	}
	s.send1 = &signed{login: &s.login, bucket: at.bucket}
	opt.Transfer.Wrap = func(base http.RoundTripper) http.RoundTripper {
		s.send1.base = base
		return s.send1
	}
	s.tr = transfer.New(opt.Transfer)
	return s
}

// Name returns the name of Options.
func (s *Store) Name() string { return s.name }

// Location returns the address, and the service if it is not Amazon's.
func (s *Store) Location() string {
	if s.login.amazon() {
		return s.at.String()
	}
	return fmt.Sprintf("%s at %s", s.at, s.login.endpoint.Host)
}

// Writable returns why the service has refused in this process. Without credentials it
// returns cache.ErrReadOnly.
func (s *Store) Writable() error {
	if err := s.login.readOnly(); err != nil {
		return err
	}
	return s.refused.Writing()
}

func blobName(d digest.Digest) string { return blobsDir + d.Encoded() }

func stepName(k key.Key) string { return fmt.Sprintf("%s%.2s/%s.json", keysDir, k, k) }

// variantName returns the object of one of the snapshots of a step. Two sessions that
// store two of them at once do not want the same name.
func variantName(d cache.Descriptor) string {
	return fmt.Sprintf("%s%.2s/%s.%s.json", keysDir, d.Key, d.Key, d.VariantID())
}

// layerName returns the object of a layer: as it is called everywhere, else by a digest of
// that.
func layerName(tag string) string {
	plain := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("._-", r)
	}
	if len(tag) > 200 || strings.ContainsFunc(tag, func(r rune) bool { return !plain(r) }) {
		sum := sha256.Sum256([]byte(tag))
		tag = "layer-" + hex.EncodeToString(sum[:20])
	}
	return layersDir + tag + ".json"
}

// know notes that steps are there.
func (s *Store) know(ds ...cache.Descriptor) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, d := range ds {
		s.held[d.Key] = d
	}
}

func (s *Store) knows(d cache.Descriptor) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	h, ok := s.held[d.Key]
	return ok && h.Digest == d.Digest && h.Size == d.Size && h.VariantID() == d.VariantID()
}

// forget notes that a blob is not there.
func (s *Store) forget(blob digest.Digest) {
	s.mu.Lock()
	defer s.mu.Unlock()
	maps.DeleteFunc(s.held, func(_ key.Key, d cache.Descriptor) bool { return d.Digest == blob })
}
