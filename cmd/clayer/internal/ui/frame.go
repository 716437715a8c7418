package ui

import (
	"fmt"
	"strings"
	"time"

	"github.com/clipperhouse/displaywidth"

	"github.com/clayer/clayer/dag"
	"github.com/clayer/clayer/internal/printable"
	"github.com/clayer/clayer/internal/sizes"
	"github.com/clayer/clayer/solver/report"
)

// Colours: SGR of ECMA-48, which every terminal since the VT525 has.
const (
	red    = "31"
	green  = "32"
	yellow = "33"
	cyan   = "36"
	dim    = "2"
)

func (l *live) paint(color, text string) string {
	if !l.color || text == "" {
		return text
	}
	return "\x1b[" + color + "m" + text + "\x1b[0m"
}

// A drawing is a line with its width in columns, which is less than the
// terminal's: in the last column terminals differ in when they go to the next line.
type drawing struct {
	text  string
	width int
}

// spinner turns ten times a second.
var spinner = []rune("⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏")

// most is the most tasks that are shown.
const most = 12

// lines are those that are drawn for the time being: one for each task, and
// the totals.
func (l *live) lines(columns, rows int) []drawing {
	now := l.now()
	limit := min(most, max(1, rows-3))
	shown := l.tasks
	if len(shown) > limit {
		shown = shown[:max(1, limit-1)]
	}
	var list []drawing
	for _, t := range shown {
		list = append(list, l.running(t, now, columns))
	}
	if more := len(l.tasks) - len(shown); more > 0 {
		text := cut(fmt.Sprintf("  … and %d more", more), columns-1)
		list = append(list, drawing{l.paint(dim, text), width(text)})
	}
	text := cut(l.total(now), columns-1)
	return append(list, drawing{l.paint(dim, text), width(text)})
}

// running is the line of a task: what it is, how far, how long, and what its
// RUN printed last, each as far as there is room.
func (l *live) running(t *task, now time.Time, columns int) drawing {
	turn := int(now.Sub(l.start)/(100*time.Millisecond)) % len(spinner)
	head := string(spinner[max(0, turn)]) + " " + where(t.step) + "  "
	tail := "  " + Duration(now.Sub(t.start))
	avail := columns - 1 - width(head) - width(tail)
	for _, bytes := range t.progress(now) {
		if n := width(bytes) + 2; avail-n >= least {
			tail, avail = "  "+bytes+tail, avail-n
			break
		}
	}
	if avail < 8 { // a name as long as the line
		text := cut(head+visible(t.step.Text()), columns-1)
		return drawing{text, width(text)}
	}
	text, said := visible(t.step.Text()), visible(t.output())
	side := ""
	if said != "" && avail >= 2*least {
		own := min(width(text), max(least, avail/2))
		text = cut(text, own)
		side = cut("  "+said, avail-width(text))
	} else {
		text = cut(text, avail)
	}
	gap := strings.Repeat(" ", max(0, avail-width(text)-width(side)))
	return drawing{
		l.paint(cyan, head[:len(head)-2]) + "  " + text + l.paint(dim, side) + gap + l.paint(cyan, tail),
		width(head) + width(text) + width(side) + len(gap) + width(tail),
	}
}

// least is how many columns an instruction is not made shorter than for what
// stands beside it.
const least = 20

// progress says how many bytes have come, and how fast: at length, and shorter.
func (t *task) progress(now time.Time) []string {
	if t.n == 0 {
		return nil
	}
	forms := []string{sizes.Format(t.n)}
	if t.of > 0 && t.of != t.n {
		forms = append([]string{sizes.Format(t.n) + " of " + sizes.Format(t.of)}, forms...)
	}
	if r := t.rate.perSecond(now); r > 0 && t.doing != "" {
		forms = append([]string{forms[0] + "  " + sizes.Format(r) + "/s"}, forms...)
	}
	return forms
}

// finished is the line of a step that is done.
func (l *live) finished(sign string, e report.Event, what string, columns int) string {
	head := where(e.Step) + "  "
	took := "  " + Duration(e.Took)
	if e.Took == 0 {
		took = ""
	}
	text := visible(e.Step.Text())
	side := "  " + visible(what)
	avail := columns - 1 - 2 - width(head) - width(took)
	if avail < 40 {
		side = ""
	}
	side = cut(side, max(0, avail-20))
	text = cut(text, max(0, avail-width(side)))
	gap := strings.Repeat(" ", max(0, avail-width(text)-width(side)))
	return sign + " " + cut(head, columns-3) + text + gap + l.paint(dim, side) + took
}

// total is the last line: how far all of it is.
func (l *live) total(now time.Time) string {
	t := l.totals
	parts := []string{l.phase}
	if t.steps > 0 {
		parts = append(parts, fmt.Sprintf("%d of %s", t.done+t.cached+t.present, sizes.Count(t.steps, "step")))
	}
	if t.cached > 0 {
		parts = append(parts, fmt.Sprintf("%d cached (%s)", t.cached, sizes.Format(t.cachedBytes)))
	}
	if t.failed > 0 {
		parts = append(parts, fmt.Sprintf("%d failed", t.failed))
	}
	if t.fetched > 0 {
		parts = append(parts, sizes.Format(t.fetched)+" fetched")
	}
	return strings.Join(append(parts, Duration(now.Sub(l.start))), " · ")
}

func where(s *dag.Step) string { return fmt.Sprintf("%s:%d", s.Layer.Name, s.Pos().Line) }

// visible returns a text as it can be drawn in a line.
func visible(s string) string { return printable.Line(strings.ReplaceAll(s, "\t", " ")) }

// width is how many columns a text takes: two for a wide character.
func width(s string) int { return displaywidth.String(s) }

// cut shortens a text to so many columns.
func cut(s string, columns int) string {
	if columns <= 0 {
		return ""
	}
	return displaywidth.TruncateString(s, columns, "…")
}
