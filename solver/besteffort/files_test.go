package besteffort

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/clayer/clayer/dag/key"
	"github.com/clayer/clayer/frontend"
	"github.com/clayer/clayer/solver"
)

func parse(t *testing.T, name, text string) *frontend.File {
	t.Helper()
	f, err := frontend.Parse("Containerfile."+name, []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	f.Name = name
	return f
}

// newRun returns a run of files whose layers end before lines, by name; 0 is an end before
// everything.
func newRun(files []*frontend.File, ends map[string]int) *run {
	r := &run{opt: solver.Options{Files: files}, cuts: make(map[*frontend.File]cut), wanted: nil}
	for _, f := range files {
		if line, ok := ends[f.Name]; ok {
			r.cuts[f] = cut{line, errors.New("no")}
		}
	}
	return r
}

// What is solved of files whose layers have ended: "name: the lines".
func TestFilesEndBeforeALine(t *testing.T) {
	base := "ENV A=1\nRUN one\nSNAPSHOT /tmp/x\nRUN two\n"
	for _, c := range []struct {
		name  string
		files []string // name and text
		ends  map[string]int
		want  []string
	}{
		{"whole", []string{"a", base}, nil, []string{"a: 1 2 3 4"}},
		{"a step", []string{"a", base}, map[string]int{"a": 4}, []string{"a: 1 2"}},
		{"the first step", []string{"a", base}, map[string]int{"a": 2}, nil},
		{"a file", []string{"a", base}, map[string]int{"a": 0}, nil},
		{"a SNAPSHOT alone", []string{"a", "RUN one\nSNAPSHOT /a\nSNAPSHOT /b\n"}, map[string]int{"a": 3}, []string{"a: 1 2"}},
		{"what builds on it", []string{"a", base, "b", "FROM a\nRUN b\n", "c", "FROM b\nRUN c\n", "d", "RUN d\n"}, map[string]int{"a": 4}, []string{"a: 1 2", "d: 1"}},
		{"what it builds on", []string{"a", base, "b", "FROM a\nRUN b\nRUN c\n"}, map[string]int{"b": 3}, []string{"a: 1 2 3 4", "b: 1 2"}},
		{"a cycle", []string{"a", "FROM b\nRUN a\n", "b", "FROM a\nRUN b\n"}, map[string]int{"a": 1, "b": 1}, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			var files []*frontend.File
			for i := 0; i < len(c.files); i += 2 {
				files = append(files, parse(t, c.files[i], c.files[i+1]))
			}
			r := newRun(files, c.ends)
			r.wanted = make(map[string]key.Key)
			var got []string
			for _, f := range r.files(t.Context()) {
				text := f.Name + ":"
				for _, in := range f.Instructions {
					text += fmt.Sprint(" ", in.Base().Pos.Line)
				}
				got = append(got, text)
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// A layer ends earlier, never later, so that a loop of tries comes to its end.
func TestALayerEndsOnlyEarlier(t *testing.T) {
	f := parse(t, "a", "RUN one\nRUN two\nRUN three\n")
	r := newRun([]*frontend.File{f}, nil)
	at := func(line int) frontend.Pos { return frontend.Pos{File: f.Path, Line: line} }
	for _, c := range []struct {
		line int
		ends bool
	}{{3, true}, {3, false}, {2, true}, {3, false}, {1, true}, {1, false}} {
		if got := r.cut(at(c.line), errors.New("no")); got != c.ends {
			t.Errorf("line %d: %t", c.line, got)
		}
	}
	if r.cut(frontend.Pos{File: "another"}, errors.New("no")) {
		t.Error("a file that is not composed has ended")
	}
}

// What is printed of a missing step has nothing in it that may be secret.
func TestFirstHidesValues(t *testing.T) {
	f := parse(t, "a", "ENV TOKEN=hunter2\nFETCH https://example.com/x?token=hunter2 /opt\nRUN true\n")
	for _, line := range []int{0, 1, 2} {
		if _, text := first(f, line); text == "" || strings.Contains(text, "hunter2") {
			t.Errorf("line %d: %q", line, text)
		}
	}
}
