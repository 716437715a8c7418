package main

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/clayer/clayer/cache"
	"github.com/clayer/clayer/cache/dir"
	"github.com/clayer/clayer/cache/ghrelease"
	"github.com/clayer/clayer/cache/github"
	"github.com/clayer/clayer/cache/oci"
	"github.com/clayer/clayer/cache/transfer"
	"github.com/clayer/clayer/cmd/clayer/internal/usage"
	"github.com/clayer/clayer/internal/safefile"
	"github.com/clayer/clayer/internal/sizes"
	"github.com/clayer/clayer/solver"
	"github.com/clayer/clayer/solver/layers"
)

// storeFlags say which stores are used.
type storeFlags struct {
	cacheDir, cacheSize string
	stores              []string
	repo, token         string
	allowSecrets        []string
	offline             bool
	allowRedirect       []string

	readOnly bool    // nothing is written except what the command is asked to write
	create   bool    // the cache directory is created, to store what is built
	notices  notices // what is reported while stores are opened and used

	client  *github.Client
	network *transfer.Network // of all clients of this process
	located bool              // cacheDirectory has looked
	cache   string            // what it found
}

// notices receive what a user should know about stores.
type notices struct {
	storeFailed func(store string, err error)
	warn        func(text string)
	waiting     func(text string) // for what; nil prints nothing
}

// printed are the notices of a command that has no progress.
func printed(cmd *cobra.Command) notices {
	warn := func(text string) { fmt.Fprintf(cmd.ErrOrStderr(), "clayer: warning: %s\n", text) }
	return notices{
		storeFailed: func(store string, err error) { warn(fmt.Sprintf("store %s: %v", store, err)) },
		warn:        warn,
		waiting:     func(text string) { fmt.Fprintf(cmd.ErrOrStderr(), "clayer: waiting for %s\n", text) },
	}
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

// fill opens the stores for opt, whose secrets no store on the network gets.
func (f *storeFlags) fill(opt *solver.Options) (err error) {
	f.create = !f.readOnly
	if opt.Cache, err = f.cacheDirectory(); err != nil {
		return err
	}
	if opt.Local, err = f.local(); err != nil {
		return err
	}
	if opt.Stores, err = f.named(opt.Secrets); err != nil {
		return err
	}
	if opt.GitHub, err = f.github(); err != nil || f.repo == "" {
		return err
	}
	repo, err := parseRepo(f.repo)
	client := opt.GitHub
	opt.LegacyURL = func(tag string) string { return client.DownloadURL(repo, tag, layers.LegacyAsset) }
	return err
}

// selected returns the stores that a command of clayer cache works on: those that
// --store and --repo name, or the local one if they name none.
func (f *storeFlags) selected() (*cache.Tier, error) {
	if f.namesStores() {
		stores, err := f.reachable(nil)
		return cache.Tiered(f.notices.storeFailed, stores...), err
	}
	local, err := f.usableLocal()
	return cache.Tiered(f.notices.storeFailed, local), err
}

func (f *storeFlags) namesStores() bool { return f.repo != "" || len(f.stores) > 0 }

// reachable returns the stores that --store and --repo name. There is at least one.
func (f *storeFlags) reachable(secrets map[string]solver.Secret) ([]cache.Store, error) {
	stores, err := f.named(secrets)
	if err == nil && len(stores) == 0 && f.offline {
		err = usage.Errorf("--offline: --repo and --store name no store on this machine")
	}
	return stores, err
}

// usableLocal returns the local store, for a command that cannot do without it.
func (f *storeFlags) usableLocal() (*dir.Dir, error) {
	local, err := f.local()
	if err == nil && local == nil {
		err = errReported
	}
	return local, err
}

// local returns the store in --cache-dir. One that cannot be used is reported, and
// is nil: a store that fails fails no build.
func (f *storeFlags) local() (*dir.Dir, error) {
	path, err := f.cacheDirectory()
	if path == "" || err != nil {
		return nil, err
	}
	return f.dir(filepath.Join(path, "store"), true)
}

// dir returns the store in a directory. A private one is in the cache directory: its
// name is not the user's, so it must not lead elsewhere.
func (f *storeFlags) dir(path string, private bool) (*dir.Dir, error) {
	size, ok := sizes.Parse(f.cacheSize, 1000)
	if !ok {
		return nil, usage.Errorf("--cache-size: %q is no size: want a number with B, kB, MB, GB, KiB, MiB or GiB", f.cacheSize)
	}
	d, err := dir.Open(path, dir.Options{MaxSize: size, Private: private})
	if err != nil {
		f.notices.storeFailed("dir:"+path, err)
		return nil, nil
	}
	return d, nil
}

// named returns the stores that --store and --repo name, in this order. No
// credential gets into those that are not on this machine.
func (f *storeFlags) named(secrets map[string]solver.Secret) (stores []cache.Store, err error) {
	if err := checkStores(f.stores, f.repo); err != nil {
		return nil, err
	}
	repositories, logins, err := f.registries()
	if err != nil {
		return nil, err
	}
	var credentials []cache.Credential
	var temp string
	if len(repositories) > 0 || f.repo != "" {
		if credentials, err = f.credentials(secrets, logins); err != nil {
			return nil, err
		}
		if temp, err = f.temp(); err != nil {
			return nil, err
		}
	}
	for _, s := range f.stores {
		path, ok := strings.CutPrefix(s, "dir:")
		ref := repositories[s]
		switch {
		case ok:
			d, err := f.dir(path, false)
			if err != nil {
				return nil, err
			}
			if d != nil {
				stores = append(stores, d)
			}
		case !f.offline:
			opt := oci.Options{Login: logins[ref.Registry], Temp: temp, Transfer: f.transfer()}
			if len(repositories) > 1 {
				opt.Name = s
			}
			stores = append(stores, cache.Guarded(oci.New(ref, opt), credentials))
		}
	}
	if f.repo == "" || f.offline {
		return stores, nil
	}
	client, err := f.github()
	if err != nil {
		return nil, err
	}
	repo, err := parseRepo(f.repo)
	releases := ghrelease.New(client, repo, ghrelease.Options{Temp: temp, Warn: f.notices.warn})
	return append(stores, cache.Guarded(releases, credentials)), err
}

// checkStores reports what is wrong with the values of --store and --repo.
func checkStores(stores []string, repo string) error {
	for _, s := range stores {
		if name, ok := strings.CutPrefix(s, "oci:"); ok {
			if _, err := oci.ParseRepository(name); err != nil {
				return usage.Errorf("--store=oci: %w", err)
			}
		} else if path, ok := strings.CutPrefix(s, "dir:"); !ok || path == "" {
			return usage.Errorf("--store=%s: want dir:PATH or oci:HOST/REPOSITORY", s)
		}
	}
	if repo == "" {
		return nil
	}
	_, err := parseRepo(repo)
	return err
}

func parseRepo(s string) (github.Repo, error) {
	repo, err := github.ParseRepo(s)
	if err != nil {
		err = usage.Errorf("--repo %w", err)
	}
	return repo, err
}

// registries returns the repositories that --store names, and the login for each
// registry.
func (f *storeFlags) registries() (map[string]oci.Repository, map[string]oci.Login, error) {
	all, logins := make(map[string]oci.Repository), make(map[string]oci.Login)
	for _, s := range f.stores {
		name, ok := strings.CutPrefix(s, "oci:")
		if !ok {
			continue
		}
		ref, err := oci.ParseRepository(name)
		if err != nil {
			return nil, nil, usage.Errorf("--store=oci: %w", err)
		}
		all[s] = ref
		if _, ok := logins[ref.Registry]; ok {
			continue
		}
		if logins[ref.Registry], err = oci.FindLogin(ref, os.Getenv); err != nil {
			return nil, nil, usage.Error{Err: err}
		}
	}
	if len(logins) > 1 && os.Getenv(oci.PasswordVariable) != "" {
		return nil, nil, usage.Errorf("$%s is the password of one registry, and --store names %d: log in to each with docker login", oci.PasswordVariable, len(logins))
	}
	return all, logins, nil
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

// transfer returns how bytes are moved, with what this process knows about its
// network.
func (f *storeFlags) transfer() transfer.Options {
	if f.network == nil {
		f.network = transfer.NewNetwork(transfer.NetworkOptions{Offline: f.offline, AllowPrivate: f.allowRedirect, Waiting: f.notices.waiting})
	}
	return transfer.Options{UserAgent: "clayer", Network: f.network}
}

// github returns the client for GitHub: with the token of --token, GH_TOKEN or
// GITHUB_TOKEN, at the server that GITHUB_API_URL and GITHUB_SERVER_URL name.
func (f *storeFlags) github() (*github.Client, error) {
	if f.client != nil {
		return f.client, nil
	}
	answers, err := f.cacheDirectory()
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
		Transfer: f.transfer(),
	})
	if err != nil {
		return nil, usage.Error{Err: err}
	}
	return f.client, nil
}

// tokenName says where the token comes from; "" if there is none.
func (f *storeFlags) tokenName() string {
	if f.token != "" {
		return "--token"
	}
	for _, name := range []string{"GH_TOKEN", "GITHUB_TOKEN"} {
		if os.Getenv(name) != "" {
			return name
		}
	}
	return ""
}

// temp returns the directory for blobs that are being read; "" for the system's.
func (f *storeFlags) temp() (string, error) {
	if f.readOnly {
		return "", nil
	}
	path, err := f.cacheDirectory()
	if path == "" || err != nil {
		return "", err
	}
	return filepath.Join(path, "tmp"), nil
}

// cacheDirectory returns the directory for snapshots, downloads and cache mounts;
// "" if there is none. It is looked for once.
//
// A directory that --cache-dir names is used, whoever owns it: its contents are
// verified. Nobody has named the default one: another user may have created it, for
// clayer to read from or to write through. That one is reported, and not used.
func (f *storeFlags) cacheDirectory() (path string, err error) {
	if f.located {
		return f.cache, nil
	}
	if f.cacheDir != "" {
		path, err = f.namedDirectory()
	} else {
		path, err = f.defaultDirectory()
	}
	if err != nil {
		return "", err
	}
	f.located, f.cache = true, path
	return path, nil
}

// namedDirectory returns the directory of --cache-dir, which may be a link.
func (f *storeFlags) namedDirectory() (string, error) {
	path, err := filepath.Abs(f.cacheDir)
	if err != nil {
		return "", err
	}
	if real, err := filepath.EvalSymlinks(path); err == nil {
		path = real
	}
	if info, err := os.Lstat(path); err == nil && !info.IsDir() {
		f.notices.storeFailed("dir", fmt.Errorf("%s: not a directory", path))
		return "", nil
	}
	return path, nil
}

func (f *storeFlags) defaultDirectory() (string, error) {
	base, err := os.UserCacheDir()
	if err != nil {
		return "", usage.Errorf("cannot locate the cache directory: %w (use --cache-dir)", err)
	}
	path := filepath.Join(base, "clayer")
	if f.create && safefile.MakeAll(base, 0o755) == nil {
		// Create it now rather than at the first write, so that no other user can be
		// first. It is private: a snapshot holds what the root hides from other users.
		_ = safefile.MakeAll(path, 0o700) // the first write reports what is wrong
	}
	dir, err := safefile.OpenDir(path)
	if errors.Is(err, fs.ErrNotExist) {
		return path, nil
	}
	if err == nil {
		defer dir.Close()
		err = safefile.CheckDir(dir)
	}
	if err != nil {
		f.notices.storeFailed("dir", fmt.Errorf("%w; the cache directory is not used (--cache-dir DIR uses DIR, whoever owns it)", err))
		return "", nil
	}
	return path, nil
}
