package solver

import (
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/clayer/clayer/dag"
)

// EventKind tells what happened.
type EventKind string

// The kinds of events, in the order in which they usually come.
const (
	EventWarning   EventKind = "warning"   // Text; nothing failed, but the user should know
	EventWaiting   EventKind = "waiting"   // for another solve of this root, or for the network; Text says for what
	EventPlanned   EventKind = "planned"   // Plan
	EventFetching  EventKind = "fetching"  // bytes of the source of Step arrive: Bytes so far. At most ten a second
	EventFetched   EventKind = "fetched"   // they are here: Bytes, Took
	EventSandbox   EventKind = "sandbox"   // Text: which one, and why
	EventStarted   EventKind = "started"   // Step is being run, fetched or copied
	EventOutput    EventKind = "output"    // Text: what the RUN of Step printed, as it came: no whole lines
	EventRan       EventKind = "ran"       // Step is done: Took, Entries, Bytes
	EventFailed    EventKind = "failed"    // Step failed: Text says why, in a line; Took
	EventRestoring EventKind = "restoring" // bytes of the snapshot of Step arrive: Bytes so far, of Total, from Store
	EventRestored  EventKind = "restored"  // the snapshot of Step is near and verified: Bytes of the blob, Store, Took
	EventStoring   EventKind = "storing"   // the snapshot of Step is on its way into the stores: Bytes of the blob
	EventStored    EventKind = "stored"    // it is there: Bytes, Took
	EventApplying  EventKind = "applying"  // the root is being changed: Text is its path
	EventApplied   EventKind = "applied"   // Step is in the root now: Entries, Bytes
	EventDone      EventKind = "done"      // the root is what the files say
)

// EventKinds are all kinds.
var EventKinds = []EventKind{
	EventWarning, EventWaiting, EventFetching, EventFetched, EventPlanned, EventSandbox, EventRestoring, EventRestored,
	EventStarted, EventOutput, EventRan, EventFailed, EventStoring, EventStored, EventApplying, EventApplied, EventDone,
}

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
	Total   int64 // what Bytes will come to; 0 if that is not known
}

// A Reporter receives what happens: from the verbs, and from the stores that
// they use. It is safe for concurrent use.
type Reporter struct {
	receive func(Event)

	emitting sync.Mutex
	mu       sync.Mutex       // guards failed
	failed   map[string]error // stores, each with its first error
}

// NewReporter returns a Reporter that passes events to receive, one at a time.
// receive must not block for long; nil drops them.
func NewReporter(receive func(Event)) *Reporter { return &Reporter{receive: receive} }

// Emit reports an event.
func (p *Reporter) Emit(e Event) {
	if p.receive == nil {
		return
	}
	p.emitting.Lock()
	defer p.emitting.Unlock()
	e.Time = time.Now()
	p.receive(e)
}

// Warn reports something that fails nothing.
func (p *Reporter) Warn(text string) { p.Emit(Event{Kind: EventWarning, Text: text}) }

// Waiting reports what is waited for.
func (p *Reporter) Waiting(text string) { p.Emit(Event{Kind: EventWaiting, Text: text}) }

// StoreFailed reports that a store failed, once for each store. It is what
// cache.Tiered wants for its warnings.
func (p *Reporter) StoreFailed(store string, err error) {
	p.mu.Lock()
	_, reported := p.failed[store]
	if !reported {
		if p.failed == nil {
			p.failed = make(map[string]error)
		}
		p.failed[store] = err
	}
	p.mu.Unlock()
	if !reported {
		p.Warn(fmt.Sprintf("store %s: %v", store, err))
	}
}

// localStore is the name of stores in a directory, as theirs say it.
const localStore = "dir"

// farFailed reports whether a store failed that is not on this machine.
func (p *Reporter) farFailed() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	for store := range p.failed {
		if name, _, _ := strings.Cut(store, ":"); name != localStore {
			return true
		}
	}
	return false
}

// storeErr returns that a store failed, or nil.
func (p *Reporter) storeErr() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	for store, err := range p.failed {
		return fmt.Errorf("%w: %s: %w", ErrStore, store, err)
	}
	return nil
}
