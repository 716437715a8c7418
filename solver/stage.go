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
	built map[*frontend.File]func() (string, error)
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
	sub := newSession(opt)
	sub.readOnly, sub.machine, sub.elsewhere = s.r.readOnly, s.r.machine, s.r.elsewhere
	return sub
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

// Dir implements source.Stages.
func (s *stages) Dir(ctx context.Context, f *frontend.File) (dir string, ownerless bool, err error) {
	dir, err = memo(&s.mu, &s.built, f, func() (string, error) { return s.build(ctx, f) })()
	if errors.Is(err, sandbox.ErrUnavailable) {
		err = &source.Fault{Message: fmt.Sprintf("its stage has to be built, which takes an overlay: %v", err), Hint: "solve it on a machine that has one, with a store that this machine reads", Err: err}
	}
	return dir, os.Geteuid() != 0, err
}

func (s *stages) build(ctx context.Context, f *frontend.File) (string, error) {
	sub := s.session(f)
	sv, err := sub.survey(ctx, s.root)
	if err == nil && f.On != nil && f.On.Shared && runs(sv.Plan, f.On) { // others wait for its steps too
		if _, _, err = s.Dir(ctx, f.On); err == nil {
			sv, err = sub.survey(ctx, s.root)
		}
	}
	if err != nil {
		return "", err
	}
	work, done, err := sub.runDir()
	if err != nil {
		return "", err
	}
	shown, ended, end := make(chan string, 1), make(chan error, 1), make(chan struct{})
	go func() {
		err := exec.View(ctx, sub.execConfig(s.root, sv), s.root, sv, nil, work, func(view sandbox.Layered) error {
			dir, release, err := view.Tree(context.WithoutCancel(ctx)) // it is read until the session ends
			if err != nil {
				return err
			}
			shown <- dir
			<-end
			return release()
		})
		ended <- errors.Join(err, sub.stages.close())
		done()
	}()
	select {
	case dir := <-shown:
		s.mu.Lock()
		defer s.mu.Unlock()
		s.ends = append(s.ends, func() error { close(end); return <-ended })
		return dir, nil
	case err := <-ended:
		return "", err
	}
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
