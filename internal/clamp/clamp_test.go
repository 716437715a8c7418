package clamp

import (
	"testing"
	"time"

	"github.com/clayer/clayer/internal/tree"
)

func TestSourceOf(t *testing.T) {
	for compiled, want := range map[string]string{
		"a/__pycache__/m.cpython-312.pyc":       "a/m.py",
		"a/__pycache__/m.cpython-312.opt-1.pyc": "a/m.py",
		"__pycache__/m.pypy39.pyc":              "m.py",
		"a/m.pyc":                               "a/m.py",
		"m.pyc":                                 "m.py",
		"a/__pycache__/m.py":                    "",
		"a/m.pyo":                               "",
	} {
		if got := sourceOf(compiled); got != want {
			t.Errorf("%s: %q, want %q", compiled, got, want)
		}
	}
}

func TestPatch(t *testing.T) {
	of, to := Source{ModTime: 0x65000001, Size: 7}, time.Unix(0x12cff780, 0)
	head := func(words ...uint32) []byte {
		b := append([]byte{0xcb, 0x0d, '\r', '\n'}, make([]byte, 4*len(words))...)
		for i, w := range words {
			setWord(b, 4+4*i, w)
		}
		return b
	}
	tests := []struct {
		name       string
		head, want []byte // nil: as it is
	}{
		{"of its source", head(0, 0x65000001, 7), head(0, 0x12cff780, 7)},
		{"of an older source", head(0, 0x65000000, 7), nil},
		{"of a source of another size", head(0, 0x65000001, 8), nil},
		{"by a checked hash", head(3, 0x65000001, 7), nil},
		{"by an unchecked hash", head(1, 0x65000001, 7), nil},
		{"of Python 3.6", head(0x65000001, 7, 0xe3), head(0x12cff780, 7, 0xe3)},
		{"cut off", head(0, 0x65000001), nil},
		{"none", []byte("#!/usr/bin/python3\n"), nil},
	}
	for _, tt := range tests {
		got, ok := patch(tt.head, of, to)
		if ok != (tt.want != nil) || string(got) != string(tt.want) {
			t.Errorf("%s: %x, %v, want %x", tt.name, got, ok, tt.want)
		}
	}
}

func TestPlan(t *testing.T) {
	at := time.Unix(1700000000, 5)
	items := Plan([]tree.Fresh{
		{Path: "m.py", ModTime: at, Size: 3, File: true},
		{Path: "__pycache__/m.cpython-312.pyc", ModTime: at.Add(time.Second), File: true},
		{Path: "__pycache__/old.cpython-312.pyc", ModTime: at, File: true},
		{Path: "d.py", ModTime: at},
		{Path: "d.pyc", ModTime: at, File: true},
	})
	for _, it := range items {
		fits := it.Path == "__pycache__/m.cpython-312.pyc"
		if fits != (it.Source != nil) || fits && *it.Source != (Source{1700000000, 3}) {
			t.Errorf("%s: %v", it.Path, it.Source)
		}
	}
}
