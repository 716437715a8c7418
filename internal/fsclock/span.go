package fsclock

import "time"

// A Span is a stretch of time, by the clock of a file system and by that of the machine:
// the kernel stamps what a program writes with the one, and a program that sets times
// itself takes the other, which is finer, and need not agree with it at all.
type Span struct {
	dir      string
	from, to time.Time // of the file system
	start    time.Time // of the machine; both of Go's clocks are in it
	early    time.Time
	late     time.Time
}

// Begin begins a span, by the clock of the directory's file system; "": by that of the machine
// alone.
func Begin(dir string) (*Span, error) {
	s := &Span{dir: dir}
	shown, err := s.shown()
	s.from, s.to, s.start = shown, shown, time.Now()
	s.early, s.late = s.start.Round(0), s.start.Round(0)
	return s, err
}

func (s *Span) shown() (time.Time, error) {
	if s.dir == "" {
		return time.Now().Round(0), nil
	}
	return now(s.dir)
}

// Clone returns a span of its own that is like this one so far; of nil, nil.
func (s *Span) Clone() *Span {
	if s == nil {
		return nil
	}
	c := *s
	return &c
}

// End moves the end of the span to now. A clock that was set meanwhile widens it. One that
// cannot be read any more, since the directory is gone or the disk is full, has gone on.
func (s *Span) End() {
	shown, err := s.shown()
	now := time.Now()
	elapsed := now.Sub(s.start)
	if err != nil {
		shown = s.from.Add(elapsed)
	}
	s.from, s.to = widen(s.from, s.to, shown, elapsed)
	s.early, s.late = widen(s.early, s.late, now.Round(0), elapsed)
}

// slack is how far clocks drift apart without being set: a tick, and an adjusted speed.
const slack = 50 * time.Millisecond

func widen(from, to, shown time.Time, elapsed time.Duration) (time.Time, time.Time) {
	if began := shown.Add(-elapsed); began.Before(from.Add(-slack)) {
		from = began // it was set back
	}
	if shown.After(to) {
		to = shown
	}
	return from, to
}

// Holds reports whether a time is in the span. One without a fraction may have been cut to
// whole seconds, as tar does, or to even ones, as zip does.
func (s *Span) Holds(t time.Time) bool {
	in := func(from, to time.Time) bool {
		if t.Nanosecond() == 0 {
			from = time.Unix(from.Unix()&^1, 0)
		}
		return !t.Before(from) && !t.After(to)
	}
	return in(s.from, s.to) || in(s.early, s.late)
}
