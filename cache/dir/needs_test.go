package dir

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/clayer/clayer/cache"
	"github.com/clayer/clayer/cache/snapshot"
	"github.com/clayer/clayer/dag/key"
)

// TestSameNeeds reads key files: what several need is read once, and none has the needs of
// another. Whether needs are known is not lost.
func TestSameNeeds(t *testing.T) {
	home := []cache.Need{{Kind: snapshot.NeedHome, Path: "/root"}}
	app := []cache.Need{{Kind: snapshot.NeedPlace, Path: "opt/app", Type: snapshot.PlaceDir}}
	same := make(sameNeeds)
	var first *cache.Need
	for i, needs := range [][]cache.Need{home, app, nil, {}, home} {
		d := cache.Descriptor{Key: key.Key{byte(i)}, Digest: digest.FromString("x"), Needs: needs}
		data, err := json.Marshal(stored{Descriptor: d})
		if err != nil {
			t.Fatal(err)
		}
		s, err := parseStored(data, "f", d.Key, same)
		if err != nil || len(s.Needs) != len(needs) || (s.Needs == nil) != (needs == nil) || len(needs) > 0 && s.Needs[0].String() != needs[0].String() {
			t.Errorf("%d: %v, %v, want %v", i, s.Needs, err, needs)
		}
		switch {
		case i == 0:
			first = &s.Needs[0]
		case i == 4 && first != &s.Needs[0]:
			t.Error("the same needs were read twice")
		}
	}
	for _, lie := range []string{`"needs":{"kind":1}`, `"needs":[1]`, `"needs":"x"`} {
		data := strings.Replace(`{"key":"`+key.Key{1}.String()+`","digest":"`+digest.FromString("x").String()+`",NEEDS}`, "NEEDS", lie, 1)
		for range 2 {
			if s, err := parseStored([]byte(data), "f", key.Key{1}, same); err == nil {
				t.Errorf("%s: %v, want an error", lie, s.Needs)
			}
		}
	}
}
