package snapshot

import (
	"errors"
	"strings"
	"testing"
)

func TestScratch(t *testing.T) {
	for p, want := range map[string]bool{
		"tmp": true, "tmp/x": true, "tmp/x/y": true, "var/tmp": true, "var/tmp/x": true,
		"var": false, "tmpx": false, "usr/tmp/x": false, "var/tmpx": false, "x/tmp": false,
	} {
		if got := IsScratch(p); got != want {
			t.Errorf("IsScratch(%s) = %t", p, got)
		}
	}
	entries := func(yield func(*Entry, error) bool) {
		for _, e := range []*Entry{{Path: "a", Kind: Dir}, {Path: "tmp/f", Kind: File}, {Path: "tmp/l", Kind: Link, Target: "tmp/f"}, {Path: "var/tmp/x", Kind: Delete}, {Path: "z", Kind: File}} {
			if !yield(e, nil) {
				return
			}
		}
	}
	found := false
	if got := paths(t, ForRoot(entries, &found)); got != "a z" || !found {
		t.Errorf("for the root: %s, scratch found: %t", got, found)
	}
	if got := paths(t, Scratch(entries)); got != "tmp/f tmp/l var/tmp/x" {
		t.Errorf("scratch: %s", got)
	}
}

// A file of the root that is a link to a temporary file can't be in the root alone.
func TestLinksAcrossScratch(t *testing.T) {
	for _, e := range []*Entry{{Path: "z", Kind: Link, Target: "tmp/f"}, {Path: "tmp/f", Kind: Link, Target: "a"}} {
		entries := func(yield func(*Entry, error) bool) { yield(e, nil) }
		split := ForRoot
		if IsScratch(e.Path) {
			split = func(c Changes, _ *bool) Changes { return Scratch(c) }
		}
		var err error
		for _, err = range split(entries, nil) {
		}
		var unsafe *UnsafeError
		if !errors.As(err, &unsafe) {
			t.Errorf("%s to %s: error %v", e.Path, e.Target, err)
		}
	}
}

func paths(t *testing.T, changes Changes) string {
	t.Helper()
	var l []string
	for e, err := range changes {
		if err != nil {
			t.Fatal(err)
		}
		l = append(l, e.Path)
	}
	return strings.Join(l, " ")
}

func TestFilterWithScratch(t *testing.T) {
	m, err := Filter{Ignore: []string{"**/*.log"}}.CompileWithScratch()
	if err != nil {
		t.Fatal(err)
	}
	for p, want := range map[string]bool{
		"tmp": true, "var/tmp": true, "tmp/x": false, "var/tmp/x/y": false, "tmp/h/.cache/pip/x": true, "tmp/a.log": true,
		"run/x": true, "var/cache/apt/archives/x": true,
	} {
		if got := m.Skip(p); got != want {
			t.Errorf("%s: left out %t", p, got)
		}
	}
	for _, p := range []string{"tmp", "var/tmp", "tmp/x"} {
		if m.Prune(p) {
			t.Errorf("a walk does not enter %s", p)
		}
	}
}
