package hook

import (
	"context"
	"fmt"
	"os"

	"github.com/clayer/clayer/cmd/clayer/internal/usage"
	"github.com/clayer/clayer/frontend"
	"github.com/clayer/clayer/solver/envfile"
)

// EnvToGitHub appends variables to the files that GitHub Actions gives a step for the later
// steps of its job.
func EnvToGitHub(vars []frontend.Var, environ []string, warn func(text string)) error {
	env, path, left := envfile.GitHub(vars, environ)
	for _, name := range left {
		warn(fmt.Sprintf("ENV %s: GitHub Actions lets no step set it", name))
	}
	files := []struct {
		name string
		data []byte
	}{{"GITHUB_ENV", env}, {"GITHUB_PATH", path}}
	for _, f := range files {
		if os.Getenv(f.name) == "" {
			return usage.Errorf("--github: $%s is not set: this is no step of GitHub Actions", f.name)
		}
	}
	for _, f := range files {
		if err := envfile.Append(os.Getenv(f.name), f.data); err != nil {
			return fmt.Errorf("$%s: %w", f.name, err)
		}
	}
	return nil
}

// EnvToClaude writes variables to the file that only a session's first hook is given.
func EnvToClaude(ctx context.Context, vars []frontend.Var, environ []string) error {
	file := os.Getenv("CLAUDE_ENV_FILE")
	if file == "" {
		return nil
	}
	text, err := envfile.Format(vars, "sh", environ)
	if err != nil {
		return err
	}
	if err := envfile.WriteBlock(ctx, file, text); err != nil {
		return fmt.Errorf("$CLAUDE_ENV_FILE: %w", err)
	}
	return nil
}
