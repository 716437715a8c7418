package ui

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/clayer/clayer/dag"
	"github.com/clayer/clayer/internal/order"
	"github.com/clayer/clayer/internal/sizes"
	"github.com/clayer/clayer/solver/report"
)

// A Record stores what a solve did and when: what the summary and the trace are
// made of. Its methods may be called by one goroutine at a time.
type Record struct {
	start time.Time
	end   time.Time // of the last event

	planned, applying, applied, done time.Time // zero: did not come to that
	restored                         time.Time // the last one

	spans   []span
	started map[*dag.Step]time.Time // that have not ended

	steps, cached      int
	fetched, stored    int64 // bytes
	written, fromCache int64
	stores             []string
}

// A span is something that took time.
type span struct {
	kind       string // "run", "fetch", "restore", "store", "apply"
	step       *dag.Step
	start, end time.Time
	bytes      int64
	note       string
}

func (s span) took() time.Duration { return s.end.Sub(s.start) }

// NewRecord returns a record that begins now.
func NewRecord(now time.Time) *Record {
	return &Record{start: now, end: now, started: make(map[*dag.Step]time.Time)}
}

// Add takes in an event.
func (r *Record) Add(e report.Event) {
	r.end = e.Time
	add := func(kind, note string) {
		r.spans = append(r.spans, span{kind, e.Step, e.Time.Add(-e.Took), e.Time, e.Bytes, note})
	}
	switch e.Kind {
	case report.Planned:
		if r.planned.IsZero() {
			r.planned = e.Time
		}
		r.steps = 0 // it may be planned again
		for i := range e.Plan.Layers {
			r.steps += e.Plan.Layers[i].Totals().Steps
		}
		for _, st := range e.Plan.Stages {
			r.steps += st.Stage().Totals().Steps
		}
	case report.Started:
		r.started[e.Step] = e.Time
	case report.Ran:
		delete(r.started, e.Step)
		add("run", "")
	case report.Failed:
		delete(r.started, e.Step)
		add("run", e.Text)
	case report.Fetched:
		r.fetched += e.Bytes
		add("fetch", "")
	case report.Restored:
		r.restored = e.Time
		r.cached++
		r.fromCache += e.Bytes
		if !slices.Contains(r.stores, e.Store) {
			r.stores = append(r.stores, e.Store)
		}
		add("restore", e.Store)
	case report.Stored:
		r.stored += e.Bytes
		add("store", "")
	case report.Applying:
		r.applying = e.Time
	case report.Applied:
		from := r.applying
		if !r.applied.IsZero() {
			from = r.applied
		}
		if began := r.lastRun(e.Step); began.After(from) {
			from = began // in place a step is applied when it has run
		}
		r.applied = e.Time
		r.written += e.Bytes
		r.spans = append(r.spans, span{"apply", e.Step, from, e.Time, e.Bytes, ""})
	case report.Done:
		r.done = e.Time
	}
}

// lastRun returns when a step was done, zero for one that did not run.
func (r *Record) lastRun(s *dag.Step) (end time.Time) {
	for _, sp := range r.spans {
		if sp.kind == "run" && sp.step == s {
			end = sp.end
		}
	}
	return end
}

// A phase is a part of a solve that all of it waited for.
type phase struct {
	name       string
	start, end time.Time
}

// phases divides the time from the first event to the last. What did not take
// place has no phase.
func (r *Record) phases() []phase {
	var list []phase
	at := r.start
	add := func(name string, end time.Time) {
		if end.After(at) {
			list = append(list, phase{name, at, end})
			at = end
		}
	}
	if r.planned.IsZero() {
		add("plan", r.end)
		return list
	}
	add("plan", r.planned)
	add("restore", r.restored)
	direct := slices.ContainsFunc(r.spans, func(s span) bool { return s.kind == "run" && !r.applying.IsZero() && s.end.After(r.applying) })
	switch {
	case direct:
		add("build and apply", r.applied)
	case r.applying.IsZero():
		add("build", r.end)
	default:
		if slices.ContainsFunc(r.spans, func(s span) bool { return s.kind == "run" }) {
			add("build", r.applying)
		}
		add("apply", r.applied)
	}
	add("store", r.done)
	return list
}

// notable is what is not shown as 0.0s.
const notable = 50 * time.Millisecond

// slow is how many of the slowest steps a summary names.
const slow = 3

// Summary says in a few lines, each with its end, what the solve waited for. It
// is "" where there was nothing to wait for.
func (r *Record) Summary() string {
	var b strings.Builder
	line := func(name string, parts []string) {
		if len(parts) > 0 {
			fmt.Fprintf(&b, "  %-8s %s\n", name, strings.Join(parts, " · "))
		}
	}
	var parts []string
	for _, p := range r.phases() {
		if p.end.Sub(p.start) < notable {
			continue
		}
		parts = append(parts, p.name+" "+Duration(p.end.Sub(p.start)))
	}
	line("time", parts)

	runs := slices.DeleteFunc(slices.Clone(r.spans), func(s span) bool { return s.kind != "run" && s.kind != "restore" || s.took() < notable })
	order.Stable(runs, func(a, b span) int { return cmp.Compare(b.took(), a.took()) })
	for i, s := range runs[:min(len(runs), slow)] {
		what := s.step.Text()
		if s.kind == "restore" {
			what = "restore " + what
		}
		name := ""
		if i == 0 {
			name = "slowest"
		}
		line(name, []string{fmt.Sprintf("%7s  %s  %s", Duration(s.took()), where(s.step), cut(visible(what), 50))})
	}
	if r.cached > 0 {
		line("cache", []string{fmt.Sprintf("%d of %s from %s (%s)", r.cached, sizes.Count(r.steps, "step"), strings.Join(r.stores, ", "), sizes.Format(r.fromCache))})
	}
	parts = nil
	for _, n := range []struct {
		bytes int64
		what  string
	}{{r.fetched, "fetched"}, {r.stored, "stored"}, {r.written, "written to the root"}} {
		if n.bytes > 0 {
			parts = append(parts, sizes.Format(n.bytes)+" "+n.what)
		}
	}
	line("bytes", parts)
	return b.String()
}
