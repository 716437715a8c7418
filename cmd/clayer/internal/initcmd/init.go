// Package initcmd is clayer init: it writes what makes sessions start with the environment.
package initcmd

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/clayer/clayer/cache/transfer"
	"github.com/clayer/clayer/cmd/clayer/internal/hook"
	"github.com/clayer/clayer/cmd/clayer/internal/settings"
	"github.com/clayer/clayer/cmd/clayer/internal/stores"
	"github.com/clayer/clayer/cmd/clayer/internal/ui"
	"github.com/clayer/clayer/cmd/clayer/internal/usage"
)

const skill = "skill"

// New returns the command. version is that of this program.
func New(version string, printed func(*cobra.Command) stores.Notices) *cobra.Command {
	var o hook.Options
	var f stores.Opener // for its network
	var show bool
	kinds := append(hook.Kinds(), skill)
	c := &cobra.Command{
		Use:   "init " + strings.Join(kinds, "|") + " [LAYER|DIR]...",
		Short: "Write a boot hook, so that sessions start with the environment",
		Long: `init writes a boot script and what has its host run it, or prints what to paste
where the host has no file for it:

  claude        .claude/settings.json: a SessionStart hook of Claude Code
  claude-setup  prints a setup script of Claude Code on the web
  codex         prints the setup script of Codex, one line
  cursor        .cursor/environment.json: its install
  copilot       .github/workflows/copilot-setup-steps.yml
  github        prints a step of GitHub Actions
  gitlab        .gitlab-ci.yml, .gitlab/clayer.yml: a job that others extend
  devcontainer  .devcontainer/devcontainer.json: its postCreateCommand
  jules         prints the setup script of Jules, one line
  boot          the script alone

github --prebuild IMAGE writes .github/workflows/clayer-prebuild.yml instead, which builds
the layers for all others: on the base that clayer base export wrote, or on another image
of their machines.

The script finds clayer, composes the layers, and sets their variables where the
session looks for them. It can run again at any time, also twice in parallel, and
prints at most 2 KB. Its solve ends within the host's limit of time, or --budget, and
the session starts with what can be had; jobs of github and gitlab fail instead.

If this clayer is a release, the script runs the clayer on PATH if it is the same
release. Otherwise it downloads that release from PyPI, npm, GitHub or --download-url,
whichever answers first in this order, and verifies its SHA-256. Other builds cannot be
downloaded: the script runs the clayer on PATH, or else this program at its current
path. If that is in the project, every copy of the project has it.

The layers and stores that the project's clayer.toml sets are not written into the
script, whose commands read that file; claude-setup writes the stores. No credential is
written.

skill writes no hook, but a skill for agents, SKILL.md and Python scripts with the
interface of container-layer, in DIR (default .claude/skills/container-layer).

The contents of existing files are preserved. --print prints what would be
written, and writes nothing.`,
		Example:   "  clayer init claude --repo me/env\n  clayer init claude-setup --store https://example.com/env\n  clayer init boot base mojo --env-files ~/secrets\n  clayer init skill",
		Args:      cobra.MinimumNArgs(1),
		ValidArgs: kinds,
		RunE: func(cmd *cobra.Command, args []string) error {
			if !slices.Contains(kinds, args[0]) {
				return usage.Errorf("%q is none of %s", args[0], strings.Join(kinds, ", "))
			}
			if o.Budget < 0 || o.Budget == 0 && cmd.Flag("budget").Changed {
				return usage.Errorf("--budget=%s: want a time, such as 5m", o.Budget)
			}
			o.Layers = args[1:]
			if err := stores.Check(o.Stores, o.Repo); err != nil {
				return err
			}
			project, err := settings.FindProject(".")
			if err != nil {
				return err
			}
			o.FileRepo, o.FileStores = project.Value("repo"), strings.Fields(project.Value("stores"))
			f.Notices = printed(cmd)
			if err := o.Locate(cmd.Context(), transfer.New(f.Transfer()), version); err != nil {
				return err
			}
			files, err := filesOf(args, o)
			if err != nil {
				return usage.Error{Err: err}
			}
			if args[0] == skill && !show {
				if err := hook.CheckOwn(files); err != nil {
					return err
				}
			}
			out, errs := ui.Data(cmd.OutOrStdout()), cmd.ErrOrStderr()
			if show {
				err = hook.Print(files, out, errs)
			} else {
				err = hook.Write(cmd.Context(), files, out, errs)
			}
			if err != nil {
				return err
			}
			o.WriteNeeds(errs, args[0], files[0].Path, version)
			return nil
		},
	}
	c.Flags().StringVar(&o.Version, "release", "", "run this clayer `RELEASE` in sessions (default: this one)")
	c.Flags().StringVar(&o.PinsFile, "pins-file", "", "read the SHA-256 of the release's programs from `FILE`, its pins.txt (default: download it)")
	c.Flags().StringVar(&o.DownloadURL, "download-url", "", "sessions ask the mirror `URL` last, which has URL/download/VERSION/pins.txt and the archives beside it")
	c.Flags().StringVar(&o.EnvFiles, "env-files", "", "source the *.env files in `DIR` first")
	c.Flags().StringVar(&o.Repo, "repo", "", "--repo of the sessions: store snapshots in the GitHub Releases of `OWNER/REPO`")
	c.Flags().StringArrayVar(&o.Stores, "store", nil, "--store of the sessions: add this `STORE` (repeatable)")
	c.Flags().DurationVar(&o.Budget, "budget", 0, "--budget of the sessions: a solve ends after `DURATION` (default: by the host's limit)")
	c.Flags().StringVar(&o.Base, "prebuild", "", "with github: write a workflow that builds the layers on the base `IMAGE`, such as docker://HOST/REPO:TAG, on every push and every night, and pushes them")
	c.Flags().BoolVar(&f.Offline, "offline", false, "send no requests: a release other than this one then requires --pins-file")
	c.Flags().BoolVar(&show, "print", false, "print what would be written, and write nothing")
	return c
}

// filesOf returns what init writes.
func filesOf(args []string, o hook.Options) ([]hook.File, error) {
	if args[0] != skill {
		return hook.Files(args[0], o)
	}
	dir := hook.SkillDir
	if len(args) > 1 {
		dir = args[1]
	}
	switch {
	case len(args) > 2:
		return nil, fmt.Errorf("init skill: %q is one argument too many", args[2])
	case o.EnvFiles != "" || o.Budget > 0:
		return nil, errors.New("--env-files and --budget are for boot scripts: a skill is none")
	}
	return hook.Skill(dir, o)
}
