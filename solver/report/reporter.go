package report

import (
	"fmt"
	"strings"
	"sync"
	"time"
)

// A Reporter passes on what happens in the verbs of a solver and in the stores
// that they use. It is safe for concurrent use.
type Reporter struct {
	receive func(Event)

	emitting sync.Mutex
	warned   sync.Map         // the texts of WarnOnce
	mu       sync.Mutex       // guards failed
	failed   map[string]error // stores, each with its first error
}

// New returns a Reporter that passes events to receive, one at a time.
// receive must not block for long; nil drops them.
func New(receive func(Event)) *Reporter { return &Reporter{receive: receive} }

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
func (p *Reporter) Warn(text string) { p.Emit(Event{Kind: Warning, Text: text}) }

// WarnError reports an error that fails nothing.
func (p *Reporter) WarnError(err error) { p.Emit(Event{Kind: Warning, Text: err.Error(), Err: err}) }

// Waiting reports what is waited for.
func (p *Reporter) Waiting(text string) { p.Emit(Event{Kind: Waiting, Text: text}) }

// Warnf is Warn with a format.
func (p *Reporter) Warnf(format string, args ...any) { p.Warn(fmt.Sprintf(format, args...)) }

// WarnOnce is Warnf for what would be reported twice by a plan that is made twice.
func (p *Reporter) WarnOnce(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	if _, reported := p.warned.LoadOrStore(text, true); !reported {
		p.Warn(text)
	}
}

// StoreFailed reports that a store failed, once for each store. It is what
// cache.Tiered requires for its warnings.
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
		p.Emit(Event{Kind: Warning, Text: fmt.Sprintf("store %s: %v", store, err), Err: err})
	}
}

// LocalStore is the name of stores in a directory, as theirs say it.
const LocalStore = "dir"

// RemoteFailed reports whether a store failed that is not on this machine.
func (p *Reporter) RemoteFailed() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	for store := range p.failed {
		if name, _, _ := strings.Cut(store, ":"); name != LocalStore {
			return true
		}
	}
	return false
}

// Failed reports whether a store has failed.
func (p *Reporter) Failed(store string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.failed[store] != nil
}

// FailedStore returns a store that failed, and how; nil if none did.
func (p *Reporter) FailedStore() (store string, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for store, err := range p.failed {
		return store, err
	}
	return "", nil
}
