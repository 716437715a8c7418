package places_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
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

// TestItems records what a step needs of a root for what it puts there, and asks others.
func TestItems(t *testing.T) {
	tests := []struct {
		name    string
		root    string
		covered string // what steps of the chain wrote
		dest    string
		follow  bool
		items   string // "a/": a directory
		want    string // the items of the need, with its path
		fits    string // roots that meet it, by "|"
		other   string // roots that do not
	}{
		{name: "a directory", dest: "/opt", items: "opt/ opt/x/ opt/x/f", want: "opt: x/ x/f", fits: "|opt/|opt/x/|opt/x/f|opt/x/g/", other: "opt/x|srv/ opt/x->/srv|opt/x/f/"},
		{name: "a file", dest: "/opt", items: "opt/ opt/f", want: "opt: f", fits: "|opt/f|opt/f->nowhere", other: "opt/f/"},
		{name: "an archive", dest: "/opt", follow: true, items: "opt/ opt/x/ opt/x/f", want: "opt: x/. x/f", fits: "|opt/x/|srv/ opt/x->/srv", other: "opt/x|opt/x->/nowhere|opt/g opt/x->g|srv/f/ opt/x->/srv"},
		{name: "names with dots", dest: "/opt", items: "opt/ opt/x./ opt/.y/ opt/z.", want: "opt: .y/ x./ z.", fits: "|opt/x./", other: "opt/x.|opt/.y|opt/z./"},
		{name: "the root", dest: "/", items: "etc/ etc/x/ etc/x/f f", want: "etc: ./ ./x/ ./x/f; f: .", fits: "|etc/x/|f", other: "etc|etc/x|f/|srv/ etc->srv"},
		{name: "one file", dest: "/opt/f", items: "opt/f"},
		{name: "what the chain wrote", covered: "opt/x", root: "opt/x", dest: "/opt", items: "opt/ opt/x/ opt/y/", want: "opt: y/", fits: "opt/x|opt/y/", other: "opt/y"},
		{name: "a dest of the chain", covered: "app", root: "", dest: "/app", items: "app/ app/x/", want: "app: x/", fits: "|app/x/", other: "app/x"},
		{name: "temporary files", root: "tmp/", dest: "/tmp", items: "tmp/ tmp/x/"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			base := makeRoot(t, tt.root)
			items := places.Items{Follow: tt.follow}
			for range 2 { // as by one who packs again
				for range items.From(entries(tt.items)) {
				}
			}
			got, err := places.Root{
				Found:   base,
				Covered: func(p string) bool { return tt.covered == p },
				Base:    places.Of(base).Unmet,
			}.Needs(places.Dest{Path: tt.dest}, &items)
			if err != nil {
				t.Fatal(err)
			}
			got = slices.DeleteFunc(got, func(n snapshot.Need) bool { return n.Type != snapshot.PlaceItems })
			var texts []string
			for _, n := range got {
				texts = append(texts, n.Path+": "+strings.Join(n.Items, " "))
			}
			if text := strings.Join(texts, "; "); text != tt.want {
				t.Fatalf("needs %q, want %q", text, tt.want)
			}
			check := func(roots string, fits bool) {
				for root := range strings.SplitSeq(roots, "|") {
					in, lacking := places.Of(makeRoot(t, root)), ""
					for _, n := range got {
						lacks, err := in.Unmet(n)
						if err != nil {
							t.Fatal(err)
						}
						lacking += lacks
					}
					if (lacking == "") != fits {
						t.Errorf("in a root with %q: %q, want it to fit: %t", root, lacking, fits)
					}
				}
			}
			if tt.want != "" {
				check(tt.fits, true)
				check(tt.other, false)
			}
		})
	}
}

func entries(items string) snapshot.Changes {
	return func(yield func(*snapshot.Entry, error) bool) {
		for item := range strings.FieldsSeq(items) {
			e := &snapshot.Entry{Path: strings.TrimSuffix(item, "/"), Kind: snapshot.File}
			if strings.HasSuffix(item, "/") {
				e.Kind = snapshot.Dir
			}
			if !yield(e, nil) {
				return
			}
		}
	}
}

// TestManyItems records those in the upper directories.
func TestManyItems(t *testing.T) {
	var list strings.Builder
	list.WriteString("opt/ ")
	for i := range 5000 {
		fmt.Fprintf(&list, "opt/d/%d/f ", i)
	}
	list.WriteString("opt/last/")
	items := places.Items{}
	for range items.From(entries(list.String())) {
	}
	base := makeRoot(t, "")
	got, err := places.Root{Found: base, Covered: func(string) bool { return false }, Base: places.Of(base).Unmet}.Needs(places.Dest{Path: "/opt"}, &items)
	if err != nil || len(got) != 2 || len(got[1].Items) > 256 || !slices.Contains(got[1].Items, "last/") {
		t.Errorf("%d needs, %v, of %d items", len(got), err, len(got[len(got)-1].Items))
	}
}
