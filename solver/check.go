package solver

import (
	"context"
	"errors"
	"slices"

	"github.com/clayer/clayer/dag"
	"github.com/clayer/clayer/frontend"
	"github.com/clayer/clayer/frontend/lint"
	"github.com/clayer/clayer/solver/exec"
	"github.com/clayer/clayer/solver/layers"
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
	if err != nil && ctx.Err() != nil {
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
	c, ok := s.Instr.(*frontend.Copy)
	if !ok {
		return source.CheckFetch(s.Instr.(*frontend.Fetch))
	}
	return r.sources().CheckCopy(ctx, s.ContextDir(), c)
}

// Lint returns the findings in the files at paths, what Plan refuses among them.
// opt has no Files.
func Lint(ctx context.Context, opt Options, paths []string) ([]lint.Finding, error) {
	files, err := layers.Load(ctx, paths, layers.Options{Args: frontend.Args{Build: opt.BuildArgs}})
	if problems := (frontend.Problems)(nil); err != nil && !errors.As(err, &problems) {
		return nil, err
	}
	findings := slices.DeleteFunc(lint.Check(files), func(f lint.Finding) bool {
		return !slices.Contains(paths, f.Pos.File) // siblings were loaded for what FROM names
	})
	// Each file by itself: they need not be composed together. What is wrong with
	// one that it names by FROM is wrong for it too.
	var errs []lint.Finding
	for _, path := range paths {
		own, err := refused(ctx, opt, path)
		if err != nil {
			return nil, err
		}
		for _, f := range own {
			if !slices.ContainsFunc(errs, func(g lint.Finding) bool { return g.Pos == f.Pos && g.Message == f.Message }) {
				errs = append(errs, f)
			}
		}
	}
	return append(errs, findings...), nil
}

// refused returns what Plan refuses in a file.
func refused(ctx context.Context, opt Options, path string) ([]lint.Finding, error) {
	var err error
	opt.Files, err = layers.Load(ctx, []string{path}, layers.Options{Args: frontend.Args{Build: opt.BuildArgs}})
	var syntax frontend.Problems
	if err != nil && !errors.As(err, &syntax) {
		return nil, err
	}
	findings := lint.Syntax(syntax)
	if len(opt.Files) > 0 {
		refused, err := newReadOnly(opt).check(ctx)
		if err != nil {
			return nil, err
		}
		findings = append(findings, lint.Refused(refused)...)
	}
	return findings, nil
}
