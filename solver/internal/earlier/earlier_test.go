package earlier

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/clayer/clayer/cache"
	"github.com/clayer/clayer/cache/github"
	"github.com/clayer/clayer/cache/transfer"
	"github.com/clayer/clayer/dag"
	"github.com/clayer/clayer/frontend"
	"github.com/clayer/clayer/solver/source"
)

var errAway = errors.New("nobody answers")

// layer returns the manifest that a solve stores of one FETCH, whose source was pin.
func layer(t *testing.T, name, from string, pin dag.Pin, at time.Time) (cache.Manifest, *dag.Source) {
	t.Helper()
	f, err := frontend.Parse("Containerfile."+name, []byte("FETCH "+from+" /opt\n"))
	if err != nil {
		t.Fatal(err)
	}
	f.Name = name
	g, err := dag.Build([]*frontend.File{f}, dag.Options{})
	if err != nil {
		t.Fatal(err)
	}
	src := g.Sources[0]
	keys, err := g.Keys(dag.Base{Platform: "linux/amd64"}, dag.Pins{src.ID: pin})
	if err != nil {
		t.Fatal(err)
	}
	return cache.Manifest{Name: name, Created: at, Steps: []cache.Descriptor{{Record: keys.Record(src.Steps[0])}}}, src
}

func TestPinIsThatOfTheNewestLayerOfTheName(t *testing.T) {
	commit := func(digit string) string { return strings.Repeat(digit, 40) }
	const from = "github:me/env@main"
	day := func(n int) time.Time { return time.Date(2026, 1, n, 0, 0, 0, 0, time.UTC) }
	newest, src := layer(t, "a", from, dag.Pin{Commit: commit("2")}, day(3))
	older, _ := layer(t, "a", from, dag.Pin{Commit: commit("1")}, day(2))
	named, _ := layer(t, "b", from, dag.Pin{Commit: commit("3")}, day(5))
	other, _ := layer(t, "a", "github:me/env@dev", dag.Pin{Commit: commit("4")}, day(4))
	lie, _ := layer(t, "a", from, dag.Pin{Commit: "../../x"}, day(4))
	page, pageSrc := layer(t, "a", "https://example.com/x?token=t", dag.Pin{Digest: "sha256:" + strings.Repeat("5", 64)}, day(1))

	for _, c := range []struct {
		name   string
		layers []cache.Manifest // newest first
		src    *dag.Source
		want   string
	}{
		{"newest", []cache.Manifest{named, other, lie, newest, older}, src, commit("2")},
		{"older", []cache.Manifest{older}, src, commit("1")},
		{"other name", []cache.Manifest{named}, src, ""},
		{"other ref", []cache.Manifest{other}, src, ""},
		{"no commit", []cache.Manifest{lie}, src, ""},
		{"URL", []cache.Manifest{page}, pageSrc, "sha256:" + strings.Repeat("5", 64)},
		{"nothing", nil, src, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			var warned string
			p := &Pins{List: func(context.Context) ([]cache.Manifest, error) { return c.layers, nil }, Warn: func(text string) { warned += text }}
			pin, err := p.Pin(t.Context(), c.src, c.src.Steps[0].Instr.(*frontend.Fetch), errAway)
			if got := pin.Commit + pin.Digest.String(); got != c.want {
				t.Errorf("pin %q, want %q", got, c.want)
			}
			if missed := errors.Is(err, errAway); missed != (c.want == "") {
				t.Errorf("error %v", err)
			}
			if (warned == "") != (c.want == "") || strings.Contains(warned, "token=t") {
				t.Errorf("warned %q", warned)
			}
		})
	}
}

// An error that says what the source is stands, whatever it was earlier.
func TestAnAnswerStands(t *testing.T) {
	m, src := layer(t, "a", "https://example.com/x", dag.Pin{Digest: "sha256:" + strings.Repeat("5", 64)}, time.Time{})
	status := func(code int) error { return fmt.Errorf("get: %w", &transfer.StatusError{Code: code}) }
	for _, c := range []struct {
		err    error
		answer bool
	}{
		{&source.Fault{Message: "no such branch"}, true},
		{&github.Error{Kind: github.BadToken, Code: 401}, true},
		{status(404), true},
		{status(410), true},
		{status(403), false},
		{status(503), false},
		{&github.Error{Kind: github.NotFound, Code: 404}, false},
		{transfer.ErrOffline, false},
	} {
		p := &Pins{List: func(context.Context) ([]cache.Manifest, error) { return []cache.Manifest{m}, nil }, Warn: func(string) {}}
		_, err := p.Pin(t.Context(), src, src.Steps[0].Instr.(*frontend.Fetch), c.err)
		if (err != nil) != c.answer {
			t.Errorf("%v: error %v", c.err, err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	p := &Pins{List: func(context.Context) ([]cache.Manifest, error) { panic("listed") }}
	if _, err := p.Pin(ctx, src, src.Steps[0].Instr.(*frontend.Fetch), errAway); !errors.Is(err, errAway) {
		t.Errorf("canceled: %v", err)
	}
}
