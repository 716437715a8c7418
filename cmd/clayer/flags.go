package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/clayer/clayer/cache/snapshot"
	"github.com/clayer/clayer/cmd/clayer/internal/buildcontext"
	"github.com/clayer/clayer/cmd/clayer/internal/parse"
	"github.com/clayer/clayer/cmd/clayer/internal/settings"
	"github.com/clayer/clayer/cmd/clayer/internal/stores"
	"github.com/clayer/clayer/cmd/clayer/internal/ui"
	"github.com/clayer/clayer/cmd/clayer/internal/usage"
	"github.com/clayer/clayer/frontend"
	"github.com/clayer/clayer/solver"
	"github.com/clayer/clayer/solver/base"
	"github.com/clayer/clayer/solver/layers"
	"github.com/clayer/clayer/solver/report"
	"github.com/clayer/clayer/solver/sandbox"
	"github.com/clayer/clayer/solver/source"
)

// Each group of flags has a method that registers it, and one that fills its part
// of solver.Options.

// solveFlags are what the commands that read Containerfiles share.
type solveFlags struct {
	storeFlags
	recipeFlags
	rootFlags
	sandboxFlags
	snapshotFlags
	outputFlags
}

func (f *solveFlags) register(c *cobra.Command) {
	f.storeFlags.register(c)
	f.recipeFlags.register(c)
	f.rootFlags.register(c)
	f.sandboxFlags.register(c)
	f.snapshotFlags.register(c)
	f.outputFlags.register(c)
}

// options returns the options for the Containerfiles at paths.
func (f *solveFlags) options(cmd *cobra.Command, paths []string) (opt solver.Options, err error) {
	if f.sandbox == "inplace" && f.dest != "" {
		return opt, usage.Errorf("--sandbox=inplace changes the root itself, and --dest is to leave it alone: leave one of them out")
	}
	opt.Environ, opt.Durability = os.Environ(), f.Sync.Setting()
	for _, fill := range []func(*solver.Options) error{f.sandboxFlags.fill, f.snapshotFlags.fill, f.rootFlags.fill} {
		if err := fill(&opt); err != nil {
			return opt, err
		}
	}
	if err := f.show(cmd, &opt); err != nil {
		return opt, err
	}
	if err := f.recipeFlags.fill(cmd.Context(), &opt); err != nil {
		return opt, err
	}
	names, err := parse.LayerNames(f.names, paths)
	if err != nil {
		return opt, err
	}
	read, err := f.Options(frontend.Args{Build: opt.BuildArgs, Platform: f.platform})
	if err != nil {
		return opt, err
	}
	read.Names = names
	if f.progress != "json" {
		for _, text := range f.Notes {
			f.note(cmd, "%s", text)
		}
	}
	f.Notices = stores.Notices{StoreFailed: opt.Report.StoreFailed, Warn: opt.Report.Warn, Waiting: opt.Report.Waiting}
	files, unread := layers.Load(cmd.Context(), paths, read)
	if err := f.toTarget(files); err != nil && unread == nil {
		return opt, err
	}
	if err := parse.StageBases(f.StageBases, files, true); err != nil && unread == nil {
		return opt, err
	}
	if unread == nil {
		for _, text := range f.Unused(files) {
			opt.Report.Warn(text)
		}
	}
	f.ConfineToProject(settings.FilesOf(cmd.Context()).Project.Outside(files))
	opt.Private = base.Private
	if err := f.Fill(&opt); err != nil {
		return opt, err
	}
	if opt.Files = files; unread != nil {
		return opt, solver.AllProblems(cmd.Context(), opt, unread)
	}
	return opt, nil
}

// recipeFlags say what is made: the Containerfiles, and what enters their keys.
type recipeFlags struct {
	buildcontext.Flags
	names                      []string
	baseID                     string
	salts, invalidateOn        []string
	buildArgs, secrets, agents []string
	probes                     []string
	target                     string
	platform                   string   // of the machine that is planned for, "linux/amd64"; "" for this one
	warnings                   []string // of looking up the files
}

func (f *recipeFlags) register(c *cobra.Command) {
	c.Flags().StringArrayVar(&f.names, "name", nil, "name the layer `NAME`; with several files, NAME:PATH")
	c.Flags().StringVar(&f.baseID, "base-id", "", "extra `TEXT` mixed into every cache key, to tell machines of one platform apart")
	c.Flags().StringArrayVar(&f.salts, "salt", nil, "extra `TEXT` mixed into every cache key (repeatable)")
	c.Flags().StringArrayVar(&f.invalidateOn, "invalidate-on", nil, "rebuild when the commit of `OWNER/REPO[@REF]` changes (repeatable)")
	c.Flags().StringArrayVar(&f.buildArgs, "build-arg", nil, buildArgUsage)
	f.Flags.Register(c)
	c.Flags().StringVar(&f.target, "target", "", "end a file with its stage `STAGE` (default: the last one)")
	c.Flags().StringArrayVar(&f.probes, "probe", nil, "after a solve, run a command that succeeds if a layer works, by `LAYER=COMMAND` (repeatable)")
	c.Flags().StringArrayVar(&f.secrets, "secret", nil, "provide a secret for RUN --mount=type=secret by `id=ID[,src=FILE|,env=NAME]` (repeatable)")
	c.Flags().StringArrayVar(&f.agents, "ssh", nil, "forward an SSH agent to RUN --mount=type=ssh by `ID[=SOCKET]`: that of SSH_AUTH_SOCK, or at SOCKET (repeatable)")
}

// toTarget makes the files end with the stage of --target that have it.
func (f *recipeFlags) toTarget(files []*frontend.File) error {
	if f.target == "" || slices.ContainsFunc(files, func(file *frontend.File) bool { return file.Target(f.target) }) {
		return nil
	}
	return usage.Errorf("--target=%s: no file has a stage of that name", f.target)
}

const buildArgUsage = "set an ARG by `NAME=VALUE`; NAME alone takes the value from the environment (repeatable)"

// paths returns the files of -f and of the arguments, which may be names.
func (f *recipeFlags) paths(cmd *cobra.Command, args []string) ([]string, error) {
	warn := func(text string) { f.warnings = append(f.warnings, text) }
	if len(args) == 0 {
		if len(f.Files) > 0 {
			return f.Files, nil
		}
		if names, at := settings.FilesOf(cmd.Context()).Project.Layers(); names != nil {
			return layers.Listed(filepath.Dir(at.File), names, at, warn)
		}
	}
	more, err := layers.Lookup(".", args, warn)
	if len(args) == 0 && err == nil && len(more) == 1 && more[0] == layers.Default(".") {
		more[0] = f.DefaultIn(".")
	}
	return append(f.Files, more...), err
}

func (f *recipeFlags) fill(ctx context.Context, opt *solver.Options) (err error) {
	for _, text := range f.warnings {
		opt.Report.Warn(text)
	}
	for _, v := range f.invalidateOn {
		if _, err := source.ParseRef(v); err != nil {
			return usage.Errorf("--invalidate-on %w", err)
		}
	}
	opt.BaseID, opt.Salts, opt.InvalidateOn = f.baseID, f.salts, f.invalidateOn
	if opt.BuildArgs, err = parse.BuildArgs(f.buildArgs); err != nil {
		return err
	}
	if opt.Probes, err = parse.Probes(f.probes); err != nil {
		return err
	}
	if opt.Agents, err = parse.Agents(f.agents); err != nil {
		return err
	}
	opt.Secrets, err = parse.Secrets(ctx, f.secrets)
	return err
}

// rootFlags say which root is changed, and when it is not.
type rootFlags struct {
	root, dest    string
	force, noWait bool
}

func (f *rootFlags) register(c *cobra.Command) {
	c.Flags().StringVar(&f.root, "root", "", "change the complete root file system in `DIR` instead of /")
	c.Flags().StringVar(&f.dest, "dest", "", "collect all changes in `DIR`, laid over the root for RUN; requires no privileges")
	c.Flags().BoolVar(&f.force, "force", false, "also undo removed steps where files have changed since")
	c.Flags().BoolVar(&f.noWait, "no-wait", false, "fail immediately if another solve is changing this root")
}

func (f *rootFlags) fill(opt *solver.Options) (err error) {
	opt.NoWait, opt.Force = f.noWait, f.force
	opt.Root, opt.Dest, err = parse.Root(f.root, f.dest)
	return err
}

// appliedFlags are for commands that look at what is applied, and need no
// Containerfile.
type appliedFlags struct {
	rootFlags
	outputFlags
}

func (f *appliedFlags) register(c *cobra.Command) {
	c.Flags().StringVar(&f.root, "root", "", "use the root file system in `DIR` instead of /")
	c.Flags().StringVar(&f.dest, "dest", "", "use the `DIR` that collected the changes")
	f.outputFlags.register(c)
}

func (f *appliedFlags) options(cmd *cobra.Command) (opt solver.Options, err error) {
	if err := f.show(cmd, &opt); err != nil {
		return opt, err
	}
	return opt, f.fill(&opt)
}

// sandboxFlags say how RUN runs.
type sandboxFlags struct {
	sandbox, compare string
	hermetic         bool
	inheritEnv       bool
	timeout          time.Duration
	jobs             int
}

func (f *sandboxFlags) register(c *cobra.Command) {
	c.Flags().StringVar(&f.sandbox, "sandbox", "auto", "`KIND` of isolation for RUN: auto, overlay, or inplace (none)")
	c.Flags().StringVar(&f.compare, "compare", "auto", "`METHOD` that finds what an in-place RUN changed: auto, ctime, or digest (reads every file)")
	c.Flags().BoolVar(&f.hermetic, "hermetic", false, "let RUN inherit only proxy and CA variables")
	c.Flags().BoolVar(&f.inheritEnv, "inherit-env", false, "let RUN inherit all variables of the session; what is built then has keys of its own")
	c.Flags().DurationVar(&f.timeout, "timeout", 0, "stop a RUN that takes longer than `DURATION`, such as 5m (default: no limit)")
	c.Flags().IntVar(&f.jobs, "jobs", 0, "maximum number `N` of parallel downloads, and of parallel chains of steps (default: at least 8)")
}

func (f *sandboxFlags) fill(opt *solver.Options) error {
	if !slices.Contains(sandbox.Kinds, f.sandbox) {
		return usage.Errorf("--sandbox=%s: want auto, overlay or inplace", f.sandbox)
	}
	compare, ok := map[string]sandbox.Compare{"auto": sandbox.CompareAuto, "ctime": sandbox.CompareCTime, "digest": sandbox.CompareDigest}[f.compare]
	if !ok {
		return usage.Errorf("--compare=%s: want auto, ctime or digest", f.compare)
	}
	if f.hermetic && f.inheritEnv {
		return usage.Errorf("--hermetic and --inherit-env don't go together")
	}
	opt.Hermetic, opt.InheritEnv = f.hermetic, f.inheritEnv
	if f.jobs < 0 {
		return usage.Errorf("--jobs=%d: want 0 or more", f.jobs)
	}
	opt.Sandbox, opt.Compare, opt.Timeout, opt.Jobs = f.sandbox, compare, f.timeout, f.jobs
	return nil
}

// snapshotFlags say how what is built is stored.
type snapshotFlags struct {
	compression           int
	noCache, requireCache bool
	push, shareMounts     bool
}

func (f *snapshotFlags) register(c *cobra.Command) {
	c.Flags().IntVar(&f.compression, "compression", snapshot.DefaultLevel, "zstd `LEVEL` of snapshots, from 1 (fastest) to 19; 9 and higher are slow")
	c.Flags().BoolVar(&f.noCache, "no-cache", false, "do not store what is built")
	c.Flags().BoolVar(&f.push, "push", false, "ask the other stores again what they lack of these layers, and push it; otherwise they are asked once a day")
	c.Flags().BoolVar(&f.shareMounts, "share-mounts", false, "pull cache mounts that are empty here from --store and --repo before RUN uses them, and push them when they have changed")
	c.Flags().BoolVar(&f.requireCache, "require-cache", false, "exit with 3 if a store fails")
}

func (f *snapshotFlags) fill(opt *solver.Options) error {
	if f.compression < 1 || f.compression > 19 {
		return usage.Errorf("--compression=%d: want a level from 1 to 19", f.compression)
	}
	if f.push && f.noCache {
		return usage.Errorf("--push and --no-cache don't go together")
	}
	opt.Push, opt.PushAgain, opt.ShareMounts, opt.Compression, opt.RequireCache = !f.noCache, f.push, f.shareMounts, f.compression, f.requireCache
	return nil
}

// outputFlags say what is printed, and how.
type outputFlags struct {
	progress    string
	quiet, json bool

	live     bool        // a terminal gets a live display
	untilRun bool        // which ends when the solve is done: the terminal is then the command's
	display  *ui.Display // opened by show
	record   *ui.Record
}

func (f *outputFlags) register(c *cobra.Command) {
	c.Flags().StringVar(&f.progress, "progress", "auto", "`MODE` of progress on stderr: auto, tty, plain, or json (one object per line)")
	c.Flags().BoolVarP(&f.quiet, "quiet", "q", false, "print only warnings and errors")
	c.Flags().BoolVar(&f.json, "json", false, "print the result as JSON")
}

// show opens the display, and has opt report to it.
func (f *outputFlags) show(cmd *cobra.Command, opt *solver.Options) (err error) {
	mode := f.progress
	switch {
	case f.quiet:
		mode = "quiet"
	case mode == "auto" && !f.live:
		mode = "plain"
	}
	if f.display, err = ui.New(mode, cmd.ErrOrStderr(), os.Environ()); err != nil {
		return usage.Error{Err: err}
	}
	f.record = ui.NewRecord(time.Now())
	opt.Report = report.New(func(e report.Event) {
		if f.untilRun && e.Kind == report.Done {
			f.hide()
		}
		f.record.Add(e)
		f.display.Show(e)
	})
	return nil
}

// hide removes the live display, if there is one.
func (f *outputFlags) hide() {
	if f.display != nil {
		f.display.Close()
	}
}

// note prints a line on stderr about what was done, unless --quiet.
func (f *outputFlags) note(cmd *cobra.Command, format string, args ...any) {
	if !f.quiet {
		fmt.Fprintf(cmd.ErrOrStderr(), "clayer: "+format+"\n", args...)
	}
}

// print writes a result to stdout: as JSON, or as text formats it.
func (f *outputFlags) print(cmd *cobra.Command, v any, text func(w io.Writer)) error {
	if f.json {
		return ui.WriteJSON(cmd.OutOrStdout(), v)
	}
	text(cmd.OutOrStdout())
	return nil
}
