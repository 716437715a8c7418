package source

import (
	"context"

	"github.com/opencontainers/go-digest"

	"github.com/clayer/clayer/dag/key"
	"github.com/clayer/clayer/frontend"
	"github.com/clayer/clayer/solver/internal/filelist"
)

// Mounts resolves the files that the mounts of a RUN of a file show: one pin for all of them.
// Of a context it is of what COPY's is, of a stage its last key, of an image its digest.
func (r *Resolver) Mounts(ctx context.Context, f *frontend.File, run *frontend.Run) (p Pin, err error) {
	var files, stages, images []digest.Digest
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
		case m.Image != nil:
			pin, err := r.Images.Pin(ctx, *m.Image)
			if err != nil {
				return p, err
			}
			images = append(images, pin)
		default:
			fs, err := r.MountedFiles(ctx, f, run, m)
			if err != nil {
				return p, err
			}
			files = append(files, fs.Digest)
			p.Size += fs.Size
		}
	}
	p.Digest, p.Stages, p.Images = digestOf("files", files), digestOf("stages", stages), digestOf("images", images)
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
		if !m.HasFiles() || m.IsRoot() {
			continue
		}
		if err := filelist.Check(ctx, f.ContextOf(m.Origin), filelist.Mounted(run, m), r.Exclude); err != nil {
			return err
		}
	}
	return nil
}

// MountedFiles returns the files that a mount shows, of a context, of a stage, which is built
// for it, or of an image, which is unpacked.
func (r *Resolver) MountedFiles(ctx context.Context, f *frontend.File, run *frontend.Run, m *frontend.Mount) (*filelist.List, error) {
	return once(&r.mu, &r.shown, m, func() (*filelist.List, error) {
		c := filelist.Mounted(run, m)
		if m.IsRoot() {
			var pin Pin
			if m.Image != nil {
				var err error
				if pin.Digest, err = r.Images.Pin(ctx, *m.Image); err != nil {
					return nil, err
				}
			}
			st, err := r.root(ctx, c, pin)
			if err != nil {
				return nil, err
			}
			return filelist.ReadStage(ctx, st, c)
		}
		return filelist.ReadMounted(ctx, f.ContextOf(m.Origin), c, r.Exclude)
	})
}

// Prepare builds the stages that a RUN of a file mounts, and downloads the images.
func (r *Resolver) Prepare(ctx context.Context, in *frontend.File, run *frontend.Run) error {
	for i := range run.Mounts {
		if m := &run.Mounts[i]; m.Image != nil {
			if _, err := r.MountedFiles(ctx, in, run, m); err != nil {
				return err
			}
		}
	}
	for _, f := range frontend.Uses(run) {
		if _, err := r.Stages.Build(ctx, f); err != nil {
			return err
		}
	}
	return nil
}
