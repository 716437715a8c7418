package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/clayer/clayer/cache"
	"github.com/clayer/clayer/internal/printable"
	"github.com/clayer/clayer/internal/sizes"
	"github.com/clayer/clayer/solver"
)

func newCachePush() *cobra.Command {
	return newCopy("push [NAME|TAG|KEY]...", "Copy layers to the stores of --repo and --store", "pushed",
		func(local cache.Store, far *cache.Tier) (from, to cache.Store) { return local, far })
}

func newCachePull() *cobra.Command {
	return newCopy("pull [NAME|TAG|KEY]...", "Copy layers from the stores of --repo and --store", "pulled",
		func(local cache.Store, far *cache.Tier) (from, to cache.Store) { return far, local })
}

func newCopy(use, short, done string, direction func(local cache.Store, far *cache.Tier) (from, to cache.Store)) *cobra.Command {
	var f storeFlags
	var secretFlags []string
	c := &cobra.Command{
		Use:   use,
		Short: short,
		Long:  short + ".\n\nWithout arguments, copy the newest layer of each name.",
		RunE: func(cmd *cobra.Command, args []string) error {
			if f.repo == "" && len(f.stores) == 0 {
				return usagef("which store? give --repo owner/repo, --store dir:PATH or --store oci:HOST/REPOSITORY")
			}
			given, err := secrets(cmd.Context(), secretFlags)
			if err != nil {
				return err
			}
			t := telling(cmd)
			local, err := f.local(t)
			if err != nil {
				return err
			}
			if local == nil {
				return errSaid
			}
			stores, err := f.far(t, given)
			if err != nil {
				return err
			}
			if len(stores) == 0 && f.offline {
				return usagef("--offline: --repo and --store name no store on this machine")
			}
			from, to := direction(local, cache.Tiered(func(string, error) {}, stores...))
			return copyLayers(cmd, from, to, args, done)
		},
	}
	f.register(c)
	c.Flags().StringArrayVar(&secretFlags, "secret", nil, "refuse to push snapshots that contain the secret `id=ID[,src=FILE|,env=NAME]` (repeatable)")
	return c
}

func copyLayers(cmd *cobra.Command, from, to cache.Store, names []string, done string) error {
	ms, err := from.List(cmd.Context())
	if err != nil {
		return err
	}
	var wanted []cache.Manifest
	met := make(map[string]bool)
	for _, m := range ms { // newest first
		if len(names) > 0 && matches(m, names) || len(names) == 0 && !met[m.Name] {
			wanted = append(wanted, m)
		}
		met[m.Name] = true
	}
	for _, name := range names {
		found := false
		for _, m := range ms {
			found = found || matches(m, []string{name})
		}
		if !found {
			return usagef("%s: no such layer is kept there", name)
		}
	}
	for _, m := range wanted {
		c, err := cache.Copy(cmd.Context(), from, to, m)
		if err != nil {
			return fmt.Errorf("%w: %s: %w", solver.ErrStore, printable.Line(m.Tag()), err)
		}
		fmt.Fprintf(cmd.OutOrStdout(), "%s %s: %d of %d steps were not there, %s\n", done, printable.Line(m.Tag()), c.Steps, len(m.Steps), sizes.Format(c.Bytes))
	}
	return nil
}
