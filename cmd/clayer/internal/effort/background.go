package effort

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/clayer/clayer/cache/web"
	"github.com/clayer/clayer/cmd/clayer/internal/usage"
	"github.com/clayer/clayer/internal/credential"
	"github.com/clayer/clayer/internal/errhint"
	"github.com/clayer/clayer/solver"
	"github.com/clayer/clayer/solver/background"
	"github.com/clayer/clayer/solver/besteffort"
)

// jobVariable says in the environment of a command that it is a part of a build in the
// background: jobBuild or jobApply.
const (
	jobVariable = "_CLAYER_JOB"
	jobBuild    = "build" // what is missing is built into the stores
	jobApply    = "apply" // what was built is applied
)

// job changes what flags say to what a part of a build in the background does.
func job(ctx context.Context, opt *solver.Options, o *besteffort.Options) error {
	switch os.Getenv(jobVariable) {
	case jobBuild:
		opt.BuildOnly, opt.Rebuild = true, false
		*o = besteffort.Options{}
	case jobApply:
		o.Best, o.Budget, o.Cached, opt.Rebuild = true, 0, true, false
		plan, err := solver.Plan(ctx, *opt)
		if err == nil && len(plan.Undo) > 0 {
			return errhint.With(errors.New("what was built in the background is not applied: something else would have to be undone first, which a session may be using"),
				"clayer solve, or compose, does it")
		}
	}
	return nil
}

func placeOf(opt *solver.Options) (background.Place, error) {
	root, err := filepath.Abs(cmp.Or(opt.Dest, opt.Root, "/"))
	return background.Place{Cache: opt.Cache, Root: root}, err
}

// jobRuns reports whether a build runs in the background.
func jobRuns(opt *solver.Options) bool {
	place, err := placeOf(opt)
	if err != nil || opt.Cache == "" {
		return false
	}
	_, runs := place.Find()
	return runs
}

// Finish starts to build in the background what the budget has left out, if the flags ask
// for that, and says so.
func (f *Flags) Finish(cmd *cobra.Command, opt solver.Options, res *solver.Result, say func(format string, args ...any)) {
	if !f.background || os.Getenv(jobVariable) != "" || res == nil || res.Shortfall == nil {
		return
	}
	var started bool
	var err error
	switch {
	case res.Shortfall.Late:
		started, err = start(opt)
	case !jobRuns(&opt):
		return
	}
	switch {
	case err != nil:
		say("warning: the rest is not built in the background: %v", err)
	case started:
		say("the rest is being built in the background, into the store: clayer wait waits for it, and applies it")
	default:
		say("a build is running in the background already: clayer wait waits for it")
	}
}

func start(opt solver.Options) (bool, error) {
	switch {
	case opt.Sandbox == "inplace":
		return false, errors.New("in place it would change the root while the session uses it")
	case opt.Cache == "" || !opt.Push || opt.Local == nil:
		return false, errors.New("there is no store here that could have it")
	}
	for _, f := range opt.Files {
		if f.Path == "-" {
			return false, errors.New("a Containerfile comes from stdin")
		}
	}
	place, err := placeOf(&opt)
	if err != nil {
		return false, err
	}
	dir, err := os.Getwd()
	if err != nil {
		return false, err
	}
	j := background.Job{Args: os.Args[1:], Dir: dir}
	for _, v := range os.Environ() {
		// What sets flags of the command, for the one that applies it. Credentials are of no
		// use to that, and would stay in a file: the local store has what was built.
		name, value, _ := strings.Cut(v, "=")
		if strings.HasPrefix(name, "CLAYER_") && !strings.Contains(name, "SECRET") && name != web.HeaderVariable && !credential.IsName(name) && !credential.IsValue(value) {
			j.Env = append(j.Env, v)
		}
	}
	return place.Start(j, jobVariable+"="+jobBuild)
}

// Note prints whether a build runs in the background, or has ended and was not applied.
func Note(w io.Writer, opt solver.Options) {
	place, err := placeOf(&opt)
	if err != nil || opt.Cache == "" {
		return
	}
	switch j, runs := place.Find(); {
	case runs:
		fmt.Fprintf(w, "clayer: a build is running in the background since %s (process %d): clayer wait waits for it, and applies it\n", j.At.Local().Format(time.TimeOnly), j.PID)
	case j != nil:
		fmt.Fprintln(w, "clayer: a build in the background has ended: clayer wait applies what it made")
	}
}

// Wait waits for the build in the background, timeout at most (0: as long as it takes), and
// has what it made applied.
func Wait(cmd *cobra.Command, opt solver.Options, timeout time.Duration) error {
	place, err := placeOf(&opt)
	if err != nil {
		return err
	}
	ctx := cmd.Context()
	if timeout > 0 {
		var cancel func()
		ctx, cancel = context.WithTimeout(ctx, timeout)
		defer cancel()
	}
	j, err := place.Wait(ctx)
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return errhint.With(fmt.Errorf("the build in the background has not ended in %s", timeout), "it goes on; its output is in "+place.Log())
	case err != nil:
		return err
	case j == nil:
		fmt.Fprintln(cmd.ErrOrStderr(), "clayer: no build runs in the background")
		return nil
	}
	exe, err := os.Executable()
	if err != nil {
		return err
	}
	apply := exec.CommandContext(cmd.Context(), exe, j.Args...)
	apply.Dir, apply.Env = j.Dir, slices.Concat(os.Environ(), j.Env, []string{jobVariable + "=" + jobApply})
	apply.Stdout, apply.Stderr = cmd.OutOrStdout(), cmd.ErrOrStderr()
	// It ends as a solve does that is interrupted, and leaves no root half changed. A
	// terminal's Ctrl-C is for this process alone: a second signal would end it at once.
	apply.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	apply.Cancel = func() error { return apply.Process.Signal(syscall.SIGTERM) }
	err = apply.Run()
	if cmd.Context().Err() != nil {
		return context.Cause(cmd.Context())
	}
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return usage.ErrReported // it has printed why
	}
	return errors.Join(err, place.Forget())
}
