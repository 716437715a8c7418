package ui

import (
	"bytes"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"github.com/clayer/clayer/dag"
	"github.com/clayer/clayer/frontend"
	"github.com/clayer/clayer/internal/printable"
	"github.com/clayer/clayer/internal/sizes"
	"github.com/clayer/clayer/solver/report"
)

// live draws on a terminal: finished steps stay above as lines, what is under
// way stands below them and is drawn over ten times a second.
type live struct {
	w     io.Writer
	size  func() (columns, rows int)
	color bool
	now   func() time.Time

	mu     sync.Mutex // guards what follows
	start  time.Time
	phase  string
	tasks  []*task // in the order in which they began
	drawn  []int   // the width of each line that is drawn for the time being
	closed bool
	stop   chan struct{}
	totals totals
}

// totals is what the last line says.
type totals struct {
	steps, done, cached, present, failed int
	cachedBytes, fetched                 int64
}

// A task is something under way for a step.
type task struct {
	step  *dag.Step
	start time.Time
	doing string // "" for the step itself, else "fetching", "restoring"
	n, of int64  // bytes
	rate  rate
	line  []byte // what its RUN printed since the last end of a line
	last  string // the last line that it printed and that says something
}

// rate is bytes a second over the last seconds.
type rate struct {
	marks []mark
}

type mark struct {
	at time.Time
	n  int64
}

// window is how far a rate looks back.
const window = 3 * time.Second

func (r *rate) add(at time.Time, n int64) {
	r.marks = append(r.marks, mark{at, n})
	for len(r.marks) > 2 && at.Sub(r.marks[0].at) > window {
		r.marks = r.marks[1:]
	}
}

// perSecond returns 0 as long as nothing can be said.
func (r *rate) perSecond(now time.Time) int64 {
	if len(r.marks) < 2 {
		return 0
	}
	first, last := r.marks[0], r.marks[len(r.marks)-1]
	took := now.Sub(first.at).Seconds()
	if took < 0.2 {
		return 0
	}
	return int64(float64(last.n-first.n) / took)
}

func newLive(w io.Writer, size func() (columns, rows int), color bool) *live {
	l := &live{w: w, size: size, color: color, now: time.Now, stop: make(chan struct{})}
	l.start, l.phase = l.now(), "planning"
	return l
}

// tick draws until the display is closed.
func (l *live) tick() {
	t := time.NewTicker(100 * time.Millisecond)
	defer t.Stop()
	for {
		select {
		case <-l.stop:
			return
		case <-t.C:
			l.mu.Lock()
			l.draw()
			l.mu.Unlock()
		}
	}
}

func (l *live) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return
	}
	l.closed = true
	close(l.stop)
	l.write("")
}

func (l *live) task(s *dag.Step) *task {
	for _, t := range l.tasks {
		if t.step == s {
			return t
		}
	}
	t := &task{step: s, start: l.now()}
	l.tasks = append(l.tasks, t)
	return t
}

func (l *live) drop(s *dag.Step) {
	for i, t := range l.tasks {
		if t.step == s {
			l.tasks = append(l.tasks[:i], l.tasks[i+1:]...)
			return
		}
	}
}

func (l *live) event(e report.Event) {
	l.mu.Lock()
	defer l.mu.Unlock()
	columns, _ := l.size()
	switch e.Kind {
	case report.Warning:
		l.write(l.paint(yellow, "warning: ") + printable.Text(e.Text) + "\n")
	case report.Waiting:
		l.phase = "waiting for " + visible(e.Text)
	case report.Planned:
		l.phase = "building"
		l.totals.steps, l.totals.present = 0, 0 // it may be planned again
		for i := range e.Plan.Layers {
			t := e.Plan.Layers[i].Totals()
			l.totals.steps += t.Steps
			l.totals.present += t.Present
		}
		for _, st := range e.Plan.Stages {
			l.totals.steps += st.Stage().Totals().Steps
		}
	case report.Sandbox:
		l.write(l.paint(dim, cut("sandbox: "+visible(e.Text), columns-1)) + "\n")
	case report.Fetching, report.Restoring:
		t := l.task(e.Step)
		t.doing, t.n, t.of = string(e.Kind), e.Bytes, e.Total
		t.rate.add(l.now(), e.Bytes)
	case report.Fetched:
		l.totals.fetched += e.Bytes
		if t := l.task(e.Step); t.doing == "" {
			t.n, t.of = e.Bytes, e.Bytes
		} else {
			l.drop(e.Step) // starts again when it is unpacked
		}
	case report.Decided:
		l.write(l.paint(dim, cut(fmt.Sprintf("%s:%d: %s", visible(e.Step.Layer.Name), e.Step.Pos().Line, visible(e.Text)), columns-1)) + "\n")
	case report.Restored:
		l.totals.cached++
		l.totals.cachedBytes += e.Bytes
		l.drop(e.Step)
	case report.Started:
		t := l.task(e.Step)
		t.doing = ""
	case report.Output:
		l.task(e.Step).print(e.Text)
	case report.Ran:
		l.totals.done++
		what := sizes.Count(e.Entries, "change") + ", " + sizes.Format(e.Bytes)
		if _, run := e.Step.Instr.(*frontend.Run); run && e.Entries == 0 {
			what = "changed nothing"
		}
		l.drop(e.Step)
		l.write(l.finished(l.paint(green, "✓"), e, what, columns) + "\n")
	case report.Failed:
		l.totals.failed++
		l.drop(e.Step)
		l.write(l.finished(l.paint(red, "✗"), e, e.Text, columns) + "\n")
	case report.Applying:
		l.phase = "applying to " + visible(e.Text)
		l.tasks = nil
	case report.Pulled:
		l.write(l.paint(dim, cut(fmt.Sprintf("pulled %s, %s from %s", visible(e.Text), sizes.Format(e.Bytes), visible(e.Store)), columns-1)) + "\n")
	case report.Probing:
		l.phase = "probing layer " + visible(e.Text)
	case report.Pushing:
		l.phase = "pushing to " + visible(e.Store)
	}
}

// print takes in what a RUN prints, and retains its last line.
func (t *task) print(text string) {
	t.line = append(t.line, text...)
	for {
		i := bytes.IndexByte(t.line, '\n')
		if i < 0 {
			break
		}
		if s := strings.TrimSpace(report.PlainText(t.line[:i])); s != "" {
			t.last = s
		}
		t.line = t.line[i+1:]
	}
	t.line = bytes.Clone(report.Overwritten(t.line))
	if len(t.line) > maxLine {
		t.line = t.line[len(t.line)-maxLine:]
	}
}

// output is the line that a RUN is at.
func (t *task) output() string {
	if s := strings.TrimSpace(report.PlainText(t.line)); s != "" {
		return s
	}
	return t.last
}

// write writes text that stays, above what is drawn for the time being. The
// text is lines with their ends, or nothing. Callers hold l.mu.
func (l *live) write(text string) {
	var b strings.Builder
	l.erase(&b)
	b.WriteString(text)
	l.frame(&b)
	_, _ = io.WriteString(l.w, b.String())
}

// draw redraws the temporary lines.
func (l *live) draw() { l.write("") }

// erase goes back to where the drawing begins. On a terminal that has become
// narrower since, lines were broken.
func (l *live) erase(b *strings.Builder) {
	columns, _ := l.size()
	up := 0
	for _, width := range l.drawn {
		up += max(1, (width+columns-1)/columns)
	}
	if up > 0 {
		fmt.Fprintf(b, "\x1b[%dA", up)
	}
	if len(l.drawn) > 0 {
		b.WriteString("\r\x1b[J")
	}
	l.drawn = nil
}

// frame draws the lines for the time being; the cursor then stands below them.
func (l *live) frame(b *strings.Builder) {
	if l.closed {
		return
	}
	columns, rows := l.size()
	for _, line := range l.lines(columns, rows) {
		b.WriteString(line.text)
		b.WriteByte('\n')
		l.drawn = append(l.drawn, line.width)
	}
}
