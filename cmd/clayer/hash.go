package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/clayer/clayer/cache"
	"github.com/clayer/clayer/dag/key"
	"github.com/clayer/clayer/frontend"
	"github.com/clayer/clayer/solver"
)

func newHash() *cobra.Command {
	var f solveFlags
	var full, legacy bool
	c := &cobra.Command{
		Use:   "hash FILE...",
		Short: "Print the tag of each layer, and one hash for several layers",
		Args:  cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			f.readOnly = true
			opt, err := f.options(cmd, args)
			if err != nil {
				return err
			}
			if legacy {
				tags, err := solver.LegacyTags(cmd.Context(), opt, func(*frontend.File) bool { return len(args) > 1 || len(f.names) > 0 })
				if err != nil {
					return err
				}
				for _, tag := range tags {
					fmt.Fprintln(cmd.OutOrStdout(), tag)
				}
				return nil
			}
			g, keys, err := solver.Hash(cmd.Context(), opt)
			if err != nil {
				return err
			}
			type layer struct {
				Name string  `json:"name"`
				File string  `json:"file"`
				Key  key.Key `json:"key"`
				Tag  string  `json:"tag"`
			}
			var out struct {
				Layers    []layer `json:"layers"`
				Composite key.Key `json:"composite"`
			}
			for _, l := range g.Layers {
				k := keys.Layer[l]
				out.Layers = append(out.Layers, layer{l.Name, l.File.Path, k, cache.Tag(l.Name, k)})
			}
			out.Composite = keys.Composite(g)
			w := cmd.OutOrStdout()
			if f.json {
				return writeJSON(w, out)
			}
			for _, l := range out.Layers {
				if full {
					fmt.Fprintf(w, "%s  %s\n", l.Key, l.File)
				} else {
					fmt.Fprintln(w, l.Tag)
				}
			}
			if len(out.Layers) > 1 {
				if full {
					fmt.Fprintf(w, "%s  (all)\n", out.Composite)
				} else {
					fmt.Fprintf(w, "composite-%s\n", out.Composite.Short())
				}
			}
			return nil
		},
	}
	f.register(c)
	c.Flags().BoolVar(&legacy, "legacy", false, "print the tags that container-layer, clayer's predecessor, gives the files")
	c.Flags().BoolVar(&full, "full", false, "print whole keys and the files instead of tags")
	return c
}
