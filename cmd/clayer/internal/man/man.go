// Package man has the manual pages.
package man

import (
	"embed"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/clayer/clayer/cmd/clayer/internal/usage"
)

// pages are as cobra/doc makes them of the commands: TestManualPages writes them, and
// compares them. What makes them is not in the binary, which every start of it would
// pay for.
//
//go:embed man1/*.1
var pages embed.FS

// Date and Source stand in a page for what the binary knows.
const (
	Date   = "Jan 1970"
	Source = "clayer SOURCE"
)

// Write writes the pages of a version, which was built at a time, to a directory. It
// creates the directory if necessary.
func Write(dir, version string, built time.Time) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return usage.Error{Err: err}
	}
	list, err := pages.ReadDir("man1")
	if err != nil {
		return err
	}
	fill := strings.NewReplacer(Date, built.Format("Jan 2006"), Source, "clayer "+version)
	for _, p := range list {
		page, err := pages.ReadFile("man1/" + p.Name())
		if err != nil {
			return err
		}
		head, rest, _ := strings.Cut(string(page), "\n.SH")
		if err := os.WriteFile(filepath.Join(dir, p.Name()), []byte(fill.Replace(head)+"\n.SH"+rest), 0o644); err != nil {
			return fmt.Errorf("manual pages: %w", err)
		}
	}
	return nil
}
