// Package besteffort solves within a budget of time, and, if it is asked to, for the best
// part of a composition that can be had: a session starts in any case.
//
// It is a loop around probes.Solve. Where that fails by a step, the layer ends before the
// step, and it is solved again; what a layer builds on by FROM is all of it, so that a
// layer on one that has ended is left out. When the budget is near its end, what is running
// stops, and all layers end where something would have to be run: the rest is restored.
// What is left out is the shortfall, which the root's state records.
package besteffort

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"time"

	"github.com/clayer/clayer/dag"
	"github.com/clayer/clayer/dag/key"
	"github.com/clayer/clayer/frontend"
	"github.com/clayer/clayer/internal/errhint"
	"github.com/clayer/clayer/solver"
	"github.com/clayer/clayer/solver/probes"
)

// Options say how far a solve goes. The zero value is an ordinary solve.
type Options struct {
	Budget time.Duration // how long it may take; 0: as long as it takes
	Best   bool          // what fails is left out, and is no error
	Cached bool          // with Best: nothing is run
	Unread error         // what is wrong with the files, of which solver.Options has what could be read

	Command string // what to run for the rest, as a shell takes it
}

// A BudgetError says that the budget of a solve has run out.
type BudgetError struct{ Budget time.Duration }

func (e *BudgetError) Error() string {
	return fmt.Sprintf("the budget of %s has run out", e.Budget)
}

// errNotRun says that a RUN is not started, for which there is no time.
var errNotRun = errors.New("nothing is run after the budget's end")

// A run is one call of Solve.
type run struct {
	Options
	opt   solver.Options
	start time.Time
	cuts  map[*frontend.File]cut // by the file as it was given
	ended bool                   // the budget has ended the last try
	late  bool                   // the time for running steps is over
	alone bool                   // so is that for asking stores elsewhere
	again bool                   // something was tried already

	subs   substitutes
	wanted map[string]key.Key // of the whole layers, by name; nil: not computed yet

	before *solver.RootStatus // what the root had; nil: not known
}

// A cut is where a layer ends.
type cut struct {
	line int // of the first instruction that is left out
	why  error
}

// Solve solves, as solver.Solve does, within the budget. With Options.Best the error is
// that of a context which is done, and of nothing else: what is missing is in the Shortfall of
// the result. Without it, the error of a budget that has run out is a *BudgetError; what was
// finished by then is stored.
func Solve(ctx context.Context, opt solver.Options, o Options) (*solver.Result, error) {
	r := &run{Options: o, opt: opt, start: time.Now(), cuts: make(map[*frontend.File]cut), subs: substitutes{rejected: make(map[key.Key]bool)}}
	if !o.Best {
		return r.whole(ctx)
	}
	return r.best(ctx)
}

// whole solves everything within the budget.
func (r *run) whole(ctx context.Context) (*solver.Result, error) {
	if r.Budget <= 0 {
		return probes.Solve(ctx, r.opt, probes.Time)
	}
	bounded, cancel := r.within(ctx, r.Budget)
	defer cancel()
	opt := r.opt
	opt.Allow = r.allow
	res, err := probes.Solve(bounded, opt, probes.Time)
	if err = r.explain(ctx, bounded, err); errors.As(err, new(*BudgetError)) {
		err = errhint.With(err, "what is finished is stored, and the next solve resumes after it")
	}
	return res, err
}

// explain returns the error of a solve that the budget has ended as a *BudgetError.
func (r *run) explain(ctx, bounded context.Context, err error) error {
	if err == nil || ctx.Err() != nil || bounded.Err() == nil {
		return err
	}
	r.ended = true
	out := &BudgetError{r.Budget}
	var failed *solver.BuildError
	if errors.As(err, &failed) {
		failed.Err = out
		return failed
	}
	return out
}

// within returns a context that is canceled after d.
func (r *run) within(ctx context.Context, d time.Duration) (context.Context, func()) {
	bounded, cancel := context.WithCancelCause(ctx)
	timer := time.AfterFunc(d, func() { cancel(&BudgetError{r.Budget}) })
	return bounded, func() { timer.Stop(); cancel(nil) }
}

// reserve is the end of the budget in which nothing is run: what can be had is restored
// and applied then.
func (r *run) reserve() time.Duration { return min(r.Budget/5, 30*time.Second) }

func (r *run) left() time.Duration { return r.Budget - time.Since(r.start) }

// allow refuses a RUN that would not end in time. In place what it did by then could not be
// taken back wholly: it starts only if twice the time fits that it took before.
func (r *run) allow(s solver.Starting) error {
	if r.late {
		return errNotRun
	}
	if r.Budget > 0 && s.InPlace && s.Estimate > 0 && 2*s.Estimate > r.left()-r.reserve() {
		return fmt.Errorf("%w for it: in place it needs twice the %s that it took before", &BudgetError{r.Budget}, s.Estimate.Round(time.Millisecond))
	}
	return nil
}

// maxRejected is how many layers of earlier solves are tried in the place of one, about.
const maxRejected = 3

// best solves what can be had.
func (r *run) best(ctx context.Context) (*solver.Result, error) {
	r.late = r.Cached
	r.before, _ = solver.Status(r.opt) // a root that cannot be read has nothing
	last := r.Unread
	if last != nil {
		r.end(ctx, last)
	}
	tries := 4
	for _, f := range r.opt.Files {
		tries += len(f.Instructions) + maxRejected // each one that fails ends its layer before an instruction, or rejects another
	}
	for range tries {
		if len(r.files(ctx)) == 0 {
			last = nil // each layer has a reason of its own
			break      // a solve of nothing would undo what an earlier one has made
		}
		res, err := r.try(ctx)
		if err != nil && ctx.Err() != nil {
			return res, err
		}
		if err == nil || res != nil {
			res.Shortfall, res.Took = r.shortfall(ctx, res, err), time.Since(r.start)
			if err != nil { // by then only what is not in the root was recorded
				r.record(ctx, res.Shortfall)
			}
			return res, nil
		}
		if last = err; !r.end(ctx, err) {
			break
		}
	}
	short := r.stays(ctx, last)
	r.record(ctx, short)
	return &solver.Result{Shortfall: short}, nil
}

// record records what is missing.
func (r *run) record(ctx context.Context, short *solver.Shortfall) {
	opt := r.opt
	opt.Shortfall = short
	if err := solver.RecordShortfall(ctx, opt); err != nil && opt.Report != nil {
		opt.Report.Warnf("what is missing is not recorded: %v", err)
	}
}

// try solves the files as far as they have not ended.
func (r *run) try(ctx context.Context) (*solver.Result, error) {
	opt := r.opt
	opt.Files = r.files(ctx)
	opt.Shortfall = r.shortfall(ctx, nil, nil)
	opt.Allow, opt.Probes = r.allow, r.probes(ctx)
	opt.RequireCache, opt.SameOnly = false, true
	opt.Rebuild = opt.Rebuild && !r.again // what was built by then is as good
	r.ended, r.again = false, true
	if r.Budget <= 0 {
		return probes.Solve(ctx, opt, probes.Time)
	}
	limit := r.left() - r.reserve()
	switch {
	case r.alone || r.late && r.left() <= 0:
		// What is on this machine takes no time that is not known, unless another solve has
		// the root.
		opt.Stores, opt.NoWait = nil, true
		return probes.Solve(ctx, opt, lateProbe)
	case r.late:
		limit = r.left()
	}
	bounded, cancel := r.within(ctx, max(0, limit))
	defer cancel()
	res, err := probes.Solve(bounded, opt, min(probes.Time, max(limit, lateProbe)))
	return res, r.explain(ctx, bounded, err)
}

// lateProbe is how long a probe may take after the budget's end.
const lateProbe = 5 * time.Second

// probes returns the probes of the layers that are tried as a whole.
func (r *run) probes(ctx context.Context) map[string]string {
	all := maps.Clone(r.opt.Probes)
	for _, f := range r.opt.Files {
		if _, ok := r.substitute(ctx, f); !ok && r.isShort(f) {
			delete(all, f.Name)
		}
	}
	return all
}

// end decides where layers end after an error, and reports whether another try is of use.
func (r *run) end(ctx context.Context, err error) bool {
	var failed *solver.BuildError
	var problems frontend.Problems
	switch {
	case r.ended && !r.late:
		r.late = true
		return r.endBeforeRuns(ctx, err)
	case r.ended && !r.alone: // the stores took what was left
		r.alone = true
		return r.endBeforeRuns(ctx, err)
	case errors.As(err, &failed) && r.reject(ctx, failed.Step):
		return true
	case errors.As(err, &failed):
		return r.cut(failed.Step.Pos(), err)
	case errors.As(err, &problems):
		any := false
		for _, p := range problems {
			any = r.cut(p.Pos, p) || any
		}
		return any
	case errors.Is(err, solver.ErrRoot), r.late:
		return false
	}
	r.late = true
	return r.endBeforeRuns(ctx, err)
}

// planTime is how long a plan may take after the budget's end.
const planTime = 5 * time.Second

// endBeforeRuns ends each layer where something would have to be run or downloaded.
func (r *run) endBeforeRuns(ctx context.Context, why error) bool {
	opt := r.opt
	opt.Files, opt.Rebuild = r.files(ctx), false
	if r.alone || r.Budget > 0 && r.left() <= 0 {
		opt.Stores = nil
	}
	bounded := ctx
	r.ended = false
	if r.Budget > 0 {
		var cancel func()
		bounded, cancel = r.within(ctx, max(r.left(), planTime))
		defer cancel()
	}
	plan, err := solver.Plan(bounded, opt)
	if err = r.explain(ctx, bounded, err); err != nil {
		return r.end(ctx, err)
	}
	for _, pl := range plan.Layers {
		for _, it := range pl.Items {
			if it.State != dag.ToRun || !it.Step.ChangesRoot() {
				continue
			}
			switch it.Step.Instr.(type) {
			case *frontend.Copy, *frontend.Workdir: // of this machine's own files
				continue
			}
			if !r.reject(ctx, it.Step) {
				r.cut(it.Step.Pos(), why)
			}
			break
		}
	}
	return true
}

// cut ends the layer of a file before a line, or before what uses the stage that it is in;
// false: it ends there already.
func (r *run) cut(pos frontend.Pos, why error) bool {
	for _, f := range r.opt.Files {
		if f.Path != pos.File {
			continue
		}
		line := f.LineOf(pos.Line)
		if c, ok := r.cuts[f]; ok && c.line <= line {
			return false
		}
		r.cuts[f] = cut{line, why}
		return true
	}
	return false
}
