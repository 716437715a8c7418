package exec

import (
	"context"
	"fmt"
	"sync"
)

// state is where a node of a schedule stands:
//
//	waiting ──► ready ──► running ──► done
//	   │          │          └──────► failed
//	   └──────────┴────────► skipped
type state uint8

const (
	waiting state = iota // some dependency is not done
	ready                // all dependencies are done; no worker is free yet
	running              // a worker has it
	done                 // ran without an error; what waited for it is counted down
	failed               // ran with an error, which ends the schedule
	skipped              // never ran: something failed, or the schedule was cancelled
)

// A node is something to do, once, after its dependencies.
type node struct {
	run     func(ctx context.Context) error
	state   state
	pending int     // dependencies that are not done; 0 unless waiting
	next    []*node // the nodes that wait for this one
}

// A schedule runs nodes, each at most once, after all that it depends on, and
// no more than a given number at a time. The first error cancels what runs and
// skips the rest.
//
// Invariant, whenever mu is free: left counts the nodes that are waiting,
// ready or running; a waiting node has pending > 0, equal to the number of its
// dependencies that are not done; queue holds exactly the ready nodes.
type schedule struct {
	mu    sync.Mutex
	wake  sync.Cond // something became ready, or the end has come
	nodes []*node
	queue []*node
	left  int
	err   error
}

// add makes a node that runs after deps. All are added before run.
func (s *schedule) add(run func(ctx context.Context) error, deps ...*node) *node {
	n := &node{run: run}
	for _, d := range deps {
		if d != nil {
			d.next = append(d.next, n)
			n.pending++
		}
	}
	s.nodes = append(s.nodes, n)
	s.left++
	if n.pending == 0 {
		s.set(n, ready)
	}
	return n
}

// set is the only place that changes a node's state, so that counts, queue and
// waiting neighbours cannot drift apart. Callers hold s.mu, or are add.
func (s *schedule) set(n *node, to state) {
	from := n.state
	legal := false
	switch to {
	case ready:
		legal = from == waiting && n.pending == 0
	case running:
		legal = from == ready
	case done, failed:
		legal = from == running
	case skipped:
		legal = from == waiting || from == ready
	}
	if !legal {
		panic(fmt.Sprintf("solver: node from state %d to %d with %d pending", from, to, n.pending))
	}
	n.state = to
	switch to {
	case ready:
		s.queue = append(s.queue, n)
	case done:
		s.left--
		for _, next := range n.next {
			if next.pending--; next.pending == 0 && next.state == waiting {
				s.set(next, ready)
			}
		}
	case failed, skipped:
		s.left--
	}
}

// run runs all nodes with as many workers and returns the first error, or the
// context's. It returns when nothing runs any more.
func (s *schedule) run(ctx context.Context, workers int) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	s.wake.L = &s.mu
	stop := context.AfterFunc(ctx, func() { s.fail(context.Cause(ctx)) })
	defer stop()

	var wg sync.WaitGroup
	for range min(workers, len(s.nodes)) {
		wg.Go(func() {
			for n := s.take(); n != nil; n = s.take() {
				err := n.run(ctx)
				s.finish(n, err)
				if err != nil {
					cancel(err)
				}
			}
		})
	}
	wg.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err == nil && s.left > 0 {
		panic("solver: schedule with a cycle") // no node is ready, and none runs
	}
	return s.err
}

// take returns the next ready node, and nil when there is nothing left to do.
func (s *schedule) take() *node {
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(s.queue) == 0 && s.left > 0 && s.err == nil {
		s.wake.Wait()
	}
	if s.err != nil || len(s.queue) == 0 {
		return nil
	}
	n := s.queue[0]
	s.queue = s.queue[1:]
	s.set(n, running)
	return n
}

func (s *schedule) finish(n *node, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err == nil {
		s.set(n, done)
	} else {
		s.set(n, failed)
		s.end(err)
	}
	s.wake.Broadcast()
}

// fail ends the schedule from outside, unless it has come to its end.
func (s *schedule) fail(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.left > 0 {
		s.end(err)
	}
}

// end skips what has not begun. The first error stays. Callers hold s.mu.
func (s *schedule) end(err error) {
	if s.err != nil {
		return
	}
	s.err = err
	s.queue = nil
	for _, n := range s.nodes {
		if n.state == waiting || n.state == ready {
			s.set(n, skipped)
		}
	}
	s.wake.Broadcast()
}
