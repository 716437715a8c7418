package key

import (
	"encoding/json"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// The encoding is pinned: a change of these values is a new Encoding.
func TestSumGolden(t *testing.T) {
	tests := []struct {
		kind string
		in   Inputs
		want string
	}{
		{"step", func(Writer) {}, "965e4b9afe495924a63b3bf7c2630f1c36d81818195ed57c82da92ff53d77530"},
		{"step", func(w Writer) { w.Field("instruction", "RUN") }, "217c0ce37ae45acc1e4a311c0f4cc086b41964295f39f36d4fc1f571f1f12616"}, // docs/keys.md
		{"step", func(w Writer) { w.Field("instruction", "RUN"); w.Private("ENV A", "1") }, "0c9154576717da9447c251ac3bf4c8fff01d147bc6b54bcbd0f629bf2bc08fe0"},
		{"layer", func(w Writer) { w.Field("platform", "linux/amd64 debian 12 python3.11") }, "6ac67e1e065ab3303ac9bf6dcaad1c8af6714df0bd51585195c8b4b5f1f1a7c1"},
	}
	for _, tt := range tests {
		if got := Sum(tt.kind, tt.in).String(); got != tt.want {
			t.Errorf("Sum(%q) = %s, want %s", tt.kind, got, tt.want)
		}
	}
}

// No two lists of inputs share an encoding, wherever the bytes are divided.
func TestSumIsInjective(t *testing.T) {
	list := rapid.SliceOfN(rapid.StringOfN(rapid.RuneFrom([]rune("ab\x00")), 0, 3, -1), 0, 4)
	sum := func(ss []string) Key {
		return Sum("k", func(w Writer) {
			for _, s := range ss {
				w.Field(s, s)
			}
		})
	}
	rapid.Check(t, func(t *rapid.T) {
		a, b := list.Draw(t, "a"), list.Draw(t, "b")
		if same := sum(a) == sum(b); same != slices.Equal(a, b) {
			t.Fatalf("%q and %q: same key = %t", a, b, same)
		}
	})
}

func TestParse(t *testing.T) {
	k := Sum("k", func(Writer) {})
	if got, err := Parse(k.String()); err != nil || got != k {
		t.Errorf("Parse(%s) = %s, %v", k, got, err)
	}
	for _, bad := range []string{"", "ab", k.String() + "00", "zz" + k.String()[2:]} {
		if _, err := Parse(bad); err == nil {
			t.Errorf("Parse(%q) has no error", bad)
		}
	}
}

func TestKeyAsJSON(t *testing.T) {
	type object struct{ K, None Key }
	in := object{K: Sum("k", func(Writer) {})}
	data, err := json.Marshal(in)
	if err != nil {
		t.Fatal(err)
	}
	var out object
	if err := json.Unmarshal(data, &out); err != nil || out != in {
		t.Errorf("%s gave %v, %v", data, out, err)
	}
}

func TestRecord(t *testing.T) {
	rec := func(cmd, secret string, more ...string) Record {
		return Explain(func(w Writer) {
			w.Field("command", cmd)
			w.Private("ENV TOKEN", secret)
			for _, m := range more {
				w.Field("mount", m)
			}
		})
	}
	tests := []struct {
		name     string
		now, old Record
		want     []string
	}{
		{"the same", rec("a", "s"), rec("a", "s"), nil},
		{"a field", rec("b", "s"), rec("a", "s"), []string{"command"}},
		{"a private value", rec("a", "t"), rec("a", "s"), []string{"ENV TOKEN"}},
		{"one more of a name", rec("a", "s", "x", "y"), rec("a", "s", "x"), []string{"mount"}},
		{"one gone", rec("a", "s"), rec("a", "s", "x"), []string{"mount"}},
	}
	for _, tt := range tests {
		if diff := cmp.Diff(tt.want, tt.now.Changed(tt.old)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tt.name, diff)
		}
	}
	if v := rec("a", "hunter2").Get("ENV TOKEN"); v == "" || v == "hunter2" {
		t.Errorf("a private value is recorded as %q", v)
	}
}
