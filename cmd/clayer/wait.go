package main

import (
	"time"

	"github.com/spf13/cobra"

	"github.com/clayer/clayer/cmd/clayer/internal/effort"
	"github.com/clayer/clayer/solver"
)

func newWait() *cobra.Command {
	var f rootFlags
	var s storeFlags
	var timeout time.Duration
	c := &cobra.Command{
		Use:   "wait [--timeout DURATION]",
		Short: "Wait for a build in the background, and apply it",
		Long: `wait waits for the build that solve --finish-in-background has left running, and
applies what it made, if nothing has to be undone for that. It runs no step. Where
no build runs, or has run, it does nothing.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			var opt solver.Options
			if err := f.fill(&opt); err != nil {
				return err
			}
			s.Notices = printed(cmd)
			if opt.Cache, err = s.CacheDirectory(); err != nil {
				return err
			}
			return effort.Wait(cmd, opt, timeout)
		},
	}
	c.Flags().StringVar(&f.root, "root", "", "the build for the root file system in `DIR`")
	c.Flags().StringVar(&f.dest, "dest", "", "the build for the `DIR` that collects the changes")
	c.Flags().StringVar(&s.CacheDir, "cache-dir", "", "the cache directory of that solve is `DIR` (default $XDG_CACHE_HOME/clayer)")
	c.Flags().DurationVar(&timeout, "timeout", 0, "wait for `DURATION` at most; the build goes on (default: no limit)")
	return c
}
