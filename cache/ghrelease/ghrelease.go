// Package ghrelease stores snapshots in the GitHub Releases of a repository.
//
// A layer is a release, tagged layer-<name>-<key16>. Each of its steps is a
// file of it, named by the step's chain key; one that is too large for GitHub
// is several. A step that another release has already is referred to. The
// release's text says, for readers and for this program, what steps there are;
// manifest.json, which comes last, says the same to readers that need neither
// a token nor a call of the API, and marks the layer as whole.
//
// While steps arrive the release is a draft, which a later session that may
// push takes up where it was left; it is published when the layer is whole, so
// that immutable releases work too. Nothing else in the repository is touched.
package ghrelease

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/clayer/clayer/cache"
	"github.com/clayer/clayer/cache/github"
	"github.com/clayer/clayer/cache/transfer"
	"github.com/clayer/clayer/dag/key"
	"github.com/clayer/clayer/internal/order"
)

// Options say how to store. The zero Options is the default.
type Options struct {
	// PartSize is the most bytes of a file; 0 means 1900 MiB, below GitHub's
	// bound of 2 GiB.
	PartSize int64

	// Temp is the directory for blobs that are being read; "" means the system's.
	Temp string

	// Warn prints what a user should know and nothing fails for. nil prints
	// nothing.
	Warn func(text string)
}

// Store is a repository's releases. It is safe for concurrent use, and for
// several sessions on several machines.
type Store struct {
	gh   *github.Client
	repo github.Repo
	opt  Options

	public sync.Once // that the repository is public has been said

	writing chan struct{} // holds one while releases are being changed

	mu       sync.Mutex
	releases map[int64]*held // all of the store's, once listed
	listed   bool
	listErr  error
	listedAt time.Time
	located  map[located]location // what Find reported, and Put uploaded
	asked    map[string]asked     // manifests, by tag
	private  bool                 // only the API has what is published

	refused transfer.Refusals
}

// A located snapshot is one of a step.
type located struct {
	key    key.Key
	digest digest.Digest
}

// A location is where the files of a step are.
type location struct {
	step step
	tag  string // of the published release; "" for a draft
	id   int64  // of the release; 0 while not known
}

// New returns the store of a repository.
func New(gh *github.Client, repo github.Repo, opt Options) *Store {
	opt.PartSize = cmp.Or(opt.PartSize, 1900<<20)
	if opt.Warn == nil {
		opt.Warn = func(string) {}
	}
	return &Store{gh: gh, repo: repo, opt: opt, releases: make(map[int64]*held), located: make(map[located]location), asked: make(map[string]asked), writing: make(chan struct{}, 1)}
}

// Name returns "github".
func (s *Store) Name() string { return "github" }

// Location returns the repository.
func (s *Store) Location() string { return "github:" + s.repo.String() }

// Writable returns an error without a token, and why GitHub has refused in this process.
func (s *Store) Writable() error {
	if err := s.refused.Writing(); err != nil {
		return err
	}
	if !s.gh.HasToken() {
		return &github.Error{Kind: github.NoToken, Repo: s.repo.String(), Write: true}
	}
	return nil
}

// manifestName is the file that marks a layer as whole.
const manifestName = "manifest.json"

// held is a release of the store's.
type held struct {
	github.Release
	record
}

// hold reads a release. It reports false for one that is not of this program.
func hold(r github.Release) (*held, bool) {
	rec, ok := parseBody(r.Body)
	return &held{r, rec}, ok
}

func (h *held) asset(name string) *github.Asset {
	for i := range h.Assets {
		if h.Assets[i].Name == name {
			return &h.Assets[i]
		}
	}
	return nil
}

// has reports whether all files of a step are in the release.
func (h *held) has(st *step) bool {
	if st.Tag != "" && st.Tag != h.Tag {
		return false
	}
	for _, f := range st.files() {
		a := h.asset(f.Name)
		if a == nil || !a.Whole() || a.Size != f.Size || a.Digest != "" && a.Digest != f.Digest {
			return false
		}
	}
	return true
}

// at returns where a step of the release is.
func (h *held) at(st *step) location {
	loc := location{step: *st, tag: h.Tag, id: h.ID}
	if h.Draft {
		loc.tag = ""
	}
	return loc
}

// whole reports whether the release is a published layer.
func (h *held) whole() bool {
	a := h.asset(manifestName)
	return !h.Draft && h.Layer != nil && a != nil && a.Whole()
}

// write waits for the turn to change releases; the caller calls the function
// that it returns at the end of it.
func (s *Store) write(ctx context.Context) (func(), error) {
	select {
	case s.writing <- struct{}{}:
		return func() { <-s.writing }, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// list reads all releases, once. An error is remembered for a while: several
// layers are looked up at the same time.
func (s *Store) list(ctx context.Context) error {
	if err := s.refused.Reading(); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.listed || s.listErr != nil && time.Since(s.listedAt) < time.Minute {
		return s.listErr
	}
	all, err := s.readReleases(ctx)
	if err != nil {
		if ctx.Err() != nil {
			return err
		}
		s.listErr, s.listedAt = s.failed(err), time.Now()
		return err
	}
	s.listed, s.listErr = true, nil
	maps.Copy(s.releases, all)
	return nil
}

// readReleases asks for all releases that are of this program.
func (s *Store) readReleases(ctx context.Context) (map[int64]*held, error) {
	all, err := s.gh.Releases(ctx, s.repo)
	if err != nil {
		return nil, err
	}
	releases := make(map[int64]*held)
	for _, r := range all {
		if h, ok := hold(r); ok {
			releases[h.ID] = h
		}
	}
	return releases, nil
}

// listAgain reads all releases once more. What is known stays if that fails; and so
// does a draft that GitHub's list, which may be stale, does not show, but for one
// that is known to be gone.
func (s *Store) listAgain(ctx context.Context) error {
	releases, err := s.readReleases(ctx)
	if err != nil {
		return err
	}
	for _, h := range s.all() {
		if !h.Draft || releases[h.ID] != nil {
			continue
		}
		r, err := s.gh.Release(ctx, s.repo, h.ID)
		if github.Is(err, github.NotFound) {
			continue
		}
		if err != nil {
			return err
		}
		if h, ok := hold(*r); ok {
			releases[h.ID] = h
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.releases, s.listed, s.listErr = releases, true, nil
	return nil
}

// lookup returns where a step is, by the releases that are known: of several snapshots the
// first of those that match.
func (s *Store) lookup(k key.Key, match func(*step) bool) (location, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var best location
	for _, h := range s.releases {
		st := h.step(k)
		if st == nil || !match(st) || !h.has(st) || best.id != 0 && !st.before(&best.step) {
			continue
		}
		best = h.at(st)
	}
	return best, best.id != 0
}

// variants returns all snapshots of a step, by the releases that are known, the first
// first and then the newest.
func (s *Store) variants(k key.Key) []location {
	first, ok := s.lookup(k, anyStep)
	if !ok {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	all := []location{first}
	for _, h := range s.releases {
		if st := h.step(k); st != nil && h.has(st) {
			all = append(all, h.at(st))
		}
	}
	return distinct(all)
}

// distinct orders all locations but the first, the newest first, and drops those of the same
// variant as one before.
func distinct(all []location) []location {
	order.Stable(all[1:], func(a, b location) int { return b.step.Created.Compare(a.step.Created) })
	seen := make(map[string]bool)
	return slices.DeleteFunc(all, func(loc location) bool {
		id := loc.step.VariantID()
		defer func() { seen[id] = true }()
		return seen[id]
	})
}

func anyStep(*step) bool { return true }

func sameBytes(d cache.Descriptor) func(*step) bool {
	return func(st *step) bool { return st.Digest == d.Digest && st.Size == d.Size }
}
