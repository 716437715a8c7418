// Package report is what a solve reports while it works: events, for whoever
// shows them, and the Reporter that solves and stores report to.
//
// New returns a Reporter that calls a function with each Event, one at a time. The
// zero Reporter reports nothing.
package report

import (
	"time"

	"github.com/clayer/clayer/dag"
)

// A Kind is what happened.
type Kind string

// The kinds of events, in the order in which they usually come.
const (
	Warning   Kind = "warning"   // Text; nothing failed, but the user should know
	Waiting   Kind = "waiting"   // for another solve of this root, or for the network; Text says for what
	Planned   Kind = "planned"   // Plan; again if a step decided that others run
	Fetching  Kind = "fetching"  // bytes of the source of Step arrive: Bytes so far. At most ten a second
	Fetched   Kind = "fetched"   // they have arrived: Bytes, Took
	Sandbox   Kind = "sandbox"   // Text: which one, and why
	Started   Kind = "started"   // Step is being run, fetched or copied
	Output    Kind = "output"    // Text: what the RUN of Step printed, as it came: no whole lines
	Ran       Kind = "ran"       // Step is done: Took, Entries, Bytes
	Decided   Kind = "decided"   // Step, which is in no store, decided whether those after it are restored: Text
	Failed    Kind = "failed"    // Step failed: Text says why, in a line; Took
	Restoring Kind = "restoring" // bytes of the snapshot of Step arrive: Bytes so far, of Total, from Store
	Restored  Kind = "restored"  // the snapshot of Step is on this machine and verified: Bytes of the blob, Store, Took
	Storing   Kind = "storing"   // the snapshot of Step is on its way into the stores: Bytes of the blob
	Stored    Kind = "stored"    // it is there: Bytes, Took
	Applying  Kind = "applying"  // the root is being changed: Text is its path
	Applied   Kind = "applied"   // Step is in the root now: Entries, Bytes
	Pushing   Kind = "pushing"   // Store gets what it lacks of layers that are in the root: Text
	Probing   Kind = "probing"   // the probe of the layer Text runs
	Pulled    Kind = "pulled"    // Text, a cache mount, has come from Store: Bytes of the blob
	Done      Kind = "done"      // the root is what the files say
)

// Kinds are all kinds.
var Kinds = []Kind{
	Warning, Waiting, Fetching, Fetched, Planned, Sandbox, Restoring, Restored,
	Started, Output, Ran, Decided, Failed, Storing, Stored, Applying, Applied, Pushing, Probing, Pulled, Done,
}

// An Event is one thing that happened.
type Event struct {
	Kind    Kind
	Time    time.Time
	Step    *dag.Step // nil where it is about no step
	Plan    *dag.Plan
	Text    string
	Err     error // a Warning's cause, for programs that decide by it; nil where there is none
	Store   string
	Took    time.Duration
	Entries int
	Bytes   int64
	Moved   int64 // of a Restored: bytes that were transferred, if older snapshots had the others; else 0
	Total   int64 // what Bytes will come to; 0 if that is not known
}
