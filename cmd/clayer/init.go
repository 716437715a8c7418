package main

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/clayer/clayer/cmd/clayer/internal/hook"
	"github.com/clayer/clayer/frontend/lazyregexp"
)

// releases is where clayer's own releases are.
const releases = "https://github.com/clayer/clayer/releases"

// released is the version of a release, and not of a build between two.
var released = lazyregexp.New(`^v\d+\.\d+\.\d+$`)

var sha256Hex = lazyregexp.New(`^[0-9a-f]{64}$`)

func newInit() *cobra.Command {
	var o hook.Options
	var show bool
	c := &cobra.Command{
		Use:   "init claude|github|devcontainer|boot [LAYER]...",
		Short: "Write the hook that makes sessions begin with the environment",
		Long: `init writes a boot script, and what has its host run it: a SessionStart hook of
Claude Code, a step of GitHub Actions, the postCreateCommand of a devcontainer, or
nothing. The script fetches the release of clayer that it was made for, by its
checksum, composes the layers, and gives the session their variables. It can be
run again at any time, and by two at once; it says at most 2 KB.

Files that are there keep what they hold. --print prints, and writes nothing.`,
		Example:   "  clayer init claude\n  clayer init boot base mojo --env-files ~/secrets",
		Args:      cobra.MinimumNArgs(1),
		ValidArgs: hook.Kinds,
		RunE: func(cmd *cobra.Command, args []string) error {
			if !slices.Contains(hook.Kinds, args[0]) {
				return usagef("%q is none of %s", args[0], strings.Join(hook.Kinds, ", "))
			}
			o.Layers = args[1:]
			o.Version = cmp.Or(o.Version, buildVersion())
			if !released().MatchString(o.Version) {
				return usagef("--release: this clayer is %s, which is no release: say which the hook should fetch, as --release v1.2.3", o.Version)
			}
			if o.Checksums == "" {
				sum, err := hook.Checksums(cmd.Context(), cmp.Or(os.Getenv("CLAYER_DOWNLOAD_URL"), releases), o.Version)
				if err != nil {
					return fmt.Errorf("the checksum of release %s: %w\nhint: --checksums gives the SHA-256 of its checksums.txt", o.Version, err)
				}
				o.Checksums = sum
			}
			if !sha256Hex().MatchString(o.Checksums) {
				return usagef("--checksums %s: want the SHA-256 of the release's checksums.txt, 64 hex digits", o.Checksums)
			}
			files, err := hook.Files(args[0], o)
			if err != nil {
				return usageError{err}
			}
			return writeHook(cmd, files, show)
		},
	}
	c.Flags().StringVar(&o.Version, "release", "", "the release of clayer that is fetched (default: this one)")
	c.Flags().StringVar(&o.Checksums, "checksums", "", "the SHA-256 of its checksums.txt (default: as it is now)")
	c.Flags().StringVar(&o.EnvFiles, "env-files", "", "a folder whose *.env files are sourced before")
	c.Flags().BoolVar(&show, "print", false, "print what would be written")
	return c
}

func writeHook(cmd *cobra.Command, files []hook.File, show bool) error {
	var failed error
	for _, f := range files {
		if show || f.Path == "" {
			if len(files) > 1 && show && f.Path != "" {
				fmt.Fprintf(cmd.OutOrStdout(), "==> %s <==\n", f.Path)
			}
			if f.Note != "" {
				fmt.Fprintf(cmd.ErrOrStderr(), "clayer: %s:\n", f.Note)
			}
			if _, err := cmd.OutOrStdout().Write(f.Text); err != nil {
				return err
			}
			continue
		}
		changed, err := f.Write(cmd.Context(), ".")
		switch {
		case err != nil:
			failed = errors.Join(failed, err)
		case changed:
			fmt.Fprintf(cmd.ErrOrStderr(), "clayer: wrote %s\n", f.Path)
		default:
			fmt.Fprintf(cmd.ErrOrStderr(), "clayer: %s is as it should be\n", f.Path)
		}
	}
	if failed != nil {
		return usageError{errors.New(strings.ReplaceAll(failed.Error(), "\n", "\nclayer: "))}
	}
	return nil
}
