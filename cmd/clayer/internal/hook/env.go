package hook

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"

	"github.com/clayer/clayer/cmd/clayer/internal/usage"
	"github.com/clayer/clayer/frontend"
	"github.com/clayer/clayer/frontend/reference"
	"github.com/clayer/clayer/internal/safefile"
	"github.com/clayer/clayer/solver/envfile"
)

// EnvToGitHub appends variables to the files that GitHub Actions gives a step for the later
// steps of its job.
func EnvToGitHub(vars []frontend.Var, environ []string, warn func(text string)) error {
	env, path, left := envfile.GitHub(vars, environ)
	for _, name := range left {
		warn(fmt.Sprintf("ENV %s: GitHub Actions lets no step set it", name))
	}
	if dir := hidden(); dir != "" {
		path = append([]byte(dir+"\n"), path...) // after those of the environment
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
	text, err := envfile.Format(withProgram(vars), "sh", environ)
	if err != nil {
		return err
	}
	if err := envfile.WriteBlock(ctx, file, text); err != nil {
		return fmt.Errorf("$CLAUDE_ENV_FILE: %w", err)
	}
	return nil
}

// EnvToBash writes variables to the files in $HOME that shells of bash read when they start:
// .bashrc, and what a login shell reads, unless that reads .bashrc. They stand first there,
// because many a .bashrc ends early in shells that are not interactive.
func EnvToBash(ctx context.Context, vars []frontend.Var) error {
	home, err := os.UserHomeDir()
	if err != nil {
		return usage.Errorf("--bash: %w", err)
	}
	text := envfile.Sh(withProgram(vars))
	files := []string{".bashrc"}
	login := ".profile"
	for _, name := range []string{".bash_profile", ".bash_login", ".profile"} { // the first that there is
		if _, err := os.Stat(filepath.Join(home, name)); err == nil {
			login = name
			break
		}
	}
	old, err := safefile.Read(filepath.Join(home, login), frontend.MaxFile)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if !readsBashrc(old) {
		files = append(files, login)
	}
	for _, name := range files {
		if err := envfile.WriteBlockFirst(ctx, filepath.Join(home, name), text); err != nil {
			return err
		}
	}
	return nil
}

// readsBashrc reports whether a script for shells has a line about .bashrc.
func readsBashrc(script []byte) bool {
	for line := range bytes.Lines(script) {
		if line = bytes.TrimSpace(line); !bytes.HasPrefix(line, []byte("#")) && bytes.Contains(line, []byte(".bashrc")) {
			return true
		}
	}
	return false
}

// hidden returns the directory of this program, if the session does not find it on PATH.
func hidden() string {
	program := os.Args[0]
	if found, err := exec.LookPath("clayer"); err == nil && found != "" || !filepath.IsAbs(program) || filepath.Base(program) != "clayer" {
		return ""
	}
	return filepath.Dir(program)
}

// withProgram returns variables that have the session find this program too, after all that
// it has on PATH.
func withProgram(vars []frontend.Var) []frontend.Var {
	dir := hidden()
	if dir == "" {
		return vars
	}
	vars = slices.Clone(vars)
	i := slices.IndexFunc(vars, func(v frontend.Var) bool { return v.Name == "PATH" })
	if i < 0 {
		i, vars = len(vars), append(vars, frontend.Var{Name: "PATH"})
	}
	vars[i].Value = cmp.Or(vars[i].Value, reference.To("PATH")) + ":" + dir
	return vars
}
