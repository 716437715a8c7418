// Package transfers has what the FETCH, COPY and WORKDIR of a solve make, and what its RUNs mount:
// the pins of their sources, and their entries.
package transfers

import (
	"context"
	"fmt"
	"sync"

	"github.com/clayer/clayer/dag"
	"github.com/clayer/clayer/frontend"
	"github.com/clayer/clayer/frontend/imageref"
	"github.com/clayer/clayer/internal/errhint"
	"github.com/clayer/clayer/solver/internal/earlier"
	"github.com/clayer/clayer/solver/internal/images"
	"github.com/clayer/clayer/solver/internal/names"
	"github.com/clayer/clayer/solver/internal/places"
	"github.com/clayer/clayer/solver/report"
	"github.com/clayer/clayer/solver/source"
)

// Steps make what such steps do. Their methods are safe for concurrent use, once the fields are
// set.
type Steps struct {
	Sources func() *source.Resolver // the same each time
	Meters  *report.Reporter        // what is downloaded is reported to it
	Earlier earlier.Pins

	changes sync.Map // *dag.Step: its changes, computed once
}

// Pin resolves what a FETCH or COPY names, or a RUN mounts.
func (t *Steps) Pin(ctx context.Context, s *dag.Step) (dag.Pin, error) {
	for _, same := range s.Source.Steps {
		if f, ok := same.Instr.(*frontend.Fetch); ok {
			t.Sources().WarnOf(f)
		}
	}
	metered, done := t.metered(ctx, s)
	p, err := t.pin(metered, s)
	done(err)
	return dag.Pin{Digest: p.Digest.String(), Commit: p.Commit, Stages: p.Stages.String(), Images: p.Images.String(), Mounted: p.Mounted}, err
}

// metered reports what is downloaded for a step.
func (t *Steps) metered(ctx context.Context, s *dag.Step) (metered context.Context, done func(error)) {
	if len(frontend.Uses(s.Instr)) > 0 { // a stage's downloads are its own
		return ctx, func(error) {}
	}
	metered, m := t.Meters.Metered(ctx, report.Event{Kind: report.Fetching, Step: s})
	return metered, m.Done
}

// pin resolves the source of a FETCH, COPY or RUN; one that nobody can say now to what it was in the
// newest layer of that name.
func (t *Steps) pin(ctx context.Context, s *dag.Step) (pin source.Pin, err error) {
	switch in := s.Instr.(type) {
	case *frontend.Fetch:
		pin, err = t.Sources().Fetch(ctx, in)
	case *frontend.Copy:
		if pin, err = t.Sources().Copy(ctx, s.ContextDir(), in); in.Image == nil {
			return pin, err
		}
	case *frontend.Run:
		return t.Sources().Mounts(ctx, s.Layer.File, in, func(ref imageref.Ref, err error) (source.Pin, error) {
			return t.Earlier.Image(ctx, s.Source, ref, err)
		})
	default:
		panic(fmt.Sprintf("transfers: %T has no source", in))
	}
	if err != nil {
		pin, err = t.Earlier.Pin(ctx, s.Source, s.Instr, err)
	}
	if c, ok := s.Instr.(*frontend.Copy); err != nil && ok && c.Like != "" {
		err = mistyped(c, err)
	}
	return pin, err
}

// mistyped is the error of an image whose name resembles that of a stage.
func mistyped(c *frontend.Copy, err error) error {
	hint := fmt.Sprintf("did you mean the stage %s?", c.Like)
	if images.IsAnswer(err) {
		return &source.Fault{Message: fmt.Sprintf("--from=%s names no stage before this line, and no image: %v", c.From, err), Hint: hint, Err: err}
	}
	return errhint.With(err, hint)
}

// Changes returns what a FETCH, COPY or WORKDIR does; of a RUN none, but what it mounts is there
// then. It is asked for ahead, and again when the step's turn has come: what it takes, a download and a look through an archive,
// is done once.
func (t *Steps) Changes(ctx context.Context, s *dag.Step) (source.Placer, error) {
	once, _ := t.changes.LoadOrStore(s, sync.OnceValues(func() (source.Placer, error) { return t.read(ctx, s) }))
	return once.(func() (source.Placer, error))()
}

func (t *Steps) read(ctx context.Context, s *dag.Step) (source.Placer, error) {
	switch in := s.Instr.(type) {
	case *frontend.Workdir:
		return source.WorkdirChanges(in), nil
	case *frontend.Run: // which makes its changes itself
		return nil, t.Sources().Prepare(ctx, s.Layer.File, in)
	}
	metered, done := t.metered(ctx, s)
	p, err := t.pin(metered, s)
	if err != nil {
		return nil, err
	}
	var changes source.Placer
	switch in := s.Instr.(type) {
	case *frontend.Fetch:
		changes, err = t.Sources().FetchChanges(metered, in, p)
	case *frontend.Copy:
		changes, err = t.Sources().CopyChanges(metered, s.ContextDir(), in, p)
	}
	done(err)
	return changes, err
}

// Destination returns where a FETCH, COPY or WORKDIR puts what it makes.
func (t *Steps) Destination(ctx context.Context, s *dag.Step) (places.Dest, error) {
	return t.Sources().Dest(ctx, s.ContextDir(), s.Instr)
}

// Expected returns what the snapshot of a step is like, which finds the root as it is in
// at, or nearly so; nil if that is not known.
func (t *Steps) Expected(ctx context.Context, s *dag.Step, at *names.View, exact bool) (source.Expectation, error) {
	switch in := s.Instr.(type) {
	case *frontend.Copy:
		return t.Sources().ExpectCopy(ctx, s.ContextDir(), in, at, exact)
	case *frontend.Fetch:
		pin, err := t.pin(ctx, s)
		if err != nil {
			return nil, err
		}
		return t.Sources().ExpectFetch(in, pin, at, exact)
	case *frontend.Workdir:
		return source.ExpectWorkdir(in, at, exact)
	}
	return nil, nil
}
