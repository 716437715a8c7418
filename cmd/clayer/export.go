package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/clayer/clayer/cache"
	"github.com/clayer/clayer/cache/image"
	"github.com/clayer/clayer/internal/sizes"
	"github.com/clayer/clayer/solver"
)

func newCacheExport() *cobra.Command {
	var f solveFlags
	var dest string
	var opt image.Options
	c := &cobra.Command{
		Use:   "export --oci DIR|FILE.tar [-f FILE]... | NAME|TAG|KEY...",
		Short: "Write layers as an OCI image for skopeo, podman and crane",
		Long: `export writes layers as an OCI image: the solved layers of the Containerfiles
given by -f, or the newest cached layers with the given names, in that order.
The output is an OCI image layout in a new or empty directory, or an archive of
one if the name ends in .tar.

If you give files, the image's config includes ENV and WORKDIR, and also CMD,
ENTRYPOINT, USER, LABEL, EXPOSE, VOLUME and STOPSIGNAL, which have no effect in
a solve. If you give names, the image has only the layers, because stores do not
contain the values of variables.

The layers contain what the steps changed, not the system that they were built
on. --base puts them on top of an image: an OCI image layout such as skopeo copy
docker://debian:12 oci:DIR writes, with :TAG if it has several images.`,
		Example: `  clayer cache export --oci env.tar -f Containerfile && podman load -i env.tar
  clayer cache export --oci env --base debian base mojo && skopeo copy oci:env docker://ghcr.io/me/env`,
		RunE: func(cmd *cobra.Command, args []string) error {
			switch {
			case dest == "":
				return usagef("where to? give --oci DIR or --oci FILE.tar")
			case len(args) > 0 && len(f.files) > 0:
				return usagef("%s is a layer that is kept, and -f a file: give one or the other", args[0])
			case len(args) == 0 && len(f.files) == 0:
				f.files = []string{"Containerfile"}
			}
			f.readOnly = true
			img, store, err := f.image(cmd, args, opt.Base)
			if err != nil {
				return err
			}
			w, err := image.Write(cmd.Context(), dest, store, img, opt)
			if errors.Is(err, image.ErrThere) {
				return usagef("--oci %w", err)
			}
			if err != nil {
				return fmt.Errorf("export to %s: %w", dest, err)
			}
			if w.Layers > image.MaxLayers {
				telling(cmd).warn(fmt.Sprintf("%d layers: Docker runs images of at most %d", w.Layers, image.MaxLayers))
			}
			if f.json {
				return writeJSON(cmd.OutOrStdout(), w)
			}
			fmt.Fprintf(cmd.ErrOrStderr(), "clayer: %s: %s, %s\n", dest, sizes.Count(w.Layers, "layer"), sizes.Format(w.Size))
			fmt.Fprintln(cmd.OutOrStdout(), w.Digest)
			return nil
		},
	}
	f.register(c)
	f.registerFiles(c)
	c.Flags().StringVar(&dest, "oci", "", "write to `PATH`: a directory, or a file that ends in .tar")
	c.Flags().StringVar(&opt.Base, "base", "", "put the layers on top of the OCI image layout in `DIR[:TAG]`")
	c.Flags().BoolVar(&opt.Gzip, "gzip", false, "compress layers with gzip instead of zstd, for tools that cannot read zstd")
	return c
}

// image returns what is exported, and the store that has it.
func (f *solveFlags) image(cmd *cobra.Command, names []string, base string) (image.Image, cache.Store, error) {
	if len(names) > 0 {
		store, err := openStore(cmd, &f.storeFlags)
		if err != nil {
			return image.Image{}, nil, err
		}
		ms, err := newest(cmd, store, names)
		if err != nil {
			return image.Image{}, nil, err
		}
		img, err := solver.ImageOf(ms)
		if err != nil {
			return img, nil, usageError{err}
		}
		return img, store, nil
	}
	opt, err := f.options(cmd, f.files)
	if err != nil {
		return image.Image{}, nil, err
	}
	defer f.hide()
	img, err := solver.Image(cmd.Context(), opt, base)
	return img, opt.Store, err
}

// newest returns for each word the newest layer that it means.
func newest(cmd *cobra.Command, store cache.Store, words []string) ([]cache.Manifest, error) {
	all, err := store.List(cmd.Context())
	if err != nil {
		return nil, err
	}
	var ms []cache.Manifest
	for _, w := range words {
		found := false
		for _, m := range all { // newest first
			if matches(m, []string{w}) {
				ms, found = append(ms, m), true
				break
			}
		}
		if !found {
			return nil, usagef("%s: no such layer is kept; see clayer cache ls", w)
		}
	}
	return ms, nil
}
