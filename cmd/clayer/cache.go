package main

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/spf13/cobra"

	"github.com/clayer/clayer/cache"
	"github.com/clayer/clayer/cache/image"
	"github.com/clayer/clayer/cache/web"
	"github.com/clayer/clayer/cmd/clayer/internal/mountcmd"
	"github.com/clayer/clayer/cmd/clayer/internal/parse"
	"github.com/clayer/clayer/cmd/clayer/internal/settings"
	"github.com/clayer/clayer/cmd/clayer/internal/stores"
	"github.com/clayer/clayer/cmd/clayer/internal/ui"
	"github.com/clayer/clayer/cmd/clayer/internal/usage"
	"github.com/clayer/clayer/internal/errhint"
	"github.com/clayer/clayer/internal/printable"
	"github.com/clayer/clayer/internal/sizes"
	"github.com/clayer/clayer/solver"
)

func newCache() *cobra.Command {
	c := &cobra.Command{
		Use:   "cache",
		Short: "List, remove, prune, copy and export cached layers, and cache mounts",
		Long: `The commands work on the local store in --cache-dir. If you set --repo or
--store, they work on those stores only. push and pull copy between the local
store and those; copy copies between any two.

--store oci:HOST/REPOSITORY is a repository in a registry. clayer logs in with
$CLAYER_OCI_USERNAME and $CLAYER_OCI_PASSWORD, or else with the login that
docker login saved in ~/.docker/config.json; it does not run credential helpers.

--store s3://BUCKET/PREFIX is a part of a bucket of Amazon S3, R2, Google Cloud
Storage or another service that speaks S3: $AWS_ENDPOINT_URL_S3 names it.
Credentials are found as Amazon's tools find them, in $AWS_ACCESS_KEY_ID and
$AWS_SECRET_ACCESS_KEY, the profile $AWS_PROFILE, or those of the machine.

--store git:URL[#BRANCH] is a branch of a Git repository (default clayer-cache),
which git on PATH reads and writes with its own configuration. git: alone is the
origin of the working directory's repository.

--store gha: is the cache service of GitHub Actions, in a step of a job. It lists
and removes nothing: only push, and copy to it, work on it.

--store https://HOST/PATH is a directory store that a web server serves. It is
only read. The header in $CLAYER_HTTPS_HEADER, or else the login for the host in
~/.netrc, is sent to it.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	c.AddCommand(newCacheLs(), newCacheRm(), newCachePrune(), newCachePush(), newCachePull(), newCacheCopy(), newCacheExport(),
		mountcmd.New(mountcmd.Flags{Printed: printed, Register: func(c *cobra.Command) *stores.Opener {
			var f storeFlags
			f.register(c)
			return &f.Opener
		}}))
	return c
}

func newCacheLs() *cobra.Command {
	var f storeFlags
	var asJSON bool
	c := &cobra.Command{
		Use:   "ls [NAME]...",
		Short: "List cached layers, newest first",
		RunE: func(cmd *cobra.Command, args []string) error {
			store, err := f.selected(cmd)
			if err != nil {
				return err
			}
			complete, partial, err := stores.Listed(cmd.Context(), store, args)
			if err != nil {
				return err
			}
			if !asJSON {
				return ui.WriteCachedLayers(cmd.OutOrStdout(), ui.CachedLayers(complete, partial, nil))
			}
			variants, err := stores.Variants(cmd.Context(), store, slices.Concat(complete, partial))
			if err != nil {
				return err
			}
			return ui.WriteJSON(cmd.OutOrStdout(), ui.CachedLayers(complete, partial, variants))
		},
	}
	f.register(c)
	settings.WorksOnGivenStores(c)
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}

func newCacheRm() *cobra.Command {
	var f storeFlags
	c := &cobra.Command{
		Use:   "rm NAME|TAG|KEY...",
		Short: "Remove layers, and the snapshots that no other layer needs",
		Args:  cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			store, err := f.removable(cmd)
			if err != nil {
				return err
			}
			all, err := store.List(cmd.Context())
			if err != nil {
				return err
			}
			found, err := stores.Lookup(all, args)
			if err != nil {
				return err
			}
			remove := slices.Concat(found...)
			freed, err := store.Remove(cmd.Context(), remove)
			reportRemoved(cmd, remove, freed, false)
			return err
		},
	}
	f.register(c)
	settings.WorksOnGivenStores(c)
	return c
}

func newCachePrune() *cobra.Command {
	var f storeFlags
	var retain int
	var olderThan string
	var dryRun bool
	c := &cobra.Command{
		Use:   "prune",
		Short: "Remove all but the newest layers of each name",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			age, err := parse.Age(olderThan)
			if err != nil {
				return usage.Errorf("--older-than: %w", err)
			}
			if retain < 0 {
				return usage.Errorf("--keep %d: want 0 or more", retain)
			}
			store, err := f.removable(cmd)
			if err != nil {
				return err
			}
			removed, freed, err := cache.Prune(cmd.Context(), store, retain, age, dryRun)
			reportRemoved(cmd, removed, freed, dryRun)
			return err
		},
	}
	f.register(c)
	settings.WorksOnGivenStores(c)
	c.Flags().IntVar(&retain, "keep", 3, "keep the newest `N` layers of each name")
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

func newCachePush() *cobra.Command {
	return newTransfer("push [NAME|TAG|KEY]...", "Copy layers to the stores of --repo and --store", true)
}

func newCachePull() *cobra.Command {
	return newTransfer("pull [NAME|TAG|KEY]...", "Copy layers from the stores of --repo and --store", false)
}

func newTransfer(use, short string, push bool) *cobra.Command {
	var f storeFlags
	var secretFlags []string
	c := &cobra.Command{
		Use:   use,
		Short: short,
		Long:  short + ".\n\nWithout arguments, copy the newest layer of each name.",
		RunE: func(cmd *cobra.Command, args []string) error {
			if !f.NamesStores() {
				return stores.ErrUnnamed
			}
			switch at := cmp.Or(f.ByProject.Stores, f.ByProject.Repo); {
			case at == "":
			case !push:
				return errhint.With(usage.Errorf("%s names the store: its layers could take the place of those of other projects", at), "solve restores those of this project; --store or --repo names a store to pull from")
			case len(args) == 0:
				return errhint.With(usage.Errorf("%s names a store to push to: which layers?", at), "name those of this project: without names, the layers of all projects are pushed")
			}
			secrets, err := parse.Secrets(cmd.Context(), secretFlags)
			if err != nil {
				return err
			}
			f.Notices, f.Reads = printed(cmd), !push
			local, err := f.UsableLocal()
			if err != nil {
				return err
			}
			remote, err := f.Reachable(secrets)
			if err != nil {
				return err
			}
			if push {
				return stores.Push(cmd.Context(), cmd.OutOrStdout(), local, remote, args, f.Notices.Warn)
			}
			from := cache.Tiered(f.Notices.StoreFailed, remote...)
			return stores.Copying{From: from, To: local, Words: args, Done: "pulled", Warn: f.Notices.Warn}.Run(cmd.Context(), cmd.OutOrStdout())
		},
	}
	f.register(c)
	c.Flags().StringArrayVar(&secretFlags, "secret", nil, "refuse to push snapshots that contain the secret `id=ID[,src=FILE|,env=NAME]` (repeatable)")
	if push {
		c.Flags().BoolVarP(&f.Yes, "yes", "y", false, "let --store git: make its branch in the project's own repository")
	}
	return c
}

func newCacheCopy() *cobra.Command {
	var f storeFlags
	c := &cobra.Command{
		Use:   "copy SRC DST [NAME|TAG|KEY]...",
		Short: "Copy layers from one store to another",
		Long: `copy copies the layers with the given names, or all layers, with their snapshots
for machines that differ. It copies what DST lacks, and verifies it. If it is
interrupted, the next copy goes on with what is missing.

SRC and DST are stores as --store takes them, github:OWNER/REPO for the releases
that --repo names, or local for the one in --cache-dir.`,
		Example: `  clayer cache copy github:me/env git:https://github.com/me/env-cache
  clayer cache copy local dir:/mnt/usb base mojo`,
		Args: cobra.MinimumNArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			f.Notices = printed(cmd)
			from, err := f.One(args[0], true, nil)
			if err != nil {
				return err
			}
			to, err := f.One(args[1], false, nil)
			if err != nil {
				return err
			}
			if from.Location() == to.Location() {
				return usage.Errorf("%s and %s are the same store", args[0], args[1])
			}
			return stores.Copying{From: from, To: to, Words: args[2:], All: true, Done: "copied", Warn: f.Notices.Warn}.Run(cmd.Context(), cmd.OutOrStdout())
		},
	}
	f.register(c)
	settings.WorksOnGivenStores(c)
	c.Flags().BoolVarP(&f.Yes, "yes", "y", false, "let git: make its branch in the project's own repository")
	for _, name := range []string{"store", "repo"} {
		_ = c.Flags().MarkHidden(name) // the arguments name them
	}
	return c
}

func newCacheExport() *cobra.Command {
	var f solveFlags
	var dest, layout, maxFile string
	var opt image.Options
	c := &cobra.Command{
		Use:   "export --oci DIR|FILE.tar [-f FILE]... | --layout DIR [NAME|TAG|KEY]...",
		Short: "Write layers as an OCI image, or as a directory for a web server",
		Long: `export writes layers as an OCI image: the solved layers of the Containerfiles
given by -f, or the newest cached layers with the given names, in that order.
The output is an OCI image layout in a new or empty directory, or an archive of
one if the name ends in .tar.

If you give files, the image's config includes ENV, WORKDIR, USER and SHELL, and
also CMD, ENTRYPOINT, LABEL, EXPOSE, VOLUME, STOPSIGNAL, HEALTHCHECK, ONBUILD and
MAINTAINER, which have no effect in a solve. If you give names, the image has only the layers, because stores do not
contain the values of variables.

The layers contain what the steps changed, not the system that they were built
on. --base puts them on top of an image: an OCI image layout such as skopeo copy
docker://debian:12 oci:DIR writes, with :TAG if it has several images.

--layout writes the cached layers with the given names, or the newest of each
name, into a directory that a web server, a bucket or a Git repository can serve, for
--store https://HOST/PATH. Layers that are there already stay. --max-file splits
larger snapshots, for servers that bound the size of files.`,
		Example: `  clayer cache export --oci env.tar -f Containerfile && podman load -i env.tar
  clayer cache export --oci env --base debian base mojo && skopeo copy oci:env docker://ghcr.io/me/env
  clayer cache export --layout site/cache --max-file 45MB`,
		RunE: func(cmd *cobra.Command, args []string) error {
			switch {
			case layout != "" && (dest != "" || len(f.Files) > 0):
				return usage.Errorf("--layout takes cached layers by name: not --oci, and not -f")
			case layout != "":
				return f.exportLayout(cmd, layout, maxFile, args)
			case dest == "":
				return usage.Errorf("where to? give --oci DIR, --oci FILE.tar or --layout DIR")
			case len(args) > 0 && len(f.Files) > 0:
				return usage.Errorf("%s is a cached layer, and -f a file: give one or the other", args[0])
			case len(args) == 0 && len(f.Files) == 0:
				f.Files = f.FilesOrDefault()
			}
			f.ReadOnly = true
			img, store, err := f.image(cmd, args, opt.Base)
			if err != nil {
				return err
			}
			w, err := image.Write(cmd.Context(), dest, store, img, opt)
			if errors.Is(err, image.ErrThere) {
				return usage.Errorf("--oci %w", err)
			}
			if err != nil {
				return fmt.Errorf("export to %s: %w", dest, err)
			}
			if w.Layers > image.MaxLayers {
				printed(cmd).Warn(fmt.Sprintf("%d layers: Docker runs images of at most %d", w.Layers, image.MaxLayers))
			}
			if !f.json {
				fmt.Fprintf(cmd.ErrOrStderr(), "clayer: %s: %s, %s\n", dest, sizes.Count(w.Layers, "layer"), sizes.Format(w.Size))
			}
			return f.print(cmd, w, func(out io.Writer) { fmt.Fprintln(out, w.Digest) })
		},
	}
	f.register(c)
	f.RegisterFiles(c)
	settings.WorksOnGivenStores(c)
	c.Flags().StringVar(&dest, "oci", "", "write to `PATH`: a directory, or a file that ends in .tar")
	c.Flags().StringVar(&layout, "layout", "", "write the layers into `DIR`, for a web server")
	c.Flags().StringVar(&maxFile, "max-file", "", "with --layout: split snapshots into files of at most `SIZE`, such as 45MB")
	c.Flags().StringVar(&opt.Base, "base", "", "put the layers on top of the OCI image layout in `DIR[:TAG]`")
	c.Flags().BoolVar(&opt.Gzip, "gzip", false, "compress layers with gzip instead of zstd, for tools that cannot read zstd")
	return c
}

// exportLayout writes the newest layer of each name for a web server.
func (f *solveFlags) exportLayout(cmd *cobra.Command, dir, maxFile string, names []string) error {
	var most int64
	if maxFile != "" {
		n, ok := sizes.Parse(maxFile, 1000)
		if !ok || n <= 0 {
			return usage.Errorf("--max-file: %q is no size: want a number with B, kB, MB, GB, KiB, MiB or GiB", maxFile)
		}
		most = n
	}
	store, err := f.selected(cmd)
	if err != nil {
		return err
	}
	all, err := store.List(cmd.Context())
	if err != nil {
		return err
	}
	if _, err := stores.Lookup(all, names); err != nil {
		return err
	}
	x, err := web.Export(cmd.Context(), dir, store, stores.Newest(all, names), most)
	if errors.Is(err, web.ErrDirStore) {
		return usage.Errorf("--layout %w", err)
	}
	if err != nil {
		return fmt.Errorf("export to %s: %w", dir, err)
	}
	return f.print(cmd, x, func(out io.Writer) {
		fmt.Fprintf(out, "%s: %s, %s, %s\n", dir, sizes.Count(x.Layers, "layer"), sizes.Count(x.Files, "new file"), sizes.Format(x.Bytes))
	})
}

// image returns what is exported, and the store that has it.
func (f *solveFlags) image(cmd *cobra.Command, names []string, base string) (image.Image, cache.Store, error) {
	if len(names) > 0 {
		store, err := f.selected(cmd)
		if err != nil {
			return image.Image{}, nil, err
		}
		all, err := store.List(cmd.Context())
		if err != nil {
			return image.Image{}, nil, err
		}
		found, err := stores.Lookup(all, names)
		if err != nil {
			return image.Image{}, nil, err
		}
		var ms []cache.Manifest
		for _, list := range found {
			ms = append(ms, list[0])
		}
		img, err := image.Of(ms)
		if err != nil {
			err = usage.Error{Err: err}
		}
		return img, store, err
	}
	opt, err := f.options(cmd, f.Files)
	if err != nil {
		return image.Image{}, nil, err
	}
	defer f.hide()
	img, err := solver.Image(cmd.Context(), opt, base)
	return img, cache.Tiered(f.Notices.StoreFailed, opt.AllStores()...), err
}
