package web_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/clayer/clayer/cache"
	"github.com/clayer/clayer/cache/delta"
	"github.com/clayer/clayer/cache/dir"
	"github.com/clayer/clayer/cache/storetest"
	"github.com/clayer/clayer/cache/transfer"
	"github.com/clayer/clayer/cache/web"
)

func TestDelta(t *testing.T) {
	s := newSite(t, true)
	storetest.RunDelta(t, both{s.dir, func() *web.Store { return s.open(t, nil) }}, 360<<10)
}

// A session with an older layer in its own store downloads what changed, by way of the tier;
// the next one of the local store nothing.
func TestDeltaOfAnOlderLayer(t *testing.T) {
	s := newSite(t, true)
	local, err := dir.Open(filepath.Join(t.TempDir(), "local"), dir.Options{})
	if err != nil {
		t.Fatal(err)
	}
	parts := storetest.RandomFrames(3, 1<<20, 1<<20, 1<<20, 200<<10, 100<<10)
	older, b := parts[:4].Step("older")
	older.Text = "RUN pip install pandas==2.2"
	store(t, local, older, b)
	newer, b := storetest.Frames{parts[0], parts[1], parts[4], parts[2]}.Step("newer")
	store(t, s.dir, newer, b)
	var sent atomic.Int64
	ctx := transfer.WithProgress(t.Context(), func(n int64) { sent.Add(n) })
	for _, most := range []int64{110 << 10, 0} {
		sent.Store(0)
		var got cache.Blob
		warn := func(name string, err error) { t.Errorf("%s: %v", name, err) }
		if err := cache.Tiered(warn, local, s.open(t, nil)).Fetch(ctx, newer, &got); err != nil || got.State() != cache.Verified {
			t.Fatalf("%v; the blob is %s", err, got.State())
		}
		got.Close()
		if n := sent.Load(); n > most {
			t.Errorf("%d bytes were sent, want up to %d", n, most)
		}
	}
}

// store puts a step and a layer of it.
func store(t *testing.T, s *dir.Dir, d cache.Descriptor, b *cache.Blob) {
	t.Helper()
	defer b.Close()
	if err := s.Put(t.Context(), d, b); err != nil {
		t.Fatal(err)
	}
	if err := s.Complete(t.Context(), storetest.Layer("base", 0, d)); err != nil {
		t.Fatal(err)
	}
}

// liar answers range requests in the ways that servers, proxies and attackers do.
var liars = map[string]func(w http.ResponseWriter, r *http.Request, blob []byte) bool{
	"other bytes": func(w http.ResponseWriter, r *http.Request, blob []byte) bool {
		blob = bytes.Clone(blob)
		for i := range blob {
			blob[i] ^= 1
		}
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(blob))
		return true
	},
	"another range": func(w http.ResponseWriter, r *http.Request, blob []byte) bool {
		w.Header().Set("Content-Range", fmt.Sprintf("bytes 0-99/%d", len(blob)))
		w.WriteHeader(http.StatusPartialContent)
		w.Write(blob[:100])
		return true
	},
	"the range of another file": func(w http.ResponseWriter, r *http.Request, blob []byte) bool {
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(blob[:len(blob)-1]))
		return true
	},
	"no ranges after the first": nil, // see below
	"416": func(w http.ResponseWriter, r *http.Request, blob []byte) bool {
		w.WriteHeader(http.StatusRequestedRangeNotSatisfiable)
		return true
	},
	"cut off now and then": func(w http.ResponseWriter, r *http.Request, blob []byte) bool {
		var from, to int
		fmt.Sscanf(r.Header.Get("Range"), "bytes=%d-%d", &from, &to)
		if to-from < 1000 || rand.IntN(2) == 0 { // some of it arrives, so that none is given up
			return false
		}
		w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", from, to, len(blob)))
		w.Header().Set("Content-Length", fmt.Sprint(to-from+1))
		w.WriteHeader(http.StatusPartialContent)
		w.Write(blob[from : from+(to-from+1)/2])
		return true
	},
}

// Whatever a server answers to ranges, and whatever the older blobs have become: the blob is
// the right one, and nobody is asked for more than it.
func TestDeltaOfLiars(t *testing.T) {
	for name, lie := range liars {
		t.Run(name, func(t *testing.T) {
			s := newSite(t, true)
			parts := storetest.RandomFrames(4, 1<<20, 1<<20, 300<<10, 200<<10)
			d, b := parts.Step("blob")
			defer b.Close()
			if err := s.dir.Put(t.Context(), d, b); err != nil {
				t.Fatal(err)
			}
			blob := bytes.Join(parts, nil)
			var ranges atomic.Int32
			s.fault = func(w http.ResponseWriter, r *http.Request) bool {
				if !strings.Contains(r.URL.Path, "/blobs/") || r.Header.Get("Range") == "" {
					return false
				}
				if lie == nil {
					if ranges.Add(1) > 1 {
						r.Header.Del("Range")
					}
					return false
				}
				return lie(w, r, blob)
			}
			near := storetest.NearStore{Blobs: []storetest.Frames{{parts[0], parts[1]}}}
			fetchRight(t, s, d, near, blob)
		})
	}
}

func fetchRight(t *testing.T, s *site, d cache.Descriptor, near cache.Store, want []byte) {
	t.Helper()
	var b cache.Blob
	defer b.Close()
	if err := cache.FetchNear(t.Context(), s.open(t, nil), d, &b, []cache.Store{near}); err != nil || b.State() != cache.Verified {
		t.Fatalf("%v; the blob is %s", err, b.State())
	}
	got, err := io.ReadAll(io.NewSectionReader(&b, 0, d.Size))
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("other bytes, or %v", err)
	}
}

// A descriptor that lies about frames, so that each fits and the whole does not, is no more
// than one without frames.
func TestDeltaOfALyingDescriptor(t *testing.T) {
	s := newSite(t, true)
	parts := storetest.RandomFrames(5, 1<<20, 1<<20, 300<<10)
	d, b := parts.Step("blob")
	defer b.Close()
	if err := s.dir.Put(t.Context(), d, b); err != nil {
		t.Fatal(err)
	}
	other, o := storetest.Frames{parts[1], parts[0], parts[2]}.Step("other") // its frames are near, in another order
	o.Close()
	d.Frames = other.Frames
	near := storetest.NearStore{Blobs: []storetest.Frames{parts}}
	fetchRight(t, s, d, near, bytes.Join(parts, nil))
	d.Frames = d.Frames[:20]
	fetchRight(t, s, d, near, bytes.Join(parts, nil))
}

// A blob that is evicted after it was found is still read; one that was evicted before, or is
// damaged, is not used.
func TestDeltaOfEvicted(t *testing.T) {
	for _, when := range []string{"before it is opened", "after it was opened", "damaged"} {
		t.Run(when, func(t *testing.T) {
			s := newSite(t, true)
			local, err := dir.Open(filepath.Join(t.TempDir(), "local"), dir.Options{})
			if err != nil {
				t.Fatal(err)
			}
			parts := storetest.RandomFrames(6, 1<<20, 1<<20, 300<<10)
			older, b := parts[:2].Step("older")
			store(t, local, older, b)
			d, b := parts.Step("newer")
			defer b.Close()
			if err := s.dir.Put(t.Context(), d, b); err != nil {
				t.Fatal(err)
			}
			spoil := func() {
				if when == "damaged" {
					damage(t, filepath.Join(local.Path(), "blobs", "sha256", older.Digest.Encoded()))
				} else if _, err := local.Remove(t.Context(), []cache.Manifest{storetest.Layer("base", 0, older)}); err != nil {
					t.Error(err)
				}
			}
			fetchRight(t, s, d, spoiled{local, spoil, when == "after it was opened"}, bytes.Join(parts, nil))
		})
	}
}

// spoiled is a store whose older blobs are spoiled between the plan and the copy.
type spoiled struct {
	*dir.Dir
	spoil func()
	later bool // after they were opened
}

func (s spoiled) Near(ctx context.Context, d cache.Descriptor) []delta.Source {
	all := s.Dir.Near(ctx, d)
	for i, n := range all {
		all[i].Open = func() (delta.File, error) {
			if !s.later {
				s.spoil()
			}
			f, err := n.Open()
			if s.later {
				s.spoil()
			}
			return f, err
		}
	}
	if len(all) == 0 {
		panic("nothing is near")
	}
	return all
}

func damage(t *testing.T, name string) {
	t.Helper()
	f, err := os.OpenFile(name, os.O_WRONLY, 0)
	if err == nil {
		_, err = f.WriteAt([]byte("damage"), 1<<20+5)
		f.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
}

// Random blobs of which random older ones are near, from a server with random faults: a blob
// that is verified has the right bytes, and so has what was read of it while it arrived.
func TestDeltaRandomly(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 1))
	var sizes []int
	for range 30 {
		sizes = append(sizes, 1+r.IntN(400<<10))
	}
	parts := storetest.RandomFrames(byte(seed), sizes...)
	some := func() (f storetest.Frames) {
		for range 8 + r.IntN(20) {
			f = append(f, parts[r.IntN(len(parts))])
		}
		return f
	}
	var faults []string
	for name, lie := range liars {
		if lie != nil {
			faults = append(faults, name)
		}
	}
	slices.Sort(faults)
	for round := range 12 {
		s := newSite(t, r.IntN(4) > 0)
		frames := some()
		want := bytes.Join(frames, nil)
		d, b := frames.Step("blob")
		if err := s.dir.Put(t.Context(), d, b); err != nil {
			t.Fatal(err)
		}
		b.Close()
		name, every := faults[r.IntN(len(faults))], 1+r.IntN(6)
		var asked atomic.Int32
		s.fault = func(w http.ResponseWriter, r *http.Request) bool {
			if !strings.Contains(r.URL.Path, "/blobs/") || r.Header.Get("Range") == "" || int(asked.Add(1))%every != 0 {
				return false
			}
			return liars[name](w, r, want)
		}
		if r.IntN(6) == 0 {
			d.Frames = d.Frames[:len(d.Frames)-33] // it makes no sense
		}
		near := storetest.NearStore{Blobs: []storetest.Frames{some(), frames[:r.IntN(len(frames))]}}
		var got cache.Blob
		reader := got.Reader(t.Context())
		read := make(chan []byte, 1)
		go func() {
			data, _ := io.ReadAll(reader) // Wait says whether it is the blob
			read <- data
		}()
		err := cache.FetchNear(t.Context(), s.open(t, nil), d, &got, []cache.Store{near})
		if err != nil || got.State() != cache.Verified {
			t.Fatalf("round %d, %q each %d: %v; the blob is %s", round, name, every, err, got.State())
		}
		data, rerr := io.ReadAll(io.NewSectionReader(&got, 0, d.Size))
		if rerr != nil || !bytes.Equal(data, want) {
			t.Errorf("round %d, %q each %d: other bytes, or %v", round, name, every, rerr)
		}
		if early := <-read; reader.Wait() == nil && !bytes.Equal(early, want) {
			t.Errorf("round %d, %q each %d: other bytes were read while it arrived", round, name, every)
		}
		reader.Close()
		got.Close()
	}
}
