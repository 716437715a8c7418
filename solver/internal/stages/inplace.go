package stages

import (
	"context"
	"errors"
	"fmt"

	"github.com/clayer/clayer/dag"
	"github.com/clayer/clayer/frontend"
	"github.com/clayer/clayer/solver/sandbox"
	"github.com/clayer/clayer/solver/source"
)

// CheckInPlace returns frontend.Problems where a step that is to run uses a stage that cannot
// be built: choose returns the sandbox that steps run in, and overlay why there is no other
// one, nil if there is. A stage takes a view of its own, which the root cannot be.
func (s *Stages) CheckInPlace(ctx context.Context, p *dag.Plan, choose func() (*sandbox.Sandbox, error), overlay func() error) error {
	type use struct {
		step  *dag.Step
		stage *frontend.File
	}
	var uses []use
	for i := range p.Layers {
		for _, it := range p.Layers[i].Items {
			for _, f := range frontend.Uses(it.Step.Instr) {
				if it.State == dag.ToRun {
					uses = append(uses, use{it.Step, f})
				}
			}
		}
	}
	if len(uses) == 0 {
		return nil
	}
	sb, err := choose()
	if err != nil || sb.Name != "inplace" {
		return nil // what there is none for says so where it is used
	}
	none := overlay()
	var problems frontend.Problems
	for _, u := range uses {
		why := none
		_, mounts := u.step.Instr.(*frontend.Run)
		if why == nil && !mounts { // a stage of which all is cached can be copied from before the root changes
			sv, err := s.Open(u.stage).Survey(ctx)
			if err != nil {
				return err
			}
			if sv.Plan.Totals().ToRun == 0 {
				continue
			}
		}
		if why == nil {
			why = errors.New("the root itself was asked for")
		}
		problems = append(problems, unbuildable(u.stage, why).At(u.step.Instr.Base()))
	}
	return problems.Err()
}

func unbuildable(f *frontend.File, why error) *source.Fault {
	return &source.Fault{
		Message: fmt.Sprintf("stage %s has to be built, which takes an overlay: %v", f.Stage, why),
		Hint:    "solve it on a machine that has one, with a store that this machine reads", Err: why,
	}
}
