package render

import (
	"encoding/json"
	"io"

	"github.com/clayer/clayer/dag"
	"github.com/clayer/clayer/dag/key"
)

// The JSON form of a plan. Fields are added, never changed: programs read it.
type (
	jsonPlan struct {
		Version int          `json:"version"`
		Key     key.Key      `json:"key"` // of the whole composition
		Layers  []jsonLayer  `json:"layers"`
		Stages  []jsonLayer  `json:"stages,omitempty"` // that steps to run copy from
		Sources []jsonSource `json:"sources"`
		Undo    []key.Key    `json:"undo"` // steps in the root that are undone first, the last applied first
	}
	jsonLayer struct {
		Name     string     `json:"name"`
		Stage    string     `json:"stage,omitempty"` // its name, or number, in the file
		File     string     `json:"file"`
		Key      key.Key    `json:"key"`
		BuildsOn string     `json:"buildsOn,omitempty"`
		Order    bool       `json:"orderOnly,omitempty"` // buildsOn enters no key
		Steps    []jsonStep `json:"steps"`
	}
	jsonStep struct {
		Line        int        `json:"line"`
		Instruction string     `json:"instruction"`
		Text        string     `json:"text"`
		Key         key.Key    `json:"key"`
		State       dag.State  `json:"state"`
		Why         string     `json:"why,omitempty"`
		Store       string     `json:"store,omitempty"`
		Size        int64      `json:"size,omitempty"`       // bytes
		Variant     int        `json:"variant,omitempty"`    // which of several snapshots in the store, from 2
		ByContent   bool       `json:"byContent,omitempty"`  // found by what the steps before it made
		EstimateMS  int64      `json:"estimateMS,omitempty"` // milliseconds
		Commit      string     `json:"commit,omitempty"`     // of a FETCH of a Git tree
		Inputs      key.Record `json:"inputs"`
	}
	jsonSource struct {
		Source string    `json:"source"`
		State  dag.State `json:"state"`
		Lines  []int     `json:"lines"`
	}
)

// JSON writes the plan as one JSON object.
func JSON(w io.Writer, p *dag.Plan) error {
	out := jsonPlan{Version: 1, Key: p.Keys.Composite(p.Graph), Layers: []jsonLayer{}, Sources: []jsonSource{}, Undo: append([]key.Key{}, p.Undo...)}
	for i := range p.Layers {
		out.Layers = append(out.Layers, jsonOf(&p.Layers[i], p.Keys))
	}
	for _, st := range p.Stages {
		l := jsonOf(st.Stage(), st.Keys)
		l.Stage = st.Stage().Layer.File.Stage
		out.Stages = append(out.Stages, l)
	}
	for _, ps := range p.Sources() {
		s := jsonSource{Source: ps.Source.Label(), State: ps.State}
		for _, step := range ps.Source.Steps {
			s.Lines = append(s.Lines, step.Pos().Line)
		}
		out.Sources = append(out.Sources, s)
	}
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	return enc.Encode(out)
}

func jsonOf(pl *dag.PlannedLayer, keys *dag.Keys) jsonLayer {
	l := jsonLayer{Name: pl.Layer.Name, File: pl.Layer.File.Path, Key: pl.Key, Order: pl.Layer.Ordered, Steps: []jsonStep{}}
	if pl.Layer.On != nil {
		l.BuildsOn = pl.Layer.On.Name
	}
	for _, it := range pl.Items {
		l.Steps = append(l.Steps, jsonStep{
			Line:        it.Step.Pos().Line,
			Instruction: it.Step.Word(),
			Text:        it.Step.Text(),
			Key:         it.Key,
			State:       it.State,
			Why:         it.Why,
			Store:       it.Found.Store,
			Size:        it.Found.Size,
			Variant:     it.Found.Variant,
			ByContent:   it.Found.ByContent,
			EstimateMS:  it.Estimate.Milliseconds(),
			Commit:      keys.Commit[it.Step],
			Inputs:      keys.Record(it.Step),
		})
	}
	return l
}
