package delta_test

import (
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/clayer/clayer/internal/gittest"
	"github.com/clayer/clayer/internal/hosttest"
	"github.com/clayer/clayer/internal/ocitest"
	"github.com/clayer/clayer/internal/s3test"
)

// TestBump measures what travels when a package of a tree changes. CLAYER_BUMP is a directory
// with the trees old and new, and the program clayer; docs/performance.md has the figures.
func TestBump(t *testing.T) {
	bump := os.Getenv("CLAYER_BUMP")
	if bump == "" {
		t.Skip("CLAYER_BUMP is not set")
	}
	slow := hosttest.Link{Rate: 10_000_000, Latency: 30 * time.Millisecond}
	// Each starts a server, to which the function that it returns opens a way.
	type open func(link hosttest.Link) (relay *hosttest.Relay, store string, environ []string)
	for name, start := range map[string]func(t *testing.T) open{
		"git": func(t *testing.T) open {
			srv := gittest.New(t, gittest.Options{})
			url, err := srv.Repository("env.git")
			if err != nil {
				t.Fatal(err)
			}
			return func(link hosttest.Link) (*hosttest.Relay, string, []string) {
				r := hosttest.NewRelay(t, url, link)
				return r, "git:" + r.URL, nil
			}
		},
		"s3": func(t *testing.T) open {
			g := s3test.New(t)
			if err := g.Bucket("bucket"); err != nil {
				t.Fatal(err)
			}
			return func(link hosttest.Link) (*hosttest.Relay, string, []string) {
				r := hosttest.NewRelay(t, g.URL, link)
				return r, "s3://bucket/p", []string{"AWS_ENDPOINT_URL=" + r.URL, "AWS_ACCESS_KEY_ID=" + s3test.KeyID, "AWS_SECRET_ACCESS_KEY=" + s3test.Secret, "AWS_REGION=us-east-1"}
			}
		},
		"oci": func(t *testing.T) open {
			reg := ocitest.New(t, ocitest.Options{})
			return func(link hosttest.Link) (*hosttest.Relay, string, []string) {
				r := hosttest.NewRelay(t, "http://"+reg.Host, link)
				return r, "oci:" + strings.TrimPrefix(r.URL, "http://") + "/me/env", nil
			}
		},
		"https": func(t *testing.T) open {
			dir := t.TempDir()
			srv := httptest.NewServer(http.FileServer(http.Dir(dir)))
			t.Cleanup(srv.Close)
			return func(link hosttest.Link) (*hosttest.Relay, string, []string) {
				r := hosttest.NewRelay(t, srv.URL, link)
				if link.Rate == 0 {
					return r, "dir:" + dir, nil
				}
				return r, r.URL, nil
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			open := start(t)
			builder, other := t.TempDir(), t.TempDir()
			for _, m := range []struct {
				does, tree, cache string
				link              hosttest.Link
			}{
				{"builds the old tree", "old", builder, hosttest.Link{}},
				{"builds the new tree", "new", builder, hosttest.Link{}},
				{"restores the old tree", "old", other, slow},
				{"restores the new tree, the old one near", "new", other, slow},
				{"restores the new tree, nothing near", "new", t.TempDir(), slow},
			} {
				relay, store, environ := open(m.link)
				began := time.Now()
				solve(t, bump, m.tree, m.cache, store, environ)
				t.Logf("%-40s %6.1f MB up %6.1f MB down %5.1f s", m.does, float64(relay.Up.Load())/1e6, float64(relay.Down.Load())/1e6, time.Since(began).Seconds())
			}
		})
	}
}

func solve(t *testing.T, bump, tree, cache, store string, environ []string) {
	t.Helper()
	project := t.TempDir()
	if err := os.Symlink(filepath.Join(bump, tree), filepath.Join(project, "tree")); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(project, "Containerfile")
	if err := os.WriteFile(file, []byte("COPY site /opt/site\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(filepath.Join(bump, "clayer"), "solve", "-f", file, "--context", filepath.Join(bump, tree), "--root", t.TempDir(), "--cache-dir", cache, "--store", store)
	cmd.Env = append(append(os.Environ(), environ...), "GIT_CONFIG_GLOBAL=/dev/null", "HOME="+t.TempDir())
	out, err := cmd.CombinedOutput()
	t.Logf("%s", out)
	if err != nil {
		t.Fatal(err)
	}
}
