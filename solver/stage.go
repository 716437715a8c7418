package solver

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
	"github.com/clayer/clayer/solver/exec"
	"github.com/clayer/clayer/solver/rootfs"
	"github.com/clayer/clayer/solver/sandbox"
	"github.com/clayer/clayer/solver/source"
)

// stages are what the COPYs of a session copy from by --from. Each stage is a composition
// of its own, in a session of its own, and is built when its first file is asked for: in a
// view of the root that is dropped when the session ends.
type stages struct {
	r    *session
	root *rootfs.Root // of the last survey

	mu    sync.Mutex
	pins  map[*frontend.File]func() (digest.Digest, error)
	built map[*frontend.File]func() (source.Stage, error)
	ends  []func() error
}

// session returns a session for a stage, with the layers that it builds on by FROM.
func (s *stages) session(f *frontend.File) *session {
	opt := s.r.Options
	opt.Files = []*frontend.File{f}
	for range s.r.files {
		from := dag.BuildsOn(opt.Files[0])
		if from == nil {
			break
		}
		i := slices.IndexFunc(s.r.files, func(on *frontend.File) bool { return on.Name == from.Image })
		if i < 0 {
			break
		}
		opt.Files = append([]*frontend.File{s.r.files[i]}, opt.Files...)
	}
	opt.Shortfall, opt.Probes = nil, nil
	if from := imageOf(opt.Files[0]); from != nil {
		s.r.warnOnce("%s: FROM %s: the image is not used: stage %s is built on this machine", from.Pos, from.Image, f.Stage)
	}
	sub := newSession(opt)
	sub.readOnly, sub.machine, sub.elsewhere = s.r.readOnly, s.r.machine, s.r.elsewhere
	return sub
}

// imageOf returns the FROM of a stage that names an image; nil for none.
func imageOf(f *frontend.File) *frontend.From {
	if from := dag.BuildsOn(f); from != nil && from.Image != dag.Scratch && f.Stage != "" {
		return from
	}
	return nil
}

// Pin implements source.Stages.
func (s *stages) Pin(ctx context.Context, f *frontend.File) (digest.Digest, error) {
	return memo(&s.mu, &s.pins, f, func() (digest.Digest, error) {
		sub := s.session(f)
		_, state, err := sub.openState()
		if err != nil {
			return "", err
		}
		g, err := sub.checkedGraph(ctx)
		if err != nil {
			return "", err
		}
		keys, err := sub.keys(ctx, g, sub.platform(ctx, state))
		if err != nil {
			return "", err
		}
		k := keys.Layer[g.Layers[len(g.Layers)-1]]
		return digest.NewDigestFromBytes(digest.SHA256, k[:]), nil
	})()
}

// Build implements source.Stages.
func (s *stages) Build(ctx context.Context, f *frontend.File) (source.Stage, error) {
	st, err := memo(&s.mu, &s.built, f, func() (source.Stage, error) { return s.build(ctx, f) })()
	if errors.Is(err, sandbox.ErrUnavailable) {
		err = &source.Fault{Message: fmt.Sprintf("stage %s has to be built, which takes an overlay: %v", f.Stage, err), Hint: "solve it on a machine that has one, with a store that this machine reads", Err: err}
	}
	return st, err
}

func (s *stages) build(ctx context.Context, f *frontend.File) (st source.Stage, err error) {
	sub := s.session(f)
	sv, err := sub.survey(ctx, s.root)
	if err == nil && f.On != nil && f.On.Uses > 1 && runs(sv.Plan, f.On) { // others wait for its steps too
		if _, err = s.Build(ctx, f.On); err == nil {
			sv, err = sub.survey(ctx, s.root)
		}
	}
	if err != nil {
		return st, err
	}
	work, done, err := sub.runDir()
	if err != nil {
		return st, err
	}
	from := dag.BuildsOn(f)
	shown, ended, end := make(chan source.Stage, 1), make(chan error, 1), make(chan struct{})
	go func() {
		err := exec.View(ctx, sub.execConfig(s.root, sv), s.root, sv, nil, work, func(view sandbox.Layered) error {
			dir, own, release, err := view.Tree(context.WithoutCancel(ctx)) // it is read until the session ends
			if err != nil {
				return err
			}
			shown <- source.Stage{Dir: dir, Own: own, Bare: from != nil && from.Image == dag.Scratch, Ownerless: os.Geteuid() != 0}
			<-end
			return release()
		})
		ended <- errors.Join(err, sub.stages.close())
		done()
	}()
	select {
	case st := <-shown:
		s.mu.Lock()
		defer s.mu.Unlock()
		s.ends = append(s.ends, func() error { close(end); return <-ended })
		return st, nil
	case err := <-ended:
		var failed *BuildError
		var exit *sandbox.ExitError
		if from := imageOf(f); from != nil && errors.As(err, &failed) && errors.As(err, &exit) && exit.Code == 127 {
			failed.Err = &missingProgram{exit, from.Image}
		}
		return st, err
	}
}

// A missingProgram says where a program was expected that a stage lacks.
type missingProgram struct {
	*sandbox.ExitError
	image string
}

func (e *missingProgram) Error() string {
	return e.ExitError.Error() + ": a program is missing; in Docker the stage has those of the image " + e.image
}

func (e *missingProgram) Unwrap() error { return e.ExitError }

// plan returns the plans of the stages that steps to run copy from.
func (s *stages) plan(ctx context.Context, p *dag.Plan) (all []*dag.Plan, err error) {
	seen := make(map[*frontend.File]bool)
	var visit func(*dag.Plan) error
	visit = func(p *dag.Plan) error {
		for i := range p.Layers {
			for _, it := range p.Layers[i].Items {
				c, ok := it.Step.Instr.(*frontend.Copy)
				if !ok || c.Stage == nil || it.State != dag.ToRun || seen[c.Stage] {
					continue
				}
				seen[c.Stage] = true
				sv, err := s.session(c.Stage).survey(ctx, s.root)
				if err == nil {
					err = visit(sv.Plan)
				}
				if err != nil {
					return err
				}
				all = append(all, sv.Plan)
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

// close drops the views of stages.
func (s *stages) close() error {
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
