package solver

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"github.com/clayer/clayer/solver/exec"
	"github.com/clayer/clayer/solver/internal/inventory"
	"github.com/clayer/clayer/solver/internal/record"
	"github.com/clayer/clayer/solver/internal/running"
	"github.com/clayer/clayer/solver/internal/shortfall"
	"github.com/clayer/clayer/solver/internal/survey"
	"github.com/clayer/clayer/solver/preserved"
	"github.com/clayer/clayer/solver/rootfs"
)

// An UndoResult is what an undo did.
type UndoResult struct {
	Steps     int                `json:"steps"` // undone
	Files     int                `json:"files"` // changes undone
	Preserved []rootfs.Preserved `json:"kept"`  // what stays, since the user changed it
	Lost      []string           `json:"lost"`  // what cannot be restored
	Left      []string           `json:"left"`  // the layers that are applied still
}

// An UnknownLayerError says that a layer is not applied.
type UnknownLayerError struct {
	Name    string
	Applied []string
}

// Error names the layers that are.
func (e *UnknownLayerError) Error() string {
	if len(e.Applied) == 0 {
		return fmt.Sprintf("layer %s is not applied: nothing is", e.Name)
	}
	return fmt.Sprintf("layer %s is not applied; applied are %s", e.Name, strings.Join(e.Applied, ", "))
}

// Undo undoes what was applied to the root: all of it, or all after the layer to,
// which stays. Of the options Root, Dest, NoWait, Force and
// Emit count.
//
// The error is an *UnknownLayerError, or wraps ErrRoot; with a result, all but
// what the error says was done.
func Undo(ctx context.Context, opt Options, to string) (res *UndoResult, err error) {
	r := newSession(opt)
	root, err := r.open()
	if err != nil {
		return nil, err
	}
	if state, err := root.StateDir().Open(); err == nil {
		state.Close()
	} else if errors.Is(err, fs.ErrNotExist) {
		// Nothing was ever applied. A lock would create a state, which a full disk
		// has no room for.
		layers, err := remainingAfter(&record.State{}, to)
		if err != nil {
			return nil, err
		}
		return &UndoResult{Left: layers.Names()}, nil
	}
	lock, err := r.lock(ctx, root)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, r.unlock(lock)) }()
	if err := running.Recover(ctx, r.Report, r.sandboxOptions(root), root, lock); err != nil {
		return nil, err
	}
	state := lock.State()
	layers, err := remainingAfter(state, to)
	if err != nil {
		return nil, err
	}
	warn := inventory.Watch(root, r.warn)
	undone, err := lock.Undo(ctx, layers.Events, r.Force)
	if err == nil && layers.Events == 0 && len(state.Lost) > 0 {
		err = lock.SetLost(nil) // what is there now is the machine's
	}
	if err == nil {
		var left []rootfs.Preserved
		left, err = r.writeProfile(ctx, lock, to != "" && state.Profile != nil, envVars(layers.Env))
		undone.Preserved = append(undone.Preserved, left...)
	}
	if err == nil {
		err = lock.Commit(state.Platform, layers.Layers, layers.Env)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrRoot, err)
	}
	warn()
	if layers.Events == 0 {
		if err := shortfall.Write(root.StateDir(), nil); err != nil {
			r.warn("what is missing is still recorded: %v", err)
		}
	}
	res = &UndoResult{Steps: len(undone.Steps), Files: undone.Files, Preserved: undone.Preserved, Lost: undone.Lost, Left: layers.Names()}
	for _, err := range preserved.Errors(undone.Preserved) {
		r.Report.WarnError(err)
	}
	return res, exec.Incomplete(preserved.NotUndone(undone))
}

// remainingAfter returns what stays when all after a layer is undone; "" is the layer
// before the first.
func remainingAfter(state *record.State, to string) (survey.Remaining, error) {
	rest, ok := survey.After(state, to)
	if ok {
		return rest, nil
	}
	var all []string
	for _, l := range state.Layers {
		all = append(all, l.Name)
	}
	return rest, &UnknownLayerError{to, all}
}

// reportRecovered reports what became of a command that was cut off.
func (r *session) reportRecovered(l *rootfs.Lock) {
	if l.Lost != nil {
		r.warn("%s", l.Lost)
	}
	switch l.Recovered {
	case rootfs.RolledBack:
		r.warn("a command before this was cut off: what it had changed is taken back, and the root is as it was before that command")
		r.reportPreserved(l)
	case rootfs.Finished:
		r.warn("a command before this was cut off when its work was done: the root is as that command made it")
	}
}

// reportPreserved reports what rollbacks have left, since the user had changed it.
func (r *session) reportPreserved(l *rootfs.Lock) {
	for _, err := range preserved.Errors(l.Preserved) {
		r.Report.WarnError(err)
	}
	l.Preserved = nil
}
