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
