package helper

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"syscall"
	"time"

	"github.com/clayer/clayer/internal/wire"
	"github.com/clayer/clayer/solver/sandbox"
	"github.com/clayer/clayer/solver/sandbox/internal/userns"
	"github.com/moby/sys/reexec"
	"golang.org/x/sys/unix"
)

// grace is what a command has between SIGTERM and SIGKILL: clayer itself is to end
// within 2 s.
const grace = time.Second

// Program is what helpers are started from: this program once more. Tests set one
// that starts faster.
var Program = reexec.Self()

// A Process is a helper to be started for a job.
type Process struct {
	Stdin   io.Reader     // nil: empty
	Stdout  io.Writer     // nil: the last lines are part of the error of a helper that crashes
	Stderr  io.Writer     // nil: Stdout
	Spool   *os.File      // for TaskCapture and TaskHold
	Started func(pid int) // may be nil
	Warn    func(texts []string)
	Closed  func(paths []string) // is called with result.Closed, if there are some
	Foreign func()               // is called if result.Foreign
	Refused func(why string)     // is called with result.Refused, if it is not ""; may be nil
	IDs     *userns.IDs          // of the job's user namespace
}

// Run has the helper run the command. The error is an *sandbox.ExitError if the
// command failed, and that of ctx if it was cancelled.
func (p Process) Run(ctx context.Context, j Job, c sandbox.Command) error {
	out := &tail{out: c.Output}
	p.Stdout = out
	err := p.command(ctx, j, c)
	var exit *sandbox.ExitError
	if errors.As(err, &exit) {
		exit.Output = out.last()
		return exit
	}
	return err
}

// Exec is Run with the files as the command's stdin, stdout and stderr.
func (p Process) Exec(ctx context.Context, j Job, c sandbox.Command, stdin, stdout, stderr *os.File) error {
	p.Stdin, p.Stdout, p.Stderr = stdin, stdout, stderr
	j.Interactive, j.Foreground = true, inForeground(stdin)
	if j.Foreground {
		defer returnTerminal(stdin)()
	}
	return p.command(ctx, j, c)
}

func (p Process) command(ctx context.Context, j Job, c sandbox.Command) error {
	j.Task = TaskRun
	j.Argv, j.Script, j.Env, j.Dir, j.Mounts, j.MachineTemp = c.Argv, c.Script, c.Env, c.Dir, c.Mounts, c.MachineTemp
	j.NoNetwork, j.User, p.Refused = c.NoNetwork, c.User, c.Refused
	if c.Timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, c.Timeout, &timeout{c.Timeout})
		defer cancel()
	}
	return p.Do(ctx, j)
}

// Do starts a helper for the job and waits for its end. The error is an
// *ExitError if the command failed, and that of ctx if it was cancelled.
//
// The helper ends with this process: the control pipe ends then. (A parent
// death signal would not do: it is tied to the thread that started the child.)
func (p Process) Do(ctx context.Context, j Job) error {
	if ctx.Err() != nil {
		return p.stopped(ctx, 0)
	}
	if err := sandbox.CheckMain(); err != nil {
		return err
	}
	var adopted *orphans
	if j.InPlace {
		adopted = adoptOrphans()
		defer adopted.close()
	}
	j.OldKernel = WithoutOpenTree
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
	if p.Stdout == nil {
		p.Stdout = &crash
	}
	if p.Stderr == nil {
		p.Stderr = p.Stdout
	}
	cmd := &exec.Cmd{
		Path: Program, Env: []string{}, Dir: "/",
		Stdin: p.Stdin, Stdout: p.Stdout, Stderr: p.Stderr,
		ExtraFiles:  []*os.File{controlRead, answerWrite},
		SysProcAttr: p.attr(j),
	}
	if j.InPlace {
		// A process that could not be ended would hold the output open.
		cmd.WaitDelay = endLimit
	}
	if p.Spool != nil {
		cmd.ExtraFiles = append(cmd.ExtraFiles, p.Spool)
	}
	j.Trees, j.Mounts = make(map[int]int), slices.Clone(j.Mounts)
	for i, m := range j.Mounts {
		if m.Tree != nil {
			j.Mounts[i].Tree = nil
			j.Trees[i] = controlFD + len(cmd.ExtraFiles)
			cmd.ExtraFiles = append(cmd.ExtraFiles, m.Tree)
		}
	}
	cmd.Args = []string{helperName, strconv.Itoa(len(cmd.ExtraFiles))}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start a helper process: %w", noNetwork(j, err))
	} else if p.Started != nil {
		p.Started(cmd.Process.Pid)
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
			err = nil // the helper has answered
		}
		done <- err
	}()

	toHelper := wire.NewEncoder(control)
	err = p.IDs.Assign(cmd.Process.Pid)
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
		return fmt.Errorf("send the helper its job: %w", err)
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
	decodeErr := wire.NewDecoder(bytes.NewReader(<-answered)).Decode(&res)
	p.Warn(res.Warnings)
	if len(res.Closed) > 0 {
		p.Closed(res.Closed)
	}
	if res.Foreign {
		p.Foreign()
	}
	if res.Refused != "" && p.Refused != nil {
		p.Refused(res.Refused)
	}
	if decodeErr != nil && j.InPlace {
		adopted.end()
	}

	switch {
	case stopped && decodeErr != nil:
		return p.stopped(ctx, 128+int(unix.SIGKILL))
	case stopped:
		return p.stopped(ctx, res.Status)
	case decodeErr != nil && exit != nil:
		return fmt.Errorf("the helper ended early: %w: %s", exit, crash.last())
	case decodeErr != nil:
		return fmt.Errorf("the helper ended without an answer: %w", decodeErr)
	case res.Err != "" && exit != nil:
		// What fed stdin failed first; the helper saw an early end of it.
		return fmt.Errorf("%w: %s", exit, res.Err)
	case res.Dir != nil:
		return res.Dir
	case res.Records != nil:
		return res.Records
	case res.Errno != 0:
		return &RemoteError{Text: res.Err, Errno: res.Errno}
	case res.Err != "":
		return errors.New(res.Err)
	case res.Status != 0:
		return &sandbox.ExitError{Code: res.Status}
	}
	return exit // of what fed stdin
}

// attr puts the helper into the namespaces of its job.
func (p Process) attr(j Job) *syscall.SysProcAttr {
	// A session of its own: Ctrl-C is for clayer, which then ends the command. A helper that
	// it ended first would have failed.
	attr := &syscall.SysProcAttr{Setsid: !j.Interactive}
	if j.NoNetwork {
		attr.Cloneflags = unix.CLONE_NEWNET
	}
	if j.InPlace {
		return attr
	}
	attr.Cloneflags |= unix.CLONE_NEWNS | unix.CLONE_NEWPID
	if !j.Rooted {
		p.IDs.Attr(attr)
	}
	return attr
}

// stopped returns the error of a command that was stopped, and then had this status.
func (p Process) stopped(ctx context.Context, status int) error {
	var late *timeout
	if !errors.As(context.Cause(ctx), &late) {
		return ctx.Err()
	}
	return &sandbox.ExitError{Code: cmp.Or(status, statusTimeout), Reason: late.Error()}
}

// stop ends a helper: a command is asked first. A helper in namespaces of its
// own takes all in them with it; one in place has to end its descendants and to
// clear up, when the control pipe ends.
func stop(cmd *exec.Cmd, done <-chan error, j Job, ask, hangUp func() error) error {
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
	if j.Task == TaskRun && ask() == nil {
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

// timeout is the cause of a context that ended because of Command.Timeout.
type timeout struct{ after time.Duration }

func (t *timeout) Error() string { return "timeout after " + t.after.String() }

// statusTimeout is what timeout(1) gives for a command that then ends with 0.
const statusTimeout = 124
