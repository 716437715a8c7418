package main

import (
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/clayer/clayer/frontend"
	"github.com/clayer/clayer/internal/printable"
	"github.com/clayer/clayer/solver"
	"github.com/clayer/clayer/solver/envfile"
)

func newEnv() *cobra.Command {
	var f solveFlags
	var shell string
	var github, claude bool
	c := &cobra.Command{
		Use:   "env [-f FILE]...",
		Short: "Print the environment's variables, for eval",
		Long: `env prints the ENV of what is applied to the root, or of the given files, as
shell commands. A value that refers to a variable of the session, such as
ENV PATH=/opt/bin:$PATH, still refers to it in the output.

--github and --claude print nothing. They write to the files that GitHub Actions
and Claude Code name in $GITHUB_ENV, $GITHUB_PATH and $CLAUDE_ENV_FILE.`,
		Example: `  eval "$(clayer env)"                                    # sh, bash, zsh
  clayer env --shell fish | source
  clayer env --shell powershell | Out-String | Invoke-Expression`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			opt, err := f.options(cmd, f.files)
			if err != nil {
				return err
			}
			vars, err := solver.Env(opt)
			if err != nil {
				return err
			}
			if github {
				if err := envToGitHub(vars, opt); err != nil {
					return err
				}
			}
			if claude {
				if err := envToClaude(cmd, vars, opt); err != nil {
					return err
				}
			}
			if github || claude {
				return nil
			}
			if f.json {
				shell = "json"
			}
			text, err := envfile.Format(vars, shell, opt.Environ)
			if err != nil {
				return usageError{err}
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
	f.registerFiles(c)
	c.Flags().StringVar(&shell, "shell", "sh", "output for `SHELL`: "+"output for `SHELL`: "+strings.Join(envfile.Formats, ", "))
	c.Flags().BoolVar(&github, "github", false, "append to $GITHUB_ENV and $GITHUB_PATH, for the later steps of a job")
	c.Flags().BoolVar(&claude, "claude", false, "write to $CLAUDE_ENV_FILE, for the later commands of a session; do nothing if it is not set")
	return c
}

func envToGitHub(vars []frontend.Var, opt solver.Options) error {
	env, path, left := envfile.GitHub(vars, opt.Environ)
	for _, name := range left {
		opt.Report.Warn(fmt.Sprintf("ENV %s: GitHub Actions lets no step set it", name))
	}
	files := []struct {
		name string
		data []byte
	}{{"GITHUB_ENV", env}, {"GITHUB_PATH", path}}
	for _, f := range files {
		if os.Getenv(f.name) == "" {
			return usagef("--github: $%s is not set: this is no step of GitHub Actions", f.name)
		}
	}
	for _, f := range files {
		if err := envfile.Append(os.Getenv(f.name), f.data); err != nil {
			return fmt.Errorf("$%s: %w", f.name, err)
		}
	}
	return nil
}

// envToClaude writes to the file that only a session's first hook is given.
func envToClaude(cmd *cobra.Command, vars []frontend.Var, opt solver.Options) error {
	file := os.Getenv("CLAUDE_ENV_FILE")
	if file == "" {
		return nil
	}
	text, err := envfile.Format(vars, "sh", opt.Environ)
	if err != nil {
		return err
	}
	if err := envfile.WriteBlock(cmd.Context(), file, text); err != nil {
		return fmt.Errorf("$CLAUDE_ENV_FILE: %w", err)
	}
	return nil
}
