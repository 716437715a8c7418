// Package sandbox runs one command in a root and tells what it changed.
package sandbox

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/clayer/clayer/cache/snapshot"
	"github.com/clayer/clayer/solver/rootfs/record"
	"github.com/clayer/clayer/solver/tree"
)

// A Sandbox makes views of a root.
type Sandbox interface {
	// Name is "overlay" or "inplace".
	Name() string

	// Isolates reports whether what runs in a view leaves the root untouched.
	// Only then may several views be in use at the same time; otherwise there
	// is one, and it is Direct.
	Isolates() bool

	// How says in a few words how it works here: "as root", "compares ctime".
	How() string

	// View returns a new view of the root as it stands now.
	View(ctx context.Context) (View, error)
}

// A View is a root with changes laid over it. It is used by one goroutine at a
// time. Close gives back all that it holds.
type View interface {
	// Apply lays a packed snapshot over the view. It is no part of what a
	// later Run reports. The error is a *unpack.DirError where a file would
	// replace a directory and at forbids that.
	Apply(ctx context.Context, blob io.Reader, at record.Placement) error

	// Run runs the command and returns what it changed since the last Apply
	// or Run. The changes can be read until the next call of a method; read
	// again, they tell files that changed meanwhile as they are by then. The
	// error is an *ExitError when the command ended with another status
	// than 0; the view is then good for Close alone. What a Direct view
	// returns with any error is what was done to the root all the same.
	Run(ctx context.Context, c Command) (snapshot.Changes, error)

	// Capture returns the tree at the absolute path as it stands in the view,
	// as far as the view's own layers don't hold it: what a SNAPSHOT of a
	// whole path adds to the steps before it. The error wraps fs.ErrNotExist
	// when nothing is there.
	Capture(ctx context.Context, path string) (snapshot.Changes, error)

	// Clone returns a second view that begins as this one is now.
	Clone(ctx context.Context) (View, error)

	Close() error
}

// An Interactive view can be handed to a user.
type Interactive interface {
	View

	// Exec runs the command with the files as its stdin, stdout and stderr, and
	// tells nothing of what it changed; Output, Keep and Dirty are passed over.
	// Where stdin is a terminal, the command is its foreground process group
	// while it runs: Ctrl-C is the command's alone. The error is as for Run,
	// without output. The view is then good for Close alone.
	Exec(ctx context.Context, c Command, stdin, stdout, stderr *os.File) error
}

// A Direct view is the root itself: Apply and Clone are not for it.
type Direct interface {
	View

	// Recover tells what a command did that was cut off with the process: by
	// the reading that Begin was given. Of the command Keep and Mounts count.
	Recover(ctx context.Context, before *tree.Reading, c Command) (snapshot.Changes, error)

	// RemoveSecrets removes what is left at the targets that Begin was given.
	RemoveSecrets(targets []string)

	// Stale says that the root was changed by other hands than Run's.
	Stale()

	// Before tells what there was at the path, relative to the root, before
	// the last Run: whether something existed, and of a folder its entry. It is
	// good until the next Run.
	Before(path string) (folder *snapshot.Entry, existed bool)
}

// A Command is one RUN.
type Command struct {
	Argv    []string
	Script  []byte   // if set, a program with a "#!" line that is executed in place of Argv
	Env     []string // "NAME=value"; nothing is inherited beside it
	Dir     string   // absolute; made in the root if missing
	Mounts  []Mount
	Output  io.Writer        // stdout and stderr together, as they come
	Timeout time.Duration    // 0 means none
	Keep    *snapshot.Filter // which changes are reported; nil means the default exclusions

	// Begin, if set, is called by a Direct view just before the command is
	// started, with the reading that its changes are told against, and where
	// secrets will be that nothing was before: what is needed to tell the
	// changes, and to clear up, if this process is killed meanwhile.
	Begin func(before *tree.Reading, secrets []string) error

	// Dirty lists paths, relative to the root, that are in the root as no step
	// that stays has left them, for a Direct view: what a RUN that failed, or
	// fell away, did there and could not be taken back. They are reported as
	// they stand after the command.
	Dirty []string
}

// Mount is something that a command sees at Target and that is no part of the root.
// Exactly one of Source, Content and Tmpfs is set.
type Mount struct {
	Target   string // absolute and clean
	Source   string // a folder of the machine that is bound there (a cache mount)
	Content  []byte // a file with this content (a secret); never on disk, but in place where docs/sandboxes.md says so
	Tmpfs    bool
	Size     int64 // bytes of a tmpfs; 0 means no bound of its own
	Mode     uint32
	UID, GID int
	ReadOnly bool
}

// ExitError says that a command ran and failed.
type ExitError struct {
	Code   int    // its exit status; 128+n when signal n ended it, as shells say
	Output []byte // its last 20 lines of output, at most 16 KiB
	Reason string // "" or, in words, why it was ended: "timeout after 5s"
}

func (e *ExitError) Error() string {
	if e.Reason != "" {
		return fmt.Sprintf("exit code %d (%s)", e.Code, e.Reason)
	}
	return fmt.Sprintf("exit code %d", e.Code)
}

// ErrUnavailable says that this machine does not allow a sandbox of this kind.
// The error that wraps it says why.
var ErrUnavailable = errors.New("sandbox not available")
