package ui

import (
	"fmt"
	"io"
	"text/tabwriter"

	"github.com/clayer/clayer/cmd/clayer/internal/settings"
	"github.com/clayer/clayer/internal/printable"
)

// WriteSettings writes settings with where they come from; of several values, one a line.
func WriteSettings(w io.Writer, l *settings.Listing) {
	_ = Folded(w, 4, func(w io.Writer) error { writeSettings(w, l); return nil })
}

func writeSettings(w io.Writer, l *settings.Listing) {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, s := range l.Settings {
		values := s.Values
		if len(values) == 0 {
			values = []string{"-"}
		}
		for i, v := range values {
			key, from := s.Key, s.String()
			if i > 0 {
				key, from = "", ""
			}
			fmt.Fprintf(t, "%s\t%s\t%s\n", key, printable.Line(from), printable.Line(v))
		}
	}
	_ = t.Flush() // as for any other line, nobody is left to report it to
}
