package ui

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/clayer/clayer/dag"
	"github.com/clayer/clayer/frontend"
	"github.com/clayer/clayer/internal/golden"
	"github.com/clayer/clayer/solver/report"
)

// steps returns the steps of two layers.
func steps(t *testing.T) (*dag.Plan, []*dag.Step) {
	t.Helper()
	base, err := frontend.Parse("Containerfile", []byte("RUN one\nENV SECRET=hunter2\n"))
	if err != nil {
		t.Fatal(err)
	}
	mojo, err := frontend.Parse("Containerfile.mojo", []byte("\n\nRUN two\n"))
	if err != nil {
		t.Fatal(err)
	}
	g, err := dag.Build([]*frontend.File{base, mojo}, dag.Options{})
	if err != nil {
		t.Fatal(err)
	}
	k, err := g.Keys(dag.Base{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return dag.NewPlan(g, k, dag.Answers{}), g.Steps()
}

func events(t *testing.T) []report.Event {
	plan, s := steps(t)
	return []report.Event{
		{Kind: report.Planned, Plan: plan},
		{Kind: report.Sandbox, Text: "overlay"},
		{Kind: report.Started, Step: s[0]},
		{Kind: report.Started, Step: s[2]},
		{Kind: report.Output, Step: s[0], Text: "half a "},
		{Kind: report.Output, Step: s[2], Text: "of mojo\n"},
		{Kind: report.Output, Step: s[0], Text: "line\nprogress 1%\rprogress 100%\r\n\n\x1b[31mred\x1b[0m\x1b]0;title\x07 \x07\xff"},
		{Kind: report.Ran, Step: s[0], Took: 12340 * time.Millisecond, Entries: 1, Bytes: 41_000_000},
		{Kind: report.Ran, Step: s[2], Took: 125 * time.Second},
		{Kind: report.Decided, Step: s[2], Text: "it changed nothing: cached steps after it are restored"},
		{Kind: report.Restored, Step: s[2], Bytes: 3_100_000, Store: "dir"},
		{Kind: report.Warning, Text: "something"},
		{Kind: report.Waiting, Text: "process 1"},
		{Kind: report.Applying, Text: "/"},
		{Kind: report.Applied, Step: s[0]},
	}
}

func show(t *testing.T, mode string) string {
	t.Helper()
	var b bytes.Buffer
	d, err := New(mode, &b, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range events(t) {
		d.Show(e)
	}
	d.Close()
	d.Close()
	return b.String()
}

func TestPlain(t *testing.T) {
	const want = `clayer: base: 1 to run
clayer: mojo: 1 to run
clayer: sandbox: overlay
base:1  RUN one
mojo:3  RUN two
mojo:3  | of mojo
base:1  | half a line
base:1  | progress 100%
base:1  | red ` + "\uFFFD" + `
base:1  done in 12.3s, 1 change, 41 MB
mojo:3  done in 2m5s, but changed nothing
mojo:3  it changed nothing: cached steps after it are restored
mojo:3  cached, 3.1 MB from dir
clayer: warning: something
clayer: waiting for process 1
clayer: applying to /
`
	if diff := cmp.Diff(want, show(t, "plain")); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if got := show(t, "quiet"); got != "clayer: warning: something\n" {
		t.Errorf("quiet: %q", got)
	}
}

// TestJSON pins the schema that docs/progress.md promises: every kind of event,
// with every field that it has.
func TestJSON(t *testing.T) {
	_, s := steps(t)
	at := time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)
	var b bytes.Buffer
	show := newJSON(&b)
	more := []report.Event{
		{Kind: report.Fetching, Step: s[0], Bytes: 1000},
		{Kind: report.Fetched, Step: s[0], Bytes: 2000, Took: 300 * time.Millisecond},
		{Kind: report.Restoring, Step: s[2], Store: "dir", Bytes: 1000, Total: 3000},
		{Kind: report.Storing, Step: s[0], Bytes: 3000},
		{Kind: report.Stored, Step: s[0], Bytes: 3000, Took: time.Second},
		{Kind: report.Failed, Step: s[2], Text: "exit code 7", Took: time.Second},
		{Kind: report.Pulled, Store: "github", Text: "cache mount uv", Bytes: 5000},
		{Kind: report.Pushing, Store: "github", Text: "2 steps of layer base, 5 kB", Bytes: 5000},
		{Kind: report.Probing, Text: "base"},
		{Kind: report.Done},
	}
	for i, e := range append(events(t), more...) {
		e.Time = at.Add(time.Duration(i) * time.Second)
		show(e)
	}
	golden.Check(t, "testdata/progress.jsonl", b.String())
	for line := range strings.Lines(b.String()) {
		var e event
		if err := json.Unmarshal([]byte(line), &e); err != nil || e.Event == "" {
			t.Errorf("%s: %v", line, err)
		}
	}
	doc, err := os.ReadFile(filepath.Join("..", "..", "..", "..", "docs", "progress.md"))
	if err != nil {
		t.Fatal(err)
	}
	for _, kind := range report.Kinds {
		if !strings.Contains(b.String(), `"event":"`+string(kind)+`"`) {
			t.Errorf("no event %q in the golden file", kind)
		}
		if !strings.Contains(string(doc), "| `"+string(kind)+"` |") {
			t.Errorf("docs/progress.md does not describe %q", kind)
		}
	}
	for i := range reflect.TypeFor[event]().NumField() {
		name, _, _ := strings.Cut(reflect.TypeFor[event]().Field(i).Tag.Get("json"), ",")
		if !strings.Contains(string(doc), "`"+name+"`") {
			t.Errorf("docs/progress.md does not describe field %q", name)
		}
	}
}

func TestUnknownMode(t *testing.T) {
	if _, err := New("fancy", nil, nil); err == nil {
		t.Error("no error")
	}
}

func TestALineThatNeverEndsIsBounded(t *testing.T) {
	_, s := steps(t)
	var b bytes.Buffer
	p := newPlain(&b)
	for range 100 {
		p.event(report.Event{Kind: report.Output, Step: s[0], Text: strings.Repeat("x", 4096)})
	}
	if n := len(p.partial[s[0]]); n > maxLine+4096 {
		t.Errorf("%d bytes are retained", n)
	}
}
