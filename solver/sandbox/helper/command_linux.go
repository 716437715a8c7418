package helper

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	signals "os/signal"
	"runtime"
	"strings"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/clayer/clayer/internal/printable"
)

// What shells answer when a command cannot be started.
const (
	statusNotExecutable = 126
	statusNotFound      = 127
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
		if path, status = lookup(argv, h.Env); status != 0 {
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
	pid, err := syscall.ForkExec(path, argv, &syscall.ProcAttr{
		Dir: h.Dir, Env: h.Env, Files: files,
		// A session of its own has no terminal.
		Sys: &syscall.SysProcAttr{Setsid: !h.Interactive, Setpgid: h.Interactive, Foreground: h.Foreground, Pdeathsig: deathSignal(h.InPlace)},
	})
	h.pid, h.session = pid, pid
	h.mu.Unlock()
	if err != nil {
		return cannotStart(path, err)
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

// lookup finds the program as execvp would, with the PATH of the command's own
// environment. A status other than 0 says that there is none; the text is out.
func lookup(argv, env []string) (path string, status int) {
	if len(argv) == 0 || argv[0] == "" {
		fmt.Fprintln(os.Stderr, "clayer: no command given")
		return "", statusNotFound
	}
	name := argv[0]
	if strings.Contains(name, "/") {
		return name, 0 // the kernel reports what is wrong
	}
	dirs := "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
	for _, kv := range env {
		if v, ok := strings.CutPrefix(kv, "PATH="); ok {
			dirs = v
		}
	}
	denied := ""
	for _, dir := range strings.Split(dirs, ":") {
		if dir == "" {
			dir = "."
		}
		p := dir + "/" + name
		if st, err := os.Stat(p); err != nil || !st.Mode().IsRegular() {
			continue
		}
		if unix.Access(p, unix.X_OK) == nil {
			return p, 0
		}
		denied = p
	}
	if denied != "" {
		return "", cannotStart(denied, unix.EACCES)
	}
	fmt.Fprintf(os.Stderr, "%s: command not found\n", printable.Line(name))
	return "", statusNotFound
}

// cannotStart says why, in a shell's words, and returns a shell's status.
func cannotStart(path string, err error) int {
	if !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, unix.ENOTDIR) {
		fmt.Fprintf(os.Stderr, "%s: cannot execute: %v\n", printable.Line(path), err)
		return statusNotExecutable
	}
	if _, serr := os.Stat(path); serr == nil {
		// The file is there; what is missing is its interpreter or its directory.
		fmt.Fprintf(os.Stderr, "%s: cannot execute: its interpreter (#! line, or dynamic loader) is not in the root\n", printable.Line(path))
	} else {
		fmt.Fprintf(os.Stderr, "%s: no such file or directory\n", printable.Line(path))
	}
	return statusNotFound
}
