package about

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/clayer/clayer/cache/transfer"
	"github.com/clayer/clayer/cmd/clayer/internal/hook"
	"github.com/clayer/clayer/cmd/clayer/internal/stores"
	"github.com/clayer/clayer/cmd/clayer/internal/usage"
	"github.com/clayer/clayer/internal/errhint"
)

// NewSelf returns "clayer self" for a build of a version.
func NewSelf(version string) *cobra.Command {
	c := &cobra.Command{
		Use:   "self",
		Short: "Update or remove clayer itself",
		Long: `self updates or removes the program clayer. One that pip, uv, npm, Homebrew or the
system's package manager installed is theirs to change: self says how.`,
	}
	c.AddCommand(newUpdate(version), newUninstall())
	return c
}

func newUpdate(version string) *cobra.Command {
	var network stores.Opener
	var pinsFile string
	c := &cobra.Command{
		Use:   "update [VERSION]",
		Short: "Replace clayer by its latest release, or by another one",
		Long: `update downloads a release from PyPI, npm, GitHub or $CLAYER_DOWNLOAD_URL, whichever
has it first in this order, verifies its SHA-256, and replaces this program.

Nothing else changes: not the root, nor the cache.`,
		Example: "  clayer self update\n  clayer self update v1.2.3",
		Args:    cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			program, err := own()
			if err != nil {
				return err
			}
			mirror, client := os.Getenv("CLAYER_DOWNLOAD_URL"), transfer.New(network.Transfer())
			wanted := ""
			if len(args) > 0 {
				wanted = "v" + strings.TrimPrefix(args[0], "v")
			} else if wanted, err = hook.Latest(cmd.Context(), client, mirror); err != nil {
				return errhint.With(fmt.Errorf("which release is the latest: %w", err), "name it: clayer self update VERSION")
			}
			if wanted == version {
				fmt.Fprintf(cmd.ErrOrStderr(), "clayer: %s is %s already\n", program, version)
				return nil
			}
			o := hook.Options{Version: wanted, DownloadURL: mirror, PinsFile: pinsFile}
			if err := o.Locate(cmd.Context(), client, version); err != nil {
				return err
			}
			if err := install(cmd.Context(), &o, program, cmd.ErrOrStderr()); err != nil {
				return err
			}
			fmt.Fprintf(cmd.ErrOrStderr(), "clayer: %s was %s, and is %s now\n", program, version, wanted)
			return nil
		},
	}
	c.Flags().StringVar(&pinsFile, "pins-file", "", "read the SHA-256 of the release's programs from `FILE`, its pins.txt (default: download it)")
	c.Flags().BoolVar(&network.Offline, "offline", false, "send no requests: this fails")
	return c
}

// install has the script of boot hooks download the release, and verify it.
func install(ctx context.Context, o *hook.Options, program string, errs io.Writer) error {
	cmd := exec.CommandContext(ctx, "sh", "-c", hook.InstallScript(), "sh", o.Version, strings.Join(o.Pins, " "), filepath.Dir(program))
	// What it starts ends with it, and its files are removed.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) }
	cmd.WaitDelay = 10 * time.Second
	cmd.Stderr = errs
	err := cmd.Run()
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil {
		return fmt.Errorf("%s is as it was: %w", program, err)
	}
	return nil
}

func newUninstall() *cobra.Command {
	return &cobra.Command{
		Use:   "uninstall",
		Short: "Remove clayer",
		Long: `uninstall removes this program, and nothing else. What it applied to a root stays:
run clayer undo first to give the machine back. It prints where the cache is.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			program, err := own()
			if err != nil {
				return err
			}
			if err := os.Remove(program); err != nil {
				return err
			}
			w := cmd.ErrOrStderr()
			fmt.Fprintf(w, "clayer: removed %s\n", program)
			if cache, err := os.UserCacheDir(); err == nil {
				if dir := filepath.Join(cache, "clayer"); exists(dir) {
					fmt.Fprintf(w, "clayer: its cache is still in %s\n", dir)
				}
			}
			return nil
		},
	}
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// own returns the program that runs, if nothing else manages it.
func own() (string, error) {
	program, err := os.Executable()
	if err != nil {
		return "", err
	}
	if program, err = filepath.EvalSymlinks(program); err != nil {
		return "", err
	}
	if who, how := manager(program); who != "" {
		return "", errhint.With(usage.Errorf("%s was installed by %s, which has to change it", program, who), how)
	}
	if filepath.Base(program) != "clayer" {
		return "", usage.Errorf("%s is not called clayer: replace or remove it yourself", program)
	}
	return program, nil
}

// manager returns what installed a program, and how to change it there; "" for nobody.
func manager(program string) (who, how string) {
	dir := filepath.Dir(program)
	pythons, _ := filepath.Glob(filepath.Join(dir, "../lib*/python3*/*-packages/container_layer-*.dist-info"))
	switch slashes := filepath.ToSlash(program); {
	case strings.Contains(slashes, "/node_modules/"):
		return "npm", "npm install -g container-layer@latest, or npm uninstall -g container-layer"
	case strings.Contains(slashes, "/uv/tools/"):
		return "uv", "uv tool upgrade container-layer, or uv tool uninstall container-layer"
	case len(pythons) > 0:
		return "a package manager of Python", "pip install --upgrade container-layer, or pip uninstall container-layer"
	case strings.Contains(slashes, "/Cellar/"):
		return "Homebrew", "brew upgrade clayer, or brew uninstall clayer"
	case exists("/var/lib/dpkg/info/clayer.list") && slashes == "/usr/bin/clayer":
		return "dpkg", "dpkg -i the package of another release, or dpkg -r clayer"
	case slashes == "/usr/bin/clayer":
		return "a package manager", "rpm -U or apk add the package of another release, or rpm -e clayer or apk del clayer"
	}
	return "", ""
}
