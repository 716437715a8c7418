package places_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/clayer/clayer/cache/snapshot"
	"github.com/clayer/clayer/solver/internal/names"
	"github.com/clayer/clayer/solver/internal/places"
)

// makeRoot makes a root of words: "a/" a directory, "a" a file, "a->b" a link.
func makeRoot(t *testing.T, words string) *names.View {
	t.Helper()
	root := t.TempDir()
	for word := range strings.FieldsSeq(words) {
		name, target, isLink := strings.Cut(word, "->")
		at := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(at), 0o755); err != nil {
			t.Fatal(err)
		}
		var err error
		switch {
		case isLink:
			err = os.Symlink(target, at)
		case strings.HasSuffix(name, "/"):
			err = os.MkdirAll(at, 0o755)
		default:
			err = os.WriteFile(at, nil, 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return names.New(root, "")
}

// TestPlaces records what a step needs of a root, and asks others for it.
func TestPlaces(t *testing.T) {
	file := func(p string) places.Dest { return places.Dest{Path: p, OneFile: true} }
	dir := func(p string) places.Dest { return places.Dest{Path: p} }
	tests := []struct {
		name    string
		root    string
		chain   string // what steps of the chain made, as makeRoot has it
		covered string // what they wrote, if it is not that
		dest    places.Dest
		want    string // the need; "": none
		fits    string // roots that meet it, by "|"
		other   string // roots that do not
	}{
		{name: "a file", root: "opt/", dest: file("/opt/x"), want: "opt/x opt/x file", fits: "|opt/|opt/x|srv/", other: "opt/x/|srv/ opt->srv|opt/x->y|opt"},
		{name: "a file into a directory", root: "opt/x/", dest: file("/opt/x"), want: "opt/x opt/x existing directory", fits: "opt/x/|opt/x/f", other: "|opt/|opt/x|srv/x/ opt->srv"},
		{name: "files into a directory", root: "", dest: dir("/app/"), want: "app app directory", fits: "|app/", other: "app|srv/ app->srv|app->nowhere"},
		{name: "through a link", root: "usr/bin/ bin->usr/bin", dest: file("/bin/x"), want: "bin/x usr/bin/x file", fits: "usr/bin/ bin->/usr/bin|bin->usr/bin", other: "|bin/|usr/bin/x/ bin->usr/bin|bin->usr/sbin"},
		{name: "the root", root: "", dest: dir("/")},
		{name: "a link to the root", root: "r->/", dest: dir("/r")},
		{name: "nowhere", root: "", dest: places.Dest{}},
		{name: "temporary files", root: "tmp/x/", dest: file("/tmp/x")},
		{name: "a link to temporary files", root: "tmp/ t->tmp", dest: file("/t/x")},
		{name: "a directory of the chain", root: "", chain: "app/", dest: dir("/app"), want: "app app ", fits: "|app/|app", other: "srv/ app->srv"},
		{name: "a file in a directory of the chain", root: "", chain: "app/", dest: file("/app/x"), want: "app/x app/x file", fits: "|app/", other: "app/x/|srv/ app->srv"},
		{name: "a link of the chain", root: "", chain: "srv/ app->srv", covered: "app", dest: file("/app/x"), want: "srv/x srv/x file", fits: "|srv/|app/", other: "srv/x/|opt/ srv->opt"},
		{name: "the chain replaced a link", root: "srv/ app->srv", chain: "app/", dest: file("/app/x")},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			base := makeRoot(t, tt.root)
			found := base
			if tt.chain != "" {
				found = makeRoot(t, tt.chain)
			}
			if tt.covered == "" {
				tt.covered = strings.ReplaceAll(tt.chain, "/", "")
			}
			asked := false
			n, ok, err := places.Root{
				Found:   found,
				Covered: func(p string) bool { return tt.covered == p },
				Base:    func(n snapshot.Need) (string, error) { asked = true; return places.Of(base).Unmet(n) },
			}.Need(tt.dest)
			if err != nil {
				t.Fatal(err)
			}
			got := ""
			if ok {
				got = n.Path + " " + n.Target + " " + n.Type
			}
			if got != tt.want || ok && n.Kind != snapshot.NeedPlace {
				t.Fatalf("needs %q, want %q", got, tt.want)
			}
			if asked != (tt.chain != "") {
				t.Errorf("asked for the root without the chain: %t", asked)
			}
			if !ok {
				return
			}
			check := func(roots string, fits bool) {
				for root := range strings.SplitSeq(roots, "|") {
					lacks, err := places.Of(makeRoot(t, root)).Unmet(n)
					if err != nil || (lacks == "") != fits {
						t.Errorf("in a root with %q: %q, %v, want it to fit: %t", root, lacks, err, fits)
					}
				}
			}
			check(tt.fits, true)
			check(tt.other, false)
			check(tt.root, true)
		})
	}
}
