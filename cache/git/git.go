// Package git stores snapshots on a branch of a Git repository, through the git
// program: where nothing but Git's own protocol passes a proxy.
//
// The branch has nothing in common with others. The files of its last commit are
// small, and say what there is:
//
//	clayer.json                 what the branch is, and its version
//	README.md                   the same for people
//	keys/<hh>/<key>.json        a step: its Descriptor, and the objects with its snapshot
//	keys/<hh>/<key>.<n>.json    the same of its second to fourth snapshot
//	layers/<hh>/<tag>.json      a complete layer: its Manifest, with the same of each step
//
// The snapshots are not among those files. Each is in a commit of its own, without
// parents, whose files are pieces of at most 45 MB: 000, 001 and so on. The commit with
// the descriptors has as parents the one before it, and those of the snapshots that came
// with it. So:
//
//   - A fetch of depth 1 gets what Find asks for, and not a byte of a snapshot. It needs
//     nothing that a server may lack: without the filter capability, git ignores filters,
//     and sends everything.
//   - A snapshot is fetched by the ids of its objects, which any server of protocol
//     version 2 answers.
//   - A writer adds to a tree whose snapshots it does not have: it has all files of the
//     last commit, and what the server has of the parents is not sent again.
//   - The server frees nothing that is listed: every snapshot is an ancestor.
//   - Remove pushes, in place of the branch, a commit whose parents are the snapshots
//     that remain. It fetches commits without their files for that.
//
// A push adds to the commit that is there, or is refused; then the new one is fetched,
// and the same is added to that. So nothing that another writer pushed is lost, and
// what is cut off leaves the branch as it was.
//
// Every operation works in a bare repository of its own, which is removed after it: it
// needs no lock, and what a killed process left is in nobody's way. Its configuration
// is written by this package, with what the working directory's has about reaching
// servers. It has no hooks, and credentials are in no argument.
package git

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"sync"
	"time"

	"github.com/clayer/clayer/cache"
	"github.com/clayer/clayer/cache/git/internal/rate"
	"github.com/clayer/clayer/cache/transfer"
	"github.com/clayer/clayer/internal/errhint"
	"github.com/clayer/clayer/internal/git/remote"
)

const (
	// pieceSize is the most bytes of a file: GitHub warns of those over 50 MiB.
	pieceSize = 45 << 20

	// pushSize is the most bytes of snapshots in a push: GitHub takes up to 2 GiB.
	pushSize = 1500 << 20

	// pushRate is how many pushes a minute GitHub asks for at most.
	pushRate = 6

	// stall is how long git may say nothing while it works with a server.
	stall = 30 * time.Second
)

// DefaultBranch has the snapshots unless an address names another one.
const DefaultBranch = remote.DefaultBranch

// An Address is a branch of a repository.
type Address = remote.Address

// ParseAddress reads URL[#branch], as a clone takes the URL. An empty URL is the origin
// of the working directory. A path is that of a bare repository on this machine.
func ParseAddress(s string) (Address, error) { return remote.Parse(s) }

// Options say how to store. The zero Options is the default.
type Options struct {
	// Name is how the store is called in output; "" means "git". Where a session
	// has several of them, each needs one of its own.
	Name string

	// Temp is the directory for repositories and blobs; "" means the system's.
	Temp string

	// Dir is the directory whose git configuration applies; "" means the working one.
	Dir string

	// Yes allows to make the branch in the repository that Dir is a clone of.
	Yes bool

	// Warn prints what a user should know and nothing fails for. nil prints nothing.
	Warn func(text string)

	// Transfer says how often what failed is tried again.
	Transfer transfer.Options

	// The bounds of what is pushed, and of silence; 0 means the defaults.
	PieceSize, PushSize int64
	PushRate            int // a minute
	Stall               time.Duration
}

// Store is a branch. It is safe for concurrent use, and for several sessions on
// several machines.
type Store struct {
	addr Address
	opt  Options
	tr   *transfer.Client
	rate *rate.Limit

	refused transfer.Refusals
	setup   func() (*program, error) // once: git, and the configuration for it

	reading chan struct{} // holds one while the branch is read
	turn    chan struct{} // holds one while the branch is changed

	mu     sync.Mutex
	last   *index    // as it was last seen; nil: not yet
	queue  []*change // to be pushed
	wanted []*want   // to be fetched
	active int       // fetches that are under way
	whole  bool      // the server gives no objects by their ids: all of the branch is fetched

	sendsAll bool // a push failed in which pieces were left out that the branch has
}

// New returns the store of a branch. Nothing is asked of it yet.
func New(addr Address, opt Options) *Store {
	opt.Name = cmp.Or(opt.Name, "git")
	opt.PieceSize, opt.PushSize = cmp.Or(opt.PieceSize, pieceSize), cmp.Or(opt.PushSize, pushSize)
	opt.Stall = cmp.Or(opt.Stall, stall)
	if opt.Warn == nil {
		opt.Warn = func(string) {}
	}
	s := &Store{
		addr: addr, opt: opt, tr: transfer.New(opt.Transfer), rate: rate.New(cmp.Or(opt.PushRate, pushRate), time.Minute),
		reading: make(chan struct{}, 1), turn: make(chan struct{}, 1),
	}
	s.setup = sync.OnceValues(s.prepare)
	return s
}

// prepare looks for git and reads the configuration. A store without is refused.
func (s *Store) prepare() (*program, error) {
	path, err := exec.LookPath("git")
	if err != nil {
		err = errhint.With(errors.New("git is not on PATH"), "install git (apt-get install git), or use another store")
		s.refused.Read(err, 0)
		return nil, err
	}
	return newProgram(path, s.addr, s.opt)
}

// Name returns the name of Options.
func (s *Store) Name() string { return s.opt.Name }

// Location returns the repository and the branch, without a login.
func (s *Store) Location() string { return s.addr.String() }

// Writable returns why the repository has refused in this process.
func (s *Store) Writable() error { return s.refused.Writing() }

// hold waits for a turn; the caller calls the function that it returns at the end of it.
func hold(ctx context.Context, turn chan struct{}) (func(), error) {
	select {
	case turn <- struct{}{}:
		return func() { <-turn }, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// try calls attempt until it succeeds, or trying again is no use. What all further
// calls would get too is remembered.
func (s *Store) try(ctx context.Context, a act, attempt func(context.Context) error) error {
	err := s.tr.Retry(ctx, 0, func() error {
		err := attempt(ctx)
		var e *Error
		if errors.As(err, &e) && e.kind == broken && ctx.Err() == nil {
			return transfer.Transient(err)
		}
		return err
	})
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	var e *Error
	if !errors.As(err, &e) {
		return err
	}
	e.act = a
	pause := time.Duration(0)
	switch {
	case e.kind == unreachable || e.kind == broken:
		pause = time.Minute
	case !e.kind.final():
		return err
	}
	if a == reading || e.kind == unreachable {
		s.refused.Read(err, pause)
	} else {
		s.refused.Write(err, pause)
	}
	return err
}

var _ cache.Store = (*Store)(nil)

// missing returns the error for a snapshot that is not there.
func missing(d cache.Descriptor) error {
	return fmt.Errorf("%w: %s", cache.ErrNotCached, d.Digest)
}
