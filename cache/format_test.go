package cache

import (
	"encoding/json"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/clayer/clayer/cache/snapshot/frames"
)

// The fields that docs/format.md reserves: readers of today pass them over.
const (
	reservedOfStep = `"scope":"pr-12",
		"statement":"e30=","signatures":["U1NIU0lH"],"pieces":[{"digest":"sha256:00","offset":1,"size":2}],`
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

// A list of frames that is none leaves the descriptor as it is.
func TestFramesThatAreNone(t *testing.T) {
	for text, want := range map[string]int{`"AAE="`: 2, `"no base64"`: 0, `{"a":[1]}`: 0, `7`: 0, `null`: 0} {
		var d Descriptor
		if err := json.Unmarshal([]byte(`{"version":2,"frames":`+text+`,"size":3}`), &d); err != nil || d.Size != 3 || len(d.Frames) != want {
			t.Errorf("%s: %d bytes of frames in a step of %d bytes, %v", text, len(d.Frames), d.Size, err)
		}
	}
}

func TestBoundFrames(t *testing.T) {
	few, many := frames.List("few"), make(frames.List, 1<<20)
	m := Manifest{Steps: []Descriptor{{Frames: few}, {Frames: many}}}
	if m.BoundFrames(); m.Steps[0].Frames == nil || m.Steps[1].Frames == nil {
		t.Error("lists of 1 MiB are left out")
	}
	m.Steps = append(m.Steps, Descriptor{Frames: many})
	if m.BoundFrames(); m.Steps[0].Frames != nil || m.Steps[1].Frames != nil || m.Steps[2].Frames != nil {
		t.Error("lists of 2 MiB are left in")
	}
}
