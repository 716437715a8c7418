package exec

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"pgregory.net/rapid"
)

// fake counts how often it ran.
type fake struct {
	runs atomic.Int32
	err  error
	wait <-chan struct{}
}

func (f *fake) run(ctx context.Context) error {
	f.runs.Add(1)
	if f.wait != nil {
		select {
		case <-f.wait:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return f.err
}

func TestScheduleRunsEachNodeOnceAfterItsDependencies(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, 30).Draw(t, "nodes")
		var s schedule
		var mu sync.Mutex
		ended := make(map[int]bool)
		runs := make([]int, n)
		nodes := make([]*node, n)
		for i := range n {
			var deps []*node
			var ids []int
			for j := range i {
				if rapid.IntRange(0, 3).Draw(t, "edge") == 0 {
					deps = append(deps, nodes[j])
					ids = append(ids, j)
				}
			}
			nodes[i] = s.add(func(context.Context) error {
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
			}, deps...)
		}
		if err := s.run(context.Background(), rapid.IntRange(1, 4).Draw(t, "workers")); err != nil {
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
	})
}

func TestScheduleFailureSkipsWhatFollowsAndCancelsWhatRuns(t *testing.T) {
	boom := errors.New("boom")
	var s schedule
	never := make(chan struct{})
	bad, beside, after := &fake{err: boom}, &fake{wait: never}, &fake{}
	n := s.add(bad.run)
	besideNode := s.add(beside.run)
	afterNode := s.add(after.run, n)
	if err := s.run(context.Background(), 2); !errors.Is(err, boom) {
		t.Errorf("error = %v, want %v", err, boom)
	}
	if after.runs.Load() != 0 || afterNode.state != skipped {
		t.Errorf("what follows a failed node ran %d times, state %d", after.runs.Load(), afterNode.state)
	}
	if s := besideNode.state; s != failed && s != skipped {
		t.Errorf("what ran beside it is in state %d", s)
	}
}

func TestScheduleReturnsTheErrorOfItsLastNode(t *testing.T) {
	boom := errors.New("boom")
	var s schedule
	s.add((&fake{err: boom}).run, s.add((&fake{}).run))
	if err := s.run(context.Background(), 2); !errors.Is(err, boom) {
		t.Errorf("error = %v, want %v", err, boom)
	}
}

func TestScheduleCancelled(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	var s schedule
	never := make(chan struct{})
	begun := &fake{wait: never}
	s.add(func(ctx context.Context) error { cancel(); return begun.run(ctx) })
	follows := &fake{}
	s.add(follows.run, s.nodes[0])
	if err := s.run(ctx, 4); !errors.Is(err, context.Canceled) {
		t.Errorf("error = %v, want %v", err, context.Canceled)
	}
	if follows.runs.Load() != 0 {
		t.Error("a node ran after the schedule was cancelled")
	}
}

func TestScheduleKeepsToItsWorkers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s schedule
		var now, most atomic.Int32
		gate := make(chan struct{})
		for range 10 {
			s.add(func(context.Context) error {
				if n := now.Add(1); n > most.Load() {
					most.Store(n)
				}
				<-gate
				now.Add(-1)
				return nil
			})
		}
		go func() {
			synctest.Wait() // all workers are at the gate
			close(gate)
		}()
		if err := s.run(t.Context(), 3); err != nil {
			t.Fatal(err)
		}
		if most.Load() != 3 {
			t.Errorf("%d nodes ran at a time, want 3", most.Load())
		}
	})
}

func TestScheduleOfNothing(t *testing.T) {
	var s schedule
	if err := s.run(context.Background(), 4); err != nil {
		t.Errorf("error = %v", err)
	}
}
