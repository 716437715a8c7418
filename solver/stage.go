package solver

import (
	"context"
	"errors"

	"github.com/opencontainers/go-digest"

	"github.com/clayer/clayer/dag"
	"github.com/clayer/clayer/frontend"
	"github.com/clayer/clayer/solver/exec"
	"github.com/clayer/clayer/solver/internal/names"
	"github.com/clayer/clayer/solver/internal/stages"
	"github.com/clayer/clayer/solver/internal/survey"
	"github.com/clayer/clayer/solver/rootfs"
	"github.com/clayer/clayer/solver/sandbox"
)

// stageOf returns a session for a stage of the session's files. It works on the same root.
func (r *session) stageOf(f *frontend.File) *session {
	opt := r.Options
	opt.Files = stages.With(r.files, f)
	opt.Shortfall, opt.Probes = nil, nil
	sub := newSession(opt)
	sub.readOnly, sub.machine, sub.elsewhere, sub.isStage = r.readOnly, r.machine, r.elsewhere, true
	r.sources()
	sub.images, sub.contexts = r.images, r.contexts
	return sub
}

// onImage has a stage that is built on an image keyed by that. root unpacks it, and has the
// session work on it instead of on the machine.
func (r *session) onImage(ctx context.Context, stage *frontend.File) (root func() error, err error) {
	if stage.Image == nil {
		return func() error { return nil }, nil
	}
	base, err := stages.OnImage(ctx, r.images, stage)
	if err != nil {
		return nil, err
	}
	r.scope, r.machine, r.elsewhere = base.Scope, base.Platform, base.Platform
	r.Hermetic, r.InheritEnv = true, false
	return func() (err error) {
		r.Dest = ""
		if r.Root, err = base.Root(ctx); err == nil {
			r.root, err = r.open()
		}
		return err
	}, nil
}

func (r *session) openStage(f *frontend.File) stages.Session {
	sub := r.stageOf(f)
	sub.stages, sub.root = r.stages, r.root
	return stages.Session{
		Pin: func(ctx context.Context) (digest.Digest, error) {
			if _, err := sub.onImage(ctx, f); err != nil {
				return "", err
			}
			g, err := sub.checkedGraph(ctx)
			if err != nil {
				return "", err
			}
			keys, err := sub.keys(ctx, g, sub.machine)
			if err != nil {
				return "", err
			}
			k := keys.Layer[g.Layers[len(g.Layers)-1]]
			return digest.NewDigestFromBytes(digest.SHA256, k[:]), nil
		},
		Survey: func(ctx context.Context) (*survey.Survey, error) {
			if _, err := sub.onImage(ctx, f); err != nil {
				return nil, err
			}
			sv, err := sub.survey(ctx, sub.root)
			if from := stages.ImageOf(sub.files); err == nil && from != nil && sv.Plan.Totals().ToRun > 0 {
				r.warnOnce("%s: FROM %s: the image is not used: stage %s is built on this machine", from.Pos, from.Image, f.Stage)
			}
			return sv, err
		},
		View: func(ctx context.Context, sv *survey.Survey, use func(view sandbox.Layered, made func() (*names.Made, error)) error) error {
			unpack, err := sub.onImage(ctx, f)
			if err == nil {
				err = unpack()
			}
			if err != nil {
				return err
			}
			work, done, err := sub.runDir()
			if err != nil {
				return err
			}
			defer done()
			cfg := sub.execConfig(sub.root, sv)
			cfg.Stage = f
			cfg.Lists = true // so that its steps are retained as those of a layer
			err = exec.View(ctx, cfg, sub.root, sv, nil, work, use)
			if failed := (*BuildError)(nil); errors.As(err, &failed) {
				failed.Err = stages.NameImage(failed.Err, stages.ImageOf(sub.files))
			}
			return nameWithheld(err)
		},
	}
}

// beforeSteps builds the stages that several others begin with, and returns the survey that
// counts them as cached. Where a stage cannot be built, nothing is: the error says so.
func (r *session) beforeSteps(ctx context.Context, root *rootfs.Root, sv *survey.Survey) (*survey.Survey, error) {
	if err := r.checkInPlace(ctx, root, sv.Plan); err != nil {
		return nil, err
	}
	built, err := r.stages.BuildShared(ctx, sv.Plan)
	if err == nil && built {
		sv, err = r.survey(ctx, root)
	}
	return sv, err
}

func (r *session) checkInPlace(ctx context.Context, root *rootfs.Root, p *dag.Plan) error {
	check := func(kind string) (*sandbox.Sandbox, error) {
		return sandbox.Check(kind, r.sandboxOptions(root), exec.Engines...)
	}
	return r.stages.CheckInPlace(ctx, p,
		func() (*sandbox.Sandbox, error) { return check(r.Options.Sandbox) },
		func() error { _, err := check("overlay"); return err })
}
