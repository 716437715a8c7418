package gittree

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/clayer/clayer/internal/git/remote"
)

// overrides are settings that the session's can't change.
var overrides = []string{
	"core.hooksPath=/dev/null", "core.fsmonitor=false", "gc.auto=0", "maintenance.auto=false", "protocol.version=2", "protocol.ext.allow=never",
	"fetch.recurseSubmodules=false", "fetch.writeCommitGraph=false", "fetch.prune=false", "transfer.bundleURI=false",
	"credential.interactive=false", "pack.writeReverseIndex=false",
}

// A call is one run of git.
type call struct {
	args     []string
	settings []string
	stdin    io.Reader
	stdout   io.Writer
	none     bool // there may be nothing to print, which git takes for a failure
	server   bool // it works with a server; else with files alone, and no configuration but ours
}

var (
	errStalled = errors.New("no progress")
	errLarge   = errors.New("too large")
)

// run runs git in the repository.
func (r *repo) run(ctx context.Context, c call) error {
	outer := ctx
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	ctx, stop := context.WithTimeoutCause(ctx, longest, errStalled)
	defer stop()
	var args []string
	for _, o := range slices.Concat(overrides, c.settings) {
		args = append(args, "-c", o)
	}
	// git-lfs passes on what it gets, also to a git in a repository on this machine: that
	// would be led back here. It finds this one, where it is started.
	if c.args[0] != "lfs" {
		args = append(args, "--git-dir="+r.work.Path)
	}
	cmd := exec.CommandContext(ctx, r.path, append(args, c.args...)...)
	cmd.Dir = r.work.Path
	cmd.Env = r.environ(c.server)
	// In a session of its own: no program of it asks at the terminal, and all of
	// them end with it.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = 5 * time.Second
	said := &remote.Tail{}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = c.stdin, c.stdout, said
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("git: %w", err)
	}
	if c.server {
		watched := make(chan struct{})
		go func() {
			defer close(watched)
			r.watch(ctx, cancel, said)
		}()
		defer func() { cancel(nil); <-watched }()
	}
	err := cmd.Wait()
	switch cause := context.Cause(ctx); {
	case err == nil, c.none && cmd.ProcessState.ExitCode() == 1:
		return nil
	case outer.Err() != nil:
		return context.Cause(outer)
	case cause != nil:
		err = cause
	}
	if b, ok := c.stdout.(*bounded); ok && b.err != nil {
		return b.err
	}
	return r.explain(c.args[0], err, said.String())
}

// environ returns the environment of git. With files alone it has nothing of the
// session: filters that the user has set up, as those of LFS, are no part of a tree.
func (r *repo) environ(server bool) []string {
	if !server {
		return []string{
			"PATH=" + os.Getenv("PATH"), "HOME=" + r.work.Path, "LC_ALL=C", "TZ=UTC", "GIT_TERMINAL_PROMPT=0", "GIT_ALLOW_PROTOCOL=none",
			"GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_NOSYSTEM=1", "GIT_ATTR_NOSYSTEM=1", "GIT_NO_REPLACE_OBJECTS=1", "GIT_NO_LAZY_FETCH=1",
		}
	}
	allowed := "http:https:ssh"
	if r.local {
		allowed = "file"
	}
	if own, ok := os.LookupEnv("GIT_ALLOW_PROTOCOL"); ok {
		both := slices.DeleteFunc(strings.Split(allowed, ":"), func(p string) bool { return !slices.Contains(strings.Split(own, ":"), p) })
		allowed = cmp.Or(strings.Join(both, ":"), "none")
	}
	return append(remote.Environ(), "GIT_ALLOW_PROTOCOL="+allowed, "GIT_LFS_SKIP_SMUDGE=1")
}

// watch ends git when it is silent for too long, or has fetched too much.
func (r *repo) watch(ctx context.Context, cancel context.CancelCauseFunc, said *remote.Tail) {
	quiet := cmp.Or(r.f.Stall, stall)
	tick := time.NewTicker(min(quiet/4, 250*time.Millisecond))
	defer tick.Stop()
	since, seen := time.Now(), int64(0)
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-tick.C:
			size := r.size()
			if n := said.Total() + size; n != seen {
				since, seen = now, n
			}
			if now.Sub(since) > quiet {
				cancel(fmt.Errorf("%w for %s", errStalled, quiet))
				return
			}
			if size > r.limit {
				cancel(errLarge)
				return
			}
		}
	}
}

// size returns how many bytes have been fetched.
func (r *repo) size() (n int64) {
	for _, name := range []string{"objects", "lfs"} {
		_ = filepath.WalkDir(filepath.Join(r.work.Path, name), func(_ string, d fs.DirEntry, err error) error {
			if err != nil {
				return nil // renamed meanwhile, or not there
			}
			if info, err := d.Info(); err == nil && !d.IsDir() {
				n += info.Size()
			}
			return nil
		})
	}
	return n
}

// bounded passes on so many bytes, and then fails.
type bounded struct {
	w    io.Writer
	left int64
	err  error
}

func (b *bounded) Write(p []byte) (n int, err error) {
	if b.left -= int64(len(p)); b.left < 0 {
		b.err = errLarge
		return 0, errLarge
	}
	n, err = b.w.Write(p)
	b.err = err
	return n, err
}
