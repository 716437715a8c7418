package main

import (
	"os"
	"regexp"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/clayer/clayer/cmd/clayer/internal/hook"
)

// docs/hosts.md has a recipe for each host, which fits on a screen and says when it was written.
func TestHostsPage(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("../../docs/hosts.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, recipe := range strings.Split(string(page), "\n## ")[1:] {
		title, text, _ := strings.Cut(recipe, "\n")
		if n := 1 + strings.Count(strings.TrimRight(text, "\n"), "\n"); n > 23 {
			t.Errorf("%s: %d lines, at most 24 fit", title, n+1)
		}
		for line := range strings.Lines(text) {
			if n := utf8.RuneCountInString(strings.TrimRight(line, "\n")); n > 80 {
				t.Errorf("%s: a line of %d columns: %s", title, n, line)
			}
		}
		if !regexp.MustCompile(`(?m)^20\d\d-\d\d-\d\d\. `).MatchString(text) {
			t.Errorf("%s has no date", title)
		}
	}
	for _, kind := range hook.Kinds() {
		if !strings.Contains(string(page), "\nclayer init "+kind+" ") {
			t.Errorf("there is no recipe with clayer init %s", kind)
		}
	}
	for _, name := range []string{"README.md", "llms.txt", "docs/sessions.md"} {
		if text, err := os.ReadFile("../../" + name); err != nil || !strings.Contains(string(text), "hosts.md") {
			t.Errorf("%s does not link to docs/hosts.md: %v", name, err)
		}
	}
}
