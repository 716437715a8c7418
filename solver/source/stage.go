package source

import (
	"context"
	"io/fs"
	"os"
	"syscall"

	"github.com/moby/patternmatcher"
	"github.com/opencontainers/go-digest"

	"github.com/clayer/clayer/frontend"
)

// Stages are what COPY --from copies from.
type Stages interface {
	// Pin returns what a stage is made of: its last key.
	Pin(ctx context.Context, stage *frontend.File) (digest.Digest, error)

	// Dir builds a stage, and returns its root, which stays as it is until all is done, and
	// whether the owners of files there are of no account: all is root's.
	Dir(ctx context.Context, stage *frontend.File) (dir string, ownerless bool, err error)
}

// A stage is one that is read.
type stage struct {
	name      string
	ownerless bool
}

// readStage finds the files of a COPY in its stage.
func (r *Resolver) readStage(ctx context.Context, c *frontend.Copy) (*files, error) {
	dir, ownerless, err := r.Stages.Dir(ctx, c.Stage)
	if err != nil {
		return nil, err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	ignore, err := patternmatcher.New(nil)
	if err != nil {
		return nil, err
	}
	s := &scan{root: root, ignore: ignore, stage: &stage{c.From, ownerless}}
	fs, err := s.files(ctx, dir, c, nil)
	if err != nil {
		return nil, err
	}
	fs.stage = true
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

// place is where the sources are, in words.
func (s *scan) place() string {
	if s.stage != nil {
		return "stage " + s.stage.name
	}
	return "the Containerfile's directory"
}

// leaves says how a file is left out.
func (s *scan) leaves() string {
	if s.stage != nil {
		return "name the files beside it"
	}
	return "a line in .dockerignore leaves it out"
}

// mode returns the mode that an item gets: in a stage it is the file's own.
func (s *scan) mode(info fs.FileInfo) uint32 {
	if st, ok := info.Sys().(*syscall.Stat_t); ok && s.stage != nil {
		return st.Mode & 0o7777
	}
	return narrow(info.Mode())
}

// owned gives an item in a stage the owner that its file has.
func (s *scan) owned(it item, info fs.FileInfo) item {
	if st, ok := info.Sys().(*syscall.Stat_t); ok && s.stage != nil && !s.stage.ownerless {
		it.uid, it.gid = int(st.Uid), int(st.Gid)
	}
	return it
}
