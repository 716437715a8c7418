// Package rebuilt prints what came of steps that were built again, and finds the step that is
// named.
package rebuilt

import (
	"context"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/clayer/clayer/cmd/clayer/internal/usage"
	"github.com/clayer/clayer/frontend"
	"github.com/clayer/clayer/internal/printable"
	"github.com/clayer/clayer/solver"
	"github.com/clayer/clayer/solver/rebuild"
)

// A Report says what came of steps that were built again.
type Report struct {
	Steps  []rebuild.Step `json:"steps"`
	Same   int            `json:"same"`
	Differ int            `json:"differ"`
	Only   int            `json:"notCompared"` // there are not two snapshots to compare
}

// New counts steps.
func New(steps []rebuild.Step) *Report {
	r := &Report{Steps: append([]rebuild.Step{}, steps...)} // JSON has no null
	for i := range steps {
		switch s := &steps[i]; {
		case !s.Compared():
			r.Only++
		case s.Differs():
			r.Differ++
		default:
			r.Same++
		}
	}
	return r
}

// String counts the steps in words.
func (r *Report) String() string {
	text := fmt.Sprintf("%d built again to the same bytes, %d differ", r.Same, r.Differ)
	if r.Only > 0 {
		text += fmt.Sprintf(", %d not compared", r.Only)
	}
	return text
}

// Text writes a line for each step, and one for each file that differs.
func (r *Report) Text(w io.Writer) {
	for i := range r.Steps {
		s := &r.Steps[i]
		state := "same"
		switch {
		case s.Stored == "":
			state = "no store has it"
		case s.Built == "":
			state = "not stored"
		case s.Differs():
			state = "differs"
		}
		fmt.Fprintf(w, "%-8s  %s:%d  %s\n", state, printable.Line(s.Layer), s.Line, printable.Line(s.Text))
		for _, f := range s.Files {
			fmt.Fprintf(w, "          %-16s  /%s\n", strings.Join(f.What, ", "), printable.Line(f.Path))
		}
		if s.Differs() && len(s.Files) == 0 {
			fmt.Fprintln(w, "          the same files, packed in another way")
		}
	}
}

// Err returns usage.ErrReported if a step differs.
func (r *Report) Err() error {
	if r.Differ > 0 {
		return usage.ErrReported
	}
	return nil
}

// Of builds steps of the options' files again: the one that the arguments name, or all.
func Of(ctx context.Context, opt solver.Options, args []string) (*Report, error) {
	file, line, err := opt.Files[len(opt.Files)-1].Path, 0, error(nil)
	if len(args) > 0 {
		file, line, err = step(opt.Files, args[0])
	}
	if err != nil {
		return nil, err
	}
	steps, err := rebuild.Compare(ctx, opt, file, line)
	if err != nil {
		return nil, err
	}
	return New(steps), nil
}

// step returns the file and the line of what a step is called: LINE, of the last file, or
// LAYER:LINE.
func step(files []*frontend.File, name string) (file string, line int, err error) {
	layer, number, named := strings.Cut(name, ":")
	if !named {
		layer, number = "", name
	}
	if line, err = strconv.Atoi(number); err != nil || line < 1 {
		return "", 0, usage.Errorf("%s: want a line, or LAYER:LINE", name)
	}
	for _, f := range files {
		if !named || f.Name == layer || f.Is(layer) {
			file = f.Path
		}
	}
	if file == "" {
		return "", 0, usage.Errorf("%s: no layer is called %s", name, layer)
	}
	return file, line, nil
}
