package oracle

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"
	"golang.org/x/sync/errgroup"

	"github.com/clayer/clayer/frontend/buildchecks"
	"github.com/clayer/clayer/internal/rounds"
)

// A dockerfile is a file for BuildKit's rules, and the .dockerignore beside it.
type dockerfile struct{ name, text, ignore string }

// checkCases returns the cases of the rules, which have a golden file of their own.
func checkCases(t *testing.T) (all []dockerfile) {
	t.Helper()
	data, err := os.ReadFile("../../../../frontend/buildchecks/testdata/cases.txtar")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range txtar.Parse(data).Files {
		if name, ok := strings.CutSuffix(f.Name, ".dockerignore"); ok {
			all[len(all)-1].ignore = string(f.Data)
			if all[len(all)-1].name != name {
				t.Fatalf("%s belongs to no case", f.Name)
			}
			continue
		}
		all = append(all, dockerfile{name: f.Name, text: string(f.Data)})
	}
	return all
}

// compareChecks returns how clayer check differs from docker build --check, "" if it does not.
func (p *player) compareChecks(ctx context.Context, f dockerfile) (string, error) {
	dir, err := os.MkdirTemp(p.dir, "check")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(dir)
	for name, text := range map[string]string{containerfile: f.text, ".dockerignore": f.ignore} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			return "", err
		}
	}
	want, err := p.buildkit.check(ctx, dir)
	if err != nil {
		return "", err
	}
	got, err := p.clayer.check(ctx, dir)
	if err != nil {
		return "", err
	}
	return cmp.Diff(want, got), nil
}

// warning is the text of one of BuildKit's, up to its line.
var warning = regexp.MustCompile(`(?m)^WARNING: (\w+).*\n(.*)\n` + containerfile + `:(\d+)$`)

// check returns what docker build --check says of the file in dir.
func (b *buildkit) check(ctx context.Context, dir string) ([]string, error) {
	cmd := exec.CommandContext(ctx, b.buildctl, "--addr="+b.address, "build", "--progress=plain",
		"--frontend=dockerfile.v0", "--local=context="+dir, "--local=dockerfile="+dir, "--opt=filename="+containerfile, "--opt=requestid=frontend.lint", "--opt=cmdline=none", // or it fetches what # syntax= names

		"--oci-layout="+baseName+"="+b.layout, "--opt=context:"+baseName+"=oci-layout://"+baseName+"@"+b.base.String())
	var said, log bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &log
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("buildctl: %w\n%s", err, log.Bytes())
	}
	list := make(map[string]bool)
	for _, m := range warning.FindAllStringSubmatch(said.String(), -1) {
		list[found(m[3], m[1], m[2])] = true
	}
	return slices.Sorted(maps.Keys(list)), nil
}

// found is a finding as text.
func found(line, rule, message string) string {
	if rule == "UndefinedArgInFrom" { // of names that are as near as each other BuildKit takes any
		message, _, _ = strings.Cut(message, " (did you mean")
	}
	return line + " " + rule + ": " + message
}

// check returns what clayer check says of the file in dir by BuildKit's rules.
func (c *clayer) check(ctx context.Context, dir string) ([]string, error) {
	cmd := exec.CommandContext(ctx, c.program, "check", "--json", containerfile)
	cmd.Dir = dir
	var said, log bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &log
	var exit *exec.ExitError
	if err := cmd.Run(); err != nil && (!errors.As(err, &exit) || exit.ExitCode() > 2) {
		return nil, fmt.Errorf("clayer check: %w\n%s", err, log.Bytes())
	}
	var findings []struct {
		Rule, Message string
		Line          int
	}
	if err := json.Unmarshal(said.Bytes(), &findings); err != nil {
		return nil, fmt.Errorf("clayer check: %w\n%s%s", err, said.Bytes(), log.Bytes())
	}
	list := make(map[string]bool)
	for _, f := range findings {
		if slices.ContainsFunc(buildchecks.Rules(), func(r buildchecks.Rule) bool { return r.Name == f.Rule }) {
			list[found(strconv.Itoa(f.Line), f.Rule, f.Message)] = true
		}
	}
	return slices.Sorted(maps.Keys(list)), nil
}

// TestChecks compares clayer check with docker build --check.
func TestChecks(t *testing.T) {
	p := newPlayer(t)
	var g errgroup.Group
	g.SetLimit(3)
	cases := checkCases(t)
	count := *flagRounds
	if count < 0 {
		count = rounds.Of(10, 60, 600)
	}
	for i := range count {
		cases = append(cases, drawDockerfile(max(*flagSeed, 1)+uint64(i)))
	}
	for _, f := range cases {
		g.Go(func() error {
			difference, err := p.compareChecks(t.Context(), f)
			if difference != "" {
				t.Errorf("%s (-BuildKit +clayer):\n%s\n%s", f.name, difference, f.text)
			}
			return err
		})
	}
	if err := g.Wait(); err != nil {
		t.Error(err)
	}
}
