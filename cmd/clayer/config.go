package main

import (
	"io"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/clayer/clayer/cmd/clayer/internal/settings"
	"github.com/clayer/clayer/cmd/clayer/internal/ui"
)

func newConfig() *cobra.Command {
	c := &cobra.Command{
		Use:   "config",
		Short: "Print the settings of clayer.toml, variables and flags",
		Long: `A project's clayer.toml sets its layers, its stores and other flags; yours, which is
~/.config/clayer/clayer.toml, sets them for all projects. Flags have precedence over
CLAYER_.. variables, these over the project's file, and that over yours.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	c.AddCommand(newConfigLs())
	return c
}

func newConfigLs() *cobra.Command {
	var f changeFlags
	c := &cobra.Command{
		Use:   "ls [-f FILE]...",
		Short: "Print each setting, and where it comes from",
		Long: `ls prints the value of each key that a clayer.toml can have, and where it comes from:
a line of a file, a variable, a flag, or the default. It prints no token.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			list := settings.NewListing(cmd)
			return f.print(cmd, list, func(w io.Writer) { ui.WriteSettings(w, list) })
		},
	}
	f.register(c)
	f.RegisterFiles(c)
	c.Flags().VisitAll(func(fl *pflag.Flag) {
		if !settings.IsKey(fl.Name) && fl.Name != "json" && fl.Name != "file" {
			_ = c.Flags().MarkHidden(fl.Name) // they set no key
		}
	})
	return c
}
