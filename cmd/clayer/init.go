package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/clayer/clayer/cache/transfer"
	"github.com/clayer/clayer/cmd/clayer/internal/hook"
	"github.com/clayer/clayer/cmd/clayer/internal/shim"
	"github.com/clayer/clayer/cmd/clayer/internal/ui"
	"github.com/clayer/clayer/internal/errhint"
	"github.com/clayer/clayer/internal/lazyregexp"
)

// releases is where clayer's own releases are.
const releases = "https://github.com/clayer/clayer/releases"

// released is the version of a release, and not of a build between two.
var released = lazyregexp.New(`^v\d+\.\d+\.\d+$`)

var sha256Hex = lazyregexp.New(`^[0-9a-f]{64}$`)

func newInit() *cobra.Command {
	var o hook.Options
	var f storeFlags // for its network
	var show bool
	c := &cobra.Command{
		Use:   "init claude|github|devcontainer|boot [LAYER]...",
		Short: "Write a boot hook, so that sessions start with the environment",
		Long: `init writes a boot script and the configuration that runs it: a SessionStart hook
of Claude Code, a step of GitHub Actions, the postCreateCommand of a devcontainer,
or (boot) nothing. The script finds clayer, composes the layers, and sets their
variables in the session. It can run again at any time, also twice in parallel,
and prints at most 2 KB.

If this clayer is a release, the script runs the clayer on PATH if it is the same
release, and otherwise downloads that release and verifies its checksum. Other
builds cannot be downloaded: the script runs the clayer on PATH, or else this
program at its current path. If that is in the project, every copy of the project
has it.

The contents of existing files are preserved. --print prints what would be
written, and writes nothing.`,
		Example:   "  clayer init claude --repo me/env\n  clayer init boot base mojo --env-files ~/secrets",
		Args:      cobra.MinimumNArgs(1),
		ValidArgs: hook.Kinds,
		RunE: func(cmd *cobra.Command, args []string) error {
			if !slices.Contains(hook.Kinds, args[0]) {
				return usagef("%q is none of %s", args[0], strings.Join(hook.Kinds, ", "))
			}
			o.Layers = args[1:]
			if err := checkStores(o.Stores, o.Repo); err != nil {
				return err
			}
			f.notices = printed(cmd)
			if err := hookProgram(cmd.Context(), transfer.New(f.transfer()), &o); err != nil {
				return err
			}
			files, err := hook.Files(args[0], o)
			if err != nil {
				return usageError{err}
			}
			if err := writeHook(cmd, files, show); err != nil {
				return err
			}
			hookNeeds(cmd.ErrOrStderr(), args[0], files[0].Path, o)
			return nil
		},
	}
	c.Flags().StringVar(&o.Version, "release", "", "run this clayer `RELEASE` in sessions (default: this one)")
	c.Flags().StringVar(&o.Checksums, "checksums", "", "`SHA256` of the release's checksums.txt (default: that of the current file)")
	c.Flags().StringVar(&o.DownloadURL, "download-url", "", "download releases from the mirror `URL`, which has URL/download/VERSION/checksums.txt and the archives beside it (default "+releases+")")
	c.Flags().StringVar(&o.EnvFiles, "env-files", "", "source the *.env files in `DIR` first")
	c.Flags().StringVar(&o.Repo, "repo", "", "--repo of the sessions: store snapshots in the GitHub Releases of `OWNER/REPO`")
	c.Flags().StringArrayVar(&o.Stores, "store", nil, "--store of the sessions: add this `STORE` (repeatable)")
	c.Flags().BoolVar(&f.offline, "offline", false, "send no requests: a release then requires --checksums")
	c.Flags().BoolVar(&show, "print", false, "print what would be written, and write nothing")
	return c
}

// hookProgram finds out how a session gets at clayer: the release that is
// downloaded, or where this program is.
func hookProgram(ctx context.Context, client *transfer.Client, o *hook.Options) error {
	if o.Version == "" && released().MatchString(buildVersion()) {
		o.Version = buildVersion()
	}
	if o.Version == "" {
		if o.Checksums != "" {
			return usagef("--checksums: of which release? --release names it")
		}
		program, err := shim.Program()
		if err != nil {
			return err
		}
		dir, err := os.Getwd()
		if err != nil {
			return err
		}
		if rel, err := filepath.Rel(dir, program); err == nil && filepath.IsLocal(rel) {
			program = rel
		}
		o.Program = program
		return nil
	}
	if !released().MatchString(o.Version) {
		return usagef("--release %s: is no release: want one like v1.2.3", o.Version)
	}
	if o.Checksums == "" {
		sum, err := hook.Checksums(ctx, client, cmp.Or(o.DownloadURL, releases), o.Version)
		if err != nil {
			return errhint.With(fmt.Errorf("the checksum of release %s: %w", o.Version, err), "--checksums gives the SHA-256 of its checksums.txt")
		}
		o.Checksums = sum
	}
	if !sha256Hex().MatchString(o.Checksums) {
		return usagef("--checksums %s: want the SHA-256 of the release's checksums.txt, 64 hex digits", o.Checksums)
	}
	return nil
}

// hookNeeds prints what a session's machine has to have that no hook can give it.
func hookNeeds(w io.Writer, kind, script string, o hook.Options) {
	if o.Version == "" {
		where, advice := o.Program, "put clayer on PATH when a session's machine is set up"
		if !filepath.IsAbs(where) {
			where, advice = where+" of this project", "commit it, or "+advice
		}
		fmt.Fprintf(w, "clayer: this clayer, %s, is no release, and can't be downloaded: %s runs the clayer on PATH, or else %s\nhint: %s, or write the hook for a release: --release v1.2.3\n",
			buildVersion(), script, where, advice)
	}
	switch {
	case o.Repo != "" && kind != "github": // whose step passes the token on
		fmt.Fprintf(w, "clayer: to write to %s, or to read it if it is private, a session needs a token in GH_TOKEN\n", o.Repo)
	case o.Repo == "" && len(o.Stores) == 0:
		fmt.Fprintln(w, "clayer: no --repo and no --store: every new machine builds the environment, instead of restoring it")
	}
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
			text, err := f.Preview(".")
			if err != nil {
				return usageError{err}
			}
			if _, err := ui.Data(cmd.OutOrStdout()).Write(text); err != nil {
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
