package solver

import (
	"fmt"
	"slices"
	"sync"

	"github.com/clayer/clayer/frontend"
	"github.com/clayer/clayer/solver/source"
)

// A session is one call of a verb: its options, which it does not change, and
// what it has learned meanwhile. Its methods are safe for concurrent use.
type session struct {
	Options
	files    []*frontend.File // Options.Files, but for those that a legacy release replaces
	readOnly bool             // nothing that is downloaded is stored

	warned    sync.Map // the texts of warnOnce
	resolving sync.Once
	resolver  *source.Resolver
	brought   sync.Map // *dag.Step: what it brings, once
	madeOnce  sync.Once
	made      map[string]bool // see madeDirs

	asked   map[*frontend.File]bool // whether there is a legacy release of it
	fetched map[*frontend.File]bool // those that come from one
}

func newSession(opt Options) *session {
	if opt.Report == nil {
		opt.Report = NewReporter(nil)
	}
	return &session{Options: opt, files: slices.Clone(opt.Files)}
}

// newReadOnly is newSession for a verb that changes nothing.
func newReadOnly(opt Options) *session {
	r := newSession(opt)
	r.readOnly = true
	return r
}

func (r *session) emit(e Event) { r.Report.Emit(e) }

func (r *session) warn(format string, args ...any) { r.Report.Warn(fmt.Sprintf(format, args...)) }

// warnOnce is warn for what a plan that is made twice would report twice.
func (r *session) warnOnce(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	if _, reported := r.warned.LoadOrStore(text, true); !reported {
		r.Report.Warn(text)
	}
}
