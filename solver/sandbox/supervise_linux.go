package sandbox

import (
	"bytes"
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

// grace is what a command has between SIGTERM and SIGKILL.
const grace = 2 * time.Second

// help starts a helper for the job and waits for its end. stdin, out and spool
// may be nil. The error is an *ExitError if the command failed, and that of ctx
// if it was cancelled.
//
// The helper dies with this process: the control pipe ends then. (A parent
// death signal would not do: it is tied to the thread that started the child.)
func (v *view) help(ctx context.Context, j job, stdin io.Reader, out io.Writer, spool *os.File) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	j.Rooted, j.Root, j.View = v.s.rooted, v.s.Root, v.dir
	j.Hide, j.Plain = v.s.Hide, v.plain

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
	if out == nil {
		out = &crash
	}
	cmd := &exec.Cmd{
		Path: reexec.Self(), Args: []string{helperName}, Env: []string{}, Dir: "/",
		Stdin: stdin, Stdout: out, Stderr: out,
		ExtraFiles:  []*os.File{controlRead, answerWrite},
		SysProcAttr: &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNS | unix.CLONE_NEWPID},
	}
	if spool != nil {
		cmd.ExtraFiles = append(cmd.ExtraFiles, spool)
	}
	if !v.s.rooted {
		inUserNamespace(cmd.SysProcAttr)
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start a process in new namespaces: %w", err)
	}
	controlRead.Close()
	answerWrite.Close()

	done := make(chan error, 1)
	answered := make(chan []byte, 1)
	go func() {
		b, _ := io.ReadAll(answer)
		answered <- b
	}()
	go func() { done <- cmd.Wait() }()

	toHelper := gob.NewEncoder(control)
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
		exit = stop(cmd, toHelper, done, j.Task == taskRun)
	}
	var res result
	decodeErr := gob.NewDecoder(bytes.NewReader(<-answered)).Decode(&res)
	v.s.warn(res.Warnings)

	var late *timeout
	switch {
	case stopped && errors.As(context.Cause(ctx), &late):
		status := res.Status
		switch {
		case decodeErr != nil:
			status = 128 + int(unix.SIGKILL)
		case status == 0:
			status = statusTimeout
		}
		return &ExitError{Code: status, Reason: late.Error()}
	case stopped:
		return ctx.Err()
	case decodeErr != nil && exit != nil:
		return fmt.Errorf("the helper ended early: %w: %s", exit, crash.last())
	case decodeErr != nil:
		return fmt.Errorf("the helper ended without an answer: %w", decodeErr)
	case res.Err != "" && exit != nil:
		// What fed stdin failed first; the helper saw an early end of it.
		return fmt.Errorf("%w: %s", exit, res.Err)
	case res.Errno != 0:
		return &remoteError{res.Err, res.Errno}
	case res.Err != "":
		return errors.New(res.Err)
	case res.Status != 0:
		return &ExitError{Code: res.Status}
	}
	return exit // of what fed stdin
}

// stop ends a helper: a command is asked first.
func stop(cmd *exec.Cmd, toHelper *gob.Encoder, done <-chan error, ask bool) error {
	if ask && toHelper.Encode(signal{}) == nil {
		t := time.NewTimer(grace)
		defer t.Stop()
		select {
		case err := <-done:
			return err
		case <-t.C:
		}
	}
	_ = cmd.Process.Kill()
	return <-done
}
