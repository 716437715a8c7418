// Package mountcmd is clayer cache mounts: it pushes, pulls, lists and removes cache mounts.
package mountcmd

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/clayer/clayer/cache"
	"github.com/clayer/clayer/cmd/clayer/internal/settings"
	"github.com/clayer/clayer/cmd/clayer/internal/stores"
	"github.com/clayer/clayer/cmd/clayer/internal/ui"
	"github.com/clayer/clayer/cmd/clayer/internal/usage"
	"github.com/clayer/clayer/internal/errhint"
	"github.com/clayer/clayer/internal/printable"
	"github.com/clayer/clayer/internal/sizes"
	"github.com/clayer/clayer/solver"
	"github.com/clayer/clayer/solver/sharedmounts"
)

// Flags are what a command gets of the group of flags about stores.
type Flags struct {
	Register func(c *cobra.Command) *stores.Opener
	Printed  func(c *cobra.Command) stores.Notices
}

// New returns the command with its subcommands.
func New(f Flags) *cobra.Command {
	c := &cobra.Command{
		Use:   "mounts",
		Short: "Copy cache mounts between machines, list and remove them",
		Long: `A cache mount (RUN --mount=type=cache) has what package managers have downloaded.
The commands keep its content in a store, so that RUNs on a new machine find it. A
mount is named by its id, which is its target if the instruction gives none.

A store has one content of each mount and platform: the newest. Snapshots and their
keys do not depend on it. Files in which package managers keep logins are left out.
solve --share-mounts does the same before and after it runs steps.`,
		Example: `  clayer cache mounts push --store s3://my-bucket/env
  clayer cache mounts pull --store s3://my-bucket/env uv`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	c.AddCommand(f.push(), f.pull(), f.ls(), f.rm())
	return c
}

// local returns the mounts of this machine.
func (f Flags) local(cmd *cobra.Command, o *stores.Opener) (*sharedmounts.Mounts, error) {
	o.Notices = f.Printed(cmd)
	dir, err := o.CacheDirectory()
	if err == nil && dir == "" {
		err = usage.ErrReported
	}
	return &sharedmounts.Mounts{Cache: dir, Platform: sharedmounts.Platform(cmd.Context()), Waiting: o.Notices.Waiting}, err
}

// remote returns the stores that are named.
func remote(o *stores.Opener, args []string) ([]cache.Store, error) {
	if !o.NamesStores() {
		return nil, stores.ErrUnnamed
	}
	if at := cmp.Or(o.ByProject.Stores, o.ByProject.Repo); at != "" && len(args) == 0 {
		return nil, errhint.With(usage.Errorf("%s names the store: which cache mounts?", at), "name those of this project: without names, the mounts of all projects are copied")
	}
	return o.Reachable(nil)
}

const maxSizeUsage = "leave out mounts with more than `SIZE` of files"

func parseSize(text string) (int64, error) {
	n, ok := sizes.Parse(text, 1000)
	if !ok || n <= 0 {
		return 0, usage.Errorf("--max-size: %q is no size: want a number with B, kB, MB, GB, KiB, MiB or GiB", text)
	}
	return n, nil
}

func (f Flags) push() *cobra.Command {
	var o *stores.Opener
	var maxSize string
	c := &cobra.Command{
		Use:   "push [NAME]...",
		Short: "Put cache mounts into the stores of --repo and --store",
		Long: `Put cache mounts into the stores of --repo and --store. Without arguments, push
all that have something in them. A store that has the same content gets nothing.`,
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			m, err := f.local(cmd, o)
			if err != nil {
				return err
			}
			if m.Most, err = parseSize(maxSize); err != nil {
				return err
			}
			all, err := remote(o, args)
			if err != nil {
				return err
			}
			here, err := m.IDs()
			if err != nil {
				return err
			}
			if err := unknown(args, here, "on this machine"); err != nil {
				return err
			}
			ids := args
			if len(ids) == 0 {
				ids = here
			}
			var failed error
			for _, id := range ids {
				failed = errors.Join(failed, pushOne(cmd, m, all, id, len(args) == 0))
				if cmd.Context().Err() != nil {
					break
				}
			}
			return failed
		},
	}
	o = f.Register(c)
	c.Flags().StringVar(&maxSize, "max-size", "2GB", maxSizeUsage)
	c.Flags().BoolVarP(&o.Yes, "yes", "y", false, "let --store git: make its branch in the project's own repository")
	return c
}

// unknown reports arguments that are none of ids.
func unknown(args, ids []string, where string) error {
	var errs []error
	for _, a := range args {
		if !slices.Contains(ids, a) {
			errs = append(errs, fmt.Errorf("%s: no such cache mount %s; see clayer cache mounts ls", a, where))
		}
	}
	if len(errs) > 0 {
		return usage.Error{Err: errors.Join(errs...)}
	}
	return nil
}

// pushOne pushes a mount to all stores that can be written. One that fails keeps no other
// from getting it.
func pushOne(cmd *cobra.Command, m *sharedmounts.Mounts, all []cache.Store, id string, skipEmpty bool) error {
	p, err := m.Pack(cmd.Context(), id, nil)
	if errors.Is(err, sharedmounts.ErrEmpty) && skipEmpty {
		return nil
	}
	if err != nil {
		return fmt.Errorf("cache mount %s: %w", id, err)
	}
	defer p.Close()
	var failed, readOnly error
	written := false
	for _, s := range all {
		sent, err := p.Push(cmd.Context(), s, func() {})
		if errors.Is(err, cache.ErrReadOnly) {
			readOnly = fmt.Errorf("%w: %s: %w", solver.ErrStore, s.Name(), err)
			continue
		}
		if err != nil {
			failed = errors.Join(failed, fmt.Errorf("%w: %s: cache mount %s: %w", solver.ErrStore, s.Name(), id, err))
			continue
		}
		written = true
		text := "already up to date"
		if sent {
			text = sizes.Format(p.Size())
		}
		if len(all) > 1 {
			text += ", to " + s.Location()
		}
		fmt.Fprintf(cmd.OutOrStdout(), "pushed %s: %s\n", printable.Line(id), text)
	}
	if !written && failed == nil {
		return readOnly
	}
	return failed
}

func (f Flags) pull() *cobra.Command {
	var o *stores.Opener
	var maxSize string
	c := &cobra.Command{
		Use:   "pull [NAME]...",
		Short: "Fetch cache mounts from the stores of --repo and --store",
		Long: `Fetch cache mounts from the stores of --repo and --store. Without arguments, fetch
all that the stores have for this platform. Files that are in a mount on this machine
stay as they are.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			m, err := f.local(cmd, o)
			if err != nil {
				return err
			}
			if m.Most, err = parseSize(maxSize); err != nil {
				return err
			}
			o.Reads = true
			all, err := remote(o, args)
			if err != nil {
				return err
			}
			ids := args
			if len(args) == 0 {
				stored, err := listed(cmd.Context(), all)
				if err != nil {
					return err
				}
				for _, st := range stored {
					if st.Platform == m.Platform && !slices.Contains(ids, st.ID) {
						ids = append(ids, st.ID)
					}
				}
			}
			var failed error
			for _, id := range ids {
				failed = errors.Join(failed, pullOne(cmd, m, all, id))
				if cmd.Context().Err() != nil {
					break
				}
			}
			return failed
		},
	}
	o = f.Register(c)
	c.Flags().StringVar(&maxSize, "max-size", "2GB", maxSizeUsage)
	return c
}

func pullOne(cmd *cobra.Command, m *sharedmounts.Mounts, all []cache.Store, id string) error {
	var failed error
	s, d, err := m.Find(cmd.Context(), all, id, func(s cache.Store, err error) {
		failed = errors.Join(failed, fmt.Errorf("%w: %s: %w", solver.ErrStore, s.Name(), err))
	})
	switch {
	case errors.Is(err, cache.ErrNotCached) && failed != nil:
		return failed
	case errors.Is(err, cache.ErrNotCached):
		return usage.Error{Err: fmt.Errorf("%s: no such cache mount for %s in the stores; see clayer cache mounts ls", id, m.Platform)}
	case err != nil:
		return err
	}
	if err := m.Pull(cmd.Context(), s, id, d, false); err != nil {
		return fmt.Errorf("cache mount %s from %s: %w", id, s.Name(), err)
	}
	text := sizes.Format(d.Size)
	if len(all) > 1 {
		text += ", from " + s.Location()
	}
	fmt.Fprintf(cmd.OutOrStdout(), "pulled %s: %s\n", printable.Line(id), text)
	return nil
}

// listed returns what stores have. One of several that cannot list is left out.
func listed(ctx context.Context, all []cache.Store) (found []sharedmounts.Stored, err error) {
	answered := false
	var unlisted error
	for _, s := range all {
		some, err := sharedmounts.List(ctx, s)
		if errors.Is(err, cache.ErrUnlisted) {
			unlisted = errhint.With(fmt.Errorf("%w: %w", solver.ErrStore, err), "name the mounts to pull")
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("%w: %w", solver.ErrStore, err)
		}
		answered = true
		found = append(found, some...)
	}
	if !answered {
		return nil, unlisted
	}
	return found, nil
}

func (f Flags) ls() *cobra.Command {
	var o *stores.Opener
	var asJSON bool
	c := &cobra.Command{
		Use:   "ls [NAME]...",
		Short: "List cache mounts on this machine, and in the stores of --repo and --store",
		RunE: func(cmd *cobra.Command, args []string) error {
			m, err := f.local(cmd, o)
			if err != nil {
				return err
			}
			all, err := m.Local(cmd.Context())
			if err != nil {
				return err
			}
			if o.NamesStores() {
				o.Reads = true
				remote, err := o.Reachable(nil)
				if err != nil {
					return err
				}
				stored, err := listed(cmd.Context(), remote)
				if err != nil {
					return err
				}
				all = append(all, stored...)
			}
			all = slices.DeleteFunc(all, func(s sharedmounts.Stored) bool { return len(args) > 0 && !slices.Contains(args, s.ID) })
			if asJSON {
				return ui.WriteJSON(cmd.OutOrStdout(), append([]sharedmounts.Stored{}, all...))
			}
			return ui.Folded(cmd.OutOrStdout(), 3, func(w io.Writer) error { return table(w, all) })
		},
	}
	o = f.Register(c)
	settings.WorksOnGivenStores(c)
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}

func table(w io.Writer, all []sharedmounts.Stored) error {
	t := tabwriter.NewWriter(w, 0, 8, 3, ' ', 0)
	if len(all) > 0 {
		fmt.Fprintln(t, "NAME\tFILES\tPACKED\tCHANGED\tWHERE\tPLATFORM")
	}
	for _, s := range all {
		packed := "-"
		if s.Size > 0 {
			packed = sizes.Format(s.Size)
		}
		changed := "-"
		if !s.Created.IsZero() {
			changed = s.Created.Local().Format("2006-01-02 15:04")
		}
		where := strings.Replace(s.Store, sharedmounts.Here, "this machine", 1)
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\n", printable.Line(s.ID), sizes.Format(s.Bytes), packed, changed, printable.Line(where), printable.Line(s.Platform))
	}
	return t.Flush()
}

func (f Flags) rm() *cobra.Command {
	var o *stores.Opener
	c := &cobra.Command{
		Use:   "rm NAME...",
		Short: "Remove cache mounts from this machine, or from the stores of --repo and --store",
		Long: `Remove cache mounts from this machine or, if you set --repo or --store, from those
stores only, for all platforms.`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			m, err := f.local(cmd, o)
			if err != nil {
				return err
			}
			if !o.NamesStores() {
				return removeHere(cmd, m, args)
			}
			o.Reads = true
			remote, err := o.Reachable(nil)
			if err != nil {
				return err
			}
			for _, s := range remote { // before anything is removed from others
				if err := s.Writable(); errors.Is(err, cache.ErrReadOnly) {
					return fmt.Errorf("%w: %s: %w", solver.ErrStore, s.Name(), err)
				}
			}
			return removeFrom(cmd, remote, args)
		},
	}
	o = f.Register(c)
	settings.WorksOnGivenStores(c)
	return c
}

func removeHere(cmd *cobra.Command, m *sharedmounts.Mounts, args []string) error {
	here, err := m.IDs()
	if err != nil {
		return err
	}
	if err := unknown(args, here, "on this machine"); err != nil {
		return err
	}
	for _, id := range args {
		if _, err := m.Remove(cmd.Context(), id); err != nil {
			return fmt.Errorf("cache mount %s: %w", id, err)
		}
		fmt.Fprintf(cmd.OutOrStdout(), "removed %s from this machine\n", printable.Line(id))
	}
	return nil
}

func removeFrom(cmd *cobra.Command, remote []cache.Store, args []string) error {
	var there []string
	for _, s := range remote {
		removed, freed, err := sharedmounts.Remove(cmd.Context(), s, args)
		for _, st := range removed {
			there = append(there, st.ID)
		}
		if err != nil {
			return fmt.Errorf("%w: %w", solver.ErrStore, err)
		}
		for _, st := range removed {
			fmt.Fprintf(cmd.OutOrStdout(), "removed %s from %s (%s)\n", printable.Line(st.ID), s.Location(), printable.Line(st.Platform))
		}
		if len(removed) > 0 {
			fmt.Fprintf(cmd.ErrOrStderr(), "clayer: %s removed, %s freed\n", sizes.Count(len(removed), "cache mount"), sizes.Format(freed))
		}
	}
	return unknown(args, there, "in the stores")
}
