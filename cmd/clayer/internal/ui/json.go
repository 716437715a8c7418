package ui

import (
	"encoding/json"
	"io"
	"time"

	"github.com/clayer/clayer/solver/report"
)

// event is a line of --progress=json.
type event struct {
	Time    time.Time `json:"time"`
	Event   string    `json:"event"`
	Layer   string    `json:"layer,omitempty"`
	Line    int       `json:"line,omitempty"`
	Step    string    `json:"step,omitempty"`
	Text    string    `json:"text,omitempty"`
	Store   string    `json:"store,omitempty"`
	TookMS  int64     `json:"tookMS,omitempty"`  // milliseconds
	Entries int       `json:"entries,omitempty"` // changes of the root
	Bytes   int64     `json:"bytes,omitempty"`
	Total   int64     `json:"total,omitempty"` // what bytes will come to
}

func newJSON(w io.Writer) func(report.Event) {
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	write := func(e event) {
		// A progress stream without a reader must not end the solve.
		_ = enc.Encode(e)
	}
	return func(e report.Event) {
		out := event{
			Time: e.Time, Event: string(e.Kind), Text: e.Text, Store: e.Store,
			TookMS: e.Took.Milliseconds(), Entries: e.Entries, Bytes: e.Bytes, Total: e.Total,
		}
		if e.Step != nil {
			out.Layer, out.Line, out.Step = e.Step.Layer.Name, e.Step.Pos().Line, e.Step.Text()
		}
		if e.Plan == nil {
			write(out)
			return
		}
		for i := range e.Plan.Layers {
			l := &e.Plan.Layers[i]
			out.Layer, out.Text = l.Layer.Name, l.Totals().String()
			write(out)
		}
	}
}
