package cache

import (
	"encoding/json"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// The fields that docs/format.md reserves: readers of today pass them over.
const (
	reservedOfStep = `"scope":"pr-12",
		"statement":"e30=","signatures":["U1NIU0lH"],"frames":"AAE=","pieces":[{"digest":"sha256:00","offset":1,"size":2}],"cutoff":"00",`
	reservedOfLayer = `"scope":"main","statement":"e30=","signatures":[],"variants":[{}],
		"pins":[{"source":"github:o/r@main","commit":"00"}],`
)

func TestReservedFields(t *testing.T) {
	read := func(ofStep, ofLayer string) (m Manifest) {
		t.Helper()
		text := `{"version":2,` + ofLayer + `"name":"base","steps":[{"version":2,` + ofStep + `"layer":"base","size":3}]}`
		if err := json.Unmarshal([]byte(text), &m); err != nil {
			t.Fatal(err)
		}
		return m
	}
	if diff := cmp.Diff(read("", ""), read(reservedOfStep, reservedOfLayer)); diff != "" {
		t.Errorf("reserved fields change what is read (-without +with):\n%s", diff)
	}
}
