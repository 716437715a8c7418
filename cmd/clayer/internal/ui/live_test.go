package ui

import (
	"bytes"
	"encoding/json"
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/clayer/clayer/dag"
	"github.com/clayer/clayer/frontend"
	"github.com/clayer/clayer/internal/golden"
	"github.com/clayer/clayer/internal/printable"
	"github.com/clayer/clayer/solver/report"
)

// TestFrames pins what is drawn, at 40, 80 and 200 columns.
func TestFrames(t *testing.T) {
	plan, s := steps(t)
	for _, columns := range []int{1, 10, 40, 80, 200} {
		var b bytes.Buffer
		clock := time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)
		l := newLive(&b, func() (int, int) { return columns, 24 }, false)
		l.now = func() time.Time { return clock }
		l.start = clock
		l.event(report.Event{Kind: report.Planned, Plan: plan})
		l.event(report.Event{Kind: report.Started, Step: s[0]})
		l.event(report.Event{Kind: report.Output, Step: s[0], Text: "\x1b[31m数値計算ライブラリ\x1b[0m を取得しています: numpy-2.4.6 👩‍💻 done, and much more than there is room for in most terminals\r\n"})
		clock = clock.Add(time.Second)
		l.event(report.Event{Kind: report.Fetching, Step: s[2], Bytes: 1_000_000})
		clock = clock.Add(time.Second)
		l.event(report.Event{Kind: report.Fetching, Step: s[2], Bytes: 13_000_000, Total: 41_000_000})
		frame := l.lines(columns, 24)
		var text strings.Builder
		for _, line := range frame {
			fmt.Fprintf(&text, "%s\n", line.text)
			if w := width(line.text); w != line.width || w >= max(columns, 2) {
				t.Errorf("at %d columns: %q takes %d, and says %d", columns, line.text, w, line.width)
			}
		}
		b.Reset()
		l.event(report.Event{Kind: report.Ran, Step: s[0], Took: 12340 * time.Millisecond, Entries: 3, Bytes: 41_000_000})
		l.event(report.Event{Kind: report.Failed, Step: s[2], Took: 125 * time.Second, Text: "exit code 7"})
		l.close()
		golden.Check(t, fmt.Sprintf("testdata/frame%d.txt", columns), text.String()+strings.NewReplacer("\x1b", "ESC", "\r", "").Replace(b.String()))
	}
}

// What others wrote has no say in what is drawn: all control characters are the
// display's own.
func TestLiveDrawsNothingOfOthers(t *testing.T) {
	const evil = "e\x1b[31mX\x1b]0;t\x07\u009b1m\x9b2m\u202eY\u2066\b\x7f\r"
	plan, s := steps(t)
	own := regexp.MustCompile("\x1b\\[[0-9;]*[mAJ]|\r\x1b\\[J")
	for _, columns := range []int{5, 12, 80, 400} {
		for _, color := range []bool{false, true} {
			var b bytes.Buffer
			l := newLive(&b, func() (int, int) { return columns, 24 }, color)
			run := *s[0].Instr.(*frontend.Run)
			run.Text = "RUN " + evil
			step := *s[0]
			step.Instr = &run
			for _, kind := range report.Kinds {
				l.event(report.Event{Kind: kind, Step: &step, Plan: plan, Text: evil, Store: evil, Took: time.Second})
				l.draw()
			}
			l.close()
			got := own.ReplaceAllString(b.String(), "")
			if printable.Text(got) != got {
				t.Errorf("at %d columns: %q", columns, got)
			}
			if columns == 400 && !strings.Contains(got, `\x1b[31mX`) {
				t.Errorf("nothing of it is shown: %q", got)
			}
		}
	}
}

func TestFewRows(t *testing.T) {
	_, s := steps(t)
	l := newLive(&bytes.Buffer{}, func() (int, int) { return 80, 5 }, true)
	for range 30 {
		step := *s[0]
		l.event(report.Event{Kind: report.Started, Step: &step})
	}
	for rows := 1; rows < 40; rows++ {
		if n := len(l.lines(80, rows)); n > max(3, rows-1) {
			t.Errorf("%d lines in %d rows", n, rows)
		}
	}
}

// TestStagesCount: steps of stages are among those that are done, and among all.
func TestStagesCount(t *testing.T) {
	plan, s := steps(t)
	planned := *plan
	planned.Stages = []*dag.Plan{plan}
	l := newLive(&bytes.Buffer{}, func() (int, int) { return 80, 24 }, true)
	l.event(report.Event{Kind: report.Planned, Plan: &planned})
	l.event(report.Event{Kind: report.Restored, Step: s[2], Store: "dir"})
	if got := fmt.Sprint(l.lines(80, 24)); !strings.Contains(got, "1 of 3 steps") {
		t.Error(got)
	}
}

// TestRecord pins the summary, and that a trace has side by side what was.
func TestRecord(t *testing.T) {
	plan, s := steps(t)
	start := time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)
	at := func(seconds float64) time.Time { return start.Add(time.Duration(seconds * float64(time.Second))) }
	sec := func(n float64) time.Duration { return time.Duration(n * float64(time.Second)) }
	r := NewRecord(start)
	planned := *plan
	planned.Stages = []*dag.Plan{plan} // whose steps are restored, too
	for _, e := range []report.Event{
		{Kind: report.Fetched, Time: at(2), Step: s[0], Took: sec(1.5), Bytes: 10_000_000},
		{Kind: report.Fetched, Time: at(2.5), Step: s[2], Took: sec(1.5), Bytes: 20_000_000},
		{Kind: report.Planned, Time: at(3), Plan: &planned},
		{Kind: report.Restored, Time: at(4), Step: s[2], Took: sec(1), Bytes: 5_000_000, Store: "github"},
		{Kind: report.Started, Time: at(4), Step: s[0]},
		{Kind: report.Ran, Time: at(34), Step: s[0], Took: sec(30), Bytes: 50_000_000},
		{Kind: report.Started, Time: at(34), Step: s[2]},
		{Kind: report.Stored, Time: at(40), Step: s[0], Took: sec(6), Bytes: 25_000_000},
		{Kind: report.Failed, Time: at(50), Step: s[2], Took: sec(16), Text: "exit code 1"},
		{Kind: report.Applying, Time: at(51), Text: "/"},
		{Kind: report.Applied, Time: at(52), Step: s[0], Bytes: 50_000_000},
		{Kind: report.Started, Time: at(52), Step: s[1]},
		{Kind: report.Done, Time: at(55)},
	} {
		r.Add(e)
	}
	golden.Check(t, "testdata/summary.txt", r.Summary())
	var b bytes.Buffer
	if err := r.WriteTrace(&b); err != nil {
		t.Fatal(err)
	}
	var out struct{ TraceEvents []traceEvent }
	if err := json.Unmarshal(b.Bytes(), &out); err != nil {
		t.Fatal(err)
	}
	var lines strings.Builder
	for _, e := range out.TraceEvents {
		line, _ := json.Marshal(e)
		fmt.Fprintf(&lines, "%s\n", line)
	}
	golden.Check(t, "testdata/trace.txt", lines.String())
}

func TestNothingToSummarise(t *testing.T) {
	if got := NewRecord(time.Now()).Summary(); got != "" {
		t.Errorf("%q", got)
	}
}
