package main

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/clayer/clayer/cache"
	"github.com/clayer/clayer/internal/printable"
	"github.com/clayer/clayer/internal/sizes"
)

func newCache() *cobra.Command {
	c := &cobra.Command{
		Use:   "cache",
		Short: "List, remove, prune, copy and export cached layers",
		Long: `The commands work on the local store in --cache-dir. If you set --repo or
--store, they work on those stores only. push and pull copy between the local
store and those.

--store oci:HOST/REPOSITORY is a repository in a registry. clayer logs in with
$CLAYER_OCI_USERNAME and $CLAYER_OCI_PASSWORD, or else with the login that
docker login saved in ~/.docker/config.json; it does not run credential helpers.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	c.AddCommand(newCacheLs(), newCacheRm(), newCachePrune(), newCachePush(), newCachePull(), newCacheExport())
	return c
}

// telling writes warnings of a command that has no progress.
func telling(cmd *cobra.Command) tell {
	warn := func(text string) { fmt.Fprintf(cmd.ErrOrStderr(), "clayer: warning: %s\n", text) }
	return tell{
		failed:  func(store string, err error) { warn(fmt.Sprintf("store %s: %v", store, err)) },
		warn:    warn,
		waiting: func(text string) { fmt.Fprintf(cmd.ErrOrStderr(), "clayer: waiting for %s\n", text) },
	}
}

// openStore returns the stores that a command works on: those that --store and
// --repo name, and the local one if they name none.
func openStore(cmd *cobra.Command, f *storeFlags) (*cache.Tier, error) {
	t := telling(cmd)
	if len(f.stores) > 0 || f.repo != "" {
		far, err := f.far(t, nil)
		if err == nil && len(far) == 0 && f.offline {
			err = usagef("--offline: --repo and --store name no store on this machine")
		}
		return cache.Tiered(t.failed, far...), err
	}
	local, err := f.local(t)
	if err != nil {
		return nil, err
	}
	if local == nil {
		return nil, errSaid
	}
	return cache.Tiered(t.failed, local), nil
}

func manifestSize(m cache.Manifest) (n int64) {
	for _, d := range m.Steps {
		n += d.Size
	}
	return n
}

func newCacheLs() *cobra.Command {
	var f storeFlags
	var asJSON bool
	c := &cobra.Command{
		Use:   "ls [NAME]...",
		Short: "List cached layers, newest first",
		RunE: func(cmd *cobra.Command, args []string) error {
			store, err := openStore(cmd, &f)
			if err != nil {
				return err
			}
			ms, err := store.List(cmd.Context())
			if err != nil {
				return err
			}
			list := []cache.Manifest{}
			for _, m := range ms {
				if len(args) == 0 || matches(m, args) {
					list = append(list, m)
				}
			}
			partial, err := store.Interrupted(cmd.Context())
			if err != nil {
				return err
			}
			partial = slices.DeleteFunc(partial, func(m cache.Manifest) bool { return len(args) > 0 && !matches(m, args) })
			if asJSON {
				return writeJSON(cmd.OutOrStdout(), listed(list, partial))
			}
			w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 8, 3, ' ', 0)
			if len(list)+len(partial) > 0 {
				fmt.Fprintln(w, "TAG\tSTEPS\tSIZE\tCREATED\tSTATE\tPLATFORM")
			}
			row := func(m cache.Manifest, state string) {
				fmt.Fprintf(w, "%s\t%d\t%s\t%s\t%s\t%s\n", printable.Line(m.Tag()), len(m.Steps), sizes.Format(manifestSize(m)),
					m.Created.Local().Format("2006-01-02 15:04"), state, printable.Line(m.Platform))
			}
			for _, m := range list {
				state := "complete"
				if n := len(m.LeftOut); n > 0 {
					state += fmt.Sprintf(", %d left out", n)
				}
				row(m, state)
			}
			for _, m := range partial {
				row(m, "interrupted")
			}
			return w.Flush()
		},
	}
	f.register(c)
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}

// listedLayer is a layer in the JSON of ls.
type listedLayer struct {
	cache.Manifest
	Tag      string `json:"tag"`
	Size     int64  `json:"size"` // bytes of all steps
	Complete bool   `json:"complete"`
}

func listed(complete, partial []cache.Manifest) []listedLayer {
	all := []listedLayer{}
	for _, m := range complete {
		all = append(all, listedLayer{m, m.Tag(), manifestSize(m), true})
	}
	for _, m := range partial {
		all = append(all, listedLayer{m, m.Tag(), manifestSize(m), false})
	}
	return all
}

// matches reports whether a layer is meant by one of the words: its name, its
// tag, or its key or the beginning of it.
func matches(m cache.Manifest, words []string) bool {
	for _, w := range words {
		if w == m.Name && w != "" || w == m.Tag() || len(w) >= 8 && strings.HasPrefix(m.Key.String(), w) {
			return true
		}
	}
	return false
}

func newCacheRm() *cobra.Command {
	var f storeFlags
	c := &cobra.Command{
		Use:   "rm NAME|TAG|KEY...",
		Short: "Remove layers, and the snapshots that no other layer needs",
		Args:  cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			store, err := openStore(cmd, &f)
			if err != nil {
				return err
			}
			ms, err := store.List(cmd.Context())
			if err != nil {
				return err
			}
			var remove []cache.Manifest
			var unknown []error
			for _, arg := range args {
				found := false
				for _, m := range ms {
					if matches(m, []string{arg}) {
						remove, found = append(remove, m), true
					}
				}
				if !found {
					unknown = append(unknown, fmt.Errorf("%s: no such layer is kept; see clayer cache ls", arg))
				}
			}
			if err := errors.Join(unknown...); err != nil {
				return usageError{err}
			}
			freed, err := store.Remove(cmd.Context(), remove)
			reportRemoved(cmd, remove, freed, false)
			return err
		},
	}
	f.register(c)
	return c
}

func newCachePrune() *cobra.Command {
	var f storeFlags
	var keep int
	var olderThan string
	var dryRun bool
	c := &cobra.Command{
		Use:   "prune",
		Short: "Remove all but the newest layers of each name",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			age, err := parseAge(olderThan)
			if err != nil {
				return usagef("--older-than: %w", err)
			}
			if keep < 0 {
				return usagef("--keep %d: want 0 or more", keep)
			}
			store, err := openStore(cmd, &f)
			if err != nil {
				return err
			}
			removed, freed, err := cache.Prune(cmd.Context(), store, keep, age, dryRun)
			reportRemoved(cmd, removed, freed, dryRun)
			return err
		},
	}
	f.register(c)
	c.Flags().IntVar(&keep, "keep", 3, "keep the newest `N` layers of each name")
	c.Flags().StringVar(&olderThan, "older-than", "", "remove only layers older than `AGE`, such as 30d or 12h")
	c.Flags().BoolVar(&dryRun, "dry-run", false, "print what would be removed, and remove nothing")
	return c
}

func reportRemoved(cmd *cobra.Command, ms []cache.Manifest, freed int64, dryRun bool) {
	verb := "removed"
	if dryRun {
		verb = "would remove"
	}
	for _, m := range ms {
		fmt.Fprintf(cmd.OutOrStdout(), "%s %s\n", verb, printable.Line(m.Tag()))
	}
	if !dryRun {
		fmt.Fprintf(cmd.ErrOrStderr(), "clayer: %s removed, %s freed\n", sizes.Count(len(ms), "layer"), sizes.Format(freed))
	}
}

// parseAge reads a duration that may be in days: "30d".
func parseAge(s string) (time.Duration, error) {
	if s == "" {
		return 0, nil
	}
	if days, ok := strings.CutSuffix(s, "d"); ok {
		n, err := strconv.ParseFloat(days, 64)
		if err != nil || n < 0 || n > 100_000 {
			return 0, fmt.Errorf("%q is no number of days", s)
		}
		return time.Duration(n * 24 * float64(time.Hour)), nil
	}
	d, err := time.ParseDuration(s)
	if err == nil && d < 0 {
		return 0, fmt.Errorf("%q is negative", s)
	}
	return d, err
}
