package solver

import (
	"sync"

	"github.com/clayer/clayer/frontend"
	"github.com/clayer/clayer/solver/layers"
	"github.com/clayer/clayer/solver/report"
	"github.com/clayer/clayer/solver/source"
)

// A session is one call of a verb: its options, which it does not change, and
// what it has learned meanwhile. Its methods are safe for concurrent use.
type session struct {
	Options
	files    []*frontend.File // Options.Files, but those that a legacy release replaces
	readOnly bool             // nothing that is downloaded is stored

	resolving sync.Once
	resolver  *source.Resolver
	changes   sync.Map // *dag.Step: its changes, computed once
	madeOnce  sync.Once
	made      map[string]bool // see madeDirs
	legacy    layers.Legacy
}

func newSession(opt Options) *session {
	if opt.Report == nil {
		opt.Report = report.New(nil)
	}
	r := &session{Options: opt, files: opt.Files}
	r.legacy = layers.Legacy{URL: opt.LegacyURL, Fetch: r.fetchLegacy}
	return r
}

// newReadOnly is newSession for a verb that changes nothing.
func newReadOnly(opt Options) *session {
	r := newSession(opt)
	r.readOnly = true
	return r
}

func (r *session) warn(format string, args ...any) { r.Report.Warnf(format, args...) }

func (r *session) warnOnce(format string, args ...any) { r.Report.WarnOnce(format, args...) }
