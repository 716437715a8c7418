// Package solver makes a root what its Containerfiles say: it plans, restores
// what is cached, builds the rest and applies both. It emits events and prints
// nothing.
package solver

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"time"

	"github.com/clayer/clayer/cache"
	"github.com/clayer/clayer/cache/github"
	"github.com/clayer/clayer/dag"
	"github.com/clayer/clayer/frontend"
	"github.com/clayer/clayer/solver/rootfs"
	"github.com/clayer/clayer/solver/sandbox"
	"github.com/clayer/clayer/solver/source"
)

// A Request says what to solve, and how. The zero value of a field is its
// default.
type Request struct {
	Files []*frontend.File // as Load returns them, in the order in which they are composed

	Root string // the root that is made; "" means "/"
	Dest string // a folder that changes go to, laid over Root, in place of Root itself; "" means none

	BaseID    string            // --base-id
	Salts     []string          // --salt
	BuildArgs map[string]string // --build-arg
	Secrets   map[string]Secret // --secret, by id
	Environ   []string          // the session's variables, as os.Environ returns them
	Sandbox   string            // how RUN is kept apart from the root: one of sandbox.Kinds; "" means "auto"
	Compare   sandbox.Compare   // by what a RUN in place tells what changed
	Hermetic  bool              // RUN inherits no more of them than it needs
	Timeout   time.Duration     // of each RUN; 0 means none
	Jobs      int               // how many downloads, and how many chains, at a time; 0 means 8, or the number of CPUs if that is more

	GitHub       *github.Client // for FETCH github: and InvalidateOn; nil: there is none
	InvalidateOn []string       // --invalidate-on: "owner/repo[@ref]"

	// LegacyURL returns where layer.tar.gz of a release of container-layer's
	// would be; nil: none is looked for.
	LegacyURL func(tag string) string

	Store        *cache.Tier // nil: nothing is restored or kept
	Spool        Spool       // where snapshots are packed; nil: the root's work directory
	Push         bool        // what is built is put into Store
	Rebuild      bool        // what is cached or present is built anew
	Compression  int         // zstd level of what is packed; 0 means snapshot.DefaultLevel
	RequireCache bool        // a store that fails is an error in the end
	Cache        string      // a directory for downloads and cache mounts, made when needed; "": neither is kept
	MaxDownloads int64       // bytes of downloads kept there; 0 means 2 GiB
	NoWait       bool        // fail at once while another solve holds the root
	Profile      bool        // login shells of the root get the environment too
	Force        bool        // what the user changed since it was applied is undone too

	// Emit is told what happens, one event at a time. It must not block for
	// long. nil tells nobody.
	Emit func(Event)

	emitting  sync.Mutex
	warned    sync.Map
	readOnly  bool // nothing is kept of what is downloaded
	resolving sync.Once
	resolver  *source.Resolver
	brought   sync.Map // *dag.Step: what it brings, once
	madeOnce  sync.Once
	made      map[string]bool // see madeDirs
	failed    failures

	asked   map[*frontend.File]bool // whether there is a legacy release of it
	fetched map[*frontend.File]bool // those that come from one
}

// A Spool makes the files that snapshots are packed into. A store that keeps
// files is one, so that Put has nothing to copy.
type Spool interface {
	Create() (*os.File, error)
	Discard(f *os.File) // removes a file that was put into no store
}

// A Secret is where the content of RUN --mount=type=secret comes from: one of
// a file, a variable of the session, and the content itself.
type Secret struct {
	File    string
	Env     string
	Content []byte
}

// MaxSecret bounds a secret, in bytes, as BuildKit does.
const MaxSecret = 500 << 10

// Errors that decide the exit code. Others are of the packages below:
// frontend.Problems, *BuildError, rootfs errors.
var (
	// ErrStore says that a store failed, under RequireCache.
	ErrStore = errors.New("a store failed")
	// ErrRoot says that the root could not be changed, or not wholly.
	ErrRoot = errors.New("the root could not be changed")
	// ErrUnread says that the root could not be looked at.
	ErrUnread = errors.New("the root could not be read")
)

// A BuildError says which step failed.
type BuildError struct {
	Step *dag.Step
	Kept int    // steps of this solve that were finished, and are stored
	Look string // the command that runs a shell where Step ran; "" where there is none
	Did  string // what a RUN in place did to the root all the same, in words
	Err  error
}

// Error returns the error in the form of DESIGN §9, with the last lines that a
// failed RUN printed.
func (e *BuildError) Error() string {
	if p := problem(e.Step, e.Err); p != nil {
		return p.Error()
	}
	m := e.Step.Instr.Base()
	p := frontend.Problem{Pos: m.Pos, Word: m.Word, Message: e.Err.Error(), Line: e.Step.Text()}
	var exit *sandbox.ExitError
	if errors.As(e.Err, &exit) && len(exit.Output) > 0 {
		var lines []string
		for line := range bytes.Lines(bytes.TrimRight(exit.Output, "\r\n")) {
			lines = append(lines, PlainText(bytes.TrimRight(line, "\n")))
		}
		p.Detail = strings.Join(lines, "\n")
	}
	switch {
	case e.Kept == 1:
		p.Hint = "1 step is done and kept: the next solve goes on behind it"
	case e.Kept > 1:
		p.Hint = fmt.Sprintf("%d steps are done and kept: the next solve goes on behind them", e.Kept)
	}
	if remedy := Remedy(e.Err); remedy != "" {
		p.Hint = strings.TrimSuffix(remedy+"\n      "+p.Hint, "\n      ")
	}
	if e.Look != "" && exit != nil && e.Did == "" { // what runs in place has no overlay to look around in
		p.Hint = strings.TrimPrefix(p.Hint+"\n      to look around where it failed: "+e.Look, "\n      ")
	}
	if e.Did != "" {
		p.Hint = strings.TrimPrefix(p.Hint+"\n      "+e.Did, "\n      ")
	}
	return p.Error()
}

func (e *BuildError) Unwrap() error { return e.Err }

func (r *Request) emit(e Event) {
	if r.Emit == nil {
		return
	}
	r.emitting.Lock()
	defer r.emitting.Unlock()
	e.Time = time.Now()
	r.Emit(e)
}

// warnOnce is warn for what a plan made twice would tell twice.
func (r *Request) warnOnce(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	if _, told := r.warned.LoadOrStore(text, true); !told {
		r.warn("%s", text)
	}
}

func (r *Request) warn(format string, args ...any) {
	r.emit(Event{Kind: EventWarning, Text: fmt.Sprintf(format, args...)})
}

// Waiting tells the user what is waited for.
func (r *Request) Waiting(text string) { r.emit(Event{Kind: EventWaiting, Text: text}) }

// Warn tells the user of something that fails nothing.
func (r *Request) Warn(text string) { r.warn("%s", text) }

func (r *Request) jobs() int {
	if r.Jobs > 0 {
		return r.Jobs
	}
	return max(8, runtime.GOMAXPROCS(0))
}

// base is the folder of the complete root: what RUN sees where nothing is
// laid over it.
func (r *Request) base() string {
	if r.Root == "" {
		return "/"
	}
	return filepath.Clean(r.Root)
}

// target is the folder that is changed.
func (r *Request) target() string {
	if r.Dest != "" {
		return filepath.Clean(r.Dest)
	}
	return r.base()
}

func (r *Request) open() (*rootfs.Root, error) {
	var opt rootfs.Options
	if r.Dest != "" {
		opt.Lower = r.base()
	}
	root, err := rootfs.Open(r.target(), opt)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrRoot, err)
	}
	return root, nil
}
