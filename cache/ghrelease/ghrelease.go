// Package ghrelease keeps snapshots in the GitHub Releases of a repository.
//
// A layer is a release, tagged layer-<name>-<key16>. Each of its steps is a
// file of it, named by the step's chain key; one that is too large for GitHub
// is several. A step that another release has already is referred to. The
// release's text says, for people and for this program, what steps there are;
// manifest.json, which comes last, says the same to readers that want neither
// a token nor a call of the API, and marks the layer as whole.
//
// While steps arrive the release is a draft, which a later session that may
// push takes up where it was left; it is published when the layer is whole, so
// that immutable releases work too. Nothing else in the repository is touched.
package ghrelease

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"os"
	"regexp"
	"slices"
	"sync"
	"time"

	"github.com/clayer/clayer/cache"
	"github.com/clayer/clayer/cache/github"
	"github.com/clayer/clayer/cache/transfer"
	"github.com/clayer/clayer/dag/key"
)

// Options are how to keep. The zero Options is the default.
type Options struct {
	// PartSize is the most bytes of a file; 0 means 1.9 GiB, below GitHub's
	// bound of 2.
	PartSize int64

	// Temp is the folder for blobs that are being read; "" means the system's.
	Temp string

	// Warn is told what a user should know and nothing fails for. nil tells
	// nobody.
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
	located  map[key.Key]location // what Find told of, and Put brought
	asked    map[string]asked     // manifests, by tag
	private  bool                 // only the API has what is published
	down     error                // nobody answers: not asked again
	refused  error                // nothing can be pushed: not tried again
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
	return &Store{gh: gh, repo: repo, opt: opt, releases: make(map[int64]*held), located: make(map[key.Key]location), asked: make(map[string]asked), writing: make(chan struct{}, 1)}
}

// Name returns "github".
func (s *Store) Name() string { return "github" }

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
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.listed || s.listErr != nil && time.Since(s.listedAt) < time.Minute {
		return s.listErr
	}
	all, err := s.gh.Releases(ctx, s.repo)
	if err != nil {
		if ctx.Err() != nil {
			return err
		}
		s.listErr, s.listedAt = err, time.Now()
		return err
	}
	s.listed, s.listErr = true, nil
	for _, r := range all {
		if h, ok := hold(r); ok {
			s.releases[h.ID] = h
		}
	}
	return nil
}

// lookup returns where a step is, by the releases that are known; the newest
// where several have it. A digest narrows it to those bytes.
func (s *Store) lookup(k key.Key, match func(*step) bool) (location, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var best location
	for _, h := range s.releases {
		st := h.Steps[k]
		if st == nil || !match(st) || !h.has(st) || !best.step.Created.IsZero() && !st.Created.After(best.step.Created) {
			continue
		}
		best = location{step: *st, tag: h.Tag, id: h.ID}
		if h.Draft {
			best.tag = ""
		}
	}
	return best, best.id != 0
}

func anyStep(*step) bool { return true }

func sameBytes(d cache.Descriptor) func(*step) bool {
	return func(st *step) bool { return st.Digest == d.Digest && st.Size == d.Size }
}

// layerTag takes apart layer-<name>-<key16>.
var layerTag = regexp.MustCompile(`^layer-(?:(.+)-)?([0-9a-f]{16})$`)

// Find asks for the layer's manifest where anyone may read it: a whole hit is
// one request. What is not there is looked up in the list of releases.
func (s *Store) Find(ctx context.Context, tag string, keys []key.Key) (map[key.Key]cache.Descriptor, error) {
	found := make(map[key.Key]cache.Descriptor)
	if err := s.isDown(); err != nil {
		return nil, err
	}
	var err error
	if layerTag.MatchString(tag) {
		var rec record
		if rec, err = s.published(ctx, tag); err == nil {
			for k, st := range rec.Steps {
				if slices.Contains(keys, k) {
					found[k] = st.Descriptor
				}
			}
		}
	}
	if len(found) == len(keys) || ctx.Err() != nil {
		return found, ctx.Err()
	}
	if err != nil && !errors.Is(err, cache.ErrNotCached) {
		return found, s.failed(err)
	}
	if err := s.list(ctx); err != nil {
		return found, s.failed(err)
	}
	for _, k := range keys {
		if _, ok := found[k]; ok {
			continue
		}
		if loc, ok := s.lookup(k, anyStep); ok {
			found[k] = loc.step.Descriptor
			s.locate(loc)
		}
	}
	return found, nil
}

// asked is what a request for a manifest brought, and when.
type asked struct {
	rec record
	err error
	at  time.Time
}

// published returns the manifest of a layer that is whole; ErrNotCached says
// that there is none. A plan that is made twice asks once.
func (s *Store) published(ctx context.Context, tag string) (record, error) {
	s.mu.Lock()
	a, ok := s.asked[tag]
	s.mu.Unlock()
	if ok && (a.err == nil || time.Since(a.at) < time.Minute) {
		return a.rec, a.err
	}
	rec, err := s.readManifest(ctx, tag)
	if ctx.Err() == nil {
		s.mu.Lock()
		s.asked[tag] = asked{rec, err, time.Now()}
		s.mu.Unlock()
	}
	return rec, err
}

// readManifest asks where everyone may read, and then, with a token, the API.
func (s *Store) readManifest(ctx context.Context, tag string) (record, error) {
	var b limitedBuffer
	_, err := s.gh.Transfer().Get(ctx, s.gh.DownloadURL(s.repo, tag, manifestName), &b, transfer.GetOptions{})
	if err == nil {
		rec, err := parseManifest(b.Bytes())
		if err == nil {
			s.locateAll(rec, tag, 0)
			return rec, nil
		}
		// Damaged; or a page to log in at, of an Enterprise server in private mode.
		slog.Debug("a manifest makes no sense", "tag", tag, "err", err)
	} else if !notThere(err) {
		return record{}, err
	}
	if !s.gh.HasToken() {
		return record{}, cache.ErrNotCached
	}
	r, err := s.gh.ReleaseByTag(ctx, s.repo, tag)
	if github.Is(err, github.NotFound) {
		return record{}, cache.ErrNotCached
	}
	if err != nil {
		return record{}, err
	}
	h, ok := hold(*r)
	if !ok || !h.whole() {
		return record{}, cache.ErrNotCached
	}
	s.mu.Lock()
	s.releases[h.ID] = h
	s.private = true // it is there, and not for everyone
	s.mu.Unlock()
	s.locateAll(h.record, tag, h.ID)
	return h.record, nil
}

// notThere reports whether a server's answer is that it has no such thing, or
// does not say so to everyone.
func notThere(err error) bool {
	var status *transfer.StatusError
	return errors.As(err, &status) && status.Host == "" && (status.Code == 404 || status.Code == 401 || status.Code == 410)
}

func (s *Store) locate(loc location) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.located[loc.step.Key] = loc
}

func (s *Store) locateAll(rec record, tag string, id int64) {
	for _, st := range rec.Steps {
		loc := location{step: *st, tag: tag, id: id}
		if st.Tag != "" && st.Tag != tag {
			loc.tag, loc.id = st.Tag, 0
		}
		s.locate(loc)
	}
}

// failed remembers that nobody answers, so that not every blob waits for that.
func (s *Store) failed(err error) error {
	if transfer.Unreachable(err) {
		s.mu.Lock()
		s.down = err
		s.mu.Unlock()
	}
	return err
}

func (s *Store) isDown() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.down
}

// List returns the layers that are whole, newest first. One that refers to a
// step that is gone is not whole any more.
func (s *Store) List(ctx context.Context) ([]cache.Manifest, error) {
	if err := s.list(ctx); err != nil {
		return nil, err
	}
	var all []cache.Manifest
	for _, h := range s.all() {
		if m, ok := s.manifest(h); ok && h.whole() {
			all = append(all, m)
		}
	}
	return newestOfEach(all), nil
}

// Interrupted returns what is kept of layers that are not whole: the steps that
// arrived of each.
func (s *Store) Interrupted(ctx context.Context) ([]cache.Manifest, error) {
	if err := s.list(ctx); err != nil {
		return nil, err
	}
	var all []cache.Manifest
	for _, h := range s.all() {
		if !h.Draft {
			continue
		}
		m := cache.Manifest{Name: h.Name, Created: h.Created}
		for _, st := range h.inOrder() {
			if h.has(st) {
				m.Steps, m.Key = append(m.Steps, st.Descriptor), st.Key
			}
		}
		if len(m.Steps) > 0 {
			all = append(all, m)
		}
	}
	slices.SortStableFunc(all, cache.NewestFirst)
	return all, nil
}

// newestOfEach orders manifests and leaves out older ones of the same layer.
func newestOfEach(all []cache.Manifest) []cache.Manifest {
	slices.SortStableFunc(all, cache.NewestFirst)
	seen := make(map[string]bool)
	return slices.DeleteFunc(all, func(m cache.Manifest) bool {
		id := m.Name + " " + m.Key.String()
		defer func() { seen[id] = true }()
		return seen[id]
	})
}

// all returns the releases that are known, oldest first.
func (s *Store) all() []*held {
	s.mu.Lock()
	defer s.mu.Unlock()
	var list []*held
	for _, h := range s.releases {
		list = append(list, h)
	}
	slices.SortFunc(list, func(a, b *held) int {
		return cmp.Or(a.Release.Created.Compare(b.Release.Created), cmp.Compare(a.ID, b.ID))
	})
	return list
}

// manifest returns a release's layer; false if a step of it is nowhere.
func (s *Store) manifest(h *held) (cache.Manifest, bool) {
	if h.Layer == nil {
		return cache.Manifest{}, false
	}
	m := cache.Manifest{Name: h.Layer.Name, Key: h.Layer.Key, Platform: h.Layer.Platform, Created: h.Layer.Created}
	for _, k := range h.Layer.Keys {
		st := h.Steps[k]
		if st == nil || !s.anywhere(st, h) {
			return m, false
		}
		m.Steps = append(m.Steps, st.Descriptor)
	}
	return m, true
}

// anywhere reports whether the release that a step says to be in, h for one
// that says nothing, has it.
func (s *Store) anywhere(st *step, h *held) bool {
	if st.Tag == "" || st.Tag == h.Tag {
		return h.has(st)
	}
	return s.byTag(st.Tag, st) != nil
}

// byTag returns the published release of a tag that has the step.
func (s *Store) byTag(tag string, st *step) *held {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, h := range s.releases {
		if h.Tag == tag && !h.Draft && h.has(st) {
			return h
		}
	}
	return nil
}

// temp makes a file without a name.
func (s *Store) temp() (*os.File, error) {
	if s.opt.Temp != "" {
		if err := os.MkdirAll(s.opt.Temp, 0o755); err != nil {
			return nil, err
		}
	}
	f, err := os.CreateTemp(s.opt.Temp, "clayer-blob-")
	if err != nil {
		return nil, err
	}
	return f, os.Remove(f.Name())
}
