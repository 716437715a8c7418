package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/clayer/clayer/cmd/clayer/internal/settings"
	"github.com/clayer/clayer/cmd/clayer/internal/shim"
	"github.com/clayer/clayer/cmd/clayer/internal/ui"
	"github.com/clayer/clayer/cmd/clayer/internal/usage"
	"github.com/clayer/clayer/internal/printable"
	"github.com/clayer/clayer/internal/sizes"
	"github.com/clayer/clayer/solver"
	"github.com/clayer/clayer/solver/machine"
)

// runShim is "clayer shim exec", which every install waits for: without flags,
// commands, and the handling of signals that they come with; or "clayer shim watch", which
// that starts.
func runShim(command string, args []string, stderr io.Writer) int {
	o, argv, err := shim.Parse(args)
	if err != nil {
		fmt.Fprintf(stderr, "clayer: %v\n", err)
		return exitUsage
	}
	o.Path = os.Getenv("PATH")
	o.Clayer, _ = shim.Program()
	o.Solver = func(ctx context.Context) (solver.Options, error) { return shimSolver(ctx, o.File) }
	if command == "watch" {
		return shim.Watch(o, argv)
	}
	return shim.Exec(o, argv, stderr)
}

// shimSolver returns how clayer solve changes this machine, by CLAYER_.. variables, but that
// it asks nobody and prints nothing. What is pushed is pushed by the next solve.
func shimSolver(ctx context.Context, file string) (opt solver.Options, err error) {
	var f changeFlags
	c := &cobra.Command{Use: "shim exec"}
	f.register(c)
	files, err := settings.ForFile(file)
	if err == nil {
		err = settings.FromVariables(c.Flags())
	}
	if err == nil {
		err = files.Apply(c.Flags(), func(key string) bool { return key == "stores" || key == "repo" })
	}
	if err != nil {
		return opt, err
	}
	c.SetContext(ctx)
	c.SetErr(io.Discard)
	f.progress, f.quiet, f.Offline, f.Repo, f.Stores = "plain", true, true, "", nil
	if opt, err = f.options(c, nil); err != nil {
		return opt, err
	}
	if f.names != nil {
		return opt, usage.Errorf("CLAYER_NAME names the layer of %s otherwise", file)
	}
	if f.dest != "" || isMachineRoot(f.root) && !f.Yes && machine.Ephemeral(os.Environ()) == "" {
		err = shim.ErrNotHere
	}
	return opt, err
}

func newShim() *cobra.Command {
	c := &cobra.Command{
		Use:   "shim",
		Short: "Write what you install by hand to the Containerfile",
		Long: `Shims are small executables that come before pip, uv, apt-get, npm, cargo, go,
gem, conda, apk and dnf on PATH. A shim runs the real program. If that installed
something, the shim adds a RUN that repeats the install to the Containerfile.

What it installed is stored as the snapshot of that RUN, where a solve could change
this machine. That goes on when the shim has ended; clayer status says if it failed.

CLAYER_SHIM=off turns shims off; CLAYER_SHIM=quiet silences their messages;
CLAYER_SHIM=wait has them end when the snapshot is made, as they do in CI;
CLAYER_SHIM=lines writes lines alone, which the next solve runs.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	c.AddCommand(newShimInstall(), newShimUninstall(), newShimEnv(), newShimSource())
	return c
}

// shimDir is the flag that all commands of shims have.
func shimDir(c *cobra.Command) func() (string, error) {
	dir := c.Flags().String("dir", "", "`DIR` of the shims (default $XDG_STATE_HOME/clayer/shims)")
	return func() (string, error) {
		if *dir == "" {
			return shim.DefaultDir()
		}
		return filepath.Abs(*dir)
	}
}

func newShimInstall() *cobra.Command {
	var file string
	c := &cobra.Command{
		Use:     "install [--dir DIR] [-f FILE]",
		Short:   "Install shims for the package managers on PATH",
		Example: "  clayer shim install && eval \"$(clayer shim env)\"",
		Args:    cobra.NoArgs,
	}
	c.Flags().StringVarP(&file, "file", "f", "", "write to this Containerfile `FILE`; it is created when needed (default: Containerfile)")
	dir := shimDir(c)
	c.RunE = func(cmd *cobra.Command, _ []string) error {
		if file == "" {
			file = stated(cmd)
		}
		o, err := shimOptions(dir, file)
		if err != nil {
			return err
		}
		names, err := shim.Install(o)
		if err != nil {
			return err
		}
		if len(names) == 0 {
			fmt.Fprintln(cmd.ErrOrStderr(), "clayer: no package manager is on PATH: nothing to install")
			return nil
		}
		env := "clayer shim env"
		if cmd.Flags().Changed("dir") {
			env += " --dir " + shim.Word(o.Dir)
		}
		return ui.Folded(cmd.ErrOrStderr(), 4, func(w io.Writer) error {
			_, err := fmt.Fprintf(w, "clayer: %s in %s write to %s: %s\nhint: eval \"$(%s)\" puts them first on PATH\n",
				sizes.Count(len(names), "shim"), o.Dir, o.File, strings.Join(names, " "), env)
			return err
		})
	}
	return c
}

func shimOptions(dir func() (string, error), file string) (o shim.Options, err error) {
	if o.Dir, err = dir(); err != nil {
		return o, err
	}
	if strings.ContainsAny(o.Dir, ":\n") {
		return o, usage.Errorf("--dir %q: PATH can't hold it", o.Dir)
	}
	if o.File, err = filepath.Abs(file); err != nil {
		return o, err
	}
	if info, err := os.Stat(o.File); err == nil && !info.Mode().IsRegular() {
		return o, usage.Errorf("-f %s: is no file", file)
	}
	o.Path = os.Getenv("PATH")
	o.Clayer, err = shim.Program()
	return o, err
}

func newShimUninstall() *cobra.Command {
	c := &cobra.Command{Use: "uninstall [--dir DIR]", Short: "Remove the shims", Args: cobra.NoArgs}
	dir := shimDir(c)
	c.RunE = func(cmd *cobra.Command, _ []string) error {
		d, err := dir()
		if err != nil {
			return err
		}
		n, err := shim.Uninstall(d)
		if err != nil {
			return err
		}
		fmt.Fprintf(cmd.ErrOrStderr(), "clayer: %s removed from %s\n", sizes.Count(n, "shim"), d)
		return nil
	}
	return c
}

func newShimEnv() *cobra.Command {
	var shell string
	c := &cobra.Command{Use: "env [--dir DIR]", Short: "Print the commands that put the shims first on PATH, for eval", Args: cobra.NoArgs}
	c.Flags().StringVar(&shell, "shell", "sh", "output for `SHELL`: sh or fish")
	dir := shimDir(c)
	c.RunE = func(cmd *cobra.Command, _ []string) error {
		d, err := dir()
		if err != nil {
			return err
		}
		text, err := shim.Env(d, shell)
		if err != nil {
			return usage.Error{Err: err}
		}
		_, err = io.WriteString(printable.Exact(cmd.OutOrStdout()), text)
		return err
	}
	return c
}

func newShimSource() *cobra.Command {
	return &cobra.Command{
		Use:     "source",
		Short:   "Print uv_shim.sh, which you source in bash or zsh with a Containerfile",
		Example: "  clayer shim source > uv_shim.sh\n  source uv_shim.sh layers/Containerfile",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			clayer, err := shim.Program()
			if err != nil {
				return err
			}
			_, err = io.WriteString(printable.Exact(cmd.OutOrStdout()), shim.Source(clayer))
			return err
		},
	}
}
