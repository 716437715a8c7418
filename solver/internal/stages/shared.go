package stages

import (
	"context"
	"slices"

	"github.com/clayer/clayer/dag"
	"github.com/clayer/clayer/frontend"
)

// BuildShared builds the stages that the files of a plan begin with, and that other stages
// wait for as well, if steps of them are to run. Else each of them would run these steps, and
// what is built on the one result is not cached for the other. It reports whether it has built any: the
// steps are cached then.
func (s *Stages) BuildShared(ctx context.Context, p *dag.Plan) (any bool, err error) {
	for _, f := range s.Files {
		built, err := s.buildShared(ctx, f, p)
		if err != nil {
			return any, err
		}
		any = any || built
	}
	return any, nil
}

func (s *Stages) buildShared(ctx context.Context, f *frontend.File, p *dag.Plan) (built bool, err error) {
	for on := f.On; on != nil && s.Stored; on = on.On {
		if s.counted()[on] > 1 && runs(p, on) {
			_, err := s.Build(ctx, on) // which builds those that it begins with
			return err == nil, err
		}
	}
	return false, nil
}

// counted returns how many of the stages that are used, and of the files, begin with each
// stage, or are it.
func (s *Stages) counted() map[*frontend.File]int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.users != nil {
		return s.users
	}
	s.users = make(map[*frontend.File]int)
	for _, f := range used(s.Files) {
		for on := f; on != nil; on = on.On {
			s.users[on]++
		}
	}
	return s.users
}

// Used returns the stages that files use, and that these use.
func Used(files []*frontend.File) []*frontend.File {
	return slices.DeleteFunc(used(files), func(f *frontend.File) bool { return slices.Contains(files, f) })
}

// used returns files and the stages that they use.
func used(files []*frontend.File) (all []*frontend.File) {
	seen := make(map[*frontend.File]bool)
	var visit func(f *frontend.File)
	visit = func(f *frontend.File) {
		if seen[f] {
			return
		}
		seen[f], all = true, append(all, f)
		for _, in := range f.Instructions {
			for _, stage := range frontend.Uses(in) {
				visit(stage)
			}
		}
		for _, below := range f.Below {
			visit(below)
		}
	}
	for _, f := range files {
		visit(f)
	}
	return all
}

// runs reports whether a step of a plan is to run that is in the first lines of its file,
// which are a file too.
func runs(p *dag.Plan, part *frontend.File) bool {
	return slices.ContainsFunc(p.Layers, func(pl dag.PlannedLayer) bool {
		return slices.ContainsFunc(pl.Items, func(it dag.Item) bool {
			return it.State == dag.ToRun && slices.ContainsFunc(part.Instructions, func(in frontend.Instruction) bool { return in.Base().Pos == it.Step.Pos() })
		})
	})
}
