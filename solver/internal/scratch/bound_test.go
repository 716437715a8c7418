package scratch

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/clayer/clayer/cache/snapshot"
	"github.com/clayer/clayer/dag"
	"github.com/clayer/clayer/frontend"
)

// sized makes files: "PATH MEGABYTES", or a link: "PATH TARGET".
func sized(lines ...string) snapshot.Changes {
	return func(yield func(*snapshot.Entry, error) bool) {
		for _, l := range lines {
			e := &snapshot.Entry{Kind: snapshot.File}
			if _, err := fmt.Sscanf(l, "%s %d", &e.Path, &e.Size); err != nil {
				e.Path, e.Target, _ = strings.Cut(l, " ")
				e.Kind = snapshot.Link
			}
			e.Size *= 1e6
			if !yield(e, nil) {
				return
			}
		}
	}
}

func TestScratchIsBounded(t *testing.T) {
	list := func(changes snapshot.Changes) string {
		var l []string
		for e, err := range changes {
			if err != nil {
				t.Fatal(err)
			}
			l = append(l, e.Path)
		}
		return strings.Join(l, " ")
	}
	var x Excess
	for range 2 { // it may be read again
		got := list(x.Without(sized("opt/large 3000", "tmp/a 200", "tmp/d 100", "tmp/d2 tmp/d", "tmp/e 50", "var/tmp/f 10")))
		if want := "opt/large tmp/a tmp/e"; got != want {
			t.Errorf("captured %s, want %s", got, want)
		}
		if got := strings.Join(x.Paths, " "); got != "tmp/d tmp/d2 var/tmp/f" {
			t.Errorf("dropped %s", got)
		}
	}
	x = Excess{Paths: []string{"tmp/d", "tmp/d/f", "tmp/e"}}
	if got := list(x.Deletions()); got != "tmp/d tmp/e" {
		t.Errorf("deletes %s", got)
	}
	sparse := &snapshot.Entry{Path: "tmp/s", Kind: snapshot.File, Size: 1 << 40, Data: []snapshot.Extent{{Offset: 0, Length: 4096}}}
	if got := sizeOf(sparse); got != 4096+perEntry {
		t.Errorf("a sparse file counts as %d bytes", got)
	}
}

// A store that offers more temporary files than any RUN leaves is not believed.
func TestScratchOfStoresIsBounded(t *testing.T) {
	for _, tt := range []struct {
		in   frontend.Instruction
		file string
		bad  bool
	}{
		{&frontend.Run{}, "tmp/a 300", true},
		{&frontend.Run{}, "opt/a 300", false},
		{&frontend.Run{}, "tmp/a 200", false},
		{&frontend.Copy{}, "tmp/a 300", false},
	} {
		var err error
		for _, err = range Bound(&dag.Step{Instr: tt.in}, sized(tt.file)) {
		}
		var unsafe *snapshot.UnsafeError
		if errors.As(err, &unsafe) != tt.bad {
			t.Errorf("%T with %s: error %v", tt.in, tt.file, err)
		}
	}
}
