package solver

import (
	"context"
	"errors"

	"github.com/clayer/clayer/solver/internal/probe"
)

// A ProbeResult is what the probe of a layer in a root said.
type ProbeResult = probe.Result

// A ProbeLog is what is recorded of the probes on a root.
type ProbeLog = probe.Log

// Unproven returns the layers in the root whose probes have not passed, in composition
// order, and what they said last: Why is "" if they did not run yet. It never waits.
func Unproven(opt Options) (list []ProbeResult, err error) {
	if len(opt.Probes) == 0 {
		return nil, nil
	}
	root, state, err := opt.openState()
	if err != nil {
		return nil, err
	}
	log, err := probe.Read(root.StateDir())
	if err != nil {
		newReadOnly(opt).warnOnce("%v", err)
	}
	for _, l := range state.Layers {
		if opt.Probes[l.Name] == "" {
			continue
		}
		r := ProbeResult{Layer: l.Name, Content: probe.Applied(l), Command: opt.Probes[l.Name]}
		last, ok := log.Find(r)
		if ok && last.Why == "" {
			continue
		}
		r.Why, r.At = last.Why, last.At
		list = append(list, r)
	}
	return list, nil
}

// RecordProbes changes what is recorded of the probes on a root, under its lock.
func RecordProbes(ctx context.Context, opt Options, change func(*ProbeLog)) (err error) {
	r := newSession(opt)
	root, err := r.open()
	if err != nil {
		return err
	}
	lock, err := r.lock(ctx, root)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.unlock(lock)) }()
	log, err := probe.Read(root.StateDir())
	if err != nil {
		r.warnOnce("%v", err)
	}
	change(&log)
	return log.Write(lock.Root().StateDir(), lock.State())
}
