package main

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/cobra"
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

// TestManualPages: each command has a page with its flags, twice the same.
func TestManualPages(t *testing.T) {
	dir := t.TempDir()
	for range 2 {
		var out, errs bytes.Buffer
		if code := run([]string{"man", filepath.Join(dir, "man1")}, &out, &errs); code != 0 || out.Len()+errs.Len() > 0 {
			t.Fatalf("exit code %d\n%s%s", code, out.String(), errs.String())
		}
		if err := os.Rename(filepath.Join(dir, "man1"), filepath.Join(dir, "first")); err != nil && !os.IsExist(err) {
			t.Fatal(err)
		}
	}
	root := newRoot()
	root.InitDefaultCompletionCmd()
	for _, words := range commands(root, []string{"clayer"}) {
		name := strings.Join(words, "-") + ".1"
		page, err := os.ReadFile(filepath.Join(dir, "first", name))
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.HasPrefix(page, []byte(`.nh`)) || !bytes.Contains(page, []byte(".SH OPTIONS")) {
			t.Errorf("%s is no manual page:\n%.300s", name, page)
		}
		again, err := os.ReadFile(filepath.Join(dir, "man1", name))
		if err != nil || !bytes.Equal(page, again) {
			t.Errorf("%s: written twice it is not the same: %v", name, err)
		}
	}
	var out, errs bytes.Buffer
	if code := run([]string{"man", os.DevNull}, &out, &errs); code != 2 {
		t.Errorf("into no folder: exit code %d\n%s", code, errs.String())
	}
}
