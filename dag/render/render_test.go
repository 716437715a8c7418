package render

import (
	"io"
	"strings"
	"testing"
	"time"

	"github.com/clayer/clayer/dag"
	"github.com/clayer/clayer/dag/key"
	"github.com/clayer/clayer/frontend"
	"github.com/clayer/clayer/internal/golden"
)

// build makes a graph of "NAME: text" files, and its keys; every source is pinned to a digest of its id.
func build(t *testing.T, texts ...string) (*dag.Graph, *dag.Keys) {
	t.Helper()
	var files []*frontend.File
	for _, text := range texts {
		name, body, _ := strings.Cut(text, ":\n")
		f, err := frontend.Parse(name, []byte(body))
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		files = append(files, f)
	}
	g, err := dag.Build(files, dag.Options{})
	if err != nil {
		t.Fatal(err)
	}
	pins := make(dag.Pins)
	for _, src := range g.Sources {
		pins[src.ID] = dag.Pin{Digest: "sha256:" + key.Sum("pin", func(w key.Writer) { w.Field("id", src.ID) }).String()}
	}
	k, err := g.Keys(dag.Base{Platform: "linux/amd64 debian 12 python3.11"}, pins)
	if err != nil {
		t.Fatal(err)
	}
	return g, k
}

func TestGolden(t *testing.T) {
	g, k := build(t, "Containerfile:\nENV A=1\nRUN apt-get install -y git\n",
		"Containerfile.mojo:\nFROM base\nFETCH https://example.com/m.tar.gz?sig=secret /opt/mojo\nRUN pip install \"numpy<3\" # <pinned>\nRUN mojo precompile --everything --with --a --long --line\nENV P=1\n",
		"Containerfile.fuse:\nRUN apt-get install -y fuse3\n")
	a := dag.Answers{Present: map[*dag.Step]bool{}, Cached: map[key.Key]dag.Found{}, Previous: map[string][]dag.Old{}}
	steps := g.Steps()
	for _, s := range steps[:2] {
		a.Present[s] = true
	}
	for _, s := range steps[2:4] {
		a.Cached[k.Step[s]] = dag.Found{Store: "dir", Size: 3_100_000}
	}
	for _, s := range g.Layers[1].Steps {
		a.Previous["mojo"] = append(a.Previous["mojo"], dag.Old{Key: k.Step[s], Record: k.Record(s), Took: 40 * time.Second})
	}
	p := dag.NewPlan(g, k, a)
	for name, write := range map[string]func(io.Writer, *dag.Plan) error{
		"plan.txt": Text, "plan.json": JSON, "plan.dot": DOT, "plan.mmd": Mermaid, "plan.svg": SVG, "plan.html": HTML,
	} {
		var b strings.Builder
		if err := write(&b, p); err != nil {
			t.Fatal(err)
		}
		if strings.Contains(b.String(), "sig=secret") {
			t.Errorf("%s shows the query of a URL", name)
		}
		golden.Check(t, "testdata/"+name, b.String())
	}
}
