package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/clayer/clayer/dag/key"
	"github.com/clayer/clayer/solver"
)

func newInspect() *cobra.Command {
	var f solveFlags
	c := &cobra.Command{
		Use:   "inspect FILE...",
		Short: "Print the parsed instructions with their keys",
		Args:  cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			f.readOnly = true
			opt, err := f.options(cmd, args)
			if err != nil {
				return err
			}
			g, keys, err := solver.Hash(cmd.Context(), opt)
			if err != nil {
				return err
			}
			type instruction struct {
				Line   int        `json:"line"`
				Word   string     `json:"instruction"`
				Text   string     `json:"text"`
				Key    key.Key    `json:"key,omitzero"` // none: it makes no step
				Inputs key.Record `json:"inputs,omitempty"`
			}
			type layer struct {
				Name         string        `json:"name"`
				File         string        `json:"file"`
				Key          key.Key       `json:"key"`
				Instructions []instruction `json:"instructions"`
			}
			var out []layer
			for _, l := range g.Layers {
				steps := make(map[int]instruction, len(l.Steps))
				for _, s := range l.Steps {
					steps[s.Pos().Line] = instruction{s.Pos().Line, s.Word(), s.Text(), keys.Step[s], keys.Record(s)}
				}
				ll := layer{Name: l.Name, File: l.File.Path, Key: keys.Layer[l]}
				for _, in := range l.File.Instructions {
					m := in.Base()
					row, ok := steps[m.Pos.Line]
					if !ok {
						row = instruction{Line: m.Pos.Line, Word: m.Word, Text: m.Text}
					}
					ll.Instructions = append(ll.Instructions, row)
				}
				out = append(out, ll)
			}
			w := cmd.OutOrStdout()
			if f.json {
				return writeJSON(w, out)
			}
			for i, l := range out {
				if i > 0 {
					fmt.Fprintln(w)
				}
				fmt.Fprintf(w, "%s   layer %s   key %s\n", l.File, l.Name, l.Key.Short())
				for _, in := range l.Instructions {
					k := "-" // makes no step
					if !in.Key.IsZero() {
						k = in.Key.Short()
					}
					fmt.Fprintf(w, "%4d  %-16s  %s\n", in.Line, k, in.Text)
				}
			}
			return nil
		},
	}
	f.register(c)
	return c
}
