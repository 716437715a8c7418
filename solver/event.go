package solver

import (
	"time"

	"github.com/clayer/clayer/dag"
)

// EventKind tells what happened.
type EventKind string

// The kinds of events, in the order in which they usually come.
const (
	EventWarning  EventKind = "warning"  // Text; nothing failed, but the user should know
	EventWaiting  EventKind = "waiting"  // for another solve of this root; Text says for whom
	EventPlanned  EventKind = "planned"  // Plan
	EventSandbox  EventKind = "sandbox"  // Text: which one, and why
	EventStarted  EventKind = "started"  // Step is being run, fetched or copied
	EventOutput   EventKind = "output"   // Text: what the RUN of Step printed, as it came: no whole lines
	EventRan      EventKind = "ran"      // Step is done: Took, Entries, Bytes
	EventRestored EventKind = "restored" // the snapshot of Step is near and verified: Bytes of the blob, Store
	EventStored   EventKind = "stored"   // the snapshot of Step is in the stores: Bytes of the blob
	EventApplying EventKind = "applying" // the root is being changed: Text is its path
	EventApplied  EventKind = "applied"  // Step is in the root now
)

// An Event is one thing that a solve tells while it works.
type Event struct {
	Kind    EventKind
	Time    time.Time
	Step    *dag.Step // nil where it is about no step
	Plan    *dag.Plan
	Text    string
	Store   string
	Took    time.Duration
	Entries int
	Bytes   int64
}
