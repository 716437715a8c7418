package buildchecks

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/moby/patternmatcher/ignorefile"
	"github.com/rogpeppe/go-internal/txtar"

	"github.com/clayer/clayer/internal/golden"
)

func TestSyntax(t *testing.T) {
	for line, want := range map[string]string{
		"# syntax=docker/dockerfile:1":                                  "",
		"# syntax = docker.io/docker/dockerfile:1.7":                    "",
		"#syntax=docker/dockerfile:1.28.3@sha256:" + "ab":               "",
		"# syntax=docker/dockerfile":                                    "",
		"// syntax=docker/dockerfile-upstream:latest":                   "",
		"# escape=\\\n# syntax=docker/dockerfile:1-labs":                "2 syntax=docker/dockerfile:1-labs is not used: what only its labs channel has",
		"# syntax=docker/dockerfile:labs":                               "1 syntax=docker/dockerfile:labs is not used",
		"# syntax=docker/dockerfile:1.29":                               "1 syntax=docker/dockerfile:1.29 is newer than docker/dockerfile:1.28",
		"# syntax=docker/dockerfile:2":                                  "is newer",
		"# syntax=docker/dockerfile-upstream:master":                    "is newer",
		"#!/usr/bin/env x\n# syntax=ghcr.io/me/frontend:v1 --flag":      "2 syntax=ghcr.io/me/frontend:v1 is not used: the file is read as one of docker/dockerfile:1.28",
		"FROM x\n# syntax=ghcr.io/me/frontend:v1":                       "",
		"# a comment\n# syntax=ghcr.io/me/frontend":                     "",
		"# syntax=docker/dockerfile:1\n# syntax=docker/dockerfile:labs": "",
	} {
		n, ahead := Syntax([]byte(line + "\nRUN true\n"))
		if got := fmt.Sprintf("%d %s", n, ahead); want == "" && ahead != "" || !strings.Contains(got, want) {
			t.Errorf("%s: %s, want %q", line, got, want)
		}
	}
}

// TestNewest: the version is that of the BuildKit of go.mod.
func TestNewest(t *testing.T) {
	mod, err := os.ReadFile("../../go.mod")
	if err != nil {
		t.Fatal(err)
	}
	if want := fmt.Sprintf("github.com/moby/buildkit v0.%d.", newest+6); !strings.Contains(string(mod), want) {
		t.Errorf("go.mod has no %s", want)
	}
}

// TestFindings pins what is said of each case. BuildKit judges the same cases in
// cmd/clayer/internal/oracle.
func TestFindings(t *testing.T) {
	data, err := os.ReadFile(filepath.Join("testdata", "cases.txtar"))
	if err != nil {
		t.Fatal(err)
	}
	archive := txtar.Parse(data)
	ignored := make(map[string][]string)
	for _, f := range archive.Files {
		if name, ok := strings.CutSuffix(f.Name, ".dockerignore"); ok {
			if ignored[name], err = ignorefile.ReadAll(strings.NewReader(string(f.Data))); err != nil {
				t.Fatal(err)
			}
		}
	}
	var b strings.Builder
	seen := make(map[string]bool)
	for _, f := range archive.Files {
		if strings.HasSuffix(f.Name, ".dockerignore") {
			continue
		}
		fmt.Fprintf(&b, "-- %s --\n", f.Name)
		res := Find(f.Data, Options{Platform: "linux/amd64", Ignored: ignored[f.Name]})
		if res.Invalid != nil {
			fmt.Fprintf(&b, "%v\n", res.Invalid)
		}
		for _, f := range res.Findings {
			seen[f.Rule] = true
			fmt.Fprintf(&b, "%d-%d %s: %s\n", f.Line, f.End, f.Rule, f.Message)
		}
	}
	golden.Check(t, "testdata/findings.txt", b.String())
	for _, r := range Rules() {
		if !seen[r.Name] {
			t.Errorf("no case is about %s", r.Name)
		}
	}
}
