// Package ui shows what a solve does.
//
// The rules of output:
//   - Results go to stdout and nothing else does; all that this package writes
//     goes to stderr.
//   - A line reports one event and begins with where it belongs: "base:4" is
//     line 4 of layer base. What a RUN prints follows "|".
//   - Steps that are present are only counted.
//   - Control characters that a RUN prints stay out of the lines of others: of
//     what carriage returns overwrite the last is shown, escape sequences are
//     dropped. Any other text that others wrote has them escaped: by the writer
//     that lines go to, and here for what is drawn.
//   - A terminal gets a live display, whose last lines are drawn over. It sets
//     no mode of the terminal, and draws whole lines in one write: however the
//     program ends, there is nothing to set right.
//   - --progress=json writes one JSON object a line; its fields are added to,
//     never changed. docs/progress.md lists them.
package ui

import (
	"fmt"
	"io"
	"slices"

	"golang.org/x/term"

	"github.com/clayer/clayer/internal/printable"
	"github.com/clayer/clayer/solver/report"
)

// A Display shows events. Its methods may be called by one goroutine at a time.
type Display struct {
	show  func(report.Event)
	close func()
}

// Modes are the values of --progress.
var Modes = []string{"auto", "tty", "plain", "json", "quiet"}

// New returns what shows events on w in the given mode: "tty" draws live,
// "plain" writes a line per event, "json" an object per event, "quiet" reports
// warnings alone. "auto" is tty where w is a terminal that can move its cursor
// and a person looks at it, else plain. environ is as os.Environ returns it.
func New(mode string, w io.Writer, environ []string) (*Display, error) {
	vars := make(map[string]string, len(environ))
	for _, kv := range environ {
		for i := range kv {
			if kv[i] == '=' && i > 0 {
				vars[kv[:i]] = kv[i+1:]
				break
			}
		}
	}
	size := terminal(printable.Exact(w))
	switch {
	case !slices.Contains(Modes, mode) && mode != "":
		return nil, fmt.Errorf("--progress=%s: want auto, tty, plain, json or quiet", mode)
	case mode == "tty" && size == nil:
		return nil, fmt.Errorf("--progress=tty: stderr is no terminal")
	case mode == "tty", (mode == "auto" || mode == "") && size != nil && watched(vars):
		l := newLive(printable.Exact(w), size, vars["NO_COLOR"] == "")
		go l.tick()
		return &Display{l.event, l.close}, nil
	case mode == "json":
		return &Display{newJSON(w), func() {}}, nil
	}
	p := newPlain(w)
	p.quiet = mode == "quiet"
	return &Display{p.event, func() {}}, nil
}

// Show shows an event. One that comes after Close is shown as a line.
func (d *Display) Show(e report.Event) {
	if e.Err != nil {
		e.Text = Warning(e.Text, e.Err)
	}
	d.show(e)
}

// Close takes away what is drawn only for the time being. A second call does
// nothing.
func (d *Display) Close() { d.close() }

// watched reports whether somebody looks at a terminal that can be drawn on: CI
// services give a terminal to what they write into a log.
func watched(vars map[string]string) bool {
	ci := vars["CI"]
	return vars["TERM"] != "dumb" && vars["TERM"] != "" && (ci == "" || ci == "0" || ci == "false")
}

// terminal returns what asks for the columns and rows of a terminal; nil where
// w is none.
func terminal(w io.Writer) func() (columns, rows int) {
	f, ok := w.(interface{ Fd() uintptr }) // a file, or what writes to one
	if !ok || !term.IsTerminal(int(f.Fd())) {
		return nil
	}
	return func() (int, int) {
		columns, rows, err := term.GetSize(int(f.Fd()))
		if err != nil || columns <= 0 || rows <= 0 {
			return 80, 24 // a serial line knows no size
		}
		return columns, rows
	}
}
