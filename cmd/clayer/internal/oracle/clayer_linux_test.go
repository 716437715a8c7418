package oracle

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
)

// clayer is the program, and the root that it starts from.
type clayer struct {
	program, base string
	asImage       string // the base as an image
}

var clayerLine = regexp.MustCompile(`(?m)^(?:clayer: |  )?(?:/\S*/)?` + containerfile + `(?:\.one|\.two)?:(\d+): `)

// solve makes the tree of the files of a case from the base, in the directory work. Nothing
// is cached.
func (c *clayer) solve(ctx context.Context, w *way, files, work string) (tree string, r *refusal, err error) {
	root, err := c.prepare(ctx, w, files, work)
	if err != nil {
		return "", nil, err
	}
	tree = root
	if w.dest {
		tree = filepath.Join(work, "dest")
	}
	cmd := c.command(ctx, w, work, root)
	said, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	switch {
	case err == nil:
		return tree, nil, nil
	case ctx.Err() != nil:
		return "", nil, ctx.Err()
	case !errors.As(err, &exit):
		return "", nil, err
	}
	r = &refusal{said: string(said)}
	for _, m := range clayerLine.FindAllSubmatch(said, -1) {
		n, err := strconv.Atoi(string(m[1]))
		if err != nil {
			return "", nil, err
		}
		r.lines = append(r.lines, n)
	}
	return "", r, nil
}

// unpack makes the tree that BuildKit exported.
func unpack(ctx context.Context, archive, dir string) error {
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	if out, err := exec.CommandContext(ctx, "tar", "-C", dir, "--numeric-owner", "--xattrs", "--xattrs-include=*", "-xpf", archive).CombinedOutput(); err != nil {
		return fmt.Errorf("tar: %w\n%s", err, out)
	}
	return nil
}
