// Package stores opens the stores that flags name.
package stores

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"github.com/clayer/clayer/cache"
	"github.com/clayer/clayer/cache/dir"
	"github.com/clayer/clayer/cache/gha"
	"github.com/clayer/clayer/cache/ghrelease"
	"github.com/clayer/clayer/cache/git"
	"github.com/clayer/clayer/cache/github"
	"github.com/clayer/clayer/cache/oci"
	"github.com/clayer/clayer/cache/s3"
	"github.com/clayer/clayer/cache/transfer"
	"github.com/clayer/clayer/cache/web"
	"github.com/clayer/clayer/cmd/clayer/internal/usage"
	"github.com/clayer/clayer/internal/sizes"
	"github.com/clayer/clayer/solver"
	"github.com/clayer/clayer/solver/layers"
	"github.com/clayer/clayer/solver/machine"
)

// An Opener opens stores. Its fields are what flags say; they are set before a method
// is called. What is opened is used by one command.
type Opener struct {
	CacheDir      string   // of snapshots, downloads and cache mounts; "" for the default
	CacheSize     string   // the most that snapshots may take there
	Stores        []string // dir:PATH, oci:HOST/REPOSITORY, s3://BUCKET/PREFIX, git:URL, gha: or https://HOST/PATH
	Repo          string   // owner/repo: its GitHub Releases are a store; "" for none
	Token         string   // for GitHub; "" for that of the environment
	AllowSecrets  []string // names of secrets that snapshots may contain
	Offline       bool     // no requests are sent
	Sync          Sync     // when what is done outlives a loss of power
	AllowRedirect []string // hosts at private addresses that public servers may redirect to

	ByProject ByProject // what a project's file names

	FirstAnswer time.Duration // how long a store may take to answer at all; 0 means 20 seconds

	Yes      bool    // a branch may be made in the repository that the working directory is a clone of
	ReadOnly bool    // nothing is written except what the command is asked to write
	Reads    bool    // stores are read, or removed from: a directory that is not there is a mistake
	Notices  Notices // what is reported while stores are opened and used

	create    bool // the cache directory is created, to store what is built
	client    *github.Client
	network   *transfer.Network // of all clients of this process
	dirs      []*dir.Dir        // that are opened
	guard     *cache.Withheld   // what stores get no snapshots of
	withheld  bool              // a login was not sent to a store of ByProject, and the user knows
	located   bool              // CacheDirectory has looked
	directory string            // what it found
}

// ByProject says where a project's clayer.toml sets Stores and Repo; "" where it does not.
// Whoever wrote the project names these: a login goes there only if it is for that host.
type ByProject struct{ Stores, Repo string }

// ConfineToProject leaves out the stores that a project's file names, where a Containerfile is
// not the project's: its snapshots would come from there, and go there.
func (o *Opener) ConfineToProject(outside string) {
	if outside == "" || o.ByProject == (ByProject{}) {
		return
	}
	o.Notices.Warn(fmt.Sprintf("the stores of %s are not used: %s is not in that project", cmp.Or(o.ByProject.Stores, o.ByProject.Repo), outside))
	if o.ByProject.Stores != "" {
		o.Stores = nil
	}
	if o.ByProject.Repo != "" {
		o.Repo = ""
	}
	o.ByProject = ByProject{}
}

// Notices receive what a user should know about stores.
type Notices struct {
	StoreFailed func(store string, err error)
	Warn        func(text string)
	Waiting     func(text string) // for what; nil prints nothing
}

// Fill opens the stores for opt, whose secrets no store on the network gets.
func (o *Opener) Fill(opt *solver.Options) (err error) {
	o.create = !o.ReadOnly
	if opt.Cache, err = o.CacheDirectory(); err != nil {
		return err
	}
	if opt.Local, err = o.Local(); err != nil {
		return err
	}
	if opt.Stores, err = o.Named(opt.Secrets); err != nil {
		return err
	}
	opt.Withheld = o.guard
	opt.Registry = o.Registry
	if opt.GitHub, err = o.GitHub(); err != nil || o.Repo == "" {
		return err
	}
	repo, err := o.Repository()
	client := opt.GitHub
	opt.LegacyURL = func(tag string) string { return client.DownloadURL(repo, tag, layers.LegacyAsset) }
	return err
}

// Selected returns the stores that a command of clayer cache works on: those that
// --store and --repo name, or the local one if they name none.
func (o *Opener) Selected() (*cache.Tier, error) {
	if o.NamesStores() {
		stores, err := o.Reachable(nil)
		return cache.Tiered(o.Notices.StoreFailed, stores...), err
	}
	local, err := o.UsableLocal()
	return cache.Tiered(o.Notices.StoreFailed, local), err
}

// ErrUnnamed says that a command copies to or from stores, and none is named.
var ErrUnnamed = usage.Errorf("which store? give --repo owner/repo, --store dir:PATH, --store oci:HOST/REPOSITORY, --store s3://BUCKET/PREFIX, --store git:URL, --store gha: or --store https://HOST/PATH")

// NamesStores reports whether --store or --repo is given.
func (o *Opener) NamesStores() bool { return o.Repo != "" || len(o.Stores) > 0 }

// Reachable returns the stores that --store and --repo name. There is at least one.
func (o *Opener) Reachable(secrets map[string]solver.Secret) ([]cache.Store, error) {
	stores, err := o.Named(secrets)
	if err == nil && len(stores) == 0 && o.Offline {
		err = usage.Errorf("--offline: --repo and --store name no store on this machine")
	}
	return stores, err
}

// UsableLocal returns the local store, for a command that cannot do without it.
func (o *Opener) UsableLocal() (*dir.Dir, error) {
	local, err := o.Local()
	if err == nil && local == nil {
		err = usage.ErrReported
	}
	return local, err
}

// Local returns the store in --cache-dir. One that cannot be used is reported, and
// is nil: a store that fails fails no build.
func (o *Opener) Local() (*dir.Dir, error) {
	path, err := o.CacheDirectory()
	if path == "" || err != nil {
		return nil, err
	}
	return o.dir(filepath.Join(path, "store"), true)
}

// dir returns the store in a directory. A private one is in the cache directory: its
// name is not the user's, so it must not lead elsewhere.
func (o *Opener) dir(path string, private bool) (*dir.Dir, error) {
	size, ok := sizes.Parse(o.CacheSize, 1000)
	if !ok {
		return nil, usage.Errorf("--cache-size: %q is no size: want a number with B, kB, MB, GB, KiB, MiB or GiB", o.CacheSize)
	}
	if _, err := os.Stat(path); errors.Is(err, os.ErrNotExist) && !private && (o.ReadOnly || o.Reads) {
		o.Notices.StoreFailed("dir:"+path, errors.New("no such directory"))
		return nil, nil
	}
	how := machine.Durability(os.Environ(), o.Sync.Setting())
	d, err := dir.Open(path, dir.Options{MaxSize: size, Private: private, Durability: how})
	if err != nil {
		o.Notices.StoreFailed("dir:"+path, err)
		return nil, nil
	}
	o.dirs = append(o.dirs, d)
	return d, nil
}

// Settle is called when a command has ended: what it has put into directories outlives a
// loss of power then.
func (o *Opener) Settle() {
	for _, d := range o.dirs {
		if err := d.Settle(); err != nil {
			o.Notices.StoreFailed(d.Location(), err)
		}
	}
}

// Sync is the value of --no-sync. It is a pflag.Value; what was not given leaves it to the
// file systems.
type Sync struct{ setting solver.Durability }

// Setting returns what was asked for.
func (s *Sync) Setting() solver.Durability { return s.setting }

// Set sets it: false asks for a sync of each change, "end" for one at the end.
func (s *Sync) Set(text string) error {
	if text == "end" {
		s.setting = solver.SyncAtEnd
		return nil
	}
	never, err := strconv.ParseBool(text)
	s.setting = solver.SyncAlways
	if never {
		s.setting = solver.SyncNever
	}
	return err
}

// String returns the value as text.
func (s *Sync) String() string { return strconv.FormatBool(s.setting == solver.SyncNever) }

// Type returns that of the value.
func (s *Sync) Type() string { return "bool" }

// IsBoolFlag says that the flag needs no value.
func (s *Sync) IsBoolFlag() bool { return true }

// Register registers the flag.
func (s *Sync) Register(flags *pflag.FlagSet) {
	flags.VarPF(s, "no-sync", "", "leave it to the system when changes are written to the disk; =false has each written at once (default: by the file system, see clayer status)").NoOptDefVal = "true"
}

// Named returns the stores that --store and --repo name, in this order. No
// credential gets into them.
func (o *Opener) Named(secrets map[string]solver.Secret) (stores []cache.Store, err error) {
	if err := Check(o.Stores, o.Repo); err != nil {
		return nil, err
	}
	repositories, logins, err := o.registries()
	if err != nil {
		return nil, err
	}
	sites, err := o.sites()
	if err != nil {
		return nil, err
	}
	branches, err := o.branches()
	if err != nil {
		return nil, err
	}
	buckets, err := o.buckets()
	if err != nil {
		return nil, err
	}
	usesActions := slices.Contains(o.Stores, actions)
	var credentials []cache.Credential
	var temp string
	if o.NamesStores() || len(secrets) > 0 { // what is built for no store may be put into one later
		if credentials, err = o.credentials(secrets, logins, sites, branches, buckets); err != nil {
			return nil, err
		}
	}
	directory, err := o.CacheDirectory()
	if err != nil {
		return nil, err
	}
	notes := ""
	if directory != "" {
		notes = filepath.Join(directory, "withheld")
	}
	o.guard = cache.OpenWithheld(notes, credentials, o.AllowSecrets)
	if len(repositories) > 0 || len(sites) > 0 || len(buckets) > 0 || len(branches) > 0 || usesActions || o.Repo != "" {
		if temp, err = o.temp(); err != nil {
			return nil, err
		}
	}
	for _, s := range o.Stores {
		path, isDir := strings.CutPrefix(s, "dir:")
		ref := repositories[s]
		addr, isGit := branches[s]
		bucket, isBucket := buckets[s]
		switch {
		case isDir:
			d, err := o.dir(path, false)
			if err != nil {
				return nil, err
			}
			if d != nil { // others may read it, or a machine that mounts it
				stores = append(stores, o.guard.Guard(d))
			}
		case o.Offline && !addr.IsLocal():
		case sites[s].at != nil:
			opt := web.Options{Login: sites[s].login, Temp: temp, Transfer: o.Transfer()}
			if len(sites) > 1 {
				opt.Name = s
			}
			stores = append(stores, web.New(sites[s].at, opt))
		case s == actions:
			login, err := gha.FindLogin(os.Getenv)
			if err != nil {
				o.Notices.StoreFailed("gha", err)
				continue
			}
			stores = append(stores, o.guard.Guard(gha.New(login, gha.Options{Temp: temp, Transfer: o.Transfer()})))
		case isBucket:
			opt := s3.Options{Temp: temp, Transfer: o.Transfer()}
			if len(buckets) > 1 {
				opt.Name = bucket.at.String()
			}
			stores = append(stores, o.guard.Guard(s3.New(bucket.at, bucket.login, opt)))
		case isGit:
			opt := git.Options{Temp: temp, Yes: o.Yes, Warn: o.Notices.Warn, Transfer: o.Transfer()}
			if len(branches) > 1 {
				opt.Name = addr.String()
			}
			stores = append(stores, o.guard.Guard(git.New(addr, opt)))
		default:
			opt := oci.Options{Login: logins[ref.Registry], Temp: temp, Transfer: o.Transfer()}
			if len(repositories) > 1 {
				opt.Name = s
			}
			stores = append(stores, o.guard.Guard(oci.New(ref, opt)))
		}
	}
	if o.Repo != "" && !o.Offline {
		client, err := o.GitHub()
		if err != nil {
			return nil, err
		}
		repo, err := o.Repository()
		if err != nil {
			return nil, err
		}
		releases := ghrelease.New(client, repo, ghrelease.Options{Temp: temp, Warn: o.Notices.Warn})
		stores = append(stores, o.guard.Guard(releases))
	}
	for i, s := range stores {
		if !strings.HasPrefix(s.Location(), "dir:") {
			stores[i] = cache.Bounded(s, cmp.Or(o.FirstAnswer, firstAnswer), o.Transfer().Network.Left)
		}
	}
	return stores, nil
}

// actions is the store in the cache service of the job that this process is a part of.
const actions = "gha:"

// firstAnswer is how long a store may take to answer at all, before the next one in the
// chain is asked.
const firstAnswer = 20 * time.Second

// Check reports what is wrong with the values of --store and --repo.
func Check(stores []string, repo string) error {
	for _, s := range stores {
		if name, ok := strings.CutPrefix(s, "oci:"); ok {
			if _, err := oci.ParseRepository(name); err != nil {
				return usage.Errorf("--store=oci: %w", err)
			}
		} else if isSite(s) {
			if _, err := web.Parse(s); err != nil {
				return usage.Errorf("--store: %w", err)
			}
		} else if addr, ok := strings.CutPrefix(s, "git:"); ok {
			if _, err := git.ParseAddress(addr); err != nil {
				return usage.Errorf("--store=git: %w", err)
			}
		} else if isBucket(s) {
			if _, err := s3.ParseAddress(s); err != nil {
				return usage.Errorf("--store: %w", err)
			}
		} else if path, ok := strings.CutPrefix(s, "dir:"); s != actions && (!ok || path == "") {
			return usage.Errorf("--store=%s: want dir:PATH, oci:HOST/REPOSITORY, s3://BUCKET/PREFIX, git:URL, gha: or https://HOST/PATH", s)
		}
	}
	if repo == "" {
		return nil
	}
	_, err := parseRepo(repo)
	return err
}
