package solver

import (
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/clayer/clayer/cache/dir"
	"github.com/clayer/clayer/frontend"
	"github.com/clayer/clayer/solver/layers"
	"github.com/clayer/clayer/solver/report"
)

// Options are input: every verb works on the same value, in any order, and none
// changes it.
func TestOneValueOfOptionsServesAllVerbs(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("fetched")) }))
	defer server.Close()
	base := write(t, map[string]string{
		"Containerfile": "ENV A=1\nFETCH " + server.URL + "/file /opt\nCOPY copied /opt/\nWORKDIR /srv/app\n", "copied": "copied",
	})
	store, err := dir.Open(filepath.Join(base, "cache", "store"), dir.Options{})
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	var events []report.Kind
	report := report.New(func(e report.Event) {
		mu.Lock()
		defer mu.Unlock()
		events = append(events, e.Kind)
	})
	files, err := layers.Load(t.Context(), []string{filepath.Join(base, "Containerfile")}, layers.Options{})
	if err != nil {
		t.Fatal(err)
	}
	opt := Options{
		Files: files, Root: filepath.Join(base, "root"), Cache: filepath.Join(base, "cache"), Environ: []string{"PATH=/usr/bin:/bin"},
		Local: store, Push: true, RequireCache: true, Report: report,
	}
	if err := os.Mkdir(opt.Root, 0o755); err != nil {
		t.Fatal(err)
	}
	given := append([]*frontend.File(nil), opt.Files...)
	plan := func(want string) {
		t.Helper()
		p, err := Plan(t.Context(), opt)
		if err != nil {
			t.Fatal(err)
		}
		if got := p.Layers[0].Totals().String(); !strings.HasPrefix(got, want) {
			t.Errorf("plan: %s, want %s", got, want)
		}
	}
	solve := func(want string) {
		t.Helper()
		res, err := Solve(t.Context(), opt)
		if err != nil {
			t.Fatal(err)
		}
		if res.String() != want {
			t.Errorf("solve: %s, want %s", res, want)
		}
	}
	plan("3 to run")
	solve("3 ran")
	plan("3 present")
	solve("3 present")
	if res, err := Undo(t.Context(), opt, ""); err != nil || res.Steps != 3 {
		t.Errorf("undo: %+v, %v", res, err)
	}
	plan("3 cached")
	solve("3 restored")
	if problems, err := newReadOnly(opt).check(t.Context()); err != nil || len(problems) > 0 {
		t.Errorf("check: %v, %v", problems, err)
	}
	if len(opt.Files) != 1 || opt.Files[0] != given[0] {
		t.Error("a verb changed the options")
	}
	if len(events) == 0 {
		t.Error("nothing was reported")
	}
}
