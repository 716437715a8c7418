package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/clayer/clayer/internal/githubtest"
)

// onEnd is a githubtest.TB.
type onEnd struct{ end []func() }

func (o *onEnd) Errorf(format string, args ...any) { fmt.Fprintf(os.Stderr, format+"\n", args...) }
func (o *onEnd) Cleanup(f func())                  { o.end = append(o.end, f) }

func (o *onEnd) run() {
	for _, f := range o.end {
		f()
	}
}

// github starts a GitHub on loopback with a repository, me/env.
func github(tb *onEnd) *githubtest.Server {
	gh := githubtest.New(tb)
	gh.Repo("me/env", githubtest.Repo{})
	gh.Token("token-of-the-bench", "write")
	for k, v := range map[string]string{"GITHUB_API_URL": gh.URL, "GITHUB_SERVER_URL": gh.URL, "GH_TOKEN": "token-of-the-bench"} {
		os.Setenv(k, v)
	}
	return gh
}

// delay is how far away the GitHub of the cold path is.
const delay = 30 * time.Millisecond

// cold restores one tree on a machine that has nothing of it, over a link of so many MB a second.
func (b *bench) cold(name string, rate int64) error {
	var tb onEnd
	defer tb.run()
	gh := github(&tb)
	file, out := b.path("cold/Containerfile"), b.path("cold/out")
	if err := write(file, fmt.Appendf(nil, "RUN mkdir -p /opt && cp -a %s /opt/tree\n", b.path(name))); err != nil {
		return err
	}
	solve := func(binary, cache string) (usage, error) {
		u, err := command(binary, "solve", "--sandbox=overlay", "--repo=me/env", "--cache-dir="+cache, "--dest="+out, "-f", file)
		u.rss = 0
		return u, err
	}
	away := b.path("cold/away")
	if err := errors.Join(b.fresh(away), b.fresh(out)); err != nil {
		return err
	}
	if _, err := solve(b.clayer, away); err != nil { // builds and pushes
		return err
	}
	bytes := treeSize(away)
	gh.Rate, gh.Latency = rate<<20, delay
	fresh := func() error { return errors.Join(b.fresh(away), b.fresh(out)) }
	list := b.both("clayer solve", func(binary string) *contender {
		return &contender{prepare: fresh, run: func() (usage, error) { return solve(binary, away) }}
	})
	note := fmt.Sprintf("Nothing is stored here; %d MB come from a GitHub %v away. The transfer alone takes %.2f s.", bytes>>20, delay, float64(bytes)/float64(rate<<20))
	return b.alternate(fmt.Sprintf("The cold path of %s at %d MB/s", name, rate), note, list)
}

// treeSize returns the bytes of all files of a directory.
func treeSize(dir string) (n int64) {
	_ = filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			if info, err := d.Info(); err == nil {
				n += info.Size()
			}
		}
		return nil
	})
	return n
}

// composing composes all trees as layers from a GitHub on loopback that sends no faster than so
// many MB a second, into an empty directory and with no local store; beside it are the
// same from a local store, and curl and tar, one tree after the other.
func (b *bench) composing(trees []string, megabytes int64) error {
	var tb onEnd
	defer tb.run()
	gh := github(&tb)
	rate := megabytes << 20
	files := make(map[string][]byte)
	layers, out, store, away := b.path("layers"), b.path("out"), b.path("store"), b.path("away")
	if err := os.MkdirAll(layers, 0o755); err != nil {
		return err
	}
	for _, name := range trees {
		tree := b.path(name)
		text := fmt.Sprintf("RUN mkdir -p /opt && cp -a %s /opt/%s\n", tree, name)
		if err := os.WriteFile(filepath.Join(layers, "Containerfile."+strings.ToLower(name)), []byte(text), 0o644); err != nil {
			return err
		}
		tarred := b.path(name + ".tar.gz")
		if _, err := command("tar", "-C", tree, "-czf", tarred, "."); err != nil {
			return err
		}
		data, err := os.ReadFile(tarred)
		if err != nil {
			return err
		}
		files[name+".tar.gz"] = data
		if err := os.Remove(tarred); err != nil {
			return err
		}
	}
	gh.Release("me/env", "tars", files)
	compose := func(binary, from string, more ...string) func() (usage, error) {
		args := append([]string{binary, "compose", "--sandbox=overlay", "--cache-dir=" + from, "--dest=" + out}, more...)
		for _, name := range trees {
			args = append(args, filepath.Join(layers, "Containerfile."+strings.ToLower(name)))
		}
		return func() (usage, error) {
			u, err := command(args...)
			u.rss = 0 // it begins as that of this process, which has a GitHub in it
			return u, err
		}
	}
	repo := []string{"--repo=me/env"}
	if err := errors.Join(os.RemoveAll(store), os.RemoveAll(out), os.MkdirAll(out, 0o755)); err != nil {
		return err
	}
	if _, err := compose(b.clayer, store, repo...)(); err != nil { // builds and pushes
		return err
	}
	gh.Rate = rate
	fresh := func() error {
		return errors.Join(b.fresh(away), b.fresh(out))
	}
	var bytes int64
	for _, name := range trees {
		bytes += int64(len(files[name+".tar.gz"]))
	}
	stored := treeSize(store)
	list := append(b.both("clayer compose", func(binary string) *contender {
		return &contender{prepare: fresh, run: compose(binary, away, repo...)}
	}), []*contender{
		{name: "the same, local store", prepare: fresh, run: compose(b.clayer, store)},
		{name: "curl, then tar -xzf", prepare: fresh, run: func() (usage, error) {
			var all usage
			for _, name := range trees {
				script := fmt.Sprintf("mkdir -p %[1]s/%[2]s && curl -fsSL -o %[1]s/t %[3]s/me/env/releases/download/tars/%[2]s.tar.gz && tar -C %[1]s/%[2]s -xzf %[1]s/t && rm %[1]s/t", out, name, gh.URL)
				u, err := command("sh", "-c", script)
				if err != nil {
					return all, err
				}
				all.wall, all.cpu = all.wall+u.wall, all.cpu+u.cpu
			}
			return all, nil
		}},
	}...)
	note := fmt.Sprintf("%d MB of snapshots; the transfer alone takes %.2f s, that of the tar.gz %.2f s.", stored>>20, float64(stored)/float64(rate), float64(bytes)/float64(rate))
	if err := b.alternate(fmt.Sprintf("Composing %s at %d MB/s", strings.Join(trees, ", "), megabytes), note, list, "curl, then tar -xzf", "the same, local store"); err != nil {
		return err
	}
	return fresh()
}
