package ghrelease

import (
	"encoding/json"
	"regexp"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"
	"pgregory.net/rapid"

	"github.com/clayer/clayer/cache"
	"github.com/clayer/clayer/cache/github"
	"github.com/clayer/clayer/dag/key"
)

func anyKey(t *rapid.T, label string) key.Key {
	return key.Sum("test", func(w key.Writer) { w.Field("k", rapid.String().Draw(t, label)) })
}

// What a release's text says is what was written, whatever the texts of the
// steps hold; it never exceeds GitHub's bound.
func TestTextRoundTrips(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rec := record{Name: rapid.StringMatching(`[a-z0-9_-]{0,12}`).Draw(t, "name"), Steps: make(map[key.Key]*step)}
		l := &layer{Name: rec.Name, Key: anyKey(t, "layer"), Platform: rapid.String().Draw(t, "platform"), Created: time.Unix(rapid.Int64Range(0, 1<<32).Draw(t, "at"), 0).UTC(), Keys: []key.Key{}}
		for i := range rapid.IntRange(0, 8).Draw(t, "steps") {
			k := anyKey(t, "key")
			st := &step{Descriptor: cache.Descriptor{
				Key: k, Layer: rec.Name, Digest: digest.FromString(k.String()), Size: rapid.Int64Range(0, github.MaxAssetSize).Draw(t, "size"), DiffID: digest.FromString("x"),
				Text: rapid.String().Draw(t, "text"), Record: key.Record{{Name: "command", Value: rapid.String().Draw(t, "record")}},
				Created: l.Created.Add(time.Duration(i) * time.Second),
			}}
			if st.Size > 10 && rapid.Bool().Draw(t, "split") {
				st.Parts = []part{{fileName(k, 1), 10, st.Digest}, {fileName(k, 2), st.Size - 10, st.Digest}}
			}
			if rapid.Bool().Draw(t, "far") {
				st.Tag = cache.Tag("other", k)
			}
			if rec.Steps[k] == nil {
				l.Keys = append(l.Keys, k)
			}
			rec.Steps[k] = st
		}
		if rapid.Bool().Draw(t, "left out") {
			l.LeftOut = []cache.LeftOut{{Key: anyKey(t, "left"), Index: 1, Text: rapid.String().Draw(t, "left text"), Record: key.Record{{Name: "command", Value: "x"}}}}
		}
		if rapid.Bool().Draw(t, "whole") {
			rec.Layer = l
		}
		// JSON has no room for what is not UTF-8; nor has a Containerfile.
		want, ok := parseBody(rec.text(0))
		if !ok {
			t.Fatalf("not taken for one of its own:\n%s", rec.text(0))
		}
		if diff := cmp.Diff(rec, want); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
		packed, ok := parseBody(rec.text(3))
		if !ok || len(packed.Steps) != len(rec.Steps) {
			t.Errorf("compressed: %d of %d steps", len(packed.Steps), len(rec.Steps))
		}
		if rec.Layer != nil {
			data, err := rec.manifest()
			if err != nil {
				t.Fatal(err)
			}
			got, err := parseManifest(data)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(rec, got); diff != "" {
				t.Errorf("manifest (-want +got):\n%s", diff)
			}
		}
	})
}

func TestTextFitsItsBound(t *testing.T) {
	rec := record{Name: "base", Steps: make(map[key.Key]*step)}
	for i := 0; ; i++ {
		k := key.Sum("n", func(w key.Writer) { w.Field("n", time.Duration(i).String()) })
		rec.Steps[k] = &step{Descriptor: cache.Descriptor{
			Key: k, Digest: digest.FromString(k.String()), DiffID: digest.FromString(k.String() + "x"), Size: 1,
			Text: strings.Repeat("ä", 500), Record: key.Record{{Name: "command", Value: strings.Repeat("x", 2000)}},
		}}
		if i%50 != 49 {
			continue
		}
		text, err := rec.body()
		if err != nil {
			if i < 400 {
				t.Errorf("full at %d steps", i)
			}
			return
		}
		if n := utf8.RuneCountInString(text); n > github.MaxBody {
			t.Fatalf("%d steps: %d characters", i, n)
		}
		if got, ok := parseBody(text); !ok || len(got.Steps) != i+1 {
			t.Fatalf("%d steps: %d are read back", i+1, len(got.Steps))
		}
	}
}

// GitHub changes names with other characters, or a dot at an end.
func TestFileNames(t *testing.T) {
	ok := regexp.MustCompile(`^[A-Za-z0-9_-][A-Za-z0-9._-]*[A-Za-z0-9_-]$`)
	rapid.Check(t, func(t *rapid.T) {
		name := fileName(anyKey(t, "key"), rapid.IntRange(0, 999).Draw(t, "n"))
		if !ok.MatchString(name) {
			t.Errorf("%q", name)
		}
	})
}

// A release's text, and its manifest, are what others may have written.
func FuzzRecords(f *testing.F) {
	k := key.Sum("x", func(key.Writer) {})
	rec := record{Name: "base", Layer: &layer{Name: "base", Key: k, Keys: []key.Key{k}}, Steps: map[key.Key]*step{k: {Descriptor: cache.Descriptor{Key: k, Digest: digest.FromString("")}}}}
	data, err := rec.manifest()
	if err != nil {
		f.Fatal(err)
	}
	for short := range 4 {
		f.Add(rec.text(short))
	}
	f.Add(string(data))
	f.Add(`{"version":1,"steps":[null]}`)
	f.Add(markStep + `{"size":-1,"digest":"sha256:","parts":[{"size":-5}]}` + markEnd)
	f.Fuzz(func(t *testing.T, text string) {
		check := func(r record) {
			for k, st := range r.Steps {
				if st == nil || st.Key != k || st.Size < 0 || st.Digest.Algorithm() != digest.SHA256 {
					t.Errorf("%v", st)
				}
				for _, p := range st.files() {
					if p.Size < 0 || p.Digest.Validate() != nil {
						t.Errorf("%v", p)
					}
				}
			}
			r.inOrder()
			if _, err := json.Marshal(r.Steps); err != nil {
				t.Error(err)
			}
		}
		r, _ := parseBody(text)
		check(r)
		if r, err := parseManifest([]byte(text)); err == nil {
			check(r)
		}
	})
}
