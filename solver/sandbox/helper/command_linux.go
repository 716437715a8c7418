package helper

import (
	"errors"
	"os"
	signals "os/signal"
	"runtime"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/clayer/clayer/solver/sandbox/internal/program"
)

// command runs the job's command to its end, ends what it left behind, and
// returns its status as shells give it.
func (h *helper) command(stdin int, script *os.File) int {
	files := []uintptr{uintptr(stdin), 1, 2}
	if h.Interactive {
		files[0] = 0
	}
	argv := h.Argv
	var path string
	if script != nil {
		// The interpreter gets this path as its first argument, and opens it.
		path = "/proc/self/fd/3"
		argv = []string{path}
		files = append(files, script.Fd())
	} else {
		var status int
		_ = program.As(h.User, func() { path, status = program.Find(argv, h.Env) }) // it has worked before
		if status != 0 {
			return status
		}
	}
	unix.Umask(0o022)
	defer resetSignals()()
	h.mu.Lock()
	if h.term {
		h.mu.Unlock()
		return 128 + int(unix.SIGTERM)
	}
	if !h.Interactive {
		program.GiveStreams(h.User, 1, 2)
	}
	// This process is in the directory already, which the user may be unable to enter.
	pid, err := syscall.ForkExec(path, argv, &syscall.ProcAttr{
		Env: h.Env, Files: files,
		// A session of its own has no terminal.
		Sys: &syscall.SysProcAttr{Credential: program.Credential(h.User), Setsid: !h.Interactive, Setpgid: h.Interactive, Foreground: h.Foreground, Pdeathsig: deathSignal(h.InPlace)},
	})
	h.pid, h.session = pid, pid
	h.mu.Unlock()
	if err != nil {
		return program.CannotStart(path, err)
	}
	status := reap(pid)
	h.mu.Lock()
	h.pid = 0
	h.mu.Unlock()

	h.endAll()
	unix.Umask(0)
	return status
}

// resetSignals lets this thread start commands with no signal ignored or blocked, as
// in a container: under nohup, or in the background of a script, clayer itself ignores
// SIGHUP or SIGINT, and what a program does at a signal would depend on that. A signal
// that this process catches is the default again in the program that it starts. The
// function that it returns gives the thread back.
func resetSignals() func() {
	for sig := range syscall.Signal(65) {
		if isIgnored(sig) {
			signals.Notify(make(chan os.Signal, 1), sig)
		}
		if isIgnored(sig) { // Go leaves those of the C library alone
			_ = sigaction(sig, new(kernelAction), nil)
		}
	}
	// A child gets the mask of the thread that forks it.
	runtime.LockOSThread()
	var before unix.Sigset_t
	_ = unix.PthreadSigmask(unix.SIG_SETMASK, new(unix.Sigset_t), &before)
	return func() {
		_ = unix.PthreadSigmask(unix.SIG_SETMASK, &before, nil)
		runtime.UnlockOSThread()
	}
}

// kernelAction is struct sigaction of the kernel, the handler first, and more than as
// long on every architecture. Its zero value is SIG_DFL.
type kernelAction [16]uintptr

// isIgnored asks the kernel: os/signal knows only what Go handles.
func isIgnored(sig syscall.Signal) bool {
	const ignore = 1 // SIG_IGN
	var action kernelAction
	return sigaction(sig, nil, &action) == nil && action[0] == ignore
}

// sigaction is rt_sigaction(2), whose mask has 8 bytes.
func sigaction(sig syscall.Signal, to, from *kernelAction) error {
	_, _, errno := unix.RawSyscall6(unix.SYS_RT_SIGACTION, uintptr(sig), uintptr(unsafe.Pointer(to)), uintptr(unsafe.Pointer(from)), 8, 0, 0)
	if errno != 0 {
		return errno
	}
	return nil
}

// deathSignal is for a command in place, whose helper might be killed. In a
// namespace it would be killed with it anyway.
func deathSignal(inPlace bool) syscall.Signal {
	if inPlace {
		return syscall.SIGKILL
	}
	return 0
}

// endAll ends what the command left behind, sessions of their own included.
func (h *helper) endAll() {
	if h.InPlace {
		h.endDescendants()
		return
	}
	_ = unix.Kill(-1, unix.SIGKILL) // as process 1: everyone else in the namespace
	reap(-1)
}

// reap waits for the process, and for every orphan that ends before it; for -1
// until no process is left.
func reap(pid int) int {
	for {
		var ws unix.WaitStatus
		p, err := unix.Wait4(-1, &ws, 0, nil)
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return 0
		case p != pid:
		case ws.Signaled():
			return 128 + int(ws.Signal())
		default:
			return ws.ExitStatus()
		}
	}
}
