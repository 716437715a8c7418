// Package stages builds the stages that COPY --from copies from, and RUN mounts. Each is a composition of its
// own, and is built when its first file is asked for, in a view of the root that is dropped
// in the end.
package stages

import (
	"context"
	"errors"
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
	Files  []*frontend.File
	Open   func(stage *frontend.File) Session
	Stored bool // what is built is cached for those that are built later
	Warn   func(format string, args ...any)

	// Private returns what says which paths of a root are somebody's own.
	Private func(dir string) func(path string) bool

	mu    sync.Mutex
	last  map[*frontend.File]*once[digest.Digest]
	built map[*frontend.File]*once[source.Stage]
	ends  []func() error
	users map[*frontend.File]int // see counted

	refused map[*frontend.File]bool // see Refuse
}

// With returns the files of a stage: it, and the layers among files that it builds on.
func With(files []*frontend.File, stage *frontend.File) []*frontend.File {
	all := []*frontend.File{stage}
	if stage.Image != nil {
		return all
	}
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
	if from := dag.BuildsOn(files[0]); from != nil && from.Image != dag.Scratch && files[0].Image == nil {
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

// Last returns the key of a stage's last step, as a digest.
func (s *Stages) Last(ctx context.Context, f *frontend.File) (digest.Digest, error) {
	return memo(ctx, &s.mu, &s.last, f, func() (digest.Digest, error) { return s.Open(f).Pin(ctx) })
}

// Pin implements source.Stages.
func (s *Stages) Pin(ctx context.Context, f *frontend.File) (digest.Digest, error) {
	pin, err := s.Last(ctx, f)
	if err == nil && isBare(f) { // its steps have the keys that they have on the machine
		pin = digest.FromString("scratch " + pin.String())
	}
	return pin, err
}

// isBare reports whether a stage shows what its steps made, and nothing else.
func isBare(f *frontend.File) bool {
	from := dag.BuildsOn(f)
	return from != nil && from.Image == dag.Scratch && f.Image == nil
}

// Build implements source.Stages.
func (s *Stages) Build(ctx context.Context, f *frontend.File) (source.Stage, error) {
	st, err := memo(ctx, &s.mu, &s.built, f, func() (source.Stage, error) { return s.build(ctx, f) })
	if errors.Is(err, sandbox.ErrUnavailable) {
		err = unbuildable(f, err)
	}
	return st, err
}

func (s *Stages) build(ctx context.Context, f *frontend.File) (st source.Stage, err error) {
	sub := s.Open(f)
	sv, err := sub.Survey(ctx)
	if err != nil {
		return st, err
	}
	if built, err := s.buildShared(ctx, f, sv.Plan); err != nil {
		return st, err
	} else if built {
		if sv, err = sub.Survey(ctx); err != nil {
			return st, err
		}
	}
	shown, ended, end := make(chan source.Stage, 1), make(chan error, 1), make(chan struct{})
	go func() {
		ended <- sub.View(ctx, sv, func(view sandbox.Layered, made func() (*names.Made, error)) error {
			tree, release, err := view.Tree(context.WithoutCancel(ctx)) // it is read until Close
			if err != nil {
				return err
			}
			var private func(string) bool
			if s.Private != nil {
				private = s.Private(tree.Dir)
			}
			st := source.Stage{Name: "stage " + f.Stage, Dir: tree.Dir, Mount: tree.Mount, Made: sync.OnceValues(made), Bare: isBare(f), Ownerless: os.Geteuid() != 0, Private: private, Warn: s.Warn}
			if f.Image != nil { // whose files are nobody's but the image's
				st.Made = nil
			}
			shown <- st
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

// Refuse notes that a RUN of a stage has not run as its user, so that the stage is not what its
// key says.
func (s *Stages) Refuse(f *frontend.File) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.refused == nil {
		s.refused = make(map[*frontend.File]bool)
	}
	s.refused[f] = true
}

// Refused reports whether a stage, or one that it takes files from, was noted by Refuse.
func (s *Stages) Refused(f *frontend.File) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.refused) > 0 && slices.ContainsFunc(used(With(s.Files, f)), func(f *frontend.File) bool { return s.refused[f] })
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

// once is what is made once for all that ask for it.
type once[V any] struct{ get func() (V, error) }

// memo returns what the first call for a key has made; if that was canceled, as what it was
// made for has failed, it is made for the next one.
func memo[V any](ctx context.Context, mu *sync.Mutex, m *map[*frontend.File]*once[V], k *frontend.File, f func() (V, error)) (V, error) {
	for {
		mu.Lock()
		if *m == nil {
			*m = make(map[*frontend.File]*once[V])
		}
		o := (*m)[k]
		if o == nil {
			o = &once[V]{sync.OnceValues(f)}
			(*m)[k] = o
		}
		mu.Unlock()
		v, err := o.get()
		if !errors.Is(err, context.Canceled) || ctx.Err() != nil {
			return v, err
		}
		mu.Lock()
		if (*m)[k] == o {
			delete(*m, k)
		}
		mu.Unlock()
	}
}
