package ui

import (
	"bytes"
	"fmt"
	"io"
	"time"

	"github.com/clayer/clayer/dag"
	"github.com/clayer/clayer/frontend"
	"github.com/clayer/clayer/internal/sizes"
	"github.com/clayer/clayer/solver/report"
)

// plain writes one line per event.
type plain struct {
	w       io.Writer
	quiet   bool
	partial map[*dag.Step][]byte // output of a RUN that has not ended its line
}

func newPlain(w io.Writer) *plain {
	return &plain{w: w, partial: make(map[*dag.Step][]byte)}
}

func (p *plain) event(e report.Event) {
	if p.quiet && e.Kind != report.Warning {
		return
	}
	switch e.Kind {
	case report.Warning:
		fmt.Fprintf(p.w, "clayer: warning: %s\n", e.Text)
	case report.Waiting:
		fmt.Fprintf(p.w, "clayer: waiting for %s\n", e.Text)
	case report.Planned:
		for i := range e.Plan.Layers {
			l := &e.Plan.Layers[i]
			fmt.Fprintf(p.w, "clayer: %s: %s\n", l.Layer.Name, l.Totals())
		}
	case report.Sandbox:
		fmt.Fprintf(p.w, "clayer: sandbox: %s\n", e.Text)
	case report.Started:
		p.step(e.Step, e.Step.Text())
	case report.Output:
		p.output(e.Step, e.Text)
	case report.Ran:
		p.flush(e.Step)
		what := fmt.Sprintf("done in %s, %s, %s", Duration(e.Took), sizes.Count(e.Entries, "change"), sizes.Format(e.Bytes))
		if _, run := e.Step.Instr.(*frontend.Run); run && e.Entries == 0 {
			what = fmt.Sprintf("done in %s, but changed nothing", Duration(e.Took))
		}
		p.step(e.Step, what)
	case report.Decided:
		p.step(e.Step, e.Text)
	case report.Restored:
		what := fmt.Sprintf("cached, %s from %s", sizes.Format(e.Bytes), e.Store)
		if e.Moved > 0 {
			what += fmt.Sprintf(", %s transferred", sizes.Format(e.Moved))
		}
		p.step(e.Step, what)
	case report.Applying:
		fmt.Fprintf(p.w, "clayer: applying to %s\n", e.Text)
	case report.Pulled:
		fmt.Fprintf(p.w, "clayer: pulled %s, %s from %s\n", e.Text, sizes.Format(e.Bytes), e.Store)
	case report.Probing:
		fmt.Fprintf(p.w, "clayer: probing layer %s\n", e.Text)
	case report.Pushing:
		fmt.Fprintf(p.w, "clayer: pushing to %s: %s\n", e.Store, e.Text)
	}
}

func (p *plain) step(s *dag.Step, text string) {
	fmt.Fprintf(p.w, "%s:%d  %s\n", s.Layer.Name, s.Pos().Line, text)
}

// output writes the whole lines of what came so far.
func (p *plain) output(s *dag.Step, text string) {
	buf := append(p.partial[s], text...)
	for {
		i := bytes.IndexByte(buf, '\n')
		if i < 0 {
			break
		}
		p.outputLine(s, buf[:i])
		buf = buf[i+1:]
	}
	p.partial[s] = bytes.Clone(report.Overwritten(buf))
	if len(p.partial[s]) > maxLine {
		p.flush(s)
	}
}

// maxLine bounds what is retained of a line that doesn't end, in bytes.
const maxLine = 16 << 10

func (p *plain) flush(s *dag.Step) {
	if buf := p.partial[s]; len(buf) > 0 {
		p.outputLine(s, buf)
	}
	delete(p.partial, s)
}

func (p *plain) outputLine(s *dag.Step, line []byte) {
	if text := report.PlainText(line); text != "" {
		p.step(s, "| "+text)
	}
}

// Duration writes a duration for display: "0.4s", "12.3s", "2m5s".
func Duration(d time.Duration) string {
	if d < time.Minute {
		return fmt.Sprintf("%.1fs", d.Seconds())
	}
	return d.Round(time.Second).String()
}
