package git

import (
	"context"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"github.com/clayer/clayer/cache"
	"github.com/clayer/clayer/cache/delta"
)

// Pieces of a snapshot are cut at frames, so that most of two versions of a step are the same
// objects. Those that a listed snapshot has are not sent again, and nothing refers from one
// snapshot to another: each has a commit with all its pieces, and so git keeps what any of
// them needs.

const (
	// leastPiece is about how many bytes a piece has. Smaller ones save little, and each
	// takes a request to fetch.
	leastPiece = 3 << 20

	// manyPieces is from which number of pieces on these are larger.
	manyPieces = 64
)

// errReuse says that a push is to be made again with all pieces.
var errReuse = errors.New("the push lacked pieces")

func (s *Store) sendsAllPieces() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.sendsAll
}

// cut returns the sizes of the pieces of a snapshot.
func (s *Store) cut(d cache.Descriptor) []int64 {
	least := min(leastPiece, s.opt.PieceSize/8)
	for d.Size/least > manyPieces && least < s.opt.PieceSize/2 {
		least *= 2
	}
	return delta.Pieces(d.Frames, d.Size, least, s.opt.PieceSize)
}

// blobID returns the id of what is read.
func (p *program) blobID(r io.Reader, size int64) (object, error) {
	var h hash.Hash = sha1.New()
	if p.sha256.Load() {
		h = sha256.New()
	}
	fmt.Fprintf(h, "blob %d\x00", size)
	_, err := io.Copy(h, r)
	return object(hex.EncodeToString(h.Sum(nil))), err
}

// grafts say that the server has pieces which the repository lacks. git leaves out of a push
// what is in the parents of commits that the server has. So, for the push alone, the commits
// that are pushed and the branch's last one have a parent that no server knows, whose files
// are these pieces.
type grafts struct{ of *repo } // nil: there are none

func (g grafts) any() bool { return g.of != nil }

// The files that git reads of a repository: grafts do not hold beside what a shallow fetch
// has written.
const (
	graftFile   = "info/grafts"
	shallowFile = "shallow"
	savedFile   = "shallow-saved"
)

// graft writes the grafts for changes to the branch whose last commit is given. Its caller
// calls undo.
func (r *repo) graft(ctx context.Context, last object, batch []*change) (grafts, error) {
	var there []file
	for _, c := range batch {
		if !c.ended {
			for _, f := range c.reused {
				there = append(there, file{Path: strconv.Itoa(len(there)), ID: f.ID})
			}
		}
	}
	if len(there) == 0 {
		return grafts{}, nil
	}
	tree, err := r.writeTree(ctx, "", there)
	if err != nil {
		return grafts{}, err
	}
	has, err := r.writeCommit(ctx, tree, nil, "What the server has", time.Time{})
	if err != nil {
		return grafts{}, err
	}
	text := fmt.Sprintf("%s %s\n", last, has)
	for _, c := range batch {
		for _, ch := range c.chunks {
			text += string(ch.commit)
			for _, parent := range append(slices.Clone(ch.parents), has) {
				text += " " + string(parent)
			}
			text += "\n"
		}
	}
	g := grafts{r}
	err = os.Mkdir(filepath.Join(r.dir, "info"), 0o700)
	if errors.Is(err, fs.ErrExist) {
		err = nil
	}
	if err == nil {
		err = os.WriteFile(filepath.Join(r.dir, graftFile), []byte(text), 0o600)
	}
	if err == nil {
		err = r.rename(shallowFile, savedFile)
	}
	if err != nil {
		g.undo()
		return grafts{}, err
	}
	return g, nil
}

// undo removes the grafts.
func (g grafts) undo() {
	if g.of != nil {
		_ = os.Remove(filepath.Join(g.of.dir, graftFile)) // or there is none
		_ = g.of.rename(savedFile, shallowFile)           // a fetch that lacks it fails, and says so
	}
}

// rename renames a file of the repository that may not be there.
func (r *repo) rename(from, to string) error {
	err := os.Rename(filepath.Join(r.dir, from), filepath.Join(r.dir, to))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
