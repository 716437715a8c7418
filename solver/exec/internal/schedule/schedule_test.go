package schedule

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"
)

// newSchedule returns one in which so many nodes run at a time.
func newSchedule(n int64) *Schedule { return &Schedule{Limits: Amounts{CPU: n, InFlight: 100}} }

// fake counts how often it ran.
type fake struct {
	runs atomic.Int32
	err  error
	wait <-chan struct{}
}

func (f *fake) node() *Node {
	return &Node{Needs: Amounts{CPU: 1}, Run: func(ctx context.Context, _ *Node) error {
		f.runs.Add(1)
		if f.wait != nil {
			select {
			case <-f.wait:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		return f.err
	}}
}

func (f *fake) check(t *testing.T, name string, runs int32) {
	t.Helper()
	if n := f.runs.Load(); n != runs {
		t.Errorf("%s ran %d times, want %d", name, n, runs)
	}
}

func run(ctx context.Context, s *Schedule) error { return s.Run(ctx, context.WithoutCancel(ctx)) }

func TestScheduleRunsEachNodeOnceAfterItsDependencies(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, 30).Draw(t, "nodes")
		s := newSchedule(int64(rapid.IntRange(1, 4).Draw(t, "limit")))
		var mu sync.Mutex
		ended := make(map[int]bool)
		runs := make([]int, n)
		nodes := make([]*Node, n)
		for i := range n {
			var deps []*Node
			var ids []int
			for j := range i {
				if rapid.IntRange(0, 3).Draw(t, "edge") == 0 {
					deps = append(deps, nodes[j])
					ids = append(ids, j)
				}
			}
			nodes[i] = s.Add(&Node{Needs: Amounts{CPU: 1}, Run: func(context.Context, *Node) error {
				mu.Lock()
				defer mu.Unlock()
				runs[i]++
				for _, d := range ids {
					if !ended[d] {
						return fmt.Errorf("node %d ran before %d", i, d)
					}
				}
				ended[i] = true
				return nil
			}}, nil, deps...)
		}
		if err := run(context.Background(), s); err != nil {
			t.Fatal(err)
		}
		for i, r := range runs {
			if r != 1 {
				t.Errorf("node %d ran %d times", i, r)
			}
			if nodes[i].state != done {
				t.Errorf("node %d ended in state %d", i, nodes[i].state)
			}
		}
		if s.used != (Amounts{}) || s.active != 0 || s.left != 0 {
			t.Errorf("in the end: used %v, active %d, left %d", s.used, s.active, s.left)
		}
	})
}

func TestScheduleFailureSkipsWhatFollowsAndCancelsWhatRuns(t *testing.T) {
	boom := errors.New("boom")
	s := newSchedule(2)
	bad, beside, after := &fake{err: boom}, &fake{wait: make(chan struct{})}, &fake{}
	n := s.Add(bad.node(), nil)
	besideNode := s.Add(beside.node(), nil)
	afterNode := s.Add(after.node(), nil, n)
	if err := run(t.Context(), s); !errors.Is(err, boom) {
		t.Errorf("error = %v, want %v", err, boom)
	}
	after.check(t, "what follows a failed node", 0)
	if afterNode.state != skipped {
		t.Errorf("what follows a failed node is in state %d", afterNode.state)
	}
	if s := besideNode.state; s != failed && s != skipped {
		t.Errorf("what ran beside it is in state %d", s)
	}
}

func TestScheduleReturnsTheErrorOfItsLastNode(t *testing.T) {
	boom := errors.New("boom")
	s := newSchedule(2)
	s.Add((&fake{err: boom}).node(), nil, s.Add((&fake{}).node(), nil))
	if err := run(t.Context(), s); !errors.Is(err, boom) {
		t.Errorf("error = %v, want %v", err, boom)
	}
}

func TestNothingRunsAfterCancel(t *testing.T) {
	cause := errors.New("signal")
	ctx, cancel := context.WithCancelCause(t.Context())
	s := newSchedule(4)
	n := s.Add(&Node{Run: func(ctx context.Context, _ *Node) error {
		cancel(cause)
		<-ctx.Done()
		return ctx.Err()
	}}, nil)
	follows := &fake{}
	s.Add(follows.node(), nil, n)
	if err := run(ctx, s); !errors.Is(err, cause) {
		t.Errorf("error = %v, want %v", err, cause)
	}
	follows.check(t, "what follows", 0)
}

func TestScheduleRespectsItsLimits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSchedule(3)
		var now, most atomic.Int32
		gate := make(chan struct{})
		for range 10 {
			s.Add(&Node{Needs: Amounts{CPU: 1}, Run: func(context.Context, *Node) error {
				if n := now.Add(1); n > most.Load() {
					most.Store(n)
				}
				<-gate
				now.Add(-1)
				return nil
			}}, nil)
		}
		go func() {
			synctest.Wait() // all that may run is at the gate
			close(gate)
		}()
		if err := run(t.Context(), s); err != nil {
			t.Fatal(err)
		}
		if most.Load() != 3 {
			t.Errorf("%d nodes ran at a time, want 3", most.Load())
		}
	})
}

// What is large waits until there is room for it, what follows it does not
// overtake it, and what is larger than all room runs by itself.
func TestScheduleIsFairToWhatIsLarge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSchedule(8)
		var mu sync.Mutex
		var began []int64
		for _, size := range []int64{60, 500, 10, 90} {
			s.Add(&Node{Needs: Amounts{InFlight: size}, Run: func(context.Context, *Node) error {
				mu.Lock()
				began = append(began, size)
				mu.Unlock()
				time.Sleep(time.Second)
				return nil
			}}, nil)
		}
		start := time.Now()
		if err := run(t.Context(), s); err != nil {
			t.Fatal(err)
		}
		if fmt.Sprint(began[:2]) != "[60 500]" || time.Since(start) != 3*time.Second {
			t.Errorf("began %v, took %s, want 60, 500, and the others together", began, time.Since(start))
		}
	})
}

func TestWhatReadsANodeRunsWhileItArrives(t *testing.T) {
	s := newSchedule(4)
	read := make(chan struct{})
	from := s.Add(&Node{Run: func(_ context.Context, n *Node) error {
		s.Read(n)
		<-read // else this waits for ever
		return nil
	}}, nil)
	reader := s.Add(&Node{Run: func(context.Context, *Node) error { close(read); return nil }}, from)
	after := &fake{}
	s.Add(after.node(), nil, from, reader)
	if err := run(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	after.check(t, "what follows both", 1)
}

func TestWhatIsDroppedNeverRunsAndHoldsUpNothing(t *testing.T) {
	s := newSchedule(4)
	useless, after, added := &fake{}, &fake{}, &fake{}
	var drop *Node
	first := s.Add(&Node{Run: func(_ context.Context, n *Node) error {
		s.Drop(func(x *Node) bool { return x == drop })
		s.Add(added.node(), nil, n)
		return nil
	}}, nil)
	drop = s.Add(useless.node(), nil, first)
	s.Add(after.node(), nil, drop)
	if err := run(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	useless.check(t, "what was dropped", 0)
	after.check(t, "what waited for it", 1)
	added.check(t, "what was added", 1)
	if drop.state != dropped {
		t.Errorf("state = %d", drop.state)
	}
}

// A node with grace ends by itself, whatever became of the others.
func TestGraceOutlivesAnError(t *testing.T) {
	boom := errors.New("boom")
	s := newSchedule(1)
	var ended atomic.Bool
	s.Add(&Node{Run: func(_ context.Context, n *Node) error {
		s.Add(&Node{Grace: true, Run: func(ctx context.Context, _ *Node) error {
			time.Sleep(20 * time.Millisecond)
			ended.Store(ctx.Err() == nil)
			return nil
		}}, nil)
		return boom
	}}, nil)
	if err := run(t.Context(), s); !errors.Is(err, boom) {
		t.Errorf("error = %v, want %v", err, boom)
	}
	if !ended.Load() {
		t.Error("it was cut off")
	}
}

func TestScheduleOfNothing(t *testing.T) {
	if err := run(t.Context(), newSchedule(4)); err != nil {
		t.Errorf("error = %v", err)
	}
}
