//go:build unix

package shim

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/clayer/clayer/frontend/edit"
)

// Exec runs argv, the command line of a package manager, by the real program,
// and captures what it installed. It returns the exit code; it does not return
// where there is nothing to capture, since the real program takes its place.
//
// Nothing of clayer's makes an install fail: what goes wrong is reported on stderr.
func Exec(o Options, argv []string, stderr io.Writer) int {
	program := find(argv[0], o.Dir, o.Path)
	if program == "" {
		fmt.Fprintf(stderr, "%s: not found\n", argv[0])
		return 127
	}
	// By its path: python looks for itself by argv[0], and would find the shim.
	real := slices.Concat([]string{program}, argv[1:])
	warn := func(format string, args ...any) {
		fmt.Fprintf(stderr, "clayer: "+format+"\n", args...)
	}
	environ := os.Environ()
	take := func() int {
		err := syscall.Exec(program, real, environ)
		fmt.Fprintf(stderr, "%s: %v\n", argv[0], err)
		return 126
	}
	if is(modeOff) {
		return take()
	}
	dir, err := os.Getwd()
	if err != nil {
		return take()
	}
	at := edit.Place{Dir: dir, Context: contextOf(o.File), Program: program, Getenv: os.Getenv}
	if edit.InstallsIntoSystemPython(argv, at) {
		for name, value := range edit.PythonDefaults {
			if _, ok := os.LookupEnv(name); !ok {
				environ = append(environ, name+"="+value)
			}
		}
	}
	r := edit.Read(argv, at)
	switch r.Verdict {
	case edit.Nothing:
		removal := edit.Removes(argv, at)
		src, err := os.ReadFile(o.File)
		if err != nil || len(edit.Mentions(src, removal)) == 0 || is(modeQuiet) {
			return take()
		}
		state, err := run(program, real, environ)
		if err != nil {
			fmt.Fprintf(stderr, "%s: %v\n", argv[0], err)
			return 126
		}
		if state.Success() {
			for _, m := range edit.Mentions(src, removal) {
				warn("%s:%d still installs %s: remove it there too, and the next solve undoes the rest of what the line installed", o.File, m.Line, strings.Join(m.Names, ", "))
			}
		}
		return end(state)
	case edit.Venv:
		if o.once(r.Venv) {
			warn("what is installed into %s is not captured: a virtual environment is its project's", r.Venv)
		}
		return take()
	}
	w := o.watch(r, argv, warn)
	defer w.close()
	w.env = sameInstall(r, argv, at, w.env)
	for name, value := range w.env {
		environ = slices.DeleteFunc(environ, func(kv string) bool { return strings.HasPrefix(kv, name+"=") })
		environ = append(environ, name+"="+value)
	}
	state, err := run(program, real, environ)
	if err != nil {
		fmt.Fprintf(stderr, "%s: %v\n", argv[0], err)
		return 126
	}
	if state.Success() {
		w.ended()
		o.capture(r, w, warn)
	}
	w.close()
	return end(state)
}

// sameInstall returns env if the command line, with these variables, is the same install by
// the same program as without: a virtual environment that ENV names, say, makes it another.
func sameInstall(r edit.Reading, argv []string, at edit.Place, env map[string]string) map[string]string {
	if path, ok := env["PATH"]; ok && find(argv[0], "", path) != at.Program {
		return nil
	}
	at.Getenv = func(name string) string { return cmp.Or(env[name], os.Getenv(name)) }
	if with := edit.Read(argv, at); with.Verdict != r.Verdict || !reflect.DeepEqual(with.Install, r.Install) {
		return nil
	}
	return env
}

// offVar says what shims do, in words with a comma between them.
const offVar = "CLAYER_SHIM"

// The words of offVar.
const (
	modeOff   = "off"   // nothing: within an install that is captured already, and within the RUNs of a solve
	modeQuiet = "quiet" // print nothing
	modeLines = "lines" // write lines, and make no snapshots
	modeWait  = "wait"  // end when the snapshot is made
)

// waits reports whether a shim ends when the snapshot is made: nobody waits for a prompt, and
// what goes on may be ended with the job.
func waits() bool {
	ci := os.Getenv("CI")
	return is(modeWait) || ci != "" && ci != "false" && ci != "0"
}

func is(mode string) bool { return slices.Contains(strings.Split(os.Getenv(offVar), ","), mode) }

// contextOf is the directory of a Containerfile with links resolved, which names of
// files are relative to.
func contextOf(file string) string {
	if real, err := filepath.EvalSymlinks(file); err == nil {
		file = real
	}
	return filepath.Dir(file)
}

// forwarded are the signals that ask a program for something.
var forwarded = []os.Signal{
	syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT, syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGWINCH, syscall.SIGALRM,
}

// run runs the program on the streams and in the process group that we have: a
// terminal sees no difference.
func run(program string, argv, environ []string) (*os.ProcessState, error) {
	var take []os.Signal
	for _, s := range forwarded {
		if !signal.Ignored(s) { // by nohup: to the program too
			take = append(take, s)
		}
	}
	signals := make(chan os.Signal, 16)
	signal.Notify(signals, take...)
	defer signal.Stop(signals)
	p, err := os.StartProcess(program, argv, &os.ProcAttr{
		Env: append(environ, offVar+"=off"), Files: []*os.File{os.Stdin, os.Stdout, os.Stderr},
	})
	if err != nil {
		return nil, err
	}
	done := make(chan struct{})
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for {
			select {
			case s := <-signals:
				if !fromTerminal(s) {
					_ = p.Signal(s) // it may just have ended
				}
			case <-done:
				return
			}
		}
	}()
	state, err := p.Wait()
	close(done)
	<-ended
	return state, err
}

// fromTerminal reports whether a signal comes from a key: then the program, which
// is of the same process group, has it as well, and a second Ctrl-C would mean
// something else to it.
func fromTerminal(s os.Signal) bool {
	if s == syscall.SIGWINCH {
		return foreground()
	}
	return (s == syscall.SIGINT || s == syscall.SIGQUIT) && foreground()
}

// foreground reports whether we are what the keys of our terminal act on.
func foreground() bool {
	tty, err := os.OpenFile("/dev/tty", os.O_RDONLY, 0)
	if err != nil {
		return false
	}
	defer tty.Close()
	group, err := unix.IoctlGetInt(int(tty.Fd()), unix.TIOCGPGRP)
	return err == nil && group == unix.Getpgrp()
}

// end returns the exit code of the program, or ends us as it was ended: a shell
// stops a script at a program that Ctrl-C ended, but not at one that exits with 130.
func end(state *os.ProcessState) int {
	status, ok := state.Sys().(syscall.WaitStatus)
	if !ok || !status.Signaled() {
		return state.ExitCode()
	}
	sig := status.Signal()
	if slices.Contains([]syscall.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGKILL, syscall.SIGPIPE}, sig) {
		signal.Reset(sig)
		if err := syscall.Kill(os.Getpid(), sig); err == nil {
			select {} // it is on its way
		}
	}
	return 128 + int(sig)
}

// ErrUsage says that Exec was not called by a shim.
var ErrUsage = errors.New("clayer shim exec is for shims: [--dir DIR] --file FILE -- PROGRAM [ARGUMENT]")

// Parse reads the arguments of "clayer shim exec".
func Parse(args []string) (o Options, argv []string, err error) {
	for len(args) >= 2 {
		switch args[0] {
		case "--dir":
			o.Dir = args[1]
		case "--file":
			o.File = args[1]
		case "--":
			if o.File == "" {
				return o, nil, ErrUsage
			}
			if o.Dir == "" {
				o.Dir, _ = DefaultDir() // without one no session is stored
			}
			return o, args[1:], nil
		default:
			return o, nil, ErrUsage
		}
		args = args[2:]
	}
	return o, nil, ErrUsage
}
