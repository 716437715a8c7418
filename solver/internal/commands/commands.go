// Package commands makes of RUNs what a sandbox runs: the command with its environment, and the
// files that its mounts show.
package commands

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/clayer/clayer/dag"
	"github.com/clayer/clayer/frontend"
	"github.com/clayer/clayer/solver/internal/environ"
	"github.com/clayer/clayer/solver/internal/mounts"
	"github.com/clayer/clayer/solver/report"
	"github.com/clayer/clayer/solver/sandbox"
	"github.com/clayer/clayer/solver/source"
)

// A Maker makes the commands of RUNs.
type Maker struct {
	Environ environ.Session
	Secrets map[string]mounts.Secret
	Agents  map[string]mounts.Agent
	OnRoot  bool // they run in place, on the root of this machine
	Timeout time.Duration
	Cache   string // the directory for cache mounts, as solver.Options has it
	Fill    func(ctx context.Context, id string) error
	Sources *source.Resolver
	Report  *report.Reporter
}

// Of returns the command of a RUN. Its mounts are there until release.
func (m *Maker) Of(ctx context.Context, s *dag.Step, run *frontend.Run) (cmd sandbox.Command, release func(), err error) {
	cmd = sandbox.Command{Argv: run.Exec, Script: []byte(run.Script), Env: m.Environ.Of(s, run), Dir: run.Dir, Timeout: m.Timeout}
	cmd.Epoch = epoch(cmd.Env)
	if run.Exec == nil && run.Script == "" {
		cmd.Argv = append(run.Shell[:len(run.Shell):len(run.Shell)], run.Command)
	}
	release, err = m.Mount(ctx, s, run, &cmd)
	return cmd, release, err
}

// epoch returns the time that SOURCE_DATE_EPOCH is, by which programs write times into files,
// as that of the files; zero where it is empty, or says none.
func epoch(env []string) time.Time {
	for _, v := range env {
		if value, ok := strings.CutPrefix(v, dag.EpochVar+"="); ok {
			if sec, err := strconv.ParseUint(value, 10, 40); err == nil {
				return time.Unix(int64(sec), 0)
			}
		}
	}
	return time.Time{}
}

// Mount gives a command the mounts of a RUN, and the variables that they set, until release. It
// has the network of the RUN.
func (m *Maker) Mount(ctx context.Context, s *dag.Step, run *frontend.Run, cmd *sandbox.Command) (release func(), err error) {
	file := s.Layer.File
	src := &mounts.Source{
		Secret: mounts.Secrets(m.Secrets, m.Environ.Environ),
		Agents: m.Agents, OnRoot: m.OnRoot,
		Fill: m.Fill,
		Failed: func(err error) {
			// Once: what prevents them fails the store beside them too.
			m.Report.StoreFailed(report.LocalStore, fmt.Errorf("cache mounts are empty, and are not stored: %w", err))
		},
		Show: func(ctx context.Context, mount *frontend.Mount, dir func() (string, error), out *sandbox.Mount) error {
			if mount.Stage != nil { // which may be large
				if tree, err := m.Sources.MountedTree(ctx, mount); tree != nil || err != nil {
					out.Tree = tree
					return err
				}
			}
			temp, err := dir()
			if err == nil {
				out.Passing = true
				out.Source, err = m.copy(ctx, file, run, mount, temp)
			}
			return err
		},
		Pin: func(ctx context.Context, mount *frontend.Mount) (string, error) {
			pin, err := m.Sources.MountPin(ctx, file, run, mount)
			return pin.String(), err
		},
		Copy: func(ctx context.Context, mount *frontend.Mount, dir string) (string, error) {
			path, err := m.copy(ctx, file, run, mount, dir)
			if info, serr := os.Lstat(path); err == nil && serr == nil && !info.IsDir() {
				return "", &source.Fault{Message: fmt.Sprintf("source %q of a cache mount is no directory", mount.Source)}
			}
			return path, err
		},
	}
	if m.Cache != "" {
		src.Dir = filepath.Join(m.Cache, "mounts")
	}
	prepared, err := src.Prepare(ctx, run, &cmd.Env)
	if err != nil {
		return nil, err
	}
	cmd.Mounts, cmd.NoNetwork = prepared.List, run.Network == "none"
	return prepared.Release, nil
}

// copy copies what a mount of a RUN of a file shows into a directory, which is empty, and returns
// the path of the copy.
func (m *Maker) copy(ctx context.Context, f *frontend.File, run *frontend.Run, mount *frontend.Mount, dir string) (string, error) {
	fs, err := m.Sources.MountedFiles(ctx, f, run, mount)
	if err != nil {
		return "", err
	}
	return copyTo(ctx, fs, dir)
}
