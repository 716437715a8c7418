package main

import (
	"fmt"
	"sync"

	"github.com/spf13/cobra"

	"github.com/clayer/clayer/cache"
	"github.com/clayer/clayer/cmd/clayer/internal/settings"
	"github.com/clayer/clayer/cmd/clayer/internal/stores"
	"github.com/clayer/clayer/cmd/clayer/internal/ui"
	"github.com/clayer/clayer/solver"
)

// storeFlags say which stores are used.
type storeFlags struct{ stores.Opener }

func (f *storeFlags) register(c *cobra.Command) {
	c.Flags().StringVar(&f.CacheDir, "cache-dir", "", "store snapshots, downloads and cache mounts in `DIR` (default $XDG_CACHE_HOME/clayer)")
	c.Flags().StringVar(&f.CacheSize, "cache-size", "10GiB", "maximum `SIZE` of the snapshots there; the least recently used are removed first")
	c.Flags().StringArrayVar(&f.Stores, "store", nil, "add a `STORE`, asked after the one in --cache-dir: dir:PATH, oci:HOST/REPOSITORY in a registry, s3://BUCKET/PREFIX, git:URL, gha: in GitHub Actions, or https://HOST/PATH to read (repeatable)")
	c.Flags().StringVar(&f.Repo, "repo", "", "store snapshots in the GitHub Releases of `OWNER/REPO`, asked after the other stores")
	c.Flags().StringVar(&f.Token, "token", "", "GitHub `TOKEN`; prefer GH_TOKEN or GITHUB_TOKEN, which other users of the machine cannot read")
	c.Flags().StringSliceVar(&f.AllowRedirect, "allow-redirect", nil, "follow redirects from public servers to `HOST` at a private address, such as a registry's storage in a VPC (repeatable)")
	c.Flags().BoolVar(&f.Offline, "offline", false, "send no requests: use the stores on this machine and sources that were fetched before")
	c.Flags().StringArrayVar(&f.AllowSecrets, "allow-secret", nil, "push snapshots even if they contain the value of the variable or --secret `NAME` (repeatable)")
	f.Sync.Register(c.Flags())
	if run := c.RunE; run != nil {
		c.RunE = func(cmd *cobra.Command, args []string) error {
			defer f.Settle()
			return run(cmd, args)
		}
	}
	c.PreRun = func(*cobra.Command, []string) {
		f.ByProject = stores.ByProject{Stores: settings.ProjectSets(c, "store"), Repo: settings.ProjectSets(c, "repo")}
	}
}

// selected returns the stores that a command of clayer cache works on.
func (f *storeFlags) selected(cmd *cobra.Command) (*cache.Tier, error) {
	f.Notices, f.Reads = printed(cmd), true
	return f.Selected()
}

// removable returns the selected stores for a command that removes layers. It refuses
// those that are only read before the command says that it removes something.
func (f *storeFlags) removable(cmd *cobra.Command) (*cache.Tier, error) {
	store, err := f.selected(cmd)
	if err != nil {
		return nil, err
	}
	if err := store.Removable(); err != nil {
		return nil, fmt.Errorf("%w: %w", solver.ErrStore, err)
	}
	return store, nil
}

// printed are the notices of a command that has no progress.
func printed(cmd *cobra.Command) stores.Notices {
	warn := func(text string) { fmt.Fprintf(cmd.ErrOrStderr(), "clayer: warning: %s\n", text) }
	var failed sync.Map // stores that are reported
	return stores.Notices{
		StoreFailed: func(store string, err error) {
			if _, reported := failed.LoadOrStore(store, true); !reported {
				warn(ui.Warning(fmt.Sprintf("store %s: %v", store, err), err))
			}
		},
		Warn:    warn,
		Waiting: func(text string) { fmt.Fprintf(cmd.ErrOrStderr(), "clayer: waiting for %s\n", text) },
	}
}
