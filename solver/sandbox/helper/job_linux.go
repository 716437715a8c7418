package helper

import (
	"syscall"

	"github.com/clayer/clayer/solver/internal/merge"
	"github.com/clayer/clayer/solver/internal/record"
	"github.com/clayer/clayer/solver/internal/unpack"
	"github.com/clayer/clayer/solver/sandbox"
)

// What the parent and its helper process say to each other, by package wire: paths, arguments
// and environment may hold any bytes.

// task is what a helper is started for.
type task uint8

const (
	TaskProbe   task = iota + 1 // make all mounts, run nothing
	TaskRun                     // run a command
	TaskApply                   // apply the snapshot on stdin
	TaskCapture                 // pack a path of the merged tree
	TaskExists                  // fail with ENOENT unless the merged tree has a path
	TaskCheck                   // TaskProbe over memory alone
	TaskCopyUp                  // copy files up that are hard links
	TaskHold                    // hold the merged tree, and serve parts of it at the spool
)

// A Job is all that a helper gets. It goes through a pipe: others can
// read the arguments and environment of a process.
type Job struct {
	Task      task
	OldKernel bool     // tests: as if there was no open_tree
	InPlace   bool     // on Root itself, in no namespaces; View is then a directory for scratch
	Rooted    bool     // has CAP_SYS_ADMIN over the machine; else in a user namespace
	Root      string   // the lower directory
	Over      string   // a directory that lies over Root, below the view; "" for none
	Whole     bool     // one overlay covers the root; else each top-level directory has its own
	View      string   // the directory of the view
	Hide      []string // absolute paths in the root that are shown as empty
	Seeded    bool     // the upper directory holds stubs for hard links

	Argv   []string
	Script []byte
	Env    []string
	Dir    string
	Mounts []sandbox.Mount
	Trees  map[int]int // descriptors of Mount.Tree, by the index of the mount
	User   *sandbox.User

	MachineTemp bool // see sandbox.Command
	NoNetwork   bool // likewise

	Interactive bool // the command has the helper's stdin, stdout and stderr
	Foreground  bool // stdin is a terminal, and the command is to be in its foreground

	Placement record.Placement // for TaskApply
	Scratch   bool             // TaskApply applies the scratch alone

	Path  string   // what TaskCapture packs, or TaskExists looks for
	Names []string // what TaskCopyUp copies up
}

// A signal asks the helper to end the command with SIGTERM, the end of the pipe to end at once.
type signal struct{}

// A result is the helper's last word.
type result struct {
	Status   int    // of the command
	Err      string // what could not be set up; "" if the job was done
	Errno    syscall.Errno
	Dir      *unpack.DirError     // that Err is, if it is one
	Records  *merge.ConflictError // the same
	Closed   []string             // what TaskApply could not put into directories of other users
	Foreign  bool                 // TaskApply could not give a file its owner
	Warnings []string
	Refused  string // why the command could not run as its user; "" if it did
}

// The descriptors that a helper is born with, beside the standard ones.
const (
	controlFD = 3 // a job, then signals
	resultFD  = 4 // one result
	spoolFD   = 5 // where TaskCapture writes
)

// A RemoteError is an error of another process: its text, and what caused it.
type RemoteError struct {
	Text  string
	Errno syscall.Errno
}

func (e *RemoteError) Error() string { return e.Text }
func (e *RemoteError) Unwrap() error { return e.Errno }
