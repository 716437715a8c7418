package main

import (
	"github.com/spf13/cobra"

	"github.com/clayer/clayer/solver"
)

func newEnv() *cobra.Command {
	var f solveFlags
	var shell string
	c := &cobra.Command{
		Use:   "env [-f FILE]...",
		Short: "Print the environment's variables, for eval",
		Long: `env prints the ENV of what is applied to the root, or of the files given, as
commands of a shell. A value that refers to a variable of the session, as
ENV PATH=/opt/bin:$PATH does, refers to it there too.`,
		Example: `  eval "$(clayer env)"`,
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			r, err := f.request(cmd, f.files)
			if err != nil {
				return err
			}
			vars, err := solver.Env(r)
			if err != nil {
				return err
			}
			if f.json {
				shell = "json"
			}
			text, err := solver.FormatEnv(vars, shell, r.Environ)
			if err != nil {
				return usageError{err}
			}
			_, err = cmd.OutOrStdout().Write(text)
			return err
		},
	}
	f.register(c)
	f.registerFiles(c)
	c.Flags().StringVar(&shell, "shell", "sh", "sh or json")
	return c
}
