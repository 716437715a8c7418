package wire

import (
	"bytes"
	"encoding/gob"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

type part struct {
	Name string
	At   time.Time
}

type value struct {
	Text   string
	Bytes  []byte
	List   []string
	Map    map[string]string
	Part   part
	Parts  []part
	To     *part
	Number int64
	Is     bool
	hidden string
}

// All strings arrive, whatever their bytes, as encoding/gob has them.
func TestRoundTrip(t *testing.T) {
	text := rapid.Custom(func(t *rapid.T) string {
		return rapid.OneOf(rapid.String(), rapid.Map(rapid.SliceOf(rapid.Byte()), func(b []byte) string { return string(b) }),
			rapid.SampledFrom([]string{"\U0010ff41", "\U0010ffff\xff", "\xf4\x8f\xbc", "\ufffd", "\u2028", "<&>", "a\x00b"})).Draw(t, "text")
	})
	someParts := rapid.Custom(func(t *rapid.T) part {
		return part{text.Draw(t, "name"), time.Unix(rapid.Int64Range(0, 1<<33).Draw(t, "at"), 0).UTC()}
	})
	rapid.Check(t, func(t *rapid.T) {
		in := value{
			Text: text.Draw(t, "text"), Bytes: rapid.SliceOfN(rapid.Byte(), 1, 9).Draw(t, "bytes"), List: rapid.SliceOfN(text, 1, 4).Draw(t, "list"),
			Map: rapid.MapOfN(text, text, 1, 4).Draw(t, "map"), Part: someParts.Draw(t, "part"), Parts: rapid.SliceOfN(someParts, 1, 3).Draw(t, "parts"),
			Number: rapid.Int64().Draw(t, "number"), Is: rapid.Bool().Draw(t, "is"), hidden: "x",
		}
		if rapid.Bool().Draw(t, "points") {
			p := someParts.Draw(t, "to")
			in.To = &p
		}
		was := in
		var stream, other bytes.Buffer
		enc := NewEncoder(&stream)
		for range 2 {
			if err := enc.Encode(in); err != nil {
				t.Fatal(err)
			}
		}
		if err := gob.NewEncoder(&other).Encode(in); err != nil {
			t.Fatal(err)
		}
		var want value
		if err := gob.NewDecoder(&other).Decode(&want); err != nil {
			t.Fatal(err)
		}
		dec := NewDecoder(&stream)
		for range 2 {
			var got value
			if err := dec.Decode(&got); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want, got, cmp.AllowUnexported(value{})); diff != "" {
				t.Fatal(diff)
			}
		}
		if diff := cmp.Diff(was, in, cmp.AllowUnexported(value{})); diff != "" {
			t.Fatalf("the value was changed: %s", diff)
		}
	})
}
