package main

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"
)

var update = flag.Bool("update", false, "write the golden files anew")

// golden compares a text with a file of the project.
func golden(t *testing.T, file, got string) {
	t.Helper()
	path := filepath.Join("..", "..", file)
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s (-want +got):\n%s", file, diff)
	}
}

const referenceHead = `# Commands

What ` + "`--help`" + ` says of each command. Generated: ` + "`go test ./cmd/clayer -run TestCommandReference -update`" + ` writes this page, and the same test compares it.
` + "`clayer man DIR`" + ` writes the same as manual pages, ` + "`clayer completion bash|zsh|fish|powershell`" + ` what a shell completes.

`

// commands returns what a user can call, as words behind "clayer".
func commands(c *cobra.Command, words []string) [][]string {
	all := [][]string{words}
	for _, sub := range c.Commands() {
		if sub.IsAvailableCommand() {
			all = append(all, commands(sub, append(words[:len(words):len(words)], sub.Name()))...)
		}
	}
	return all
}

// TestCommandReference: docs/commands.md is what --help says.
func TestCommandReference(t *testing.T) {
	root := newRoot()
	root.InitDefaultCompletionCmd()
	var got strings.Builder
	got.WriteString(referenceHead)
	for _, words := range commands(root, nil) {
		var out, errs bytes.Buffer
		if code := run(append(words, "--help"), &out, &errs); code != 0 || errs.Len() > 0 {
			t.Fatalf("clayer %v --help: exit code %d\n%s", words, code, errs.String())
		}
		if len(words) > 1 && words[0] == "completion" {
			continue // cobra's own texts, how to load each
		}
		got.WriteString("## " + strings.Join(append([]string{"clayer"}, words...), " ") + "\n\n```text\n" + strings.TrimRight(out.String(), "\n") + "\n```\n\n")
	}
	golden(t, "docs/commands.md", strings.TrimSuffix(got.String(), "\n"))
}

// TestManualPages: each command has a page with its flags, as cobra/doc makes it,
// and the binary writes them with its version.
func TestManualPages(t *testing.T) {
	made := t.TempDir()
	root := newRoot()
	root.InitDefaultCompletionCmd()
	root.DisableAutoGenTag = true // the same commands have the same pages
	date, err := time.Parse("Jan 2006", manDate)
	if err != nil {
		t.Fatal(err)
	}
	if err := doc.GenManTree(root, &doc.GenManHeader{Section: "1", Date: &date, Source: manSource, Manual: "clayer"}, made); err != nil {
		t.Fatal(err)
	}
	if *update {
		if err := os.RemoveAll("man1"); err != nil {
			t.Fatal(err)
		}
		if err := os.CopyFS("man1", os.DirFS(made)); err != nil {
			t.Fatal(err)
		}
		return // this binary has the old ones
	}
	dir := filepath.Join(t.TempDir(), "man1")
	for range 2 {
		var out, errs bytes.Buffer
		if code := run([]string{"man", dir}, &out, &errs); code != 0 || out.Len()+errs.Len() > 0 {
			t.Fatalf("exit code %d\n%s%s", code, out.String(), errs.String())
		}
	}
	filled := strings.NewReplacer(manDate, buildTime().Format("Jan 2006"), manSource, "clayer "+buildVersion())
	var names []string
	for _, words := range commands(root, []string{"clayer"}) {
		name := strings.Join(words, "-") + ".1"
		names = append(names, name)
		want, err := os.ReadFile(filepath.Join(made, name))
		if err != nil {
			t.Fatal(err)
		}
		page, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.HasPrefix(page, []byte(".nh\n.TH \"")) || !bytes.Contains(page, []byte(".SH OPTIONS")) {
			t.Errorf("%s is no manual page:\n%.300s", name, page)
		}
		if diff := cmp.Diff(filled.Replace(string(want)), string(page)); diff != "" {
			t.Errorf("%s (-want +got), -update writes it anew:\n%s", name, diff)
		}
	}
	slices.Sort(names)
	for _, of := range []string{"man1", dir} {
		var have []string
		list, err := os.ReadDir(of)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range list {
			have = append(have, e.Name())
		}
		if diff := cmp.Diff(names, have); diff != "" {
			t.Errorf("%s (-want +got):\n%s", of, diff)
		}
	}
	var out, errs bytes.Buffer
	if code := run([]string{"man", os.DevNull}, &out, &errs); code != 2 {
		t.Errorf("into no folder: exit code %d\n%s", code, errs.String())
	}
}
