package helper

import (
	"context"
	"errors"
	"fmt"
	"os"
	signals "os/signal"
	"strconv"
	"sync"
	"syscall"

	"github.com/moby/sys/reexec"
	"golang.org/x/sys/unix"

	"github.com/clayer/clayer/internal/inherited"
	"github.com/clayer/clayer/internal/wire"
	"github.com/clayer/clayer/solver/sandbox/internal/detached"
	"github.com/clayer/clayer/solver/sandbox/internal/program"
	"github.com/clayer/clayer/solver/sandbox/internal/userns"
)

// helperName is argv[0] of the helper: this program once more, as process 1 of
// the namespaces of one job. main and TestMain call reexec.Init.
const helperName = "clayer-sandbox"

func init() { reexec.Register(helperName, helperMain) }

// helperMain does one job and never returns. When it exits, the kernel kills
// all that is left in its PID namespace. It exits by the system call alone:
// os.Exit of a program with the race detector sleeps for a second first.
func helperMain() {
	inherited.Close(given()...)
	inherited.CloseOnExec()
	control := wire.NewDecoder(os.NewFile(controlFD, "control"))
	var j Job
	if err := control.Decode(&j); err != nil {
		unix.Exit(1) // the parent is gone
	}
	h := &helper{Job: j}
	if j.Interactive {
		// The terminal's are for the command. Not ignored: it would inherit that.
		signals.Notify(make(chan os.Signal, 1), syscall.SIGINT, syscall.SIGQUIT, syscall.SIGTSTP, syscall.SIGTTOU)
	}
	WithoutOpenTree = j.OldKernel
	go func() {
		for {
			var s signal
			if control.Decode(&s) != nil {
				if !j.InPlace {
					unix.Exit(128 + int(syscall.SIGKILL))
				}
				h.hangUp()
				return
			}
			h.terminate()
		}
	}()
	res := result{}
	if err := h.do(&res); err != nil {
		res.Err = err.Error()
		errors.As(err, &res.Errno)
		errors.As(err, &res.Dir)
		errors.As(err, &res.Records)
	}
	res.Warnings = h.warnings
	if wire.NewEncoder(os.NewFile(resultFD, "result")).Encode(res) == nil {
		unix.Exit(0)
	}
	unix.Exit(1)
}

// given lists the descriptors that the helper was given: an argument says how many.
func given() (fds []int) {
	n := 0
	if len(os.Args) > 1 {
		n, _ = strconv.Atoi(os.Args[1])
	}
	for i := range n {
		fds = append(fds, controlFD+i)
	}
	return fds
}

type helper struct {
	Job
	stubs    stubs
	staged   bool // the tmpfs for staged files is mounted
	warnings []string

	proc *os.File // /proc as it was before the helper went into its root; in place alone

	mu      sync.Mutex
	pid     int  // of the command while it runs
	session int  // of the command, also after it
	term    bool // asked to end before it ran
}

func (h *helper) warn(format string, args ...any) {
	h.warnings = append(h.warnings, fmt.Sprintf(format, args...))
}

func (h *helper) do(res *result) error {
	// What is made here gets the mode that it is made with.
	unix.Umask(0)
	if !h.InPlace {
		if err := userns.BecomeRoot(); err != nil {
			return fmt.Errorf("become root of the namespace: %w", err)
		}
	}
	if h.NoNetwork {
		h.loopback()
	}
	if as := h.User; as != nil {
		var err error
		if h.User, err = program.Accept(as); err != nil {
			res.Refused = err.Error()
		} else {
			h.Env = as.Env
		}
	}
	stdin, err := unix.Open("/dev/null", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open /dev/null: %w", err)
	}
	if h.InPlace {
		return h.inPlace(res, stdin)
	}
	if h.Task == TaskCheck {
		if err := h.checkView(); err != nil {
			return err
		}
	}
	if err := h.mountRoot(); err != nil {
		return err
	}
	switch h.Task {
	case TaskApply:
		return h.apply(context.Background(), res)
	case TaskCapture:
		return h.capture(context.Background())
	case TaskExists:
		return h.exists()
	case TaskCopyUp:
		return h.copyUp()
	case TaskHold:
		if err := h.hideHeld(); err != nil {
			return err
		}
		return detached.Serve(spoolFD, h.merged(), WithoutOpenTree)
	}
	if err := h.machineTemp(); err != nil {
		return err
	}
	mounts, err := h.attachments()
	if err != nil {
		return err
	}
	script, err := h.script()
	if err != nil {
		return err
	}
	if err := h.enter(mounts); err != nil {
		return err
	}
	if h.Task == TaskProbe || h.Task == TaskCheck {
		return h.leave()
	}
	res.Status = h.command(stdin, script)
	return h.leave()
}

// terminate passes SIGTERM to the command and what shares its process group.
func (h *helper) terminate() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.term = true
	if h.pid > 0 {
		_ = unix.Kill(-h.pid, unix.SIGTERM)
	}
}
