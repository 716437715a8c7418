package solver

import (
	"slices"
	"sync"

	"github.com/clayer/clayer/frontend"
	"github.com/clayer/clayer/solver/report"
	"github.com/clayer/clayer/solver/source"
)

// A session is one call of a verb: its options, which it does not change, and
// what it has learned meanwhile. Its methods are safe for concurrent use.
type session struct {
	Options
	files    []*frontend.File // Options.Files, but for those that a legacy release replaces
	readOnly bool             // nothing that is downloaded is stored

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
		opt.Report = report.New(nil)
	}
	return &session{Options: opt, files: slices.Clone(opt.Files)}
}

// newReadOnly is newSession for a verb that changes nothing.
func newReadOnly(opt Options) *session {
	r := newSession(opt)
	r.readOnly = true
	return r
}

func (r *session) warn(format string, args ...any) { r.Report.Warnf(format, args...) }

func (r *session) warnOnce(format string, args ...any) { r.Report.WarnOnce(format, args...) }
