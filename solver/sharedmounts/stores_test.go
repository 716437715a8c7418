//go:build linux

package sharedmounts

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

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
	"github.com/clayer/clayer/internal/ghatest"
	"github.com/clayer/clayer/internal/githubtest"
	"github.com/clayer/clayer/internal/gittest"
	"github.com/clayer/clayer/internal/ocitest"
	"github.com/clayer/clayer/internal/s3test"
)

var quick = transfer.Options{Retries: 2}

// stores are all kinds that can be written. Each returns a function that opens the store as a
// new session does.
var stores = map[string]func(t *testing.T) func() cache.Store{
	"dir": func(t *testing.T) func() cache.Store {
		path := t.TempDir()
		return func() cache.Store {
			d, err := dir.Open(path, dir.Options{MaxSize: 1 << 30})
			return must(t, d, err)
		}
	},
	"oci": func(t *testing.T) func() cache.Store {
		r := ocitest.New(t, ocitest.Options{})
		ref, err := oci.ParseRepository(r.Host + "/me/env")
		must(t, ref, err)
		return func() cache.Store { return oci.New(ref, oci.Options{Temp: t.TempDir(), Transfer: quick}) }
	},
	"s3": func(t *testing.T) func() cache.Store {
		f := s3test.NewFake(t)
		at, err := s3.ParseAddress("s3://bucket/env")
		must(t, at, err)
		environ := map[string]string{"AWS_ENDPOINT_URL_S3": f.URL, "AWS_ACCESS_KEY_ID": s3test.KeyID, "AWS_SECRET_ACCESS_KEY": s3test.Secret}
		login, err := s3.FindLogin(at, func(name string) string { return environ[name] })
		must(t, login, err)
		return func() cache.Store { return s3.New(at, login, s3.Options{Temp: t.TempDir(), Transfer: quick}) }
	},
	"git": func(t *testing.T) func() cache.Store {
		srv := gittest.New(t, gittest.Options{Filter: true})
		url, err := srv.Repository("env.git")
		addr, perr := git.ParseAddress(must(t, url, err))
		must(t, addr, perr)
		return func() cache.Store {
			return git.New(addr, git.Options{Temp: t.TempDir(), Dir: t.TempDir(), Transfer: quick, PushRate: 1000})
		}
	},
	"releases":           releases(githubtest.Repo{}),
	"immutable releases": releases(githubtest.Repo{Immutable: true}),
	"gha": func(t *testing.T) func() cache.Store {
		environ := map[string]string{gha.URLVariable: ghatest.New(t).URL + "/", gha.TokenVariable: ghatest.Token, "GITHUB_REPOSITORY": "me/env"}
		login, err := gha.FindLogin(func(name string) string { return environ[name] })
		must(t, login, err)
		return func() cache.Store { return gha.New(login, gha.Options{Temp: t.TempDir(), Transfer: quick}) }
	},
}

func releases(opt githubtest.Repo) func(t *testing.T) func() cache.Store {
	return func(t *testing.T) func() cache.Store {
		srv := githubtest.New(t)
		srv.Token("token", "write")
		_ = srv.Repo("me/env", opt)
		repo := github.Repo{Owner: "me", Name: "env"}
		return func() cache.Store {
			c, err := github.New(github.Options{APIURL: srv.URL, ServerURL: srv.URL, Token: "token", Pace: -1, Transfer: quick})
			return ghrelease.New(must(t, c, err), repo, ghrelease.Options{Temp: t.TempDir()})
		}
	}
}

func must[T any](t *testing.T, v T, err error) T {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// In every kind of store the newest content counts, and what it replaces goes, more often than
// a layer may be built again there.
func TestEveryStore(t *testing.T) {
	for name, make := range stores {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			open := make(t)
			a, b := newMounts(t), newMounts(t)
			a.write(t, "uv", map[string]string{"archive/one": "first"})
			times := 3
			if strings.HasSuffix(name, "releases") {
				times = 23 // a layer has 20 tags
			}
			for i := range times {
				a.write(t, "uv", map[string]string{"archive/number": fmt.Sprint(i)})
				if !a.push(t, open(), "uv") {
					t.Fatalf("content %d was not sent", i)
				}
			}
			if a.push(t, open(), "uv") {
				t.Error("equal content was sent again")
			}
			a.write(t, "npm", map[string]string{"x": "y"})
			a.push(t, open(), "npm")
			b.pull(t, open(), "uv")
			if got := b.read(t, "uv", "archive/number"); got != fmt.Sprint(times-1) {
				t.Errorf("pulled content %q, want the newest", got)
			}
			list, err := List(t.Context(), open())
			if errors.Is(err, cache.ErrUnlisted) {
				return
			}
			if err != nil || len(list) != 2 || list[0].ID != "npm" || list[1].ID != "uv" {
				t.Fatalf("listed %v, %v", list, err)
			}
			if all, err := open().List(t.Context()); err != nil || len(all) != 2 {
				t.Errorf("%d manifests stay, %v, want 2", len(all), err)
			}
			if removed, _, err := Remove(t.Context(), open(), []string{"uv"}); err != nil || len(removed) != 1 {
				t.Errorf("removed %v, %v", removed, err)
			}
			if _, _, err := b.Find(t.Context(), []cache.Store{open()}, "uv", func(_ cache.Store, err error) { t.Error(err) }); !errors.Is(err, cache.ErrNotCached) {
				t.Errorf("after it was removed: %v", err)
			}
			if _, _, err := b.Find(t.Context(), []cache.Store{open()}, "npm", func(_ cache.Store, err error) { t.Error(err) }); err != nil {
				t.Errorf("the other mount: %v", err)
			}
		})
	}
}

// What a directory store has is read from a web server, and of what was replaced nothing stays.
func TestDirectory(t *testing.T) {
	path := t.TempDir()
	d, err := dir.Open(path, dir.Options{MaxSize: 1 << 30})
	must(t, d, err)
	a, b := newMounts(t), newMounts(t)
	for i := range 3 {
		a.write(t, "uv", map[string]string{"n": fmt.Sprint(i)})
		a.push(t, d, "uv")
	}
	blobs, err := filepath.Glob(filepath.Join(path, "blobs", "sha256", "*"))
	if err != nil || len(blobs) != 3 { // snapshot, manifest, config
		t.Errorf("%d blobs stay, %v, want 3", len(blobs), err)
	}
	srv := serveFiles(t, path)
	at, err := web.Parse(srv)
	must(t, at, err)
	b.pull(t, web.New(at, web.Options{Temp: t.TempDir(), Transfer: quick}), "uv")
	if got := b.read(t, "uv", "n"); got != "2" {
		t.Errorf("pulled %q", got)
	}
	p := a.pack(t, "uv")
	defer p.Close()
	if _, err := p.Push(t.Context(), web.New(at, web.Options{Temp: t.TempDir(), Transfer: quick}), func() { t.Error("sent") }); !errors.Is(err, cache.ErrReadOnly) {
		t.Errorf("pushed to a web server: %v", err)
	}
}
