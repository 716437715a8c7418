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
}

var clayerLine = regexp.MustCompile(`(?m)^(?:clayer: |  )?(?:/\S*/)?` + containerfile + `:(\d+): `)

// solve makes the root from the base and what is in dir. Nothing is cached.
func (c *clayer) solve(ctx context.Context, sandbox, dir, root, cache string) (*refusal, error) {
	if out, err := exec.CommandContext(ctx, "cp", "-a", c.base, root).CombinedOutput(); err != nil {
		return nil, fmt.Errorf("cp: %w\n%s", err, out)
	}
	cmd := exec.CommandContext(ctx, c.program, "solve", "--root="+root, "--sandbox="+sandbox, "--cache-dir="+cache, "-f", containerfile)
	cmd.Dir = dir
	cmd.Env = []string{"PATH=" + searchPath, "HOME=/root", "TMPDIR=" + filepath.Dir(cache)}
	said, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	switch {
	case err == nil:
		return nil, nil
	case ctx.Err() != nil:
		return nil, ctx.Err()
	case !errors.As(err, &exit):
		return nil, err
	}
	r := &refusal{said: string(said)}
	for _, m := range clayerLine.FindAllSubmatch(said, -1) {
		n, err := strconv.Atoi(string(m[1]))
		if err != nil {
			return nil, err
		}
		r.lines = append(r.lines, n)
	}
	return r, nil
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
