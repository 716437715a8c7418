package main

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/clayer/clayer/internal/lazyregexp"
	"github.com/clayer/clayer/internal/safefile"
	"github.com/clayer/clayer/solver"
	"github.com/clayer/clayer/solver/sandbox"
)

// runFlags are those of run and shell beside what they share with solve.
type runFlags struct {
	solveFlags
	at      int
	workdir string
}

func (f *runFlags) register(c *cobra.Command) {
	f.solveFlags.register(c)
	f.registerFiles(c)
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
are not cached are built and stored. The exit code is that of the command.`,
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
	files := f.files
	if len(files) == 0 {
		files = []string{"Containerfile"}
	}
	if f.at < 0 {
		return usagef("--at=%d: want a line", f.at)
	}
	f.live, f.handOver = true, true // the terminal is the command's then
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
		f.suggest(cmd, build)
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
	"root", "dest", "base-id", "salt", "invalidate-on", "build-arg", "secret", "hermetic", "name", "cache-dir", "store", "repo",
}

// suggest tells how to look around where a step failed.
func (f *solveFlags) suggest(cmd *cobra.Command, e *solver.BuildError) {
	path := e.Step.Layer.File.Path
	if _, once := safefile.IsInput(path); once || f.sandbox == "inplace" {
		return
	}
	words := []string{"clayer", "run"}
	cmd.Flags().VisitAll(func(fl *pflag.Flag) {
		for _, name := range lookFlags {
			if fl.Name != name || !fl.Changed || os.Getenv("CLAYER_"+strings.ToUpper(strings.ReplaceAll(name, "-", "_"))) != "" {
				continue
			}
			values := []string{fl.Value.String()}
			if many, ok := fl.Value.(pflag.SliceValue); ok {
				values = many.GetSlice()
			}
			for _, v := range values {
				words = append(words, "--"+name+"="+shellWord(v))
			}
		}
	})
	if path != "Containerfile" {
		words = append(words, "-f", shellWord(path))
	}
	e.Look = strings.Join(append(words, "--at", fmt.Sprint(e.Step.Pos().Line), "--", "sh"), " ")
}

var plainWord = lazyregexp.New(`^[A-Za-z0-9_./:=@%+,-]+$`)

// shellWord quotes a word for a shell where it has to be.
func shellWord(s string) string {
	if plainWord().MatchString(s) {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}
