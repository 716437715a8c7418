package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/clayer/clayer/cache"
	"github.com/clayer/clayer/cache/dir"
	"github.com/clayer/clayer/cache/ghrelease"
	"github.com/clayer/clayer/cache/github"
	"github.com/clayer/clayer/cache/oci"
	"github.com/clayer/clayer/cache/snapshot"
	"github.com/clayer/clayer/cache/transfer"
	"github.com/clayer/clayer/cmd/clayer/internal/ui"
	"github.com/clayer/clayer/internal/errhint"
	"github.com/clayer/clayer/internal/safefile"
	"github.com/clayer/clayer/internal/sizes"
	"github.com/clayer/clayer/solver"
	"github.com/clayer/clayer/solver/layers"
	"github.com/clayer/clayer/solver/report"
	"github.com/clayer/clayer/solver/sandbox"
	"github.com/clayer/clayer/solver/source"
)

// storeFlags say where snapshots are kept.
type storeFlags struct {
	cacheDir, cacheSize string
	stores              []string
	repo, token         string
	allowSecrets        []string
	offline             bool
	allowRedirect       []string

	readOnly bool // nothing is written beside what is asked for
	makesDir bool // what is built is kept: the cache directory is made
	client   *github.Client
	network  *transfer.Network // of all clients of this process
	found    bool              // folder has looked
	dirFound string            // what it found
}

func (f *storeFlags) register(c *cobra.Command) {
	c.Flags().StringVar(&f.cacheDir, "cache-dir", "", "store snapshots, downloads and cache mounts in `DIR` (default $XDG_CACHE_HOME/clayer)")
	c.Flags().StringVar(&f.cacheSize, "cache-size", "10GiB", "maximum `SIZE` of the snapshots there; the least recently used are removed first")
	c.Flags().StringArrayVar(&f.stores, "store", nil, "add a `STORE`, asked after the one in --cache-dir: dir:PATH, or oci:HOST/REPOSITORY in a registry (repeatable)")
	c.Flags().StringVar(&f.repo, "repo", "", "store snapshots in the GitHub Releases of `OWNER/REPO`, asked after the other stores")
	c.Flags().StringVar(&f.token, "token", "", "GitHub `TOKEN`; prefer GH_TOKEN or GITHUB_TOKEN, which other users of the machine cannot read")
	c.Flags().StringSliceVar(&f.allowRedirect, "allow-redirect", nil, "follow redirects from public servers to `HOST` at a private address, such as a registry's storage in a VPC (repeatable)")
	c.Flags().BoolVar(&f.offline, "offline", false, "send no requests: use the stores on this machine and sources that were fetched before")
	c.Flags().StringArrayVar(&f.allowSecrets, "allow-secret", nil, "push snapshots even if they contain the value of the variable or --secret `NAME` (repeatable)")
}

// transfer returns how bytes are moved, with what this process knows about its
// network.
func (f *storeFlags) transfer(t tell) transfer.Options {
	if f.network == nil {
		f.network = transfer.NewNetwork(transfer.NetworkOptions{Offline: f.offline, AllowPrivate: f.allowRedirect, Waiting: t.waiting})
	}
	return transfer.Options{UserAgent: "clayer", Network: f.network}
}

// github returns the client for GitHub: with the token of --token, GH_TOKEN or
// GITHUB_TOKEN, at the server that GITHUB_API_URL and GITHUB_SERVER_URL name.
func (f *storeFlags) github(t tell) (*github.Client, error) {
	if f.client != nil {
		return f.client, nil
	}
	answers, err := f.folder(t)
	if err != nil {
		return nil, err
	}
	if answers != "" {
		answers = filepath.Join(answers, "github")
	}
	f.client, err = github.New(github.Options{
		APIURL: os.Getenv("GITHUB_API_URL"), ServerURL: os.Getenv("GITHUB_SERVER_URL"),
		Token:    strings.TrimSpace(cmp.Or(f.token, os.Getenv("GH_TOKEN"), os.Getenv("GITHUB_TOKEN"))),
		Answers:  answers,
		ReadOnly: f.readOnly,
		Transfer: f.transfer(t),
	})
	if err != nil {
		return nil, usageError{err}
	}
	return f.client, nil
}

// releases returns the store of --repo, which no credential of the session
// gets into.
func (f *storeFlags) releases(t tell, credentials []cache.Credential) (cache.Store, error) {
	repo, err := github.ParseRepo(f.repo)
	if err != nil {
		return nil, usagef("--repo %w", err)
	}
	client, err := f.github(t)
	if err != nil {
		return nil, err
	}
	temp, err := f.temp(t)
	if err != nil {
		return nil, err
	}
	return cache.Guarded(ghrelease.New(client, repo, ghrelease.Options{Temp: temp, Warn: t.warn}), credentials), nil
}

// credentials returns what no store that is not on this machine may get: the
// session's, those of --secret and --token, and the logins of registries.
func (f *storeFlags) credentials(secrets map[string]solver.Secret, logins map[string]oci.Login) ([]cache.Credential, error) {
	files := make(map[string]string)
	environ := os.Environ()
	for id, s := range secrets {
		if s.File != "" {
			files[id] = s.File
		} else if s.Content != nil {
			environ = append(environ, id+"_SECRET="+string(s.Content))
		} else if v, ok := os.LookupEnv(s.Env); ok {
			environ = append(environ, id+"_SECRET="+v)
		}
	}
	if f.token != "" {
		environ = append(environ, "CLAYER_TOKEN="+f.token)
	}
	for _, l := range logins {
		for _, v := range l.Secrets() {
			environ = append(environ, oci.PasswordVariable+"="+v)
		}
	}
	return cache.Credentials(environ, files, f.allowSecrets)
}

// registries returns the repositories that --store names, and who asks there.
func (f *storeFlags) registries() (map[string]oci.Repository, map[string]oci.Login, error) {
	all, logins := make(map[string]oci.Repository), make(map[string]oci.Login)
	for _, s := range f.stores {
		name, ok := strings.CutPrefix(s, "oci:")
		if !ok {
			continue
		}
		ref, err := oci.ParseRepository(name)
		if err != nil {
			return nil, nil, usagef("--store=oci: %w", err)
		}
		all[s] = ref
		if _, ok := logins[ref.Registry]; ok {
			continue
		}
		if logins[ref.Registry], err = oci.FindLogin(ref, os.Getenv); err != nil {
			return nil, nil, usageError{err}
		}
	}
	if len(logins) > 1 && os.Getenv(oci.PasswordVariable) != "" {
		return nil, nil, usagef("$%s is the password of one registry, and --store names %d: log in to each with docker login", oci.PasswordVariable, len(logins))
	}
	return all, logins, nil
}

// tell is who is told of stores that fail, and of what a user should know.
type tell struct {
	failed  func(store string, err error)
	warn    func(text string)
	waiting func(text string) // for what; nil prints nothing
}

// open returns the stores in order, the local one first.
func (f *storeFlags) open(t tell, secrets map[string]solver.Secret) (tier *cache.Tier, local *dir.Dir, err error) {
	var stores []cache.Store
	if local, err = f.local(t); err != nil {
		return nil, nil, err
	}
	if local != nil {
		stores = append(stores, local)
	}
	far, err := f.far(t, secrets)
	if err != nil {
		return nil, nil, err
	}
	return cache.Tiered(t.failed, append(stores, far...)...), local, nil
}

// local returns the store in --cache-dir, and nil, told, for one that fails: a
// store that fails fails no build.
func (f *storeFlags) local(t tell) (*dir.Dir, error) {
	folder, err := f.folder(t)
	if folder == "" || err != nil {
		return nil, err
	}
	return f.dir(filepath.Join(folder, "store"), true, t)
}

// dir returns the store in a directory. A private one is in the cache directory: its
// name is not the user's, so it must not lead elsewhere.
func (f *storeFlags) dir(path string, private bool, t tell) (*dir.Dir, error) {
	size, ok := sizes.Parse(f.cacheSize, 1000)
	if !ok {
		return nil, usagef("--cache-size: %q is no size: want a number with B, kB, MB, GB, KiB, MiB or GiB", f.cacheSize)
	}
	d, err := dir.Open(path, dir.Options{MaxSize: size, Private: private})
	if err != nil {
		t.failed("dir:"+path, err)
		return nil, nil
	}
	return d, nil
}

// far returns the stores that --store and --repo name. No credential gets into
// those that are not on this machine.
func (f *storeFlags) far(t tell, secrets map[string]solver.Secret) ([]cache.Store, error) {
	repositories, logins, err := f.registries()
	if err != nil {
		return nil, err
	}
	var credentials []cache.Credential
	if len(repositories) > 0 || f.repo != "" {
		if credentials, err = f.credentials(secrets, logins); err != nil {
			return nil, err
		}
	}
	var stores []cache.Store
	for _, s := range f.stores {
		if ref, ok := repositories[s]; ok {
			temp, err := f.temp(t)
			if err != nil {
				return nil, err
			}
			if !f.offline {
				opt := oci.Options{Login: logins[ref.Registry], Temp: temp, Transfer: f.transfer(t)}
				if len(repositories) > 1 {
					opt.Name = s
				}
				stores = append(stores, cache.Guarded(oci.New(ref, opt), credentials))
			}
			continue
		}
		if err := checkStore(s); err != nil {
			return nil, err
		}
		d, err := f.dir(strings.TrimPrefix(s, "dir:"), false, t)
		if err != nil {
			return nil, err
		}
		if d != nil {
			stores = append(stores, d)
		}
	}
	if f.repo != "" && !f.offline {
		s, err := f.releases(t, credentials)
		if err != nil {
			return nil, err
		}
		stores = append(stores, s)
	}
	return stores, nil
}

// checkStore reports what is wrong with a value of --store.
func checkStore(s string) error {
	if name, ok := strings.CutPrefix(s, "oci:"); ok {
		if _, err := oci.ParseRepository(name); err != nil {
			return usagef("--store=oci: %w", err)
		}
		return nil
	}
	if path, ok := strings.CutPrefix(s, "dir:"); !ok || path == "" {
		return usagef("--store=%s: want dir:PATH or oci:HOST/REPOSITORY", s)
	}
	return nil
}

// solveFlags say what to solve, and how.
type solveFlags struct {
	storeFlags
	files, names                []string
	root, dest                  string
	baseID                      string
	salts, buildArgs, secrets   []string
	invalidateOn                []string
	sandbox, compare, progress  string
	timeout                     time.Duration
	jobs, compression           int
	hermetic, requireCache      bool
	profile                     bool
	noCache, noWait, quiet, yes bool
	force                       bool
	json, dryRun                bool
	trace                       string

	notes    []string    // warnings of what came before the options
	live     bool        // a terminal gets a live display
	handOver bool        // which ends when the solve is done
	display  *ui.Display // of the options that were made
	record   *ui.Record
}

// show opens the display, and returns what reports to it.
func (f *solveFlags) show(cmd *cobra.Command) (*report.Reporter, error) {
	mode := f.progress
	switch {
	case f.quiet:
		mode = "quiet"
	case mode == "auto" && !f.live:
		mode = "plain"
	}
	d, err := ui.New(mode, cmd.ErrOrStderr(), os.Environ())
	if err != nil {
		return nil, usageError{err}
	}
	f.display, f.record = d, ui.NewRecord(time.Now())
	return report.New(func(e report.Event) {
		if f.handOver && e.Kind == report.Done {
			f.hide()
		}
		f.record.Add(e)
		d.Show(e)
	}), nil
}

// hide takes the live display away, if there is one.
func (f *solveFlags) hide() {
	if f.display != nil {
		f.display.Close()
	}
}

func (f *solveFlags) register(c *cobra.Command) {
	f.storeFlags.register(c)
	fl := c.Flags()
	fl.StringArrayVar(&f.names, "name", nil, "name the layer `NAME`; with several files, NAME:PATH")
	fl.StringVar(&f.root, "root", "", "change the complete root file system in `DIR` instead of /")
	fl.StringVar(&f.dest, "dest", "", "collect all changes in `DIR`, laid over the root for RUN; requires no privileges")
	fl.StringVar(&f.baseID, "base-id", "", "extra `TEXT` mixed into every cache key, to tell machines of one platform apart")
	fl.StringArrayVar(&f.salts, "salt", nil, "extra `TEXT` mixed into every cache key (repeatable)")
	fl.StringArrayVar(&f.invalidateOn, "invalidate-on", nil, "rebuild when the commit of `OWNER/REPO[@REF]` changes (repeatable)")
	fl.StringArrayVar(&f.buildArgs, "build-arg", nil, "set an ARG by `NAME=VALUE`; NAME alone takes the value from the environment (repeatable)")
	fl.StringArrayVar(&f.secrets, "secret", nil, "provide a secret for RUN --mount=type=secret by `id=ID[,src=FILE|,env=NAME]` (repeatable)")
	fl.StringVar(&f.sandbox, "sandbox", "auto", "`KIND` of isolation for RUN: auto, overlay, or inplace (none)")
	fl.StringVar(&f.compare, "compare", "auto", "`METHOD` that finds what an in-place RUN changed: auto, ctime, or digest (reads every file)")
	fl.BoolVar(&f.hermetic, "hermetic", false, "let RUN inherit only PATH, HOME, LANG, TERM, proxy and CA variables")
	fl.DurationVar(&f.timeout, "timeout", 0, "stop a RUN that takes longer than `DURATION`, such as 5m (default: no limit)")
	fl.IntVar(&f.jobs, "jobs", 0, "maximum number `N` of parallel downloads, and of parallel chains of steps (default: at least 8)")
	fl.IntVar(&f.compression, "compression", snapshot.DefaultLevel, "zstd `LEVEL` of snapshots, from 1 (fastest) to 19; 9 and higher are slow")
	fl.BoolVar(&f.noCache, "no-cache", false, "do not store what is built")
	fl.BoolVar(&f.requireCache, "require-cache", false, "exit with 3 if a store fails")
	fl.BoolVar(&f.force, "force", false, "also undo removed steps where files have changed since")
	fl.BoolVar(&f.noWait, "no-wait", false, "fail immediately if another solve is changing this root")
	fl.StringVar(&f.progress, "progress", "auto", "`MODE` of progress on stderr: auto, tty, plain, or json (one object per line)")
	fl.BoolVarP(&f.quiet, "quiet", "q", false, "print only warnings and errors")
	fl.BoolVar(&f.json, "json", false, "print the result as JSON")
}

// registerRoot is register for commands that want a root and nothing else.
func (f *solveFlags) registerRoot(c *cobra.Command) {
	fl := c.Flags()
	fl.StringVar(&f.root, "root", "", "use the root file system in `DIR` instead of /")
	fl.StringVar(&f.dest, "dest", "", "use the `DIR` that collected the changes")
	fl.StringVar(&f.progress, "progress", "auto", "`MODE` of progress on stderr: auto, tty, plain, or json (one object per line)")
	fl.BoolVarP(&f.quiet, "quiet", "q", false, "print only warnings and errors")
	fl.BoolVar(&f.json, "json", false, "print the result as JSON")
}

// rootOptions makes the options of a command that takes a root and nothing else.
func (f *solveFlags) rootOptions(cmd *cobra.Command) (opt solver.Options, err error) {
	if opt.Report, err = f.show(cmd); err != nil {
		return opt, err
	}
	opt.NoWait, opt.Force = f.noWait, f.force
	opt.Root, opt.Dest, err = roots(f.root, f.dest)
	return opt, err
}

func (f *solveFlags) registerFiles(c *cobra.Command) {
	c.Flags().StringArrayVarP(&f.files, "file", "f", nil, "read the Containerfile `FILE`, or - for stdin; several are composed in order (default: Containerfile)")
	// Completion offers files by default.
}

func (f *solveFlags) registerYes(c *cobra.Command) {
	c.Flags().BoolVarP(&f.yes, "yes", "y", false, "change / even if this machine does not look ephemeral")
	c.Flags().BoolVar(&f.profile, "profile", false, "also write /etc/profile.d/clayer.sh, which sets the environment in login shells")
}

// options makes the options of a solve of the Containerfiles at paths.
func (f *solveFlags) options(cmd *cobra.Command, paths []string) (opt solver.Options, err error) {
	if !slices.Contains(sandbox.Kinds, f.sandbox) {
		return opt, usagef("--sandbox=%s: want auto, overlay or inplace", f.sandbox)
	}
	compare, ok := map[string]sandbox.Compare{"auto": sandbox.CompareAuto, "ctime": sandbox.CompareCTime, "digest": sandbox.CompareDigest}[f.compare]
	if !ok {
		return opt, usagef("--compare=%s: want auto, ctime or digest", f.compare)
	}
	if f.compression < 1 || f.compression > 19 {
		return opt, usagef("--compression=%d: want a level from 1 to 19", f.compression)
	}
	if f.sandbox == "inplace" && f.dest != "" {
		return opt, usagef("--sandbox=inplace changes the root itself, and --dest is to leave it alone: leave one of them out")
	}
	reporter, err := f.show(cmd)
	if err != nil {
		return opt, err
	}
	names, err := layerNames(f.names, paths)
	if err != nil {
		return opt, err
	}
	for _, v := range f.invalidateOn {
		if _, err := source.ParseRef(v); err != nil {
			return opt, usagef("--invalidate-on %w", err)
		}
	}
	opt = solver.Options{
		InvalidateOn: f.invalidateOn,
		Root:         f.root, Dest: f.dest,
		BaseID: f.baseID, Salts: f.salts,
		Environ: os.Environ(), Hermetic: f.hermetic, Sandbox: f.sandbox, Compare: compare,
		Timeout: f.timeout, Jobs: f.jobs,
		Push: !f.noCache, Compression: f.compression, RequireCache: f.requireCache, NoWait: f.noWait, Force: f.force,
		Profile: f.profile,
		Report:  reporter,
	}
	for _, text := range f.notes {
		reporter.Warn(text)
	}
	if opt.Root, opt.Dest, err = roots(f.root, f.dest); err != nil {
		return opt, err
	}
	if opt.BuildArgs, err = buildArgs(f.buildArgs); err != nil {
		return opt, err
	}
	if opt.Secrets, err = secrets(cmd.Context(), f.secrets); err != nil {
		return opt, err
	}
	t := tell{reporter.StoreFailed, reporter.Warn, reporter.Waiting}
	f.makesDir = !f.readOnly
	if opt.Cache, err = f.folder(t); err != nil {
		return opt, err
	}
	store, local, err := f.storeFlags.open(t, opt.Secrets)
	if err != nil {
		return opt, err
	}
	if opt.GitHub, err = f.github(t); err != nil {
		return opt, err
	}
	if f.repo != "" {
		repo, err := github.ParseRepo(f.repo)
		if err != nil {
			return opt, usagef("--repo %w", err)
		}
		client := opt.GitHub
		opt.LegacyURL = func(tag string) string { return client.DownloadURL(repo, tag, layers.LegacyAsset) }
	}
	opt.Store = store
	if local != nil {
		opt.Spool = local.Create
	}
	opt.Files, err = layers.Load(cmd.Context(), paths, names)
	if err != nil {
		err = solver.AllProblems(cmd.Context(), opt, err)
	}
	return opt, err
}

func roots(root, dest string) (string, string, error) {
	if root != "" && dest != "" {
		return "", "", usagef("--root and --dest don't go together")
	}
	for flag, path := range map[string]*string{"--root": &root, "--dest": &dest} {
		if *path == "" {
			continue
		}
		abs, err := filepath.Abs(*path)
		if err != nil {
			return "", "", err
		}
		*path = abs
		info, err := os.Stat(abs)
		switch {
		case err == nil && !info.IsDir():
			return "", "", usagef("%s %s: not a folder", flag, abs)
		case err != nil && flag == "--root":
			return "", "", errhint.With(usagef("--root %s: %w", *path, pathless(err)), "--root changes a root file system that is there, --dest makes a folder")
		case abs == "/" && flag == "--dest":
			return "", "", usagef("--dest /: give a folder of its own, or no --dest to change / itself")
		}
	}
	return root, dest, nil
}

// pathless is the error of a system call without its name and path, for a text
// that has named the path.
func pathless(err error) error {
	var pe *fs.PathError
	if errors.As(err, &pe) {
		return pe.Err
	}
	return err
}

// layerNames reads --name: NAME for a single file, NAME:PATH for one of several.
func layerNames(flags, paths []string) (map[string]string, error) {
	names := make(map[string]string)
	for _, v := range flags {
		name, path, ok := strings.Cut(v, ":")
		if !ok {
			if len(paths) != 1 || len(flags) != 1 {
				return nil, usagef("--name %s: of several files, say which: --name %s:PATH", v, v)
			}
			path = paths[0]
		}
		if name == "" || strings.Trim(name, "abcdefghijklmnopqrstuvwxyz0123456789_-") != "" {
			return nil, usagef("--name %s: a layer's name is made of a-z, 0-9, _ and -", v)
		}
		found := false
		for _, p := range paths {
			if filepath.Clean(p) == filepath.Clean(path) {
				names[p], found = name, true
			}
		}
		if !found {
			return nil, usagef("--name %s: %s is none of the files given", v, path)
		}
	}
	return names, nil
}

func buildArgs(flags []string) (map[string]string, error) {
	args := make(map[string]string)
	for _, v := range flags {
		name, value, ok := strings.Cut(v, "=")
		if name == "" {
			return nil, usagef("--build-arg %s: want NAME=value", v)
		}
		if !ok {
			if value, ok = os.LookupEnv(name); !ok {
				continue
			}
		}
		args[name] = value
	}
	return args, nil
}

// secrets reads --secret as docker buildx does. Without src and env it is the
// variable of that name, else the file.
func secrets(ctx context.Context, flags []string) (map[string]solver.Secret, error) {
	all := make(map[string]solver.Secret)
	for _, v := range flags {
		var id, typ string
		var s solver.Secret
		for part := range strings.SplitSeq(v, ",") {
			key, value, _ := strings.Cut(part, "=")
			switch key {
			case "id":
				id = value
			case "src", "source":
				s.File = value
			case "env":
				s.Env = value
			case "type":
				typ = value
			default:
				return nil, usagef("--secret: %q is none of id=, src=, env=, type=", key)
			}
		}
		if id == "" {
			return nil, usagef("--secret: id= is missing")
		}
		if typ == "env" && s.Env == "" {
			s.Env, s.File = s.File, ""
		}
		if s.Env == "" && s.File == "" {
			if _, ok := os.LookupEnv(id); ok {
				s.Env = id
			} else {
				s.File = id
			}
		}
		if _, ok := safefile.IsInput(s.File); ok { // a pipe: it can be read once
			content, err := safefile.ReadInput(ctx, s.File, solver.MaxSecret)
			if err != nil {
				return nil, fmt.Errorf("--secret id=%s: %w", id, err)
			}
			s.File, s.Content = "", append([]byte{}, content...)
		}
		if s.File != "" {
			abs, err := filepath.Abs(s.File)
			if err != nil {
				return nil, err
			}
			file, err := safefile.Open(abs)
			if err != nil {
				return nil, usagef("--secret id=%s: %s: %w", id, s.File, pathless(err))
			}
			file.Close()
			s.File = abs
		}
		all[id] = s
	}
	return all, nil
}
