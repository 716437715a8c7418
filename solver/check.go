package solver

import (
	"context"
	"errors"

	"github.com/clayer/clayer/dag"
	"github.com/clayer/clayer/frontend"
	"github.com/clayer/clayer/solver/exec"
	"github.com/clayer/clayer/solver/source"
)

// Check returns what Plan would refuse in the options' files, which may be those
// that Load understood of files with problems. It goes the way of Plan up to where
// that asks the network: it looks at the files, at what they copy, and at where the
// machine has directories. One problem hides no other.
func Check(ctx context.Context, opt Options) (frontend.Problems, error) {
	return newReadOnly(opt).check(ctx)
}

func (r *session) check(ctx context.Context) (frontend.Problems, error) {
	g, err := r.graph()
	var problems frontend.Problems
	if err != nil && !errors.As(err, &problems) {
		return nil, err
	}
	files := make(map[*frontend.Copy]bool) // whether a COPY is of one file
	for _, src := range g.Sources {
		if err := r.checkSource(ctx, src.Steps[0], files); err != nil {
			p := exec.Problem(src.Steps[0], err)
			if p == nil {
				return nil, &BuildError{Step: src.Steps[0], Err: err}
			}
			problems = append(problems, p)
		}
	}
	problems = append(problems, r.misplacements(g, func(c *frontend.Copy) (is, known bool) {
		is, known = files[c]
		return is, known
	})...)
	return problems.Sorted(), nil
}

// AllProblems completes the problems of loading by those that Check finds in what
// could be read, so that a user sees all that is wrong at once.
func AllProblems(ctx context.Context, opt Options, err error) error {
	var ps frontend.Problems
	if !errors.As(err, &ps) || len(opt.Files) == 0 {
		return err
	}
	more, err := Check(ctx, opt)
	if err != nil && ctx.Err() != nil {
		return err
	}
	return append(ps, more...).Sorted()
}

// checkedGraph is graph for who pins its sources next: where there are problems
// they are all that Check finds.
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

func (r *session) checkSource(ctx context.Context, s *dag.Step, files map[*frontend.Copy]bool) error {
	c, ok := s.Instr.(*frontend.Copy)
	if !ok {
		return source.CheckFetch(s.Instr.(*frontend.Fetch))
	}
	is, err := r.sources().CheckCopy(ctx, s.Layer.File.Dir, c)
	if err == nil {
		files[c] = is
	}
	return err
}
