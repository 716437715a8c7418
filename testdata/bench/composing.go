package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/clayer/clayer/internal/githubtest"
)

// rate is what the GitHub of composing sends, in bytes a second.
const rate = 100 << 20

// onEnd is a githubtest.TB.
type onEnd struct{ end []func() }

func (o *onEnd) Errorf(format string, args ...any) { fmt.Fprintf(os.Stderr, format+"\n", args...) }
func (o *onEnd) Cleanup(f func())                  { o.end = append(o.end, f) }

// composing composes all trees as layers from a GitHub on loopback that sends no
// faster than rate, into an empty folder and with no local store; beside it are the
// same from a local store, and curl and tar, one tree after the other.
func (b *bench) composing(trees []string) error {
	var tb onEnd
	gh := githubtest.New(&tb)
	defer func() {
		for _, f := range tb.end {
			f()
		}
	}()
	gh.Repo("me/env", githubtest.Repo{})
	gh.Token("token-of-the-bench", "write")
	for k, v := range map[string]string{"GITHUB_API_URL": gh.URL, "GITHUB_SERVER_URL": gh.URL, "GH_TOKEN": "token-of-the-bench"} {
		os.Setenv(k, v)
	}
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
	compose := func(from string, more ...string) func() (usage, error) {
		args := append([]string{b.clayer, "compose", "--sandbox=overlay", "--cache-dir=" + from, "--dest=" + out}, more...)
		for _, name := range trees {
			args = append(args, filepath.Join(layers, "Containerfile."+strings.ToLower(name)))
		}
		return func() (usage, error) {
			u, err := command(args...)
			u.rss = 0 // it begins as that of this process, which has a GitHub in it
			return u, err
		}
	}
	github := []string{"--repo=me/env"}
	if err := errors.Join(os.RemoveAll(store), os.RemoveAll(out), os.MkdirAll(out, 0o755)); err != nil {
		return err
	}
	if _, err := compose(store, github...)(); err != nil { // builds and pushes
		return err
	}
	gh.Rate = rate
	fresh := func() error {
		return errors.Join(b.fresh(away), b.fresh(out))
	}
	before := len(gh.Asked())
	var bytes int64
	for _, name := range trees {
		bytes += int64(len(files[name+".tar.gz"]))
	}
	list := []*contender{
		{name: "clayer compose", prepare: fresh, run: compose(away, github...)},
		{name: "the same, local store", prepare: fresh, run: compose(store)},
		{name: "curl, then tar -xzf", prepare: fresh, run: func() (usage, error) {
			var all usage
			for _, name := range trees {
				start := time.Now()
				script := fmt.Sprintf("mkdir -p %[1]s/%[2]s && curl -fsSL -o %[1]s/t %[3]s/me/env/releases/download/tars/%[2]s.tar.gz && tar -C %[1]s/%[2]s -xzf %[1]s/t && rm %[1]s/t", out, name, gh.URL)
				if text, err := exec.Command("sh", "-c", script).CombinedOutput(); err != nil {
					return all, fmt.Errorf("curl and tar: %w\n%s", err, text)
				}
				all.wall += time.Since(start)
			}
			return all, nil
		}},
	}
	if err := b.alternate("composing "+strings.Join(trees, ", "), list, "curl, then tar -xzf", "the same, local store"); err != nil {
		return err
	}
	size, err := exec.Command("du", "-sb", store).Output()
	if err == nil {
		var n int64
		fmt.Sscan(string(size), &n)
		fmt.Printf("  %d MB of snapshots at %d MB/s: %.2f s; tars: %.2f s; %d requests\n\n", n>>20, rate>>20, float64(n)/rate, float64(bytes)/rate, len(gh.Asked())-before)
	}
	return fresh()
}
