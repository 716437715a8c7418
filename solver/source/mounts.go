package source

import (
	"context"

	"github.com/opencontainers/go-digest"

	"github.com/clayer/clayer/dag/key"
	"github.com/clayer/clayer/frontend"
	"github.com/clayer/clayer/solver/internal/filelist"
)

// Mounts resolves the files that the mounts of a RUN of a file show: one pin for all of them.
// Of a context it is of what COPY's is, of a stage its last key.
func (r *Resolver) Mounts(ctx context.Context, f *frontend.File, run *frontend.Run) (p Pin, err error) {
	var files, stages []digest.Digest
	for i := range run.Mounts {
		m := &run.Mounts[i]
		switch {
		case !m.HasFiles():
		case m.Stage != nil:
			pin, err := r.Stages.Pin(ctx, m.Stage)
			if err != nil {
				return p, err
			}
			stages = append(stages, pin)
		default:
			fs, err := r.MountedFiles(ctx, f, run, m)
			if err != nil {
				return p, err
			}
			files = append(files, fs.Digest)
			p.Size += fs.Size
		}
	}
	p.Digest, p.Stages = digestOf("files", files), digestOf("stages", stages)
	return p, nil
}

// digestOf returns one digest of several, in order; "" of none.
func digestOf(what string, all []digest.Digest) digest.Digest {
	if len(all) == 0 {
		return ""
	}
	k := key.Sum(what, func(w key.Writer) {
		for _, d := range all {
			w.Field("digest", d.String())
		}
	})
	return digest.NewDigestFromBytes(digest.SHA256, k[:])
}

// CheckMounts returns what Mounts would refuse, without reading files.
func (r *Resolver) CheckMounts(ctx context.Context, f *frontend.File, run *frontend.Run) error {
	for i := range run.Mounts {
		m := &run.Mounts[i]
		if !m.HasFiles() || m.Stage != nil {
			continue
		}
		if err := filelist.Check(ctx, f.ContextOf(m.Origin), filelist.Mounted(run, m), r.Exclude); err != nil {
			return err
		}
	}
	return nil
}

// MountedFiles returns the files that a mount shows, of a context or a stage, which is built
// for it.
func (r *Resolver) MountedFiles(ctx context.Context, f *frontend.File, run *frontend.Run, m *frontend.Mount) (*filelist.List, error) {
	return once(&r.mu, &r.shown, m, func() (*filelist.List, error) {
		c := filelist.Mounted(run, m)
		if m.Stage != nil {
			st, err := r.Stages.Build(ctx, m.Stage)
			if err != nil {
				return nil, err
			}
			return filelist.ReadStage(ctx, st, c)
		}
		return filelist.ReadMounted(ctx, f.ContextOf(m.Origin), c, r.Exclude)
	})
}

// BuildStages builds the stages that a RUN mounts.
func (r *Resolver) BuildStages(ctx context.Context, run *frontend.Run) error {
	for _, f := range frontend.Uses(run) {
		if _, err := r.Stages.Build(ctx, f); err != nil {
			return err
		}
	}
	return nil
}
