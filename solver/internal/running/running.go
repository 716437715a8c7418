// Package running notes, in the state directory, that a RUN runs on the root itself. When
// clayer is cut off meanwhile, the next command that locks the root finds what the RUN
// did, and records that.
package running

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"github.com/clayer/clayer/cache/snapshot"
	"github.com/clayer/clayer/internal/printable"
	"github.com/clayer/clayer/internal/tree"
	"github.com/clayer/clayer/solver/internal/needs"
	"github.com/clayer/clayer/solver/internal/record"
	"github.com/clayer/clayer/solver/report"
	"github.com/clayer/clayer/solver/rootfs"
	"github.com/clayer/clayer/solver/sandbox"
	"github.com/clayer/clayer/solver/sandbox/inplace"
)

// A RUN in place changes the root before anything of it can be recorded. So that
// a clayer that is killed meanwhile does not leave changes that nobody knows of,
// the state directory says beforehand that a RUN is under way, and how the root was:
//
//	running.reading   the reading that its changes are compared with
//	running.json      the step
//
// They stay until what the RUN did is committed. Whoever locks the root next
// finds what it did, and records that as of no step.

// A Run is running.json: a RUN in place that was announced.
type Run struct {
	Layer   string          `json:"layer"`
	Text    string          `json:"text"`
	Line    int             `json:"line"`
	Tx      int             `json:"tx"` // the last transaction before it
	Filter  snapshot.Filter `json:"filter"`
	Targets []string        `json:"targets,omitempty"` // of its mounts
	Secrets []string        `json:"secrets,omitempty"` // those of them where nothing was before
}

const readingName = "running.reading"

// MaxTries bounds how often changes are read of which a file changes meanwhile.
const MaxTries = 3

// isAnnounced reports whether a RUN in place was cut off here.
func isAnnounced(root *rootfs.Root) bool {
	is, err := root.StateDir().Exists(rootfs.RunningName)
	return is && err == nil
}

// IsCutOff reports whether a command that changed the root has not come to its
// end. The root is not what its state says then, until somebody locks it.
func IsCutOff(root *rootfs.Root, state *record.State) (bool, error) {
	cut, err := root.CutOff(state)
	if err != nil {
		return false, fmt.Errorf("%w: %w", rootfs.ErrRoot, err)
	}
	return cut || isAnnounced(root), nil
}

// Announce says that a RUN in place begins. The reading is there before the RUN
// is announced, and both before it starts: whatever ends clayer from here on, the
// next command can find what the RUN did.
func (run *Run) Announce(root *rootfs.Root, lock *rootfs.Lock, before *tree.Reading) error {
	err := func() error {
		if err := lock.ReserveForRun(); err != nil {
			return err
		}
		data, err := before.MarshalBinary()
		if err != nil {
			return err
		}
		text, err := json.Marshal(run)
		if err != nil {
			return err
		}
		if err := root.StateDir().ReplaceFile(readingName, data); err != nil {
			return err
		}
		return root.StateDir().ReplaceFile(rootfs.RunningName, text)
	}()
	if err != nil {
		return fmt.Errorf("%w: announce a RUN: %w", rootfs.ErrRoot, errors.Join(err, root.StateDir().Remove(readingName)))
	}
	return nil
}

// Forget says that the RUN that was announced is over, and its record committed.
func Forget(root *rootfs.Root) error {
	if err := errors.Join(root.StateDir().Remove(rootfs.RunningName), root.StateDir().Remove(readingName)); err != nil {
		return fmt.Errorf("%w: after a RUN in place: %w", rootfs.ErrRoot, err)
	}
	return nil
}

// Recover records what a RUN in place did that was cut off.
func Recover(ctx context.Context, rep *report.Reporter, opt sandbox.Options, root *rootfs.Root, lock *rootfs.Lock) error {
	text, err := root.StateDir().ReadFile(rootfs.RunningName)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	var run Run
	if err == nil {
		err = json.Unmarshal(text, &run)
	}
	if err == nil && run.Tx == lock.State().Tx { // else what it did is recorded
		err = lock.Spending(func() error { return run.adopt(ctx, rep, opt, root, lock) })
	}
	if err != nil {
		return fmt.Errorf("%w: a RUN in place was cut off: %w", rootfs.ErrRoot, err)
	}
	return Forget(root)
}

// adopt records what a RUN that was cut off did.
func (run *Run) adopt(ctx context.Context, rep *report.Reporter, opt sandbox.Options, root *rootfs.Root, lock *rootfs.Lock) error {
	opt.Over = ""
	work, err := root.WorkDir()
	if err != nil {
		return err
	}
	opt.Work = work
	sb, err := inplace.New(opt)
	if err != nil {
		return err
	}
	view := sb.InPlace()
	defer view.Close()
	view.RemoveSecrets(run.Secrets)
	data, err := root.StateDir().ReadFile(readingName)
	if errors.Is(err, fs.ErrNotExist) {
		rep.Warnf("clayer was cut off as %q of %s had just begun to run in place: what it changed can't be told, and is in no snapshot", run.Text, run.Layer)
		return nil
	}
	before := new(tree.Reading)
	if err == nil {
		err = before.UnmarshalBinary(data)
	}
	if err != nil {
		return err
	}
	cmd := sandbox.Command{Filter: &run.Filter}
	for _, t := range run.Targets {
		cmd.Mounts = append(cmd.Mounts, sandbox.Mount{Target: t})
	}
	changes, err := view.Recover(ctx, before, cmd)
	if err != nil {
		return err
	}
	did, err := run.Adopt(ctx, lock, view, changes)
	if err != nil {
		return err
	}
	if len(did) > 0 {
		rep.Warnf("clayer was cut off while %q of %s ran in place: it changed %s, which is recorded, and taken back as far as that goes", run.Text, run.Layer, Paths(did))
	}
	return nil
}

// Adopt records, as of no step, what a RUN in place did that failed, and
// returns the paths.
func (run *Run) Adopt(ctx context.Context, lock *rootfs.Lock, view sandbox.InPlace, changes snapshot.Changes) (did []string, err error) {
	changes = snapshot.ForRoot(changes, nil)
	for range MaxTries {
		did = nil
		counted := func(yield func(*snapshot.Entry, error) bool) {
			for e, err := range changes {
				if err == nil && !e.Implied {
					did = append(did, e.Path)
				}
				if !yield(e, err) {
					return
				}
			}
		}
		step := record.Applied{Layer: run.Layer, Text: run.Text, Line: run.Line, Before: view.Before}
		if _, err = lock.Adopt(ctx, step, counted); !errors.Is(err, tree.ErrBusy) {
			return did, err
		}
	}
	return did, err
}

// Paths counts paths of a root, and names some.
func Paths(list []string) string {
	const most = 3
	n := len(list)
	text := "/" + strings.Join(list[:min(n, most)], ", /")
	if n > most {
		text = fmt.Sprintf("%d paths, %s and others", n, text)
	}
	return printable.Line(text)
}

// AddLost adds paths to State.Lost, but for those that no result depends on.
func AddLost(lost, more []string) []string {
	all := slices.Clone(lost)
	for _, p := range more {
		if len(all) < record.MaxLost && !needs.IsRegenerated(p) && !slices.Contains(all, p) {
			all = append(all, p)
		}
	}
	return all
}
