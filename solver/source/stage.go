package source

import (
	"context"

	"github.com/opencontainers/go-digest"

	"github.com/clayer/clayer/frontend"
	"github.com/clayer/clayer/frontend/imageref"
	"github.com/clayer/clayer/solver/internal/filelist"
)

// A Stage is one that is built, or an image that is unpacked.
type Stage = filelist.Stage

// Stages are what COPY --from copies from.
type Stages interface {
	// Pin returns what a stage is made of: its last key.
	Pin(ctx context.Context, stage *frontend.File) (digest.Digest, error)

	// Build builds a stage, which stays as it is until all is done.
	Build(ctx context.Context, stage *frontend.File) (Stage, error)
}

// Images are what COPY --from copies from too.
type Images interface {
	// Pin returns the digest of an image.
	Pin(ctx context.Context, image imageref.Ref) (digest.Digest, error)

	// Files returns a directory with the files of an image, given its pin, that sources name.
	Files(ctx context.Context, image imageref.Ref, pin digest.Digest, sources []string) (Stage, error)
}

// root returns the stage that a COPY is from, or its image, given its pin.
func (r *Resolver) root(ctx context.Context, c *frontend.Copy, p Pin) (Stage, error) {
	if c.Image != nil {
		return r.Images.Files(ctx, *c.Image, p.Digest, c.Sources)
	}
	return r.Stages.Build(ctx, c.Stage)
}

// readRoot finds the files of a COPY in its stage, or its image.
func (r *Resolver) readRoot(ctx context.Context, c *frontend.Copy, p Pin) (*filelist.List, error) {
	st, err := r.root(ctx, c, p)
	if err != nil {
		return nil, err
	}
	fs, err := filelist.ReadStage(ctx, st, c)
	if err != nil {
		return nil, err
	}
	r.staged.Store(c, true)
	return fs, nil
}

func (r *Resolver) isRead(c *frontend.Copy) bool {
	_, ok := r.staged.Load(c)
	return ok
}
