package stores

import (
	"cmp"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/clayer/clayer/cache"
	"github.com/clayer/clayer/cache/git"
	"github.com/clayer/clayer/cache/github"
	"github.com/clayer/clayer/cache/oci"
	"github.com/clayer/clayer/cache/registry"
	"github.com/clayer/clayer/cache/transfer"
	"github.com/clayer/clayer/cache/web"
	"github.com/clayer/clayer/cmd/clayer/internal/usage"
	"github.com/clayer/clayer/solver"
)

// Transfer returns how bytes are moved, with what this process knows about its
// network.
func (o *Opener) Transfer() transfer.Options {
	if o.network == nil {
		o.network = transfer.NewNetwork(transfer.NetworkOptions{Offline: o.Offline, AllowPrivate: o.AllowRedirect, Waiting: o.Notices.Waiting})
	}
	return transfer.Options{UserAgent: "clayer", Network: o.network}
}

// GitHub returns the client for GitHub: with the token of --token, GH_TOKEN or
// GITHUB_TOKEN, at the server that GITHUB_API_URL and GITHUB_SERVER_URL name.
func (o *Opener) GitHub() (*github.Client, error) {
	if o.client != nil {
		return o.client, nil
	}
	answers, err := o.CacheDirectory()
	if err != nil {
		return nil, err
	}
	if answers != "" {
		answers = filepath.Join(answers, "github")
	}
	o.client, err = github.New(github.Options{
		APIURL: os.Getenv("GITHUB_API_URL"), ServerURL: os.Getenv("GITHUB_SERVER_URL"),
		Token:    strings.TrimSpace(cmp.Or(o.Token, os.Getenv("GH_TOKEN"), os.Getenv("GITHUB_TOKEN"))),
		Answers:  answers,
		ReadOnly: o.ReadOnly,
		Transfer: o.Transfer(),
	})
	if err != nil {
		return nil, usage.Error{Err: err}
	}
	return o.client, nil
}

// TokenName says where the token comes from; "" if there is none.
func (o *Opener) TokenName() string {
	if o.Token != "" {
		return "--token"
	}
	for _, name := range []string{"GH_TOKEN", "GITHUB_TOKEN"} {
		if os.Getenv(name) != "" {
			return name
		}
	}
	return ""
}

// Repository returns the repository that --repo names.
func (o *Opener) Repository() (github.Repo, error) { return parseRepo(o.Repo) }

func parseRepo(s string) (github.Repo, error) {
	repo, err := github.ParseRepo(s)
	if err != nil {
		err = usage.Errorf("--repo %w", err)
	}
	return repo, err
}

// registries returns the repositories that --store names, and the login for each
// registry.
func (o *Opener) registries() (map[string]registry.Repository, map[string]registry.Login, error) {
	all, logins := make(map[string]registry.Repository), make(map[string]registry.Login)
	for _, s := range o.Stores {
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
		if logins[ref.Registry], err = registry.FindLogin(ref, o.login(s, registry.UserVariable, registry.PasswordVariable)); err != nil {
			return nil, nil, usage.Error{Err: err}
		}
	}
	if len(logins) > 1 && o.ByProject.Stores == "" && os.Getenv(registry.PasswordVariable) != "" {
		return nil, nil, usage.Errorf("$%s is the password of one registry, and --store names %d: log in to each with docker login", registry.PasswordVariable, len(logins))
	}
	return all, logins, nil
}

// Registry returns the client of a repository of images, with the login that docker or podman
// saved for it: that of the variables is for the registry of a store.
func (o *Opener) Registry(ref registry.Repository) (*registry.Client, error) {
	login, err := registry.FindLogin(ref, func(name string) string {
		if name == registry.UserVariable || name == registry.PasswordVariable {
			return ""
		}
		return os.Getenv(name)
	})
	if err != nil {
		return nil, err
	}
	return registry.NewClient(ref, login, o.Transfer()), nil
}

// login returns where the login of a store is looked up. Variables that are for whichever
// server is named are not for one that a project's file names.
func (o *Opener) login(store string, variables ...string) func(string) string {
	if o.ByProject.Stores == "" {
		return os.Getenv
	}
	for _, name := range variables {
		if os.Getenv(name) != "" && !o.withheld {
			o.withheld = true
			o.Notices.Warn(fmt.Sprintf("%s names %s: $%s is not sent there; name the store yourself, with --store or CLAYER_STORE, or log in to that host", o.ByProject.Stores, transfer.RedactText(store), name))
		}
	}
	return func(name string) string {
		if slices.Contains(variables, name) {
			return ""
		}
		return os.Getenv(name)
	}
}

// A site is a web server with a store.
type site struct {
	at    *url.URL
	login web.Login
}

func isSite(s string) bool { return strings.HasPrefix(s, "https:") || strings.HasPrefix(s, "http:") }

// sites returns the web servers that --store names.
func (o *Opener) sites() (map[string]site, error) {
	all, hosts := make(map[string]site), make(map[string]bool)
	for _, s := range o.Stores {
		if !isSite(s) {
			continue
		}
		at, err := web.Parse(s)
		if err != nil {
			return nil, usage.Errorf("--store: %w", err)
		}
		login, err := web.FindLogin(at, o.login(s, web.HeaderVariable))
		if err != nil {
			return nil, usage.Error{Err: err}
		}
		all[s], hosts[at.Host] = site{at, login}, true
	}
	if len(hosts) > 1 && o.ByProject.Stores == "" && os.Getenv(web.HeaderVariable) != "" {
		return nil, usage.Errorf("$%s is for one server, and --store names %d: put their logins in ~/.netrc", web.HeaderVariable, len(hosts))
	}
	return all, nil
}

// credentials returns what no store that is not on this machine may get: the
// session's, those of --secret and --token, and the logins of registries, servers, branches and buckets.
func (o *Opener) credentials(secrets map[string]solver.Secret, logins map[string]registry.Login, sites map[string]site, branches map[string]git.Address, buckets map[string]bucket) ([]cache.Credential, error) {
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
	if o.Token != "" {
		environ = append(environ, "CLAYER_TOKEN="+o.Token)
	}
	for _, l := range logins {
		for _, v := range l.Secrets() {
			environ = append(environ, registry.PasswordVariable+"="+v)
		}
	}
	for _, x := range sites {
		for _, v := range x.login.Secrets() {
			environ = append(environ, "CLAYER_HTTPS_SECRET="+v)
		}
	}
	for _, a := range branches {
		for _, v := range a.Secrets() {
			environ = append(environ, "GIT_PASSWORD="+v)
		}
	}
	for _, b := range buckets {
		for _, v := range b.login.Secrets() {
			environ = append(environ, "AWS_SECRET_ACCESS_KEY="+v)
		}
	}
	return cache.Credentials(environ, files, o.AllowSecrets)
}
