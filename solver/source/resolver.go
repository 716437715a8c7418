// Package source resolves what FETCH and COPY name to pins, which are keyed,
// and yields their entries.
//
// The entries of a source are a function of the instruction and its pin, with two
// questions to the root: the numbers of names in --chown, and whether the dest
// of a single file is a directory already. The package writes to no root.
package source

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/clayer/clayer/cache/github"
	"github.com/clayer/clayer/cache/snapshot"
	"github.com/clayer/clayer/cache/transfer"
	"github.com/clayer/clayer/frontend"
	"github.com/clayer/clayer/frontend/gitsource"
	"github.com/clayer/clayer/solver/internal/contextdir"
	"github.com/clayer/clayer/solver/internal/downloads"
	"github.com/clayer/clayer/solver/internal/fault"
	"github.com/clayer/clayer/solver/internal/filelist"
)

// A Pin is what a source resolved to: what is keyed. One of Digest and Commit
// is set; of what a RUN mounts, Digest, Stages and Images may be.
type Pin struct {
	Digest digest.Digest // of the bytes of a URL, of the files of a COPY, or of mounts; of an image
	Stages digest.Digest // of those that a RUN mounts
	Images digest.Digest // likewise

	Mounted string // the digests that Images is of, see dag.Pin
	Commit  string // of a Git tree
	Size    int64  // bytes; 0 where a checksum made a request needless
}

// Downloads is a directory of what FETCH has downloaded.
type Downloads = downloads.Dir

// Resolver resolves the sources of one plan or solve. Its methods are safe for
// concurrent use, once its fields are set. How many run at a time is the
// caller's choice.
//
// A URL is requested once per Resolver, a directory read once per COPY; what they
// gave, errors included, stands for as long as the Resolver does.
type Resolver struct {
	Client *transfer.Client

	// GitHub resolves refs and gives trees; nil: there is no github: source.
	GitHub *github.Client

	// Downloads stores what is fetched; nil stores nothing, and FetchChanges is
	// then no use.
	Downloads *Downloads

	Contexts *contextdir.Contexts // for all resolvers of a solve; nil: each COPY reads for itself

	// Exclude lists absolute paths that no COPY takes: the directories that a solve
	// itself writes to, which would grow into themselves.
	Exclude []string

	// Replaces reports whether a FETCH is of a snapshot of container-layer, whose files
	// replace whatever its RUNs replaced; nil: none is.
	Replaces func(*frontend.Fetch) bool

	// Stages are what COPY --from copies from; nil where no file has some.
	Stages Stages

	// Images are what COPY --from copies from that is no stage.
	Images Images

	// Warn is called when a URL does not answer and what it gave last is used, when no
	// file matches a pattern, and when Docker would do otherwise. It may be nil.
	Warn func(text string)

	mu     sync.Mutex
	urls   map[string]func() (Pin, error)
	copies map[*frontend.Copy]func() (*filelist.List, error)
	staged sync.Map // *frontend.Copy: those that were read in their stages and images
	shown  map[*frontend.Mount]func() (*filelist.List, error)

	warned map[string]bool // by what was said

	commits map[Ref]func() (string, error)
	gitRefs map[gitsource.Tree]func() (string, error)
	trees   map[string]func() (digest.Digest, error)
	ways    map[github.Repo]*answered
}

// once returns the result of f for the key's first caller, to all callers.
// The first caller's context is f's; the callers of one solve share their fate.
func once[K comparable, V any](mu *sync.Mutex, m *map[K]func() (V, error), k K, f func() (V, error)) (V, error) {
	mu.Lock()
	if *m == nil {
		*m = make(map[K]func() (V, error))
	}
	get, ok := (*m)[k]
	if !ok {
		get = sync.OnceValues(f)
		(*m)[k] = get
	}
	mu.Unlock()
	return get()
}

// warnOnce warns of an instruction, and not again in the same words.
func (r *Resolver) warnOnce(m *frontend.Meta, format string, args ...any) {
	if r.Warn == nil {
		return
	}
	text := fmt.Sprintf("%s: %s: %s", m.Pos, m.Word, fmt.Sprintf(format, args...))
	r.mu.Lock()
	said := r.warned[text]
	if r.warned == nil {
		r.warned = make(map[string]bool)
	}
	r.warned[text] = true
	r.mu.Unlock()
	if !said {
		r.Warn(text)
	}
}

// epoch is the time of all that has none of its own: the first that FAT, and so
// zip, can tell. A fixed time packs to the same bytes.
var epoch = time.Unix(315532800, 0).UTC() // 1980-01-01

// impliedDir is a directory that is created if missing.
func impliedDir(path string, by style) *snapshot.Entry {
	return &snapshot.Entry{
		Path: path, Kind: snapshot.Dir, Implied: true,
		Mode: 0o755, UID: by.uid, GID: by.gid, ModTime: epoch,
	}
}

// entryPath turns an absolute, clean path into that of an entry; "" for the
// root itself.
func entryPath(abs string) string { return strings.Trim(abs, "/") }

// A Fault is something that the writer of the Containerfile must change.
type Fault = fault.Fault

// canceled returns the error of a done context.
func canceled(ctx context.Context) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return nil
}
