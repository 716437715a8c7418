package printable

import (
	"bytes"
	"encoding/json"
	"testing"
	"unicode/utf8"

	"pgregory.net/rapid"
)

func TestText(t *testing.T) {
	for _, tt := range []struct{ in, text, line string }{
		{"plain", "plain", "plain"},
		{"日本 🎉 é", "日本 🎉 é", "日本 🎉 é"},
		{"a\n\tb", "a\n\tb", `a\n\tb`},
		{"\x1b[31mred\x1b[0m", `\x1b[31mred\x1b[0m`, `\x1b[31mred\x1b[0m`},
		{"\x1b]0;title\x07", `\x1b]0;title\x07`, `\x1b]0;title\x07`},
		{"over\rwritten\x08", `over\rwritten\x08`, `over\rwritten\x08`},
		{"\u009b31m \x9b31m \x7f", `\u009b31m \x9b31m \u007f`, `\u009b31m \x9b31m \u007f`},
		{"\u202egnp.exe\u2066\u200f", `\u202egnp.exe\u2066\u200f`, `\u202egnp.exe\u2066\u200f`},
		{"\u2028", `\u2028`, `\u2028`},
		{"cut \xe2\x80", `cut \xe2\x80`, `cut \xe2\x80`},
		{"\ufffd", "\ufffd", "\ufffd"},
		{`\x1b`, `\x1b`, `\x1b`},
	} {
		if got := Text(tt.in); got != tt.text {
			t.Errorf("Text(%q) = %q, want %q", tt.in, got, tt.text)
		}
		if got := Line(tt.in); got != tt.line {
			t.Errorf("Line(%q) = %q, want %q", tt.in, got, tt.line)
		}
	}
}

// However text is cut into writes, the same comes out, and nothing of it is raw.
func TestWriter(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		in := []byte(rapid.StringOf(rapid.SampledFrom([]rune("aé日🎉\x1b\n\t\u009b\u202e\x00"))).Draw(t, "text"))
		if len(in) > 0 && rapid.Bool().Draw(t, "cut off") {
			in = in[:len(in)-1]
		}
		var out bytes.Buffer
		w := NewWriter(&out)
		for rest := in; len(rest) > 0; {
			n := rapid.IntRange(1, len(rest)).Draw(t, "n")
			if m, err := w.Write(rest[:n]); m != n || err != nil {
				t.Fatalf("Write = %d, %v", m, err)
			}
			rest = rest[n:]
		}
		if err := w.Flush(); err != nil {
			t.Fatal(err)
		}
		if want := Text(string(in)); out.String() != want {
			t.Fatalf("wrote %q, want %q", out.String(), want)
		}
		if !utf8.Valid(out.Bytes()) || Text(out.String()) != out.String() {
			t.Fatalf("raw: %q", out.String())
		}
	})
}

// JSON that goes through a Writer is JSON of the same value.
func TestWriterPreservesJSON(t *testing.T) {
	in := "\x1b[0m \u009b \x7f \u202e \u2028 \n\t\r日🎉"
	var out bytes.Buffer
	enc := json.NewEncoder(NewWriter(&out))
	enc.SetEscapeHTML(false)
	if err := enc.Encode(in); err != nil {
		t.Fatal(err)
	}
	var got string
	if err := json.Unmarshal(out.Bytes(), &got); err != nil || got != in {
		t.Errorf("%s: %q, %v", out.Bytes(), got, err)
	}
}
