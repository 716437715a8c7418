package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/clayer/clayer/cmd/clayer/internal/doctest"
	"github.com/clayer/clayer/internal/s3test"
	"github.com/clayer/clayer/internal/testexec"
)

// mostNotRun is how many blocks may be left out, each with a reason.
const mostNotRun = 7

// TestDocs runs every block of commands of README.md and docs/*.md, those of a
// page in one shell, in a directory that holds testdata/docs/common and what stands
// in testdata/docs/PAGE, for README.md testdata/hello. The root that is changed is a
// small one of the test's own; GitHub is one on loopback, with the repository
// me/env, and so is the service with buckets; apt-get, pip, uv, npm, python3 and mojo are pretended. Where a block shows
// output it is compared, but for times, sizes and digests; a line "..." stands for
// any lines. TestDocsInACheckout and TestEndToEndDocs pretend nothing.
func TestDocs(t *testing.T) {
	t.Parallel()
	requireMounts(t)
	pages, err := filepath.Glob(filepath.Join("..", "..", "docs", "*.md"))
	if err != nil {
		t.Fatal(err)
	}
	binary := clayerProgram(t) // a shim runs the program that made it
	notRun := 0
	for _, page := range append(pages, filepath.Join("..", "..", "README.md")) {
		var blocks []doctest.Block
		for _, b := range doctest.Blocks(t, page) {
			if b.Not != "" {
				notRun++
			}
			if b.NextMachine {
				b.Before = "clayer undo -q && rm -r \"$CLAYER_CACHE_DIR\"\n" + b.Before
			}
			if b.Not == "" && !b.WithGo {
				blocks = append(blocks, b)
			}
		}
		if len(blocks) == 0 {
			continue
		}
		t.Run(filepath.Base(page), func(t *testing.T) {
			d := newDocs(t, strings.TrimSuffix(filepath.Base(page), ".md"), binary)
			doctest.Follow(t, blocks, d.dir, d.bash)
		})
	}
	if notRun > mostNotRun {
		t.Errorf("%d blocks are not run, at most %d may be", notRun, mostNotRun)
	}
}

// docs is where the commands of a page run.
type docs struct {
	*workspace
	t   *testing.T
	env []string
}

func newDocs(t *testing.T, page, binary string) *docs {
	w := newWorkspace(t)
	d := &docs{workspace: w, t: t}
	doctest.Files(t, filepath.Join("..", "..", "testdata"), page, w.path("project"))
	for _, dir := range []string{"bin", "home/secrets"} {
		if err := os.MkdirAll(w.path(dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	program := func(path, text string) {
		if err := testexec.WriteFile(w.path(path), []byte("#!/bin/sh\n"+text)); err != nil {
			t.Fatal(err)
		}
	}
	// Whatever a page says, the machine's own root is left alone.
	if err := os.WriteFile(w.path("bin/clayer"), []byte(`#!/bin/bash
for a; do case $a in --dest*) unset CLAYER_ROOT;; --) break;; esac; done
exec '`+binary+`' "$@"
`), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"apt-get", "pip", "uv", "npm", "python3", "mojo"} {
		program("root/bin/"+name, `case "$*" in *install*) mkdir -p /opt/installed && for a; do :; done && echo "$a" > "/opt/installed/`+name+`-$a";; esac`+"\n")
		// PATH is the session's in a RUN too. The machine itself is left alone.
		program("bin/"+name, "[ -e /etc/docs-root ] && exec /bin/"+name+` "$@"; exit 0`+"\n")
	}
	program("root/etc/docs-root", "")
	program("root/bin/mojo", doctest.MojoProgram)
	for _, kv := range os.Environ() {
		name, _, _ := strings.Cut(kv, "=")
		if !strings.HasPrefix(name, "CLAYER_") && !strings.HasPrefix(name, "GH_") && !strings.HasPrefix(name, "GITHUB_") && !strings.HasPrefix(name, "CLAUDE_") &&
			!strings.HasPrefix(name, "AWS_") && !strings.HasPrefix(name, "XDG_") {
			d.env = append(d.env, kv)
		}
	}
	d.env = append(append(d.env, doctest.GitHub(t)...),
		"AWS_ENDPOINT_URL_S3="+s3test.NewFake(t).URL, "AWS_ACCESS_KEY_ID="+s3test.KeyID, "AWS_SECRET_ACCESS_KEY="+s3test.Secret,
		"CLAYER_ROOT="+w.path("root"), "PATH="+w.path("bin")+":"+os.Getenv("PATH"), "HOME="+w.path("home"), "SHELL=/bin/sh", "CLAYER_CACHE_DIR="+w.path("cache"))
	return d
}

func (d *docs) bash(script string) (string, error) {
	cmd := exec.CommandContext(d.t.Context(), "bash", "-c", script)
	cmd.Dir, cmd.Env = d.path("project"), d.env
	out, err := cmd.CombinedOutput()
	return string(out), err
}
