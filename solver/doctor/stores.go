package doctor

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/clayer/clayer/cache"
	"github.com/clayer/clayer/cache/github"
	"github.com/clayer/clayer/cache/transfer"
	"github.com/clayer/clayer/dag/key"
	"github.com/clayer/clayer/internal/printable"
	"github.com/clayer/clayer/internal/sizes"
)

// storeLimit bounds what is asked of one store.
const storeLimit = 40 * time.Second

// sample is about how much is fetched to measure the speed of a store, in bytes.
const sample = 8 << 20

// smallest is how large a snapshot has to be for its time to say something about speed.
const smallest = 256 << 10

// Stores tries the stores of a chain, one after the other, and says what became of the
// requests to each host.
func Stores(ctx context.Context, t Target) (list []Finding) {
	there := make(map[string]bool) // the hosts that were asked for nothing, and answered
	for _, s := range t.Stores {
		list = append(list, t.try(ctx, s)...)
	}
	if t.GitHub != nil && t.Repo != (github.Repo{}) {
		asked := make(map[string]bool)
		if t.Network != nil {
			for _, h := range t.Network.Hosts() {
				asked[h.Name] = true
			}
		}
		for _, u := range t.GitHub.Hosts() { // the chain may not have needed all
			if !asked[u.Host] {
				if err := t.GitHub.Reach(ctx, u); err == nil {
					there[u.Host] = true
				}
			}
		}
	}
	if t.Network == nil {
		return list
	}
	for _, h := range t.Network.Hosts() {
		if there[h.Name] {
			h.Code = 0 // what needs a signed address refuses a request without one
		}
		list = append(list, t.host(h))
	}
	return list
}

func (t *Target) try(ctx context.Context, s cache.Store) []Finding {
	ctx, cancel := context.WithTimeout(ctx, storeLimit)
	defer cancel()
	finding := func(name string) Finding {
		return Finding{Area: printable.Line(s.Location()), Name: name, Store: s.Location(), OK: true}
	}
	reading := finding("read")
	began := time.Now()
	text, ms, err := read(ctx, s)
	if err != nil {
		reading.OK, reading.Text = false, reason(err)
		reading.Remedy, reading.Cause = "the next store in the chain is asked instead", StoreFailed
		return []Finding{reading}
	}
	took := time.Since(began)
	reading.Milliseconds = took.Milliseconds()
	reading.Text = fmt.Sprintf("answers in %d ms, %s", took.Milliseconds(), text)
	fetching := speed(ctx, s, ms, finding("speed"))
	if !fetching.OK {
		return []Finding{reading, fetching} // what is written there is of no use here
	}
	return []Finding{reading, fetching, t.write(ctx, s, finding("write"))}
}

// read returns what a store has, in words too. One that cannot list is asked for a step.
func read(ctx context.Context, s cache.Store) (text string, ms []cache.Manifest, err error) {
	ms, err = s.List(ctx)
	if errors.Is(err, cache.ErrUnlisted) {
		_, err = s.Find(ctx, "", []key.Key{key.Sum("doctor", func(key.Writer) {})})
		return "it has no list", nil, err
	}
	ms = slices.DeleteFunc(ms, func(m cache.Manifest) bool { return m.IsMount() })
	return contents(ms), ms, err
}

// speed fetches a snapshot.
func speed(ctx context.Context, s cache.Store, ms []cache.Manifest, f Finding) Finding {
	var best *cache.Descriptor // the largest that is no larger than the sample, else the smallest
	for _, m := range ms {
		for i := range m.Steps {
			d := &m.Steps[i]
			if best == nil || d.Size <= sample && (d.Size > best.Size || best.Size > sample) || d.Size < best.Size && best.Size > sample {
				best = d
			}
		}
	}
	if best == nil {
		f.Text = "not measured: it has no snapshots"
		return f
	}
	var b cache.Blob
	defer b.Close()
	began := time.Now()
	if err := cache.Fetch(ctx, s, *best, &b); err != nil {
		f.OK, f.Text, f.Remedy, f.Cause = false, reason(err), "what it lists cannot be restored from it", StoreFailed
		return f
	}
	took := max(time.Since(began), time.Microsecond)
	f.Milliseconds = took.Milliseconds()
	f.Text = fmt.Sprintf("a snapshot of %s in %d ms", sizes.Format(best.Size), took.Milliseconds())
	if best.Size < smallest {
		return f // it says how long an answer takes
	}
	f.Rate = int64(float64(best.Size) / took.Seconds())
	f.Text += fmt.Sprintf(", %s a second", sizes.Format(f.Rate))
	return f
}

// write tries whether the store can be written to, as far as nothing of that stays.
func (t *Target) write(ctx context.Context, s cache.Store, f Finding) Finding {
	if t.Repo != (github.Repo{}) && s.Location() == "github:"+t.Repo.String() {
		return t.mayPush(ctx, f)
	}
	err := cache.Probe(ctx, s)
	switch {
	case err == nil:
		f.Text = "works, and left nothing there"
	case errors.Is(err, cache.ErrReadOnly), errors.Is(err, cache.ErrNotTried):
		f.Text = err.Error()
	default:
		f.OK, f.Text, f.Remedy, f.Cause = false, reason(err), "nothing is stored there; a login or right may be missing", StoreFailed
	}
	return f
}

// mayPush says what the token may do in the repository of releases.
func (t *Target) mayPush(ctx context.Context, f Finding) Finding {
	if t.Token == "" {
		f.Text = "no token: it is only read"
		return f
	}
	may, err := t.GitHub.MayPush(ctx, t.Repo)
	switch {
	case err != nil:
		f.OK, f.Text, f.Remedy = false, reason(err), "a token that GitHub accepts"
	case !may:
		f.OK, f.Text, f.Remedy = false, t.Token+" may not write to "+t.Repo.String(), "a token with contents: write"
	default:
		f.Text = t.Token + " may write to " + t.Repo.String()
	}
	return f
}

// host says what became of the requests to a host.
func (t *Target) host(h transfer.Host) Finding {
	f := Finding{Area: "hosts", Name: printable.Line(h.Name), OK: true, Text: "answers"}
	var proxy *transfer.ProxyError
	switch {
	case errors.As(h.Err, &proxy):
		f.OK, f.Text = false, refused(proxy)
		f.Remedy, f.Cause = unreachable(h.Err)
	case h.Err != nil:
		f.OK, f.Text = false, strings.TrimPrefix(reason(h.Err), h.Name+": ")
		f.Remedy, f.Cause = unreachable(h.Err)
	case h.Code == http.StatusUnauthorized && h.Answered: // to what needs no login
	case h.Code != 0 && h.Answered:
		f.Text = fmt.Sprintf("answers, and refuses some requests: %d %s", h.Code, cmp.Or(http.StatusText(h.Code), "unknown status"))
	case h.Code == http.StatusForbidden && t.ownOnly(h.Name):
		f.OK, f.Text, f.Remedy = false, ownOnly, ownOnlyRemedy
	case h.Code != 0:
		f.OK, f.Text = false, fmt.Sprintf("answers %d %s", h.Code, cmp.Or(http.StatusText(h.Code), "unknown status"))
		f.Remedy = "a login; or, if a proxy answers in its place, have that allow the host"
	}
	return f
}

// What a proxy lets pass that puts the token into requests to GitHub.
const (
	ownOnly       = "only for the repositories of this session"
	ownOnlyRemedy = "attach the repository of the store to the session, or use a store elsewhere; FETCH uses Git"
)

// ownOnly reports whether such a proxy decides about requests to a host.
func (t *Target) ownOnly(name string) bool {
	if t.GitHub == nil || !t.GitHub.Proxied() {
		return false
	}
	for _, u := range t.GitHub.Hosts() {
		if u.Host == name {
			return true
		}
	}
	return false
}
