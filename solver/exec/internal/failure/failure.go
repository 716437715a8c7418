// Package failure is what a step of a solve failed by, in the form of a problem of its
// Containerfile.
package failure

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/clayer/clayer/dag"
	"github.com/clayer/clayer/frontend"
	"github.com/clayer/clayer/solver/report"
	"github.com/clayer/clayer/solver/sandbox"
	"github.com/clayer/clayer/solver/source"
)

// A BuildError says which step failed.
type BuildError struct {
	Step     *dag.Step
	Stored   int      // steps of this solve that were finished, and are stored
	Look     string   // the command that runs a shell where Step ran; "" where there is none
	Withheld []string // variables of the session that a RUN which failed did not get
	Did      string   // what a RUN in place did to the root all the same, in words
	Remedy   string   // what to do about Err; whoever prints the error sets it, and Look
	Err      error
}

// Error returns the error in the form of a frontend.Problem, with the last lines that a
// failed RUN printed.
func (e *BuildError) Error() string {
	if p := Problem(e.Step, e.Err); p != nil {
		return p.Error()
	}
	m := e.Step.Instr.Base()
	p := frontend.Problem{Pos: m.Pos, Word: m.Word, Message: e.Err.Error(), Line: e.Step.Text()}
	var exit *sandbox.ExitError
	if errors.As(e.Err, &exit) && len(exit.Output) > 0 {
		p.Detail = strings.Join(report.PlainLines(exit.Output), "\n")
	}
	switch {
	case e.Stored == 1:
		p.Hint = "1 step is done and cached: the next solve resumes after it"
	case e.Stored > 1:
		p.Hint = fmt.Sprintf("%d steps are done and cached: the next solve resumes after them", e.Stored)
	}
	if e.Remedy != "" {
		p.Hint = strings.TrimSuffix(e.Remedy+"\n      "+p.Hint, "\n      ")
	}
	if e.Look != "" && exit != nil && e.Did == "" { // what runs in place has no overlay to look around in
		p.Hint = strings.TrimPrefix(p.Hint+"\n      to look around where it failed: "+e.Look, "\n      ")
	}
	if e.Did != "" {
		p.Hint = strings.TrimPrefix(p.Hint+"\n      "+e.Did, "\n      ")
	}
	if exit != nil && len(e.Withheld) > 0 {
		p.Hint = strings.TrimPrefix(p.Hint+"\n      "+withheld(e.Withheld, string(exit.Output)), "\n      ")
	}
	return p.Error()
}

// maxWithheld is how many variables that a RUN did not get are named.
const maxWithheld = 8

// withheld lists the variables of the session that a RUN did not get, those that it
// printed first.
func withheld(names []string, output string) string {
	names = slices.Clone(names)
	slices.SortStableFunc(names, func(a, b string) int {
		printed := func(name string) int {
			if strings.Contains(output, name) {
				return 0
			}
			return 1
		}
		return printed(a) - printed(b)
	})
	more := ""
	if n := len(names) - maxWithheld; n > 0 {
		names, more = names[:maxWithheld], fmt.Sprintf(" and %d more", n)
	}
	for i := range names {
		names[i] = report.PlainText([]byte(names[i]))
	}
	return "variables of the session that it does not name, and did not get: " + strings.Join(names, ", ") + more
}

func (e *BuildError) Unwrap() error { return e.Err }

// Problem returns what the Containerfile's writer has to mend, and nil for an
// error that is no fault of the file.
func Problem(s *dag.Step, err error) *frontend.Problem {
	var fault *source.Fault
	if errors.As(err, &fault) {
		p := fault.At(s.Instr.Base())
		p.Line = s.Text() // without what is secret in a URL
		return p
	}
	return nil
}

// Lines joins errors, one a line, indented; more than twenty are cut short.
func Lines(errs []error) error {
	const most = 20
	more := len(errs) - most
	if more > 0 {
		errs = errs[:most:most]
		errs = append(errs, fmt.Errorf("and %d more", more))
	}
	return &lines{errs}
}

type lines struct{ errs []error }

func (l *lines) Unwrap() []error { return l.errs }

func (l *lines) Error() string {
	texts := make([]string, len(l.errs))
	for i, err := range l.errs {
		texts[i] = err.Error()
	}
	return strings.Join(texts, "\n  ")
}
