package source

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"syscall"

	"github.com/opencontainers/go-digest"

	"github.com/clayer/clayer/frontend"
	"github.com/clayer/clayer/frontend/imageref"
	"github.com/clayer/clayer/solver/internal/filelist"
)

// Mounts resolves the files that the mounts of a RUN of a file show: one pin for all of them.
// Of a context it is of what COPY's is, of a stage its last key, of an image its digest. An image
// that cannot be resolved is what earlier says, given the error.
func (r *Resolver) Mounts(ctx context.Context, f *frontend.File, run *frontend.Run, earlier func(imageref.Ref, error) (Pin, error)) (p Pin, err error) {
	var files, stages, images []digest.Digest
	for i := range run.Mounts {
		m := &run.Mounts[i]
		if !m.HasFiles() {
			continue
		}
		pin, err := r.MountPin(ctx, f, run, m)
		if err != nil && m.Stage == nil && m.Image != nil {
			var was Pin
			was, err = earlier(*m.Image, err)
			pin = was.Digest
		}
		switch {
		case err != nil:
			return p, err
		case m.Stage != nil:
			stages = append(stages, pin)
		case m.Image != nil:
			images = append(images, pin)
			p.Mounted = strings.TrimPrefix(p.Mounted+" "+pin.String(), " ")
		default:
			files = append(files, pin)
		}
	}
	p.Digest, p.Stages, p.Images = filelist.DigestOf("files", files), filelist.DigestOf("stages", stages), filelist.DigestOf("images", images)
	return p, nil
}

// MountPin resolves the files of one mount.
func (r *Resolver) MountPin(ctx context.Context, f *frontend.File, run *frontend.Run, m *frontend.Mount) (digest.Digest, error) {
	switch {
	case m.Stage != nil:
		return r.Stages.Pin(ctx, m.Stage)
	case m.Image != nil:
		return r.Images.Pin(ctx, *m.Image)
	}
	fs, err := r.MountedFiles(ctx, f, run, m)
	if err != nil {
		return "", err
	}
	return fs.Digest, nil
}

// CheckMounts returns what Mounts would refuse, without reading files.
func (r *Resolver) CheckMounts(ctx context.Context, f *frontend.File, run *frontend.Run) error {
	for i := range run.Mounts {
		m := &run.Mounts[i]
		if !m.HasFiles() || m.IsRoot() {
			continue
		}
		if err := filelist.Check(ctx, r.Contexts, f.ContextOf(m.Origin), filelist.Mounted(run, m), r.Exclude); err != nil {
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
			st.Says, st.Private = nil, nil // a RUN finds what can be made here, and all that the stage shows
			return filelist.ReadStage(ctx, st, c)
		}
		return filelist.ReadMounted(ctx, r.Contexts, f.ContextOf(m.Origin), c, r.Exclude)
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

// MountedTree returns what a mount shows of a stage as a part of its view; nil where that has to
// be copied, see MountedFiles.
func (r *Resolver) MountedTree(ctx context.Context, m *frontend.Mount) (*os.File, error) {
	st, err := r.Stages.Build(ctx, m.Stage)
	if err != nil || st.Bare || st.Mount == nil {
		return nil, err
	}
	tree, err := st.Mount(cmp.Or(m.Source, "/"))
	switch {
	case err == nil:
		return tree, nil
	case errors.Is(err, fs.ErrNotExist):
		return nil, &Fault{Message: fmt.Sprintf("source %q: no such file in stage %s", m.Source, m.Stage.Stage), Err: err}
	case errors.Is(err, syscall.ENOTDIR), errors.Is(err, syscall.ELOOP), errors.Is(err, syscall.ENAMETOOLONG):
		return nil, &Fault{Message: fmt.Sprintf("source %q in stage %s: %v", m.Source, m.Stage.Stage, err), Err: err}
	}
	return nil, nil // the kernel has no such mounts
}
