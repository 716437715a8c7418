package dag

import (
	"fmt"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/clayer/clayer/dag/key"
	"github.com/clayer/clayer/frontend"
	"github.com/clayer/clayer/internal/golden"
)

// makes is what a step makes in these tests: what its text says before a "#", or an "ENV".
func makes(s *Step) Made {
	text, _, _ := strings.Cut(s.Text(), "#")
	if strings.Contains(text, "nothing") {
		return Made{LeftOut: true}
	}
	return Made{DiffID: digest.FromString(strings.TrimSpace(text))}
}

// seconds returns the second keys of a graph's steps.
func seconds(g *Graph, k *Keys) map[*Step]key.Key {
	all := make(map[*Step]key.Key)
	for _, s := range g.Steps() {
		all[s] = k.Cutoff(s, k.Until(s, makes))
	}
	return all
}

// The second keys of every instruction are pinned, as the first ones are.
func TestCutoffGolden(t *testing.T) {
	g, err := Build(parse(t, everyInstruction, "Containerfile.x:\nFROM base\n# cache-bust: 1\nRUN nothing\nRUN true\n"), Options{Session: map[string]string{"PATH": "/bin"}})
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	k := keysOf(t, g, testBase)
	second := seconds(g, k)
	for _, s := range g.Steps() {
		text := "none"
		if !second[s].IsZero() {
			text = second[s].String()
		}
		fmt.Fprintf(&b, "%s:%d %s %s\n", s.Layer.Name, s.Pos().Line, text, s.Text())
	}
	golden.Check(t, "testdata/cutoff.golden", b.String())
}

// Which second keys an edit leaves as they are: of the lines of the edited file, "-" for one
// that has none.
func TestWhatChangesACutoff(t *testing.T) {
	const text = "RUN one\nENV A=1\nRUN two\nRUN three\n"
	tests := []struct {
		name string
		text string
		base func(*Base)
		same string
	}{
		{name: "nothing changed", text: text, same: "34"},
		{name: "a step made the same by another text", text: "RUN one # a comment\nENV A=1\nRUN two\nRUN three\n", same: "34"},
		{name: "a step in the middle made the same", text: "RUN one\nENV A=1\nRUN two # a comment\nRUN three\n", same: "4"},
		{name: "a step made something else", text: "RUN 1\nENV A=1\nRUN two\nRUN three\n"},
		{name: "steps changed places", text: "RUN one\nENV A=1\nRUN three\nRUN two\n"},
		{name: "a step is new", text: "RUN one\nRUN new\nENV A=1\nRUN two\nRUN three\n"},
		{name: "an ENV in two lines", text: "ENV B=1\nRUN one\nENV A=1\nRUN two\nRUN three\n"},
		{name: "an ENV changed", text: "RUN one\nENV A=2\nRUN two\nRUN three\n"},
		{name: "another directory", text: "RUN one\nENV A=1\nRUN two\nSHELL [\"sh\", \"-c\"]\nRUN three\n", same: "3"},
		{name: "a cache-bust goes on", text: "# cache-bust: 1\nRUN one\nENV A=1\nRUN two\nRUN three\n"},
		{name: "a cache-bust at the end", text: "RUN one\nENV A=1\nRUN two\n# cache-bust: 1\nRUN three\n", same: "3"},
		{name: "another platform", text: text, base: func(b *Base) { b.Platform = "linux/arm64 debian 12" }},
		{name: "a salt", text: text, base: func(b *Base) { b.Salts = append(b.Salts, "x") }},
		{name: "another base", text: text, base: func(b *Base) { b.ID = "x" }},
		{name: "another commit", text: text, base: func(b *Base) { b.Commits = []string{"o/r@1"} }},
	}
	g0, k0 := build(t, Options{}, text)
	had := make(map[string]bool)
	for _, k := range seconds(g0, k0) {
		had[k.String()] = !k.IsZero()
	}
	for _, tt := range tests {
		base := testBase
		if tt.base != nil {
			tt.base(&base)
		}
		g, _ := build(t, Options{}, tt.text)
		k := keysOf(t, g, base)
		second := seconds(g, k)
		same := ""
		for _, s := range g.Steps() {
			if had[second[s].String()] {
				same += fmt.Sprint(s.Pos().Line)
			}
		}
		if same != tt.same {
			t.Errorf("%s: the same second keys in lines %q, want %q", tt.name, same, tt.same)
		}
	}
}

// A layer FROM another goes on with what that one made; one beside others begins at the root.
func TestCutoffOfLayers(t *testing.T) {
	of := func(texts ...string) (*Graph, map[*Step]key.Key) {
		g, err := Build(parse(t, texts...), Options{})
		if err != nil {
			t.Fatal(err)
		}
		return g, seconds(g, keysOf(t, g, testBase))
	}
	last := func(g *Graph, all map[*Step]key.Key) key.Key { return all[g.Layers[1].Last()] }
	const on, beside = "Containerfile.x:\nFROM base\nRUN two\n", "Containerfile.x:\nRUN two\n"
	first := last(of("RUN one\n", on))
	if again := last(of("RUN one # again\n", on)); first.IsZero() || again != first {
		t.Errorf("FROM a layer that made the same: %s, was %s", again.Short(), first.Short())
	}
	if other := last(of("RUN 1\n", on)); other == first {
		t.Error("FROM a layer that made something else: the same key")
	}
	if none := last(of("RUN one\n", beside)); !none.IsZero() {
		t.Error("the first step of a layer has a second key, which says what the first one says")
	}
}

// What is not known of one step leaves those after it without a second key.
func TestCutoffOfUnknown(t *testing.T) {
	g, k := build(t, Options{}, "RUN one\nRUN two\nRUN three\n")
	steps := g.Layers[0].Steps
	c := k.Until(steps[2], func(s *Step) Made {
		if s == steps[0] {
			return Made{}
		}
		return makes(s)
	})
	if !k.Cutoff(steps[2], c).IsZero() {
		t.Error("it has one")
	}
	stored := StoredStep(k.Step[steps[0]], k.Record(steps[0]), frontend.Meta{})
	steps[1].Instr = stored
	if !k.Cutoff(steps[2], k.Until(steps[2], makes)).IsZero() {
		t.Error("after a step that is no line of the file it has one")
	}
}

// The record of a step that had other steps before it is that of the same step.
func TestDiffersWhateverIsBefore(t *testing.T) {
	g0, k0 := build(t, Options{}, "RUN one\nRUN two\n")
	g, k := build(t, Options{}, "RUN 1\nRUN two\nRUN three\n")
	rec := k0.Record(g0.Layers[0].Steps[1])
	if other := k.Differs(g.Layers[0].Steps[1], rec); len(other) > 0 {
		t.Errorf("it differs: %q", other)
	}
	if other := k.Differs(g.Layers[0].Steps[2], rec); len(other) != 1 || other[0] != "command" {
		t.Errorf("another step differs in %q, want the command", other)
	}
}

// A plan says of which steps that follow an edit a snapshot may be restored.
func TestPlanSaysWhatMayMatch(t *testing.T) {
	g0, k0 := build(t, Options{}, "RUN one\nRUN two\nRUN three\n")
	for _, cutoff := range []bool{true, false} {
		g, k := build(t, Options{}, "RUN 1\nRUN two\nRUN new\nRUN three\n")
		a := answers(g0, k0, 0, 0)
		for _, s := range g0.Steps() {
			a.Previous["base"] = append(a.Previous["base"], Old{Key: k0.Step[s], Line: s.Pos().Line, Record: k0.Record(s), Cutoff: cutoff})
		}
		for i, it := range NewPlan(g, k, a).Layers[0].Items {
			may := cutoff && (i == 1 || i == 3)
			if it.MayMatch != may || may != (it.Why == "unless line 1 makes the same again") {
				t.Errorf("second keys %t, line %d: may match: %t, %q", cutoff, i+1, it.MayMatch, it.Why)
			}
		}
	}
}
