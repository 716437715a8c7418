// Command clayer makes an ephemeral machine yours: see the README.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/clayer/clayer/cmd/clayer/internal/about"
	"github.com/clayer/clayer/cmd/clayer/internal/checkcmd"
	"github.com/clayer/clayer/cmd/clayer/internal/effort"
	"github.com/clayer/clayer/cmd/clayer/internal/fleet"
	"github.com/clayer/clayer/cmd/clayer/internal/initcmd"
	"github.com/clayer/clayer/cmd/clayer/internal/settings"
	"github.com/clayer/clayer/cmd/clayer/internal/ui"
	"github.com/clayer/clayer/cmd/clayer/internal/usage"
	"github.com/clayer/clayer/frontend"
	"github.com/clayer/clayer/internal/errhint"
	"github.com/clayer/clayer/internal/inherited"
	"github.com/clayer/clayer/internal/printable"
	"github.com/clayer/clayer/solver"
	"github.com/clayer/clayer/solver/sandbox"
)

func main() {
	sandbox.Main() // the sandbox's helper is this program under another name
	os.Exit(run(os.Args[1:], os.Stdout, os.Stderr))
}

// Exit codes; the README lists them.
const (
	exitDone        = 0
	exitBuild       = 1 // a build step failed
	exitUsage       = 2 // usage, or a Containerfile that doesn't parse
	exitStore       = 3 // a cache that was required failed
	exitRoot        = 4 // the root could not be changed, or not be looked at
	exitInterrupted = 130
)

// run is main with its streams, and returns the exit code. Whatever a command
// prints goes through a printable.Writer: names, paths and messages come from
// stores, servers and archives too. Output that has to be exact says so.
func run(args []string, out, errs io.Writer) int {
	if len(args) > 2 && args[0] == "shim" && (args[1] == "exec" || args[1] == "watch") {
		stderr := printable.NewWriter(errs)
		defer stderr.Flush()
		return runShim(args[1], args[2:], stderr)
	}
	inherited.CloseOnExec()
	// The first Ctrl-C or SIGTERM cancels: children are stopped, root and store
	// are left consistent. A second one ends the program at once.
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop)
	out, errs = ui.Streams(ctx, out, errs)
	stdout, stderr := printable.NewWriter(out), printable.NewWriter(errs)
	defer func() { _ = errors.Join(stdout.Flush(), stderr.Flush()) }() // as for any other write, nobody is left to report it to

	cmd := newRoot(args...)
	cmd.SetArgs(args)
	cmd.SetOut(stdout)
	cmd.SetErr(stderr)
	ran, err := cmd.ExecuteContextC(ctx)
	if err == nil && ctx.Err() != nil {
		err = context.Canceled // what it reported may lack what it did not wait for
	}
	if err == nil {
		return exitDone
	}
	code := exitCode(ctx, err)
	if code == exitInterrupted {
		fmt.Fprintln(stderr, "clayer: interrupted")
		return code
	}
	var status statusError
	if !errors.Is(err, usage.ErrReported) && !errors.As(err, &status) {
		fmt.Fprintf(stderr, "clayer: %s\n", errhint.Text(ui.WithRemedy(settings.Explain(ran, err))))
	}
	if effort.IsBest(ran) {
		return exitDone
	}
	return code
}

func exitCode(ctx context.Context, err error) int {
	var status statusError
	var fault usage.Error
	var problems frontend.Problems
	switch {
	case ctx.Err() != nil && errors.Is(err, context.Canceled):
		return exitInterrupted
	case errors.As(err, &status):
		return status.code
	case errors.As(err, &fault), errors.As(err, &problems):
		return exitUsage
	case errors.Is(err, solver.ErrStore):
		return exitStore
	case errors.Is(err, solver.ErrRoot), errors.Is(err, solver.ErrUnread):
		return exitRoot
	}
	return exitBuild
}

// newRoot returns the whole of the command line: a command is added here.
// newRoot returns the command of all commands; if the first of args is one, of this one alone:
// the flags of all take longer to make than a solve that finds nothing to do.
func newRoot(args ...string) *cobra.Command {
	var verbose, showVersion bool
	root := &cobra.Command{
		Use:   "clayer",
		Short: "Turn an ephemeral machine into your environment",
		Long: `clayer builds the environment that a Containerfile describes onto a live root,
stores a snapshot of every step, and restores it on every other machine.

Every flag can also be set by a variable: --cache-dir is CLAYER_CACHE_DIR. A project's
clayer.toml, or your own, sets what you would repeat: see clayer config ls.`,
		SilenceUsage:  true,
		SilenceErrors: true,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return nil
			}
			hint := "see clayer --help"
			if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
				hint = "did you mean " + near[0] + "?"
			}
			return errhint.With(usage.Errorf("unknown command %q", args[0]), hint)
		},
		RunE: func(cmd *cobra.Command, _ []string) error {
			if showVersion {
				about.WriteVersion(cmd.OutOrStdout(), buildVersion())
				return nil
			}
			return cmd.Help()
		},
		PersistentPreRunE: func(cmd *cobra.Command, args []string) error {
			level := slog.LevelWarn
			if verbose {
				level = slog.LevelDebug
			}
			slog.SetDefault(slog.New(slog.NewTextHandler(cmd.ErrOrStderr(), &slog.HandlerOptions{
				Level: level,
				ReplaceAttr: func(groups []string, a slog.Attr) slog.Attr {
					if len(groups) == 0 && a.Key == slog.TimeKey {
						return slog.Attr{} // a command ends before one asks when
					}
					return a
				},
			})))
			return settings.Load(cmd, args)
		},
	}
	root.PersistentFlags().BoolVarP(&verbose, "verbose", "v", false, "print more to stderr")
	root.Flags().BoolVar(&showVersion, "version", false, "print the version") // cobra's own needs text/template: 4.5 MB
	root.SetFlagErrorFunc(flagError)
	root.SuggestionsMinimumDistance = 2
	all := everyCommand()
	if i := slices.IndexFunc(all, func(c command) bool { return len(args) > 0 && c.name == args[0] }); i >= 0 {
		all = all[i : i+1]
	}
	for _, c := range all {
		cmd := c.make()
		cmd.GroupID = c.group
		if c.group != "" && !root.ContainsGroup(c.group) {
			root.AddGroup(&cobra.Group{ID: c.group, Title: c.group})
		}
		root.AddCommand(cmd)
	}
	for _, c := range root.Commands() {
		wrapArgs(c)
	}
	return root
}

// A command is one of clayer, in a group of the help.
type command struct {
	group, name string
	make        func() *cobra.Command
}

// everyCommand returns the commands of clayer, as the help lists them.
func everyCommand() []command {
	const (
		build, plan, use, sessions = "Build an environment:", "Plan and check:", "Use, inspect and undo:", "Sessions and machines:"
	)
	return []command{
		{build, "solve", newSolve}, {build, "compose", newCompose}, {build, "build", newBuild}, {build, "restore", newRestore},
		{plan, "plan", newPlan},
		{plan, "check", func() *cobra.Command { return checkcmd.New(buildArgUsage, buildVersion(), printed) }},
		{plan, "inspect", newInspect}, {plan, "hash", newHash},
		{use, "run", newRun}, {use, "shell", newShell}, {use, "env", newEnv}, {use, "status", newStatus}, {use, "wait", newWait},
		{use, "verify", newVerify}, {use, "diff", newDiff}, {use, "undo", newUndo},
		{sessions, "init", func() *cobra.Command { return initcmd.New(buildVersion(), printed) }},
		{sessions, "base", func() *cobra.Command { return fleet.NewBase(printed) }},
		{sessions, "shim", newShim}, {sessions, "capture", newCapture}, {sessions, "doctor", newDoctor}, {sessions, "config", newConfig},
		{"Stores:", "cache", newCache},
		{"", "man", func() *cobra.Command { return about.NewMan(buildVersion()) }},
		{"", "self", func() *cobra.Command { return about.NewSelf(buildVersion()) }},
		{"", "version", func() *cobra.Command { return about.NewVersion(buildVersion()) }},
	}
}

// flagError says which flag was probably meant.
func flagError(cmd *cobra.Command, err error) error {
	var unknown *pflag.NotExistError
	if !errors.As(err, &unknown) {
		return errhint.With(usage.Errorf("%w", err), "see "+cmd.CommandPath()+" --help")
	}
	var known []string
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		if !f.Hidden {
			known = append(known, f.Name)
		}
	})
	if near := frontend.Nearest(unknown.GetSpecifiedName(), known); near != "" {
		return errhint.With(usage.Errorf("%w", err), "did you mean --"+near+"?")
	}
	return errhint.With(usage.Errorf("%w", err), "see "+cmd.CommandPath()+" --help")
}

// wrapArgs makes a wrong number of arguments a usage error, as wrong flags are,
// and shows what the command takes.
func wrapArgs(c *cobra.Command) {
	if check := c.Args; check != nil {
		c.Args = func(cmd *cobra.Command, args []string) error {
			err := check(cmd, args)
			name := strings.TrimPrefix(cmd.CommandPath(), "clayer ")
			var fault usage.Error
			switch {
			case err == nil || errors.As(err, &fault):
				return err
			case len(args) == 0:
				return errhint.With(usage.Errorf("%s: an argument is missing", name), cmd.UseLine())
			}
			return errhint.With(usage.Errorf("%s: %q is one argument too many", name, args[len(args)-1]), cmd.UseLine())
		}
	}
	for _, sub := range c.Commands() {
		wrapArgs(sub)
	}
}
