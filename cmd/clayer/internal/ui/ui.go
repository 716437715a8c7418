// Package ui shows what a solve does.
//
// The rules of output:
//   - Results go to stdout and nothing else does; all that this package writes
//     goes to stderr.
//   - A line tells one event and begins with where it belongs: "base:4" is
//     line 4 of layer base. What a RUN prints follows behind "|".
//   - Steps that are present are not told one by one, only counted.
//   - Control characters that a RUN prints stay out of the lines of others: of
//     what carriage returns overwrite the last is shown, escape sequences are
//     dropped.
//   - --progress=json writes one JSON object a line; its fields are added to,
//     never changed.
package ui

import (
	"fmt"
	"io"

	"github.com/clayer/clayer/solver"
)

// New returns what shows events on w in the given mode: "plain", "json", or
// "quiet" for warnings alone; "auto" is plain.
func New(mode string, w io.Writer) (func(solver.Event), error) {
	switch mode {
	case "auto", "plain", "":
		return newPlain(w).event, nil
	case "quiet":
		p := newPlain(w)
		p.quiet = true
		return p.event, nil
	case "json":
		return newJSON(w), nil
	}
	return nil, fmt.Errorf("--progress=%s: want auto, plain, json or quiet", mode)
}
