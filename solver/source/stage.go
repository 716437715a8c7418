package source

import (
	"context"

	"github.com/opencontainers/go-digest"

	"github.com/clayer/clayer/frontend"
	"github.com/clayer/clayer/solver/internal/filelist"
)

// A Stage is one that is built.
type Stage = filelist.Stage

// Stages are what COPY --from copies from.
type Stages interface {
	// Pin returns what a stage is made of: its last key.
	Pin(ctx context.Context, stage *frontend.File) (digest.Digest, error)

	// Build builds a stage, which stays as it is until all is done.
	Build(ctx context.Context, stage *frontend.File) (Stage, error)
}

// readStage finds the files of a COPY in its stage.
func (r *Resolver) readStage(ctx context.Context, c *frontend.Copy) (*filelist.List, error) {
	st, err := r.Stages.Build(ctx, c.Stage)
	if err != nil {
		return nil, err
	}
	fs, err := filelist.ReadStage(ctx, st, c)
	if err != nil {
		return nil, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.staged == nil {
		r.staged = make(map[*frontend.Copy]bool)
	}
	r.staged[c] = true
	return fs, nil
}

func (r *Resolver) isRead(c *frontend.Copy) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.staged[c]
}
