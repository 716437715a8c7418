package ui

import (
	"cmp"
	"encoding/json"
	"io"
	"slices"
	"time"

	"github.com/clayer/clayer/internal/order"
)

// Chrome's trace event format, which Perfetto and chrome://tracing open:
// https://docs.google.com/document/d/1CvAClvFfyA5R-PhYUmn5OOQtYMH4h6I0nSsKchNAySU.
type traceEvent struct {
	Name     string         `json:"name"`
	Category string         `json:"cat,omitempty"`
	Phase    string         `json:"ph"`           // "X": from TS for Dur; "M": a name for a lane
	TS       int64          `json:"ts"`           // microseconds
	Dur      int64          `json:"dur,omitzero"` // microseconds
	PID      int            `json:"pid"`
	TID      int            `json:"tid"` // the lane
	Args     map[string]any `json:"args,omitempty"`
}

// lanes are the kinds of spans from the top down.
var lanes = []string{"fetch", "restore", "run", "store", "apply"}

// WriteTrace writes all spans, those that overlap in lanes of their own: that
// downloads come side by side, and that uploads go on under the next RUN, is
// seen at a glance.
func (r *Record) WriteTrace(w io.Writer) error {
	us := func(t time.Time) int64 { return t.Sub(r.start).Microseconds() }
	events := []traceEvent{{Name: "process_name", Phase: "M", PID: 1, Args: map[string]any{"name": "clayer"}}}
	tid := 0
	lane := func(name string) {
		tid++
		events = append(events,
			traceEvent{Name: "thread_name", Phase: "M", PID: 1, TID: tid, Args: map[string]any{"name": name}},
			traceEvent{Name: "thread_sort_index", Phase: "M", PID: 1, TID: tid, Args: map[string]any{"sort_index": tid}})
	}
	lane("solve")
	for _, p := range r.phases() {
		events = append(events, traceEvent{Name: p.name, Category: "phase", Phase: "X", TS: us(p.start), Dur: us(p.end) - us(p.start), PID: 1, TID: tid})
	}
	spans := slices.Clone(r.spans)
	for step, start := range r.started {
		spans = append(spans, span{"run", step, start, r.end, 0, "cut off"})
	}
	order.Stable(spans, func(a, b span) int {
		return cmp.Or(a.start.Compare(b.start), b.end.Compare(a.end), cmp.Compare(a.step.Pos().Line, b.step.Pos().Line))
	})
	for _, kind := range lanes {
		var ends []time.Time // of the last span of each lane of this kind
		first := tid + 1
		for _, s := range spans {
			if s.kind != kind {
				continue
			}
			i := slices.IndexFunc(ends, func(t time.Time) bool { return !t.After(s.start) })
			if i < 0 {
				i = len(ends)
				ends = append(ends, time.Time{})
				lane(kind)
			}
			ends[i] = s.end
			args := map[string]any{"layer": s.step.Layer.Name, "line": s.step.Pos().Line}
			if s.bytes > 0 {
				args["bytes"] = s.bytes
			}
			if s.note != "" {
				args["note"] = s.note
			}
			events = append(events, traceEvent{
				Name: where(s.step) + " " + visible(s.step.Text()), Category: kind, Phase: "X",
				TS: us(s.start), Dur: us(s.end) - us(s.start), PID: 1, TID: first + i, Args: args,
			})
		}
	}
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	return enc.Encode(struct {
		TraceEvents []traceEvent `json:"traceEvents"`
		Unit        string       `json:"displayTimeUnit"`
	}{events, "ms"})
}
