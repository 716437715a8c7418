// Package findings gathers what is wrong with Containerfiles: what the rules of the linter
// find, and what Plan refuses.
package findings

import (
	"context"
	"errors"
	"slices"

	"github.com/clayer/clayer/frontend"
	"github.com/clayer/clayer/frontend/lint"
	"github.com/clayer/clayer/internal/safefile"
	"github.com/clayer/clayer/solver"
	"github.com/clayer/clayer/solver/internal/filelist"
	"github.com/clayer/clayer/solver/layers"
)

// A Reading says how the files are read.
type Reading struct {
	layers.Options

	// Prepare sets what the stages of files are built on, all of them or a part.
	Prepare func(files []*frontend.File, all bool) error
}

// Of returns the findings in the files at paths. opt has no Files.
func Of(ctx context.Context, opt solver.Options, paths []string, r Reading) ([]lint.Finding, error) {
	r.Read = inputsOnce()
	files, err := r.load(ctx, paths, true)
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
		if len(paths) > 1 {
			files, err = r.load(ctx, []string{path}, false)
		}
		own, err := refused(ctx, opt, files, err, found)
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

func (r Reading) load(ctx context.Context, paths []string, all bool) ([]*frontend.File, error) {
	files, err := layers.Load(ctx, paths, r.Options)
	if err == nil {
		err = r.Prepare(files, all)
	}
	return files, err
}

// inputsOnce returns frontend.Load, but that it keeps the files that can be read once.
func inputsOnce() func(ctx context.Context, path string, args frontend.Args) (*frontend.File, error) {
	type input struct {
		file *frontend.File
		err  error
	}
	inputs := make(map[string]input)
	return func(ctx context.Context, path string, args frontend.Args) (*frontend.File, error) {
		if _, once := safefile.IsInput(path); !once {
			return frontend.Load(ctx, path, args)
		}
		in, ok := inputs[path]
		if !ok {
			in.file, in.err = frontend.Load(ctx, path, args)
			inputs[path] = in
		}
		return in.file, in.err
	}
}

// refused returns what Plan refuses in a file, which was loaded with err. What a rule has found too is an error there.
func refused(ctx context.Context, opt solver.Options, files []*frontend.File, err error, found []lint.Finding) ([]lint.Finding, error) {
	opt.Files = files
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
