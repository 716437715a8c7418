package solver

import (
	"context"
	"errors"
	"slices"

	"github.com/clayer/clayer/dag"
	"github.com/clayer/clayer/frontend"
	"github.com/clayer/clayer/solver/exec"
	"github.com/clayer/clayer/solver/internal/stages"
	"github.com/clayer/clayer/solver/source"
)

// check returns what Plan would refuse in the session's files, which may be those
// that Load understood of files with problems. It goes the way of Plan up to where
// that asks the network: it looks at the files, and at what they copy. One problem hides no other.
func (r *session) check(ctx context.Context) (frontend.Problems, error) {
	g, err := r.graph()
	var problems frontend.Problems
	if err != nil && !errors.As(err, &problems) {
		return nil, err
	}
	for _, src := range g.Sources {
		if err := r.checkSource(ctx, src.Steps[0]); err != nil {
			p := exec.Problem(src.Steps[0], err)
			if p == nil {
				return nil, &BuildError{Step: src.Steps[0], Err: err}
			}
			problems = append(problems, p)
		}
	}
	if r.isStage {
		return problems.Sorted(), nil
	}
	for _, f := range stages.Used(r.files) {
		more, err := r.stageOf(f).check(ctx)
		if err != nil {
			return nil, err
		}
		for _, p := range more { // a stage has the lines that it begins with
			if !slices.ContainsFunc(problems, func(q *frontend.Problem) bool { return q.Pos == p.Pos && q.Message == p.Message }) {
				problems = append(problems, p)
			}
		}
	}
	return problems.Sorted(), nil
}

// AllProblems completes the problems of loading by those that Plan finds in what
// could be read, so that a user sees all that is wrong at once.
func AllProblems(ctx context.Context, opt Options, err error) error {
	var ps frontend.Problems
	if !errors.As(err, &ps) || len(opt.Files) == 0 {
		return err
	}
	more, err := newReadOnly(opt).check(ctx)
	if err != nil && (ctx.Err() != nil || len(ps) == 0) { // else what is wrong is said already
		return err
	}
	return append(ps, more...).Sorted()
}

// checkedGraph is graph for who pins its sources next: where there are problems
// they are all that check finds.
func (r *session) checkedGraph(ctx context.Context) (*dag.Graph, error) {
	g, err := r.graph()
	var ps frontend.Problems
	if errors.As(err, &ps) {
		if ps, err = r.check(ctx); err == nil {
			err = ps
		}
	}
	return g, err
}

func (r *session) checkSource(ctx context.Context, s *dag.Step) error {
	switch in := s.Instr.(type) {
	case *frontend.Copy:
		return r.sources().CheckCopy(ctx, s.ContextDir(), in)
	case *frontend.Run:
		return r.sources().CheckMounts(ctx, s.Layer.File, in)
	}
	return source.CheckFetch(s.Instr.(*frontend.Fetch))
}
