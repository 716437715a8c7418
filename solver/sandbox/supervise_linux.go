package sandbox

import (
	"bytes"
	"cmp"
	"context"
	"encoding/gob"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"syscall"
	"time"

	"github.com/moby/sys/reexec"
	"golang.org/x/sys/unix"
)

// grace is what a command has between SIGTERM and SIGKILL: clayer itself is to end
// within 2 s.
const grace = time.Second

// program is what helpers are started from: this program once more. Tests set one
// that starts faster.
var program = reexec.Self()

// A help is a helper process to be started.
type help struct {
	attr  *syscall.SysProcAttr
	stdin io.Reader // may be nil, as out and spool may
	out   io.Writer
	err   io.Writer // nil: out
	spool *os.File
	warn  func(texts []string)
	ids   *idMap // to be mapped before the helper does anything

	orphans *orphans // of a helper in place that ends early
}

// job completes a job by what the view is, and says how its helper is started.
func (v *view) job(j job) (job, *syscall.SysProcAttr, *idMap) {
	j.Rooted, j.Root, j.View = v.s.rooted, v.s.Root, v.dir
	j.Hide, j.Plain, j.Seeded = v.s.Hide, v.plain, !v.s.index
	attr := &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNS | unix.CLONE_NEWPID}
	if v.s.rooted {
		return j, attr, nil
	}
	v.s.ids.attr(attr)
	return j, attr, v.s.ids
}

// help has a helper of the view do the job.
func (v *view) help(ctx context.Context, j job, stdin io.Reader, out io.Writer, spool *os.File) error {
	j, attr, ids := v.job(j)
	return help{attr: attr, stdin: stdin, out: out, spool: spool, warn: v.s.warn, ids: ids}.with(ctx, j)
}

// with starts a helper for the job and waits for its end. The error is an
// *ExitError if the command failed, and that of ctx if it was cancelled.
//
// The helper ends with this process: the control pipe ends then. (A parent
// death signal would not do: it is tied to the thread that started the child.)
func (h help) with(ctx context.Context, j job) error {
	if ctx.Err() != nil {
		return h.stopped(ctx, 0)
	}
	j.OldKernel = withoutOpenTree
	controlRead, control, err := os.Pipe()
	if err != nil {
		return err
	}
	defer control.Close()
	defer controlRead.Close()
	answer, answerWrite, err := os.Pipe()
	if err != nil {
		return err
	}
	defer answer.Close()
	defer answerWrite.Close()

	var crash tail // what a helper that dies says last
	if h.out == nil {
		h.out = &crash
	}
	if h.err == nil {
		h.err = h.out
	}
	cmd := &exec.Cmd{
		Path: program, Args: []string{helperName}, Env: []string{}, Dir: "/",
		Stdin: h.stdin, Stdout: h.out, Stderr: h.err,
		ExtraFiles:  []*os.File{controlRead, answerWrite},
		SysProcAttr: h.attr,
	}
	if j.InPlace {
		// A process that could not be ended would hold the output open.
		cmd.WaitDelay = endLimit
	}
	if h.spool != nil {
		cmd.ExtraFiles = append(cmd.ExtraFiles, h.spool)
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start a helper process: %w", err)
	}
	controlRead.Close()
	answerWrite.Close()

	done := make(chan error, 1)
	answered := make(chan []byte, 1)
	go func() {
		b, _ := io.ReadAll(answer)
		answered <- b
	}()
	go func() {
		err := cmd.Wait()
		if errors.Is(err, exec.ErrWaitDelay) {
			err = nil // the helper has told
		}
		done <- err
	}()

	toHelper := gob.NewEncoder(control)
	err = h.ids.assign(cmd.Process.Pid)
	if err != nil {
		cmd.Process.Kill()
		<-done
		<-answered
		return err
	}
	if err := toHelper.Encode(j); err != nil && !errors.Is(err, unix.EPIPE) {
		cmd.Process.Kill()
		<-done
		<-answered
		return fmt.Errorf("tell the helper: %w", err)
	}
	var exit error
	stopped := false
	select {
	case exit = <-done:
	case <-ctx.Done():
		stopped = true
		ask := func() error { return toHelper.Encode(signal{}) }
		exit = stop(cmd, done, j, ask, control.Close)
	}
	var res result
	decodeErr := gob.NewDecoder(bytes.NewReader(<-answered)).Decode(&res)
	h.warn(res.Warnings)
	if decodeErr != nil {
		h.orphans.end()
	}

	switch {
	case stopped && decodeErr != nil:
		return h.stopped(ctx, 128+int(unix.SIGKILL))
	case stopped:
		return h.stopped(ctx, res.Status)
	case decodeErr != nil && exit != nil:
		return fmt.Errorf("the helper ended early: %w: %s", exit, crash.last())
	case decodeErr != nil:
		return fmt.Errorf("the helper ended without an answer: %w", decodeErr)
	case res.Err != "" && exit != nil:
		// What fed stdin failed first; the helper saw an early end of it.
		return fmt.Errorf("%w: %s", exit, res.Err)
	case res.Dir != nil:
		return res.Dir
	case res.Errno != 0:
		return &remoteError{res.Err, res.Errno}
	case res.Err != "":
		return errors.New(res.Err)
	case res.Status != 0:
		return &ExitError{Code: res.Status}
	}
	return exit // of what fed stdin
}

// stopped returns the error of a command that was stopped, and then had this status.
func (h help) stopped(ctx context.Context, status int) error {
	var late *timeout
	if !errors.As(context.Cause(ctx), &late) {
		return ctx.Err()
	}
	return &ExitError{Code: cmp.Or(status, statusTimeout), Reason: late.Error()}
}

// stop ends a helper: a command is asked first. A helper in namespaces of its
// own takes all in them with it; one in place has to end its descendants and to
// clear up, which the end of the control pipe tells it to.
func stop(cmd *exec.Cmd, done <-chan error, j job, ask, hangUp func() error) error {
	wait := func(d time.Duration) (error, bool) {
		t := time.NewTimer(d)
		defer t.Stop()
		select {
		case err := <-done:
			return err, true
		case <-t.C:
			return nil, false
		}
	}
	if j.Task == taskRun && ask() == nil {
		if err, ended := wait(grace); ended {
			return err
		}
	}
	if j.InPlace {
		_ = hangUp()
		if err, ended := wait(clearUp); ended {
			return err
		}
	}
	_ = cmd.Process.Kill()
	return <-done
}

// clearUp is what a helper in place has to end what will not end.
const clearUp = 10 * time.Second
