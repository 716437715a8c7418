// Package findings gathers what is wrong with Containerfiles: what the rules of the linter
// find, and what Plan refuses.
package findings

import (
	"context"
	"errors"
	"slices"

	"github.com/clayer/clayer/frontend"
	"github.com/clayer/clayer/frontend/lint"
	"github.com/clayer/clayer/solver"
	"github.com/clayer/clayer/solver/internal/filelist"
	"github.com/clayer/clayer/solver/layers"
)

// Of returns the findings in the files at paths. opt has no Files.
func Of(ctx context.Context, opt solver.Options, paths []string) ([]lint.Finding, error) {
	files, err := layers.Load(ctx, paths, layers.Options{Args: frontend.Args{Build: opt.BuildArgs}})
	if problems := (frontend.Problems)(nil); err != nil && !errors.As(err, &problems) {
		return nil, err
	}
	found := slices.DeleteFunc(lint.Check(files, filelist.Ignored), func(f lint.Finding) bool {
		return !slices.Contains(paths, f.Pos.File) // siblings were loaded for what FROM names
	})
	// Each file by itself: they need not be composed together. What is wrong with
	// one that it names by FROM is wrong for it too.
	var errs []lint.Finding
	for _, path := range paths {
		own, err := refused(ctx, opt, path, found)
		if err != nil {
			return nil, err
		}
		for _, f := range own {
			if !slices.ContainsFunc(errs, func(g lint.Finding) bool { return g.Pos == f.Pos && g.Message == f.Message }) {
				errs = append(errs, f)
			}
		}
	}
	return append(errs, found...), nil
}

// refused returns what Plan refuses in a file. What a rule has found too is an error there.
func refused(ctx context.Context, opt solver.Options, path string, found []lint.Finding) ([]lint.Finding, error) {
	var err error
	opt.Files, err = layers.Load(ctx, []string{path}, layers.Options{Args: frontend.Args{Build: opt.BuildArgs}})
	var syntax, more frontend.Problems
	if err != nil && !errors.As(err, &syntax) {
		return nil, err
	}
	list := lint.Syntax(syntax)
	if len(opt.Files) > 0 {
		if err := solver.AllProblems(ctx, opt, frontend.Problems{}); !errors.As(err, &more) {
			return nil, err
		}
		more = slices.DeleteFunc(more, func(p *frontend.Problem) bool { return errors.Is(p.Err, filelist.ErrIgnored) && raise(found, p) })
		list = append(list, lint.Refused(more)...)
	}
	return list, nil
}

// raise makes findings about files that are not copied the errors that they are for Plan.
func raise(found []lint.Finding, p *frontend.Problem) (raised bool) {
	for i, f := range found {
		if f.Rule == lint.IgnoredRule && f.Pos == p.Pos {
			found[i].Level, found[i].Hint, raised = lint.Error, p.Message+"; "+p.Hint, true
		}
	}
	return raised
}
