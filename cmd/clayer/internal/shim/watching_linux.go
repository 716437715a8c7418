package shim

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/clayer/clayer/frontend/edit"
	"github.com/clayer/clayer/solver"
)

// A watching is the process that makes a snapshot of what is installed, as that of the line
// which is written: see Watch. Its error says why there is none; an install that is not to
// have one has a nil error.
type watching struct {
	process *os.Process // nil: no snapshot is made
	conn    *os.File
	answers *json.Decoder
	env     map[string]string // what the install is to run with, as its line will
	packs   bool              // it goes on by itself
	count   *count
	err     error
}

// A request is what a shim asks of the process that watches, and an answer what that says.
// It says one when it has read the machine, and one to each request.
type (
	request struct {
		Do   string            `json:"do"`
		Own  bool              `json:"own,omitempty"`  // the line repeats this install, and no other
		Wait bool              `json:"wait,omitempty"` // for the snapshot
		Env  map[string]string `json:"env,omitempty"`  // what it ran with that the session has not

		Before int64 `json:"before,omitempty"` // of the count
		Shared bool  `json:"shared,omitempty"`
	}
	answer struct {
		Error   string            `json:"error,omitempty"`
		Store   bool              `json:"store,omitempty"`   // the error wraps solver.ErrStore
		Waiting bool              `json:"waiting,omitempty"` // for who changes the root; another answer follows
		Env     map[string]string `json:"env,omitempty"`     // what the line has by ENV, and the session has not
	}
)

// What a shim asks.
const (
	doEnd   = "end"   // read the machine again: the install has succeeded
	doAdopt = "adopt" // pack what has changed: the line is written
)

// watch reads the machine before an install. Whatever fails is an error of the watching, and
// not the install's.
func (o Options) watch(r edit.Reading, argv []string, warn func(format string, args ...any)) *watching {
	w := &watching{}
	if o.Solver == nil || is(modeLines) {
		return w
	}
	ctx := context.Background() // Ctrl-C ends us: nothing has begun
	if _, w.err = o.Solver(ctx); w.err != nil {
		if errors.Is(w.err, ErrNotHere) {
			w.err = nil
		}
		return w
	}
	if w.count, w.err = o.openCount(); w.err != nil {
		return w
	}
	if r.Verdict == edit.Captured {
		if w.err = w.start(o, argv); w.err == nil {
			a := w.answer(ctx)
			if a.Waiting {
				if !is(modeQuiet) {
					warn("waiting for what changes this machine, such as the snapshot of the install before")
				}
				a = w.answer(ctx)
			}
			w.env = a.Env
		}
	}
	w.err = errors.Join(w.err, w.count.begin())
	return w
}

// start starts the process: in a session of its own, so that no key of the terminal ends it.
func (w *watching) start(o Options, argv []string) error {
	exe, err := os.Executable()
	if err != nil {
		return err
	}
	ends, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	own, theirs := os.NewFile(uintptr(ends[0]), "shim"), os.NewFile(uintptr(ends[1]), "shim")
	defer theirs.Close()
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return errors.Join(err, own.Close())
	}
	defer null.Close()
	args := slices.Concat([]string{"clayer", "shim", "watch", "--dir", o.Dir, "--file", o.File, "--"}, argv)
	w.process, err = os.StartProcess(exe, args, &os.ProcAttr{
		Files: []*os.File{null, null, null, theirs}, Sys: &syscall.SysProcAttr{Setsid: true},
	})
	if err != nil {
		return errors.Join(err, own.Close())
	}
	w.conn, w.answers = own, json.NewDecoder(own)
	return nil
}

// answer waits for an answer, whose error is that of the watching.
func (w *watching) answer(ctx context.Context) (a answer) {
	stop := context.AfterFunc(ctx, func() { _ = unix.Shutdown(int(w.conn.Fd()), unix.SHUT_RDWR) })
	defer stop()
	err := w.answers.Decode(&a)
	switch {
	case ctx.Err() != nil:
		w.err = context.Cause(ctx)
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		w.err = errors.New("the process that makes it has ended")
	case err != nil:
		w.err = err
	case a.Store:
		w.err = fmt.Errorf("%w: %s", solver.ErrStore, a.Error)
	case a.Error != "":
		w.err = errors.New(a.Error)
	}
	return a
}

func (w *watching) ask(ctx context.Context, r request) {
	if w.process == nil || w.err != nil {
		return
	}
	if w.err = json.NewEncoder(w.conn).Encode(r); w.err == nil {
		w.answer(ctx)
	}
}

// ended reads the machine after an install that succeeded.
func (w *watching) ended() {
	ctx, stop := interruptible()
	defer stop()
	if w.process != nil {
		w.ask(ctx, request{Do: doEnd, Before: w.count.before, Shared: w.count.shared})
	}
}

// adopt has the snapshot made. The last line of the Containerfile repeats the install; own
// says that it repeats no other. What fails later is noted: see Note.
func (w *watching) adopt(own bool) error {
	ctx, stop := interruptible()
	defer stop()
	wait := waits()
	w.ask(ctx, request{Do: doAdopt, Own: own, Wait: wait, Env: w.env})
	if w.process != nil && w.err == nil {
		if w.packs = !wait; wait {
			w.answer(ctx)
		}
	}
	return w.err
}

// close lets the process end, and waits for that unless it packs. It may be called again.
func (w *watching) close() {
	if w.process != nil {
		_ = w.conn.Close()
		if w.packs {
			_ = w.process.Release()
		} else {
			_, _ = w.process.Wait()
		}
		w.process = nil
	}
	if w.count != nil {
		_ = w.count.Close()
		w.count = nil
	}
}
