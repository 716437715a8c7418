package s3_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/clayer/clayer/cache"
	"github.com/clayer/clayer/cache/s3"
	"github.com/clayer/clayer/cache/storetest"
	"github.com/clayer/clayer/dag/key"
	"github.com/clayer/clayer/internal/s3test"
)

// fill stores a layer of n steps.
func fill(t testing.TB, s *s3.Store, n int) (cache.Manifest, []key.Key) {
	t.Helper()
	var steps []cache.Descriptor
	var keys []key.Key
	for i := range n {
		d, b := storetest.Step(fmt.Sprint("step ", i), fmt.Sprint("content ", i))
		defer b.Close()
		if err := s.Put(t.Context(), d, b); err != nil {
			t.Fatal(err)
		}
		steps, keys = append(steps, d), append(keys, d.Key)
	}
	m := storetest.Layer("base", 1, steps...)
	if err := s.Complete(t.Context(), m); err != nil {
		t.Fatal(err)
	}
	return m, keys
}

// Of a layer that is whole, the answer to the second request is a blob; of another one,
// each step takes a request. Nothing is listed, however many steps a bucket has.
func TestRequestsBeforeTheFirstBlob(t *testing.T) {
	f := s3test.NewFake(t)
	m, keys := fill(t, open(t, "s3://bucket/env", variables(f.URL)), 12)
	for i := range 5000 {
		d, _ := storetest.Step(fmt.Sprint("other ", i), "content")
		data, err := json.Marshal(d)
		if err != nil {
			t.Fatal(err)
		}
		f.Set("bucket", fmt.Sprintf("env/keys/%.2s/%s.json", d.Key, d.Key), string(data), time.Now())
	}
	f.Asked()
	s := open(t, "s3://bucket/env", variables(f.URL))
	found, err := s.Find(t.Context(), m.Tag(), keys)
	if err != nil || len(found) != 12 {
		t.Fatalf("found %d, %v", len(found), err)
	}
	storetest.Read(t, s, m.Steps[0])
	want := []string{"GET /bucket/env/layers/" + m.Tag() + ".json", "GET /bucket/env/blobs/sha256/" + m.Steps[0].Digest.Encoded()}
	if asked := f.Asked(); strings.Join(asked, "\n") != strings.Join(want, "\n") {
		t.Errorf("requests:\n%s", strings.Join(asked, "\n"))
	}
	found, err = open(t, "s3://bucket/env", variables(f.URL)).Find(t.Context(), "layer-base-0123456789abcdef", keys)
	asked := f.Asked()
	if err != nil || len(found) != 12 || len(asked) != 13 {
		t.Errorf("not whole: found %d by %d requests, %v", len(found), len(asked), err)
	}
	for _, a := range asked {
		if strings.Contains(a, "?") {
			t.Errorf("it is listed: %s", a)
		}
	}
}

// What is stored is not sent again.
func TestNothingIsSentTwice(t *testing.T) {
	f := s3test.NewFake(t)
	m, _ := fill(t, open(t, "s3://bucket", variables(f.URL)), 2)
	f.Asked()
	s := open(t, "s3://bucket", variables(f.URL))
	d, b := storetest.Step("step 0", "content 0")
	if err := errors.Join(s.Put(t.Context(), d, b), s.Put(t.Context(), d, b), s.Complete(t.Context(), m)); err != nil {
		t.Fatal(err)
	}
	for _, a := range f.Asked() {
		if strings.HasPrefix(a, "PUT /bucket/blobs") || strings.HasPrefix(a, "PUT /bucket/layers") {
			t.Error(a)
		}
	}
}

// A public bucket is read without credentials, also if it may not be listed: what is
// missing is 403 then, and a miss. Nothing is pushed, and no request is sent for that.
func TestPublicBucket(t *testing.T) {
	for _, unlisted := range []bool{false, true} {
		f := s3test.NewFake(t)
		m, keys := fill(t, open(t, "s3://bucket/env", variables(f.URL)), 3)
		f.Change(func() { f.Public, f.Unlisted = true, unlisted })
		f.Asked()
		s := open(t, "s3://bucket/env", map[string]string{"AWS_ENDPOINT_URL_S3": f.URL})
		d, b := storetest.Step("missing", "missing")
		found, err := s.Find(t.Context(), "layer-base-0123456789abcdef", append(keys, d.Key))
		if err != nil || len(found) != 3 {
			t.Fatalf("unlisted %t: found %d, %v", unlisted, len(found), err)
		}
		if got := storetest.Read(t, s, m.Steps[2]); got != "content 2" {
			t.Errorf("unlisted %t: read %q", unlisted, got)
		}
		if all, err := s.Variants(t.Context(), m.Tag(), keys); err != nil || len(all) != 3 {
			t.Errorf("unlisted %t: %d variants, %v", unlisted, len(all), err)
		}
		f.Delete("bucket", "env/blobs/sha256/"+m.Steps[0].Digest.Encoded())
		if err := cache.Fetch(t.Context(), s, m.Steps[0], &cache.Blob{}); !errors.Is(err, cache.ErrNotCached) {
			t.Errorf("unlisted %t: %v, want a miss", unlisted, err)
		}
		f.Asked()
		for what, err := range map[string]error{"Writable": s.Writable(), "Put": s.Put(t.Context(), d, b), "Complete": s.Complete(t.Context(), m)} {
			if !errors.Is(err, cache.ErrReadOnly) || !strings.Contains(err.Error(), "set AWS_ACCESS_KEY_ID") {
				t.Errorf("%s: %v, want ErrReadOnly", what, err)
			}
		}
		if _, err := s.Remove(t.Context(), []cache.Manifest{m}); !errors.Is(err, cache.ErrReadOnly) {
			t.Errorf("Remove: %v", err)
		}
		if asked := f.Asked(); len(asked) > 0 {
			t.Errorf("%v", asked)
		}
	}
}

// What may not be read is asked for once, and what may not be written too.
func TestForbidden(t *testing.T) {
	f := s3test.NewFake(t)
	f.Fault = func(w http.ResponseWriter, r *http.Request) bool {
		s3test.Refuse(w, http.StatusForbidden, "AccessDenied")
		return true
	}
	s := open(t, "s3://bucket", variables(f.URL))
	d, b := storetest.Step("step 0", "content 0")
	for i := range 3 {
		_, find := s.Find(t.Context(), "layer-base-0123456789abcdef", []key.Key{d.Key})
		var blob cache.Blob
		fetch := s.Fetch(t.Context(), d, &blob)
		put := s.Put(t.Context(), d, b)
		for what, err := range map[string]error{"Find": find, "Fetch": fetch, "Put": put} {
			if err == nil || errors.Is(err, cache.ErrNotCached) || !strings.Contains(err.Error(), "does not allow to") {
				t.Errorf("%s: %v", what, err)
			}
		}
		if asked := f.Asked(); i == 0 && len(asked) > 4 || i > 0 && len(asked) > 0 {
			t.Errorf("round %d: %v", i, asked)
		}
	}
}

// Who may not list a bucket pushes to it all the same, from the first time on.
func TestPushWithoutTheRightToList(t *testing.T) {
	f := s3test.NewFake(t)
	f.Unlisted = true
	s := open(t, "s3://bucket", variables(f.URL))
	d, b := storetest.Step("step 0", "content 0")
	if _, err := s.Find(t.Context(), "layer-base-0123456789abcdef", []key.Key{d.Key}); err == nil {
		t.Error("a store that may be there, and not for this login, is no error")
	}
	if err := s.Put(t.Context(), d, b); err != nil {
		t.Fatal(err)
	}
	m, keys := fill(t, s, 3)
	found, err := open(t, "s3://bucket", variables(f.URL)).Find(t.Context(), m.Tag(), keys)
	if err != nil || len(found) != 3 {
		t.Errorf("found %d, %v", len(found), err)
	}
}

// What no session takes up any more goes with layers that are removed; what another one may
// be writing stays.
func TestAbandoned(t *testing.T) {
	f := s3test.NewFake(t)
	s := open(t, "s3://bucket", variables(f.URL))
	m, _ := fill(t, s, 1)
	old := time.Now().Add(-15 * 24 * time.Hour)
	stale, b := storetest.Step("stale", "stale")
	fresh, c := storetest.Step("fresh", "fresh")
	if err := errors.Join(s.Put(t.Context(), stale, b), s.Put(t.Context(), fresh, c)); err != nil {
		t.Fatal(err)
	}
	for name, data := range f.Objects("bucket") {
		if strings.Contains(name, stale.Key.String()) || strings.HasSuffix(name, stale.Digest.Encoded()) {
			f.Set("bucket", name, data, old)
		}
	}
	f.Set("bucket", "blobs/sha256/"+strings.Repeat("0", 64), "nothing names it", old)
	f.Set("bucket", "blobs/sha256/"+strings.Repeat("1", 64), "something will name it", time.Now())
	f.Set("bucket", "else", "of somebody else", old)
	freed, err := s.Remove(t.Context(), []cache.Manifest{m})
	if want := int64(len("content 0stalenothing names it")); err != nil || freed != want {
		t.Errorf("freed %d, want %d; %v", freed, want, err)
	}
	left := f.Objects("bucket")
	if len(left) != 5 || left["blobs/sha256/"+fresh.Digest.Encoded()] != "fresh" || left["else"] == "" || left["clayer-store.json"] == "" {
		t.Errorf("left: %v", left)
	}
}
