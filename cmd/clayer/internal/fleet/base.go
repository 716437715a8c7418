package fleet

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/clayer/clayer/cache"
	"github.com/clayer/clayer/cache/image"
	"github.com/clayer/clayer/cmd/clayer/internal/parse"
	"github.com/clayer/clayer/cmd/clayer/internal/stores"
	"github.com/clayer/clayer/cmd/clayer/internal/ui"
	"github.com/clayer/clayer/cmd/clayer/internal/usage"
	"github.com/clayer/clayer/internal/errhint"
	"github.com/clayer/clayer/internal/printable"
	"github.com/clayer/clayer/internal/sizes"
	"github.com/clayer/clayer/solver/base"
)

// NewBase returns the command clayer base. printed returns what prints warnings.
func NewBase(printed func(*cobra.Command) stores.Notices) *cobra.Command {
	c := &cobra.Command{
		Use:   "base",
		Short: "Write the root of this machine, for builds elsewhere",
		Args:  cobra.NoArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	c.AddCommand(newExport(printed))
	return c
}

// exportFlags are the flags of clayer base export.
type exportFlags struct {
	root, cacheDir            string
	exclude, include, secrets []string
	yes, gzip, json           bool
}

func newExport(printed func(*cobra.Command) stores.Notices) *cobra.Command {
	var f exportFlags
	c := &cobra.Command{
		Use:   "export [DIR|FILE.tar]",
		Short: "Write the root as an OCI image layout of one layer",
		Long: `export writes the root of this machine, before anything is applied to it, as an OCI
image layout, on which CI builds the layers that machines like this one restore. The
same root gives the same digest. It prints the size first, and writes with --yes only.

It leaves out home directories, the project in the working directory, places of
credentials wherever they are (.ssh, .aws, .netrc, .config and others; private keys,
tokens and passwords in /etc; the passwords of users), histories and logs, /proc, /sys,
/dev, /run and /tmp, other file systems, sockets, and what this user may not read. If a
file holds the value of a variable that is called like a credential, nothing is written.`,
		Example: `  clayer base export                            # the size, and what is left out
  clayer base export --yes base                 # skopeo copy oci:base docker://HOST/REPO:base
  clayer plan --as oci-layout:base --repo me/env`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			dest := ""
			if len(args) > 0 {
				dest = args[0]
			}
			return f.export(cmd, dest, printed(cmd))
		},
	}
	c.Flags().StringVar(&f.root, "root", "", "export the root file system in `DIR` instead of /")
	c.Flags().StringVar(&f.cacheDir, "cache-dir", "", "leave out the cache directory `DIR` (default: that of the other commands)")
	c.Flags().StringArrayVar(&f.exclude, "exclude", nil, "leave out `PATH` too, with all below it (repeatable)")
	c.Flags().StringArrayVar(&f.include, "include", nil, "do not leave out `PATH`, which is in a home directory or the project; places of credentials in it stay out (repeatable)")
	c.Flags().StringArrayVar(&f.secrets, "allow-secret", nil, "let files contain the value of the variable `NAME` (repeatable)")
	c.Flags().BoolVar(&f.gzip, "gzip", false, "compress with gzip instead of zstd, for tools that cannot read zstd")
	c.Flags().BoolVarP(&f.yes, "yes", "y", false, "write it")
	c.Flags().BoolVar(&f.json, "json", false, "print the result as JSON")
	return c
}

// exported is the result as JSON.
type exported struct {
	*base.Base
	image.Written
}

func (f *exportFlags) export(cmd *cobra.Command, dest string, notices stores.Notices) error {
	root, _, err := parse.Root(f.root, "")
	if err != nil {
		return err
	}
	for _, p := range append(f.exclude, f.include...) {
		if !filepath.IsAbs(p) {
			return usage.Errorf("--exclude and --include: %s: want an absolute path, as it is in the root", p)
		}
	}
	opener := stores.Opener{CacheDir: f.cacheDir, ReadOnly: true, Notices: notices}
	cacheDir, err := opener.CacheDirectory()
	if err != nil {
		return err
	}
	own := []string{cacheDir}
	if dest != "" {
		abs, err := filepath.Abs(dest)
		if err != nil {
			return err
		}
		own = append(own, abs)
	}
	work, _ := os.Getwd() // without one there is no project
	b, err := base.Read(cmd.Context(), base.Options{Root: root, Environ: os.Environ(), Work: work, Exclude: f.exclude, Include: f.include, Own: own})
	if errors.Is(err, base.ErrApplied) {
		return errhint.With(usage.Errorf("base export: %w", err), "export the root before the first solve, or take the layers back: clayer undo")
	}
	if err != nil {
		return fmt.Errorf("base export: %w", err)
	}
	f.describe(cmd.ErrOrStderr(), b, notices)
	if dest == "" || !f.yes {
		if f.json {
			if err := ui.WriteJSON(cmd.OutOrStdout(), exported{Base: b}); err != nil {
				return err
			}
		}
		if dest == "" {
			return nil
		}
		return errhint.With(usage.Errorf("nothing was written to %s", dest), "--yes writes what is listed above")
	}
	credentials, err := cache.Credentials(os.Environ(), nil, f.secrets)
	if err != nil {
		return err
	}
	w, err := b.Write(cmd.Context(), dest, credentials, f.gzip)
	var secret *cache.SecretError
	switch {
	case errors.Is(err, image.ErrThere):
		return usage.Errorf("base export: %w", err)
	case errors.As(err, &secret):
		return errhint.With(fmt.Errorf("base export: /%s holds the value of %s; nothing was written", secret.Path, secret.Name),
			fmt.Sprintf("--exclude /%s leaves the file out, --allow-secret %s writes it", secret.Path, secret.Name))
	case err != nil:
		return fmt.Errorf("base export to %s: %w", dest, err)
	}
	if f.json {
		return ui.WriteJSON(cmd.OutOrStdout(), exported{b, w})
	}
	fmt.Fprintf(cmd.ErrOrStderr(), "clayer: %s: %s\n", dest, sizes.Format(w.Size))
	fmt.Fprintln(cmd.OutOrStdout(), w.Digest)
	return nil
}

// describe prints what would be written, and what not.
func (f *exportFlags) describe(w io.Writer, b *base.Base, notices stores.Notices) {
	fmt.Fprintf(w, "clayer: %s, %s: %s, %s before they are compressed\n", b.Root, b.Platform, sizes.Count(b.Files, "file"), sizes.Format(b.Bytes))
	var reasons []string
	paths := make(map[string][]string)
	for _, l := range b.LeftOut {
		if paths[l.Why] == nil {
			reasons = append(reasons, l.Why)
		}
		paths[l.Why] = append(paths[l.Why], l.Path)
	}
	for _, why := range reasons {
		list := paths[why]
		more := ""
		if most := 8; len(list) > most && !f.json {
			more = fmt.Sprintf(" and %d more, which --json lists", len(list)-most)
			list = list[:most]
		}
		fmt.Fprintf(w, "clayer: left out, %s: %s%s\n", why, printable.Line(strings.Join(list, ", ")), more)
	}
	if n := len(b.Unreadable()); n > 0 {
		notices.Warn(fmt.Sprintf("%s may not be read by this user: root writes a base that has all", sizes.Count(n, "path")))
	}
	if b.Built != b.Platform {
		notices.Warn(fmt.Sprintf("a session here counts as %q, and a solve with --root of this base as %q: what one stores, the other does not find\nhint: solve in a container of the base, which has the PATH of this session; if that leads into a home directory, --include keeps that", b.Platform, b.Built))
	}
}
