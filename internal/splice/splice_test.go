package splice

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

func TestSetValue(t *testing.T) {
	for name, tt := range map[string]struct {
		src, value string
		path       []any
		want       string // "" for an error
	}{
		"an empty file":            {"", `1`, []any{"a"}, "{\n  \"a\": 1\n}\n"},
		"an empty object":          {"{}", `1`, []any{"a"}, "{\n  \"a\": 1\n}"},
		"on one line":              {`{"a": 1}`, `2`, []any{"b"}, `{"a": 1, "b": 2}`},
		"replaced":                 {`{"a": [1, 2] , "b": 3}`, `"x"`, []any{"a"}, `{"a": "x" , "b": 3}`},
		"the last of two":          {`{"a": 1, "a": 2}`, `3`, []any{"a"}, `{"a": 1, "a": 3}`},
		"tabs":                     {"{\n\t\"a\": 1\n}\n", "{\n  \"x\": 2\n}", []any{"b"}, "{\n\t\"a\": 1,\n\t\"b\": {\n\t\t\"x\": 2\n\t}\n}\n"},
		"line ends of Windows":     {"{\r\n  \"a\": 1\r\n}\r\n", "2", []any{"b"}, "{\r\n  \"a\": 1,\r\n  \"b\": 2\r\n}\r\n"},
		"a byte order mark":        {"\ufeff{\"a\": 1}", "2", []any{"b"}, "\ufeff{\"a\": 1, \"b\": 2}"},
		"a comment after the last": {"{\n  \"a\": 1 // one, }\n}\n", "2", []any{"b"}, "{\n  \"a\": 1, // one, }\n  \"b\": 2\n}\n"},
		"a comment as the last":    {"{\n  \"a\": 1\n  /* \"b\": 3\n  */\n}\n", "2", []any{"b"}, "{\n  \"a\": 1,\n  /* \"b\": 3\n  */\n  \"b\": 2\n}\n"},
		"a trailing comma":         {"{\n  \"a\": 1,\n}\n", "2", []any{"b"}, "{\n  \"a\": 1,\n  \"b\": 2,\n}\n"},
		"deeper":                   {"{\n  \"a\": {\"b\": []}\n}\n", "2", []any{"a", "b", Append}, "{\n  \"a\": {\"b\": [\n    2\n  ]}\n}\n"},
		"made on the way":          {"{}\n", "2", []any{"a", "b", Append}, "{\n  \"a\": {\n    \"b\": [\n      2\n    ]\n  }\n}\n"},
		"null on the way":          {"{\n  \"a\": null\n}\n", "2", []any{"a", "b"}, "{\n  \"a\": {\n    \"b\": 2\n  }\n}\n"},
		"an element":               {`{"a": [{"b": 1}]}`, "2", []any{"a", 0, "b"}, `{"a": [{"b": 2}]}`},
		"a name with an escape":    {`{"a\u0062": 1}`, "2", []any{"ab"}, `{"a\u0062": 2}`},
		"a slash in a string":      {`{"a": "//", "b": "/*\""}`, "2", []any{"c"}, `{"a": "//", "b": "/*\"", "c": 2}`},
		"another form":             {`{"a": []}`, "2", []any{"a", "b"}, ""},
		"no object":                {`[]`, "2", []any{"a"}, ""},
		"half":                     {`{"a": `, "2", []any{"a"}, ""},
		"two":                      {`{} {}`, "2", []any{"a"}, ""},
		"a comment without an end": {`{} /*`, "2", []any{"a"}, ""},
		"no comma":                 {`{"a": 1 "b": 2}`, "2", []any{"c"}, ""},
		"a word":                   {`{"a": yes}`, "2", []any{"c"}, ""},
		"half a string":            {`{"a": "x`, "2", []any{"c"}, ""},
		"a depth without an end":   {strings.Repeat("[", 100_000), "2", []any{"c"}, ""},
	} {
		got, err := SetValue([]byte(tt.src), tt.value, tt.path...)
		if string(got) != tt.want || (err == nil) != (tt.want != "") {
			t.Errorf("%s: %q, %v, want %q", name, got, err, tt.want)
		}
	}
}

// Whatever is set can be read again, and everything else is what it was.
func FuzzSetValue(f *testing.F) {
	for _, s := range []string{`{"a": 1}`, `{"a": {"b": [1, {"c": null}]}, "d": "x"}`, "{\n // x\n \"a\": [],\n}", "null", ""} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, src string) {
		got, err := SetValue([]byte(src), `{"x": 1}`, "k", "l")
		if err != nil {
			return
		}
		value, err := Value(got, "k", "l")
		if err != nil || string(value) != `{"x": 1}` {
			t.Fatalf("%q became %q: %q, %v", src, got, value, err)
		}
		if json.Valid([]byte(src)) && !json.Valid(got) {
			t.Fatalf("%q became %q, which is no JSON", src, got)
		}
		if again, err := SetValue(got, `{"x": 1}`, "k", "l"); err != nil || string(again) != string(got) {
			t.Fatalf("%q, again: %q, %v", got, again, err)
		}
	})
}

func TestAddItem(t *testing.T) {
	first := func(item string) bool { return strings.Contains(item, "first") }
	path := []string{"jobs", "x", "steps"}
	for name, tt := range map[string]struct {
		src, want string // want has NEW where the item is, before its lines are indented
		err       error
	}{
		"after the first":   {src: "jobs:\n  x:\n    steps:\n      - first: 1\n        y: |\n          # text\n      # of the second\n      - second: 2\n  y: 3\n", want: "jobs:\n  x:\n    steps:\n      - first: 1\n        y: |\n          # text\n      NEW\n      # of the second\n      - second: 2\n  y: 3\n"},
		"as the last":       {src: "jobs:\n  x:\n    steps:\n    - a\n    - b\n\n  # y\n  y: 3\n", want: "jobs:\n  x:\n    steps:\n    - a\n    - b\n    NEW\n\n  # y\n  y: 3\n"},
		"at the end":        {src: "jobs:\n    \"x\": # it\n        steps:\n        - a", want: "jobs:\n    \"x\": # it\n        steps:\n        - a\n        NEW\n"},
		"Windows":           {src: "jobs:\r\n  x:\r\n    steps:\r\n      - a\r\n", want: "jobs:\r\n  x:\r\n    steps:\r\n      - a\r\n      NEW\r\n"},
		"the second":        {src: "jobs: 1\n---\njobs:\n  x:\n    steps:\n      - a\n", want: "jobs: 1\n---\njobs:\n  x:\n    steps:\n      - a\n      NEW\n"},
		"another x":         {src: "other:\n  x:\n    steps: []\njobs:\n  y:\n    x: 1\n  x:\n    steps:\n      - a\n", want: "other:\n  x:\n    steps: []\njobs:\n  y:\n    x: 1\n  x:\n    steps:\n      - a\n      NEW\n"},
		"no list":           {src: "jobs:\n  x:\n    y: 1\n", err: ErrNone},
		"no path":           {src: "on: push\n", err: ErrNone},
		"nothing":           {src: "", err: ErrNone},
		"a flow list":       {src: "jobs:\n  x:\n    steps: [a, b]\n", err: ErrForm},
		"a flow map":        {src: "jobs: {x: {steps: []}}\n", err: ErrForm},
		"an alias":          {src: "jobs:\n  x: *y\n", err: ErrForm},
		"a map":             {src: "jobs:\n  x:\n    steps:\n      a: 1\n", err: ErrForm},
		"an empty list":     {src: "jobs:\n  x:\n    steps:\n", err: ErrForm},
		"a flow list below": {src: "jobs:\n  x:\n    steps:\n      [a, b]\n", err: ErrForm},
	} {
		got, err := AddItem(tt.src, "- new: 1\n  z: 2\n", first, path...)
		if !errors.Is(err, tt.err) || (err == nil) != (tt.err == nil) {
			t.Errorf("%s: %v, want %v", name, err, tt.err)
		}
		if err != nil {
			continue
		}
		newline := "\n"
		if name == "Windows" {
			newline = "\r\n"
		}
		indent := len(tt.want[:strings.Index(tt.want, "NEW")]) - strings.LastIndex(tt.want[:strings.Index(tt.want, "NEW")], "\n") - 1
		if want := strings.Replace(tt.want, "NEW", "- new: 1"+newline+strings.Repeat(" ", indent)+"  z: 2", 1); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
		var v any
		if err := yaml.Unmarshal([]byte(got), &v); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := AddItem("jobs:\n\tx: 1\n", "- a\n", first, path...); err == nil {
		t.Error("a tab is taken")
	}
}
