package main

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/clayer/clayer/cmd/clayer/internal/hook"
	"github.com/clayer/clayer/cmd/clayer/internal/settings"
	"github.com/clayer/clayer/cmd/clayer/internal/shim"
	"github.com/clayer/clayer/cmd/clayer/internal/usage"
	"github.com/clayer/clayer/internal/printable"
	"github.com/clayer/clayer/internal/safefile"
	"github.com/clayer/clayer/solver"
	"github.com/clayer/clayer/solver/envfile"
	"github.com/clayer/clayer/solver/layers"
	"github.com/clayer/clayer/solver/sandbox"
)

// runFlags are what run and shell do not share with solve.
type runFlags struct {
	solveFlags
	at      int
	workdir string
}

func (f *runFlags) register(c *cobra.Command) {
	f.solveFlags.register(c)
	f.RegisterFiles(c)
	c.Flags().IntVar(&f.at, "at", 0, "run in the state that the instruction in `LINE` of the last file starts from, with the mounts of its RUN")
	c.Flags().StringVarP(&f.workdir, "workdir", "w", "", "start in `DIR` (default: the current directory; with --root, --dest or --at: that of WORKDIR)")
	for _, name := range []string{"force", "no-wait", "require-cache", "json", "compare"} {
		_ = c.Flags().MarkHidden(name) // they say how a root is changed, and none is
	}
}

func newRun() *cobra.Command {
	var f runFlags
	c := &cobra.Command{
		Use:   "run [-f FILE]... [--at LINE] [--] CMD [ARG]...",
		Short: "Run a command in the environment without changing the machine",
		Long: `run runs a command in the environment of the Containerfiles, laid over the
machine's root. What the command writes is discarded when it ends. Steps that
are not cached are built and stored. The exit code is that of the command. Without -f
the environment is that of the layers in the project's clayer.toml, or else in
.claude/container-layers.json, or else of Containerfile.`,
		Example: `  clayer run -f Containerfile.mojo -- mojo --version
  clayer run --at 7 -- sh      # a shell where the RUN in line 7 failed`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error { return f.run(cmd, args) },
	}
	f.register(c)
	c.Flags().SetInterspersed(false)
	return c
}

// userShell is run's command for shell: the user's, if it is in the root.
var userShell = []string{"/bin/sh", "-c", `if [ -n "$SHELL" ] && [ -x "$SHELL" ]; then exec "$SHELL"; fi; exec /bin/sh`}

func newShell() *cobra.Command {
	var f runFlags
	c := &cobra.Command{
		Use:   "shell [-f FILE]... [--at LINE]",
		Short: "Run your shell in the environment without changing the machine",
		Args:  cobra.NoArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return f.run(cmd, userShell) },
	}
	f.register(c)
	return c
}

// statusError is the exit status of a command that clayer ran for the user, and
// so its own.
type statusError struct{ code int }

func (e statusError) Error() string { return fmt.Sprintf("exit status %d", e.code) }

func (f *runFlags) run(cmd *cobra.Command, argv []string) error {
	if f.at < 0 {
		return usage.Errorf("--at=%d: want a line", f.at)
	}
	files, err := f.paths(cmd, nil) // as compose has it
	if err != nil {
		return err
	}
	f.live, f.untilRun = true, true
	defer f.hide()
	opt, err := f.options(cmd, files)
	if err != nil {
		return err
	}
	dir := f.workdir
	if dir == "" && f.at == 0 && opt.Root == "" && opt.Dest == "" {
		if dir, err = os.Getwd(); err != nil {
			return err
		}
	}
	err = solver.Run(cmd.Context(), opt, solver.RunOptions{
		Argv: argv, At: f.at, File: files[len(files)-1], Dir: dir,
		Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr,
	})
	f.hide()
	var build *solver.BuildError
	var exit *sandbox.ExitError
	if errors.As(err, &build) {
		f.suggest(cmd, build, files)
		return err
	}
	if errors.As(err, &exit) {
		if exit.Reason != "" {
			fmt.Fprintf(cmd.ErrOrStderr(), "clayer: %v\n", exit)
		}
		return statusError{exit.Code}
	}
	return err
}

// lookFlags are the flags that make run see what solve saw.
var lookFlags = []string{
	"root", "dest", "base-id", "salt", "invalidate-on", "build-arg", "secret", "ssh", "hermetic", "inherit-env", "name", "cache-dir", "store", "repo",
}

// suggest adds to an error how to look around where a step failed.
func (f *solveFlags) suggest(cmd *cobra.Command, e *solver.BuildError, paths []string) {
	path := e.Step.Layer.File.Path
	if _, once := safefile.IsInput(path); once || f.sandbox == "inplace" {
		return
	}
	words := []string{"clayer", "run"}
	cmd.Flags().VisitAll(func(fl *pflag.Flag) {
		for _, name := range lookFlags {
			if fl.Name != name || settings.OriginOf(fl).Source != settings.Flag {
				continue
			}
			values := []string{fl.Value.String()}
			if many, ok := fl.Value.(pflag.SliceValue); ok {
				values = many.GetSlice()
			}
			for _, v := range values {
				words = append(words, "--"+name+"="+shim.Word(v))
			}
		}
	})
	for _, flag := range f.Hint(path, paths) {
		words = append(words, shim.Word(flag))
	}
	if path != layers.Default(".") {
		words = append(words, "-f", shim.Word(path))
	}
	e.Look = strings.Join(append(words, "--at", fmt.Sprint(e.Step.Pos().Line), "--", "sh"), " ")
}

func newEnv() *cobra.Command {
	var f solveFlags
	var shell string
	var github, claude, bash bool
	c := &cobra.Command{
		Use:   "env [-f FILE]...",
		Short: "Print the environment's variables, for eval",
		Long: `env prints the ENV of what is applied to the root, or of the given files, as
shell commands. A value that refers to a variable of the session, such as
ENV PATH=/opt/bin:$PATH, still refers to it in the output.

--github, --claude and --bash print nothing. They write to the files that GitHub
Actions and Claude Code name in $GITHUB_ENV, $GITHUB_PATH and $CLAUDE_ENV_FILE, and
to those in $HOME that bash reads when it starts.`,
		Example: `  eval "$(clayer env)"                                    # sh, bash, zsh
  clayer env --shell fish | source
  clayer env --shell powershell | Out-String | Invoke-Expression`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			opt, err := f.options(cmd, f.Files)
			if err != nil {
				return err
			}
			vars, err := solver.Env(opt)
			if err != nil {
				return err
			}
			if github {
				if err := hook.EnvToGitHub(vars, opt.Environ, opt.Report.Warn); err != nil {
					return err
				}
			}
			if claude {
				if err := hook.EnvToClaude(cmd.Context(), vars, opt.Environ); err != nil {
					return err
				}
			}
			if bash {
				if err := hook.EnvToBash(cmd.Context(), vars); err != nil {
					return err
				}
			}
			if github || claude || bash {
				return nil
			}
			if f.json {
				shell = "json"
			}
			text, err := envfile.Format(vars, shell, opt.Environ)
			if err != nil {
				return usage.Errorf("--shell=%w", err)
			}
			w := cmd.OutOrStdout()
			if shell != "json" {
				w = printable.Exact(w) // a shell evaluates it
			}
			_, err = w.Write(text)
			return err
		},
	}
	f.register(c)
	f.RegisterFiles(c)
	c.Flags().StringVar(&shell, "shell", "sh", "output for `SHELL`: "+strings.Join(envfile.Formats, ", "))
	c.Flags().BoolVar(&github, "github", false, "append to $GITHUB_ENV and $GITHUB_PATH, for the later steps of a job")
	c.Flags().BoolVar(&claude, "claude", false, "write to $CLAUDE_ENV_FILE, for the later commands of a session; do nothing if it is not set")
	c.Flags().BoolVar(&bash, "bash", false, "write to ~/.bashrc, and to what login shells read, for the shells that start later")
	return c
}
