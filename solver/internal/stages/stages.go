// Package stages builds the stages that COPY --from copies from, and RUN mounts. Each is a composition of its
// own, and is built when its first file is asked for, in a view of the root that is dropped
// in the end.
package stages

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"

	"github.com/opencontainers/go-digest"

	"github.com/clayer/clayer/dag"
	"github.com/clayer/clayer/frontend"
	"github.com/clayer/clayer/solver/internal/names"
	"github.com/clayer/clayer/solver/internal/survey"
	"github.com/clayer/clayer/solver/sandbox"
	"github.com/clayer/clayer/solver/source"
)

// A Session solves one stage, with the layers that it builds on.
type Session struct {
	Pin    func(ctx context.Context) (digest.Digest, error) // its last key
	Survey func(ctx context.Context) (*survey.Survey, error)
	View   func(ctx context.Context, sv *survey.Survey, use func(view sandbox.Layered, made func() (*names.Made, error)) error) error
}

// Stages are those of the files of a solve. Their methods are safe for concurrent use.
type Stages struct {
	Open func(stage *frontend.File) Session

	mu    sync.Mutex
	pins  map[*frontend.File]func() (digest.Digest, error)
	built map[*frontend.File]func() (source.Stage, error)
	ends  []func() error
}

// With returns the files of a stage: it, and the layers among files that it builds on.
func With(files []*frontend.File, stage *frontend.File) []*frontend.File {
	all := []*frontend.File{stage}
	files = append(files[:len(files):len(files)], stage.Below...)
	for range files { // not for ever, where FROMs make a cycle
		from := dag.BuildsOn(all[0])
		if from == nil {
			break
		}
		i := slices.IndexFunc(files, func(on *frontend.File) bool { return on.Name == from.Image })
		if i < 0 {
			break
		}
		all = append([]*frontend.File{files[i]}, all...)
	}
	return all
}

// ImageOf returns the FROM of a stage, as With returns it, that names an image; nil for none.
func ImageOf(files []*frontend.File) *frontend.From {
	if from := dag.BuildsOn(files[0]); from != nil && from.Image != dag.Scratch {
		return from
	}
	return nil
}

// At returns the stage that a line is in, of the file at path or, for "", the last one that
// has the line in a stage; nil for none.
func At(files []*frontend.File, path string, line int) (stage *frontend.File) {
	for _, f := range files {
		if s := f.StageAt(line); s != nil && f.Is(path) {
			stage = s
		}
	}
	return stage
}

// Pin implements source.Stages.
func (s *Stages) Pin(ctx context.Context, f *frontend.File) (digest.Digest, error) {
	return memo(&s.mu, &s.pins, f, func() (digest.Digest, error) { return s.Open(f).Pin(ctx) })()
}

// Build implements source.Stages.
func (s *Stages) Build(ctx context.Context, f *frontend.File) (source.Stage, error) {
	st, err := memo(&s.mu, &s.built, f, func() (source.Stage, error) { return s.build(ctx, f) })()
	if errors.Is(err, sandbox.ErrUnavailable) {
		err = &source.Fault{Message: fmt.Sprintf("stage %s has to be built, which takes an overlay: %v", f.Stage, err), Hint: "solve it on a machine that has one, with a store that this machine reads", Err: err}
	}
	return st, err
}

func (s *Stages) build(ctx context.Context, f *frontend.File) (st source.Stage, err error) {
	sub := s.Open(f)
	sv, err := sub.Survey(ctx)
	if err == nil && f.On != nil && f.On.Uses > 1 && runs(sv.Plan, f.On) { // others wait for its steps too
		if _, err = s.Build(ctx, f.On); err == nil {
			sv, err = sub.Survey(ctx)
		}
	}
	if err != nil {
		return st, err
	}
	from := dag.BuildsOn(f)
	bare := from != nil && from.Image == dag.Scratch
	shown, ended, end := make(chan source.Stage, 1), make(chan error, 1), make(chan struct{})
	go func() {
		ended <- sub.View(ctx, sv, func(view sandbox.Layered, made func() (*names.Made, error)) error {
			dir, release, err := view.Tree(context.WithoutCancel(ctx)) // it is read until Close
			if err != nil {
				return err
			}
			shown <- source.Stage{Dir: dir, Made: sync.OnceValues(made), Bare: bare, Ownerless: os.Geteuid() != 0}
			<-end
			return release()
		})
	}()
	select {
	case st := <-shown:
		s.mu.Lock()
		defer s.mu.Unlock()
		s.ends = append(s.ends, func() error { close(end); return <-ended })
		return st, nil
	case err := <-ended:
		return st, err
	}
}

// Plan returns the plans of the stages that steps to run copy from, or mount.
func (s *Stages) Plan(ctx context.Context, p *dag.Plan) (all []*dag.Plan, err error) {
	seen := make(map[*frontend.File]bool)
	var visit func(*dag.Plan) error
	visit = func(p *dag.Plan) error {
		for i := range p.Layers {
			for _, it := range p.Layers[i].Items {
				if it.State != dag.ToRun {
					continue
				}
				for _, f := range frontend.Uses(it.Step.Instr) {
					if seen[f] {
						continue
					}
					seen[f] = true
					sv, err := s.Open(f).Survey(ctx)
					if err == nil {
						err = visit(sv.Plan)
					}
					if err != nil {
						return err
					}
					all = append(all, sv.Plan)
				}
			}
		}
		return nil
	}
	return all, visit(p)
}

// runs reports whether a step of the last layer of a plan is to run that is in the first
// lines of its file, which are a file too.
func runs(p *dag.Plan, part *frontend.File) bool {
	for _, it := range p.Layers[len(p.Layers)-1].Items {
		if it.State == dag.ToRun && slices.ContainsFunc(part.Instructions, func(in frontend.Instruction) bool { return in.Base().Pos == it.Step.Pos() }) {
			return true
		}
	}
	return false
}

// Close drops the views of stages.
func (s *Stages) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var errs []error
	for _, end := range s.ends {
		errs = append(errs, end())
	}
	s.ends = nil
	return errors.Join(errs...)
}

// memo returns the function of a key that was made first.
func memo[V any](mu *sync.Mutex, m *map[*frontend.File]func() (V, error), k *frontend.File, f func() (V, error)) func() (V, error) {
	mu.Lock()
	defer mu.Unlock()
	if *m == nil {
		*m = make(map[*frontend.File]func() (V, error))
	}
	if (*m)[k] == nil {
		(*m)[k] = sync.OnceValues(f)
	}
	return (*m)[k]
}
