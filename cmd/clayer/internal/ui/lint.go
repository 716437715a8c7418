package ui

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/clayer/clayer/frontend/lint"
)

// FindingFormats are the values of clayer check --format.
var FindingFormats = []string{"text", "json", "sarif"}

// WriteFindings writes what clayer check found, in one of FindingFormats. version is
// that of this program.
func WriteFindings(w io.Writer, findings []lint.Finding, format, version string) error {
	findings = slices.Clone(findings)
	for i := range findings {
		switch f := &findings[i]; f.Rule {
		case lint.SecretRule:
			f.Hint += ", and --secret id=NAME,env=NAME for solve"
		case lint.SkipRule:
			f.Hint = "clayer check --rules lists them"
		}
	}
	switch format {
	case "json":
		return lint.WriteJSON(w, findings)
	case "sarif":
		return lint.WriteSARIF(w, findings, version)
	}
	return writeFindings(w, findings)
}

// writeFindings writes findings as text, in the form that errors have:
//
//	Containerfile:4: warning: AptNoYes: apt-get install asks, and a RUN cannot answer
//	  4 | RUN apt-get install git
//	hint: apt-get install -y (--fix does it)
func writeFindings(w io.Writer, findings []lint.Finding) error {
	var b strings.Builder
	for _, f := range findings {
		fmt.Fprintf(&b, "%s: %s: %s: %s\n", f.Pos, f.Level, f.Rule, f.Message)
		if f.Line != "" {
			fmt.Fprintf(&b, "  %d | %s\n", f.Pos.Line, f.Line)
		}
		hint := f.Hint
		if f.Fix != nil {
			hint += " (--fix: " + f.Fix.What + ")"
		}
		if hint != "" {
			fmt.Fprintf(&b, "hint: %s\n", strings.TrimSpace(hint))
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// WriteRules writes a table of lint rules.
func WriteRules(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, r := range lint.Rules {
		fmt.Fprintf(t, "%s\t%s\t%s\n", r.Name, r.Level, r.Doc)
	}
	return t.Flush()
}
