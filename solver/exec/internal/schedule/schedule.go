// Package schedule runs nodes: each at most once, after all that it depends on, and no
// more at a time than its limits allow. It knows nothing of what they do.
package schedule

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/clayer/clayer/dag"
)

// state is where a node of a schedule stands:
//
//	waiting ──► ready ──► running ──► readable ──► done
//	   │          │          ├───────────┼───────► done
//	   │          │          └───────────┴───────► failed
//	   ├──────────┴────────► skipped
//	   └──────────┴────────► dropped
type state uint8

const (
	waiting  state = iota // some dependency is not done
	ready                 // all dependencies are done; what it needs is not free yet
	running               // it runs
	readable              // it runs, and what reads its result while it arrives may run too
	done                  // ran without an error; what waited for it is counted down
	failed                // ran with an error, which ends the schedule
	skipped               // never ran: something failed, or the schedule was cancelled
	dropped               // never ran: the plan was made again without it; what waited for it is counted down
)

// A Kind is what a node does. Whoever adds nodes numbers them.
type Kind uint8

// A Class is a resource that nodes need while they run.
type Class uint8

const (
	Network  Class = iota // requests to stores
	Sources               // requests to the sources of FETCH
	CPU                   // sandboxes, packing and unpacking
	InFlight              // bytes of snapshots that are being fetched
	Root                  // the root: one at a time
	classes  Class = iota
)

// Amounts says how much of each class.
type Amounts [classes]int64

// A Node is something to do, once, after its dependencies.
type Node struct {
	Kind  Kind
	Step  *dag.Step // nil: it is of no step
	Run   func(ctx context.Context, n *Node) error
	Needs Amounts
	Grace bool // it runs, and starts, also after the schedule has ended: see Schedule.Run

	state   state
	pending int     // dependencies that are not done; 0 unless waiting
	next    []*Node // the nodes that wait for this one to be done
	readers []*Node // the nodes that wait for it to be readable
}

// A Schedule runs nodes, each at most once, after all that it depends on, and no
// more at a time than its Limits allow. Nodes may be added while it runs, by a
// node that runs. The first error cancels what runs and skips the rest.
//
// Invariant, whenever mu is free: left counts the nodes that are waiting, ready,
// running or readable; a waiting node has pending > 0, equal to the number of its
// dependencies that are not done, or not readable for a reader; the queues hold the
// ready nodes, in the order in which they became ready, and some that were ready;
// used is what the nodes that run need. A node that does not fit is not overtaken by
// those after it in its queue: none waits for ever.
type Schedule struct {
	Limits Amounts

	mu       sync.Mutex
	ended    sync.Cond       // left is 0
	outer    context.Context // that of Run
	ctx      context.Context // that of nodes
	graceCtx context.Context
	cancel   context.CancelCauseFunc
	nodes    []*Node
	queues   [classes + 1][]*Node // by the first class that a node needs; the last: it needs none
	used     Amounts
	left     int
	held     bool // nothing starts: see Together
	active   int  // nodes that run
	err      error
}

// Add makes a node that runs after deps; those that are nil do not count. from, if
// it is not nil, is a node that it reads: it may run as soon as that is readable.
func (s *Schedule) Add(n, from *Node, deps ...*Node) *Node {
	s.mu.Lock()
	defer s.mu.Unlock()
	if from != nil && !from.over() && from.state != readable {
		from.readers = append(from.readers, n)
		n.pending++
	}
	for _, d := range deps {
		if d != nil && !d.over() {
			d.next = append(d.next, n)
			n.pending++
		}
	}
	s.nodes = append(s.nodes, n)
	s.left++
	switch {
	case s.err != nil && !n.Grace:
		s.set(n, skipped)
	case n.pending == 0:
		s.set(n, ready)
		s.dispatch()
	}
	return n
}

// Together has none of the nodes that are added from now on start before start is
// called, when all are there: one that ends early may drop others.
func (s *Schedule) Together() (start func()) {
	s.hold(true)
	return func() { s.hold(false) }
}

func (s *Schedule) hold(held bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.held = held
	s.dispatch()
}

// over reports whether nothing waits for a node any more.
func (n *Node) over() bool { return n.state == done || n.state == dropped }

// set is the only place that changes a node's state, so that counts, queue and
// waiting neighbours cannot drift apart. Callers hold s.mu.
func (s *Schedule) set(n *Node, to state) {
	from := n.state
	runs := from == running || from == readable
	legal := false
	switch to {
	case ready:
		legal = from == waiting && n.pending == 0
	case running:
		legal = from == ready
	case readable:
		legal = from == running
	case done, failed:
		legal = runs
	case skipped, dropped:
		legal = from == waiting || from == ready
	}
	if !legal {
		panic(fmt.Sprintf("schedule: node of kind %d from state %d to %d with %d pending", n.Kind, from, to, n.pending))
	}
	n.state = to
	switch to {
	case ready:
		q := n.queue()
		s.queues[q] = append(s.queues[q], n)
	case running:
		s.active++
		for c := range n.Needs {
			s.used[c] += n.Needs[c]
		}
	case readable:
		s.countDown(&n.readers)
	case done, dropped:
		s.countDown(&n.readers)
		s.countDown(&n.next)
	}
	if runs && to != readable {
		s.active--
		for c := range n.Needs {
			s.used[c] -= n.Needs[c]
		}
	}
	switch to {
	case done, failed, skipped, dropped:
		if s.left--; s.left == 0 {
			s.ended.Broadcast()
		}
	}
}

// countDown counts one dependency of nodes as done.
func (s *Schedule) countDown(nodes *[]*Node) {
	for _, n := range *nodes {
		if n.state != waiting {
			continue // skipped or dropped meanwhile
		}
		if n.pending--; n.pending == 0 {
			s.set(n, ready)
		}
	}
	*nodes = nil
}

// Run runs all nodes and returns the first error, or the context's. It returns
// when nothing runs any more. A node with grace is neither skipped nor cancelled
// by an error; its context is graceCtx. It has no dependencies.
func (s *Schedule) Run(ctx, graceCtx context.Context) error {
	s.outer = ctx
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stop := context.AfterFunc(ctx, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.end(context.Cause(ctx))
	})
	defer stop()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ended.L = &s.mu
	s.ctx, s.graceCtx, s.cancel = ctx, graceCtx, cancel
	s.dispatch()
	for s.left > 0 {
		s.ended.Wait()
	}
	return s.err
}

// dispatch starts the ready nodes that there is room for, in order. Callers hold s.mu.
func (s *Schedule) dispatch() {
	if s.ctx == nil || s.held {
		return // Run does it, or Together
	}
	for q := range s.queues {
		for len(s.queues[q]) > 0 {
			n := s.queues[q][0]
			if n.state == ready {
				if !s.fits(n) {
					break
				}
				s.set(n, running)
				go s.do(n)
			}
			s.queues[q] = s.queues[q][1:]
		}
	}
	if s.active == 0 && s.left > 0 && s.err == nil {
		panic("schedule: schedule with a cycle") // no node is ready, and none runs
	}
}

func (n *Node) queue() int {
	for c, need := range n.Needs {
		if need > 0 {
			return c
		}
	}
	return int(classes)
}

// fits reports whether there is room for a node. One that needs more than there is
// at all runs while nothing else of its class does. Callers hold s.mu.
func (s *Schedule) fits(n *Node) bool {
	for c, need := range n.Needs {
		if need > 0 && s.used[c] > 0 && s.used[c]+need > s.Limits[c] {
			return false
		}
	}
	return true
}

func (s *Schedule) do(n *Node) {
	ctx := s.ctx
	if n.Grace {
		ctx = s.graceCtx
	}
	err := n.Run(ctx, n)
	s.mu.Lock()
	defer s.mu.Unlock()
	if err == nil {
		s.set(n, done)
	} else {
		s.end(err)
		s.set(n, failed)
	}
	if s.left > 0 {
		s.dispatch()
	}
}

// Read says that the result of a node that runs can be read while it arrives.
func (s *Schedule) Read(n *Node) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if n.state == running {
		s.set(n, readable)
		s.dispatch()
	}
}

// Release gives back what a node that runs needs no more.
func (s *Schedule) Release(n *Node, c Class) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if n.state == running || n.state == readable {
		s.used[c] -= n.Needs[c]
		n.Needs[c] = 0
		s.dispatch()
	}
}

// Drop takes out the nodes that have not begun and that the plan, as it was made
// again, has no use for.
func (s *Schedule) Drop(useless func(*Node) bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, n := range s.nodes {
		if (n.state == waiting || n.state == ready) && useless(n) {
			s.set(n, dropped)
		}
	}
}

// end skips what has not begun. The first error stays. Callers hold s.mu.
func (s *Schedule) end(err error) {
	if s.err != nil || s.left == 0 {
		return
	}
	if s.outer.Err() != nil && errors.Is(err, context.Canceled) {
		err = context.Cause(s.outer)
	}
	s.err = err
	for _, n := range s.nodes {
		if (n.state == waiting || n.state == ready) && !n.Grace {
			s.set(n, skipped)
		}
	}
	s.cancel(err)
}
