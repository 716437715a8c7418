package rootfs

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/gofrs/flock"
	"golang.org/x/sys/unix"

	"github.com/clayer/clayer/cache/snapshot"
	"github.com/clayer/clayer/dag/key"
)

// ErrLocked says that another solve is at work in the root.
var ErrLocked = errors.New("another solve is at work here")

func mayWrite(path string) bool { return unix.Access(path, unix.W_OK) == nil }
func isInvalid(err error) bool  { return errors.Is(err, unix.EINVAL) }

// A Lock is the right to change a root: one process has it. It ends with
// Unlock, or with the process.
type Lock struct {
	root  *Root
	file  *flock.Flock
	state *State
	saved time.Time
}

// Lock takes the root's lock, making the state folder. While another process
// has it, waiting is told once for whom, and Lock waits; without wait it fails
// with ErrLocked. What a killed solve left in the work folder is removed.
func (r *Root) Lock(ctx context.Context, wait bool, waiting func(holder string)) (*Lock, error) {
	if err := os.MkdirAll(r.state, 0o755); err != nil {
		return nil, err
	}
	f := flock.New(filepath.Join(r.state, "lock"), flock.SetPermissions(0o644))
	locked, err := f.TryLock()
	if err == nil && !locked {
		who := holder(f.Path())
		if !wait {
			return nil, errors.Join(fmt.Errorf("%w: %s", ErrLocked, who), f.Close())
		}
		if waiting != nil {
			waiting(who)
		}
		_, err = f.TryLockContext(ctx, 50*time.Millisecond)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("lock %s: %w", f.Path(), err), f.Close())
	}
	l := &Lock{root: r, file: f}
	err = l.sign()
	if err == nil {
		l.state, err = r.State()
	}
	if err == nil {
		err = l.recover()
	}
	if err == nil {
		err = os.RemoveAll(filepath.Join(r.state, "work"))
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return l, nil
}

// recover adds to the log what has a record in changes/ alone: of applies that
// a kill cut off before the state was written. What they did to the root is
// done, and their originals are wanted when it is undone. What they were making
// is removed.
func (l *Lock) recover() error {
	last, err := l.root.lastSeq()
	if err != nil || last < l.state.nextSeq() {
		return err
	}
	for seq := l.state.nextSeq(); seq <= last; seq++ {
		doing := ""
		for c, err := range l.root.Changes(seq) {
			if err != nil {
				return err
			}
			doing = string(c.Path)
		}
		l.state.Log = append(l.state.Log, Event{Seq: seq})
		if doing == "" {
			continue
		}
		if err := l.root.sweep(doing); err != nil {
			return fmt.Errorf("after a solve that was killed: %w", err)
		}
	}
	return l.root.saveState(l.state)
}

// sign writes into the lock file who has it, for those who wait.
func (l *Lock) sign() error {
	who := fmt.Sprintf("process %d, since %s", os.Getpid(), time.Now().Format(time.TimeOnly))
	return os.WriteFile(l.file.Path(), []byte(who), 0o644)
}

func holder(path string) string {
	text, err := os.ReadFile(path)
	if s := strings.TrimSpace(string(text)); err == nil && s != "" {
		return s
	}
	return "another process"
}

// Unlock gives the lock back, and removes the work folder.
func (l *Lock) Unlock() error {
	return errors.Join(os.RemoveAll(filepath.Join(l.root.state, "work")), l.file.Close())
}

// Begin records, before anything is changed, what the root is, if nothing is
// recorded yet, and which steps stay as they are: after a kill none but these
// may be taken for applied.
func (l *Lock) Begin(platform string, order []key.Key) error {
	if l.state.Platform == "" {
		l.state.Platform = platform
	}
	l.state.Order = order
	return l.root.saveState(l.state)
}

// Apply changes the root by the step's entries and records the step. When it
// fails half-way, the record does not have the step; what was changed is in the
// log all the same.
//
// The error is a hard one (a full disk, a stream that is invalid, ctx); entries
// that could not be made are in the Result, and the step counts as applied.
func (l *Lock) Apply(ctx context.Context, step Applied, changes snapshot.Changes) (Result, error) {
	var res Result
	if step.Digest != "" {
		seq := l.state.nextSeq()
		var err error
		res, err = l.apply(ctx, seq, changes)
		if _, missing := os.Lstat(l.root.changesPath(seq)); missing == nil {
			l.state.Log = append(l.state.Log, Event{seq, step.Key})
		}
		if err != nil {
			return res, errors.Join(err, l.root.saveState(l.state))
		}
	}
	i := slices.IndexFunc(l.state.Layers, func(x Layer) bool { return x.Name == step.Layer })
	if i < 0 {
		i = len(l.state.Layers)
		l.state.Layers = append(l.state.Layers, Layer{Name: step.Layer})
	}
	steps := slices.DeleteFunc(l.state.Layers[i].Steps, func(a Applied) bool { return a.Key == step.Key })
	l.state.Layers[i].Steps = append(steps, step)
	// Saving costs a sync: not for each of a thousand small steps.
	if time.Since(l.saved) < time.Second {
		return res, nil
	}
	l.saved = time.Now()
	return res, l.root.saveState(l.state)
}

// Commit records the composition as it is now: of each layer the steps with the
// given keys, in their order, the order of all, and the environment. Steps of
// these layers that are not among them fell away; layers that are not named
// stay as they are.
func (l *Lock) Commit(layers map[string][]key.Key, order []key.Key, env []Var) error {
	l.state.Order = order
	for i := range l.state.Layers {
		layer := &l.state.Layers[i]
		keys, ok := layers[layer.Name]
		if !ok {
			continue
		}
		var steps []Applied
		for _, k := range keys {
			if j := slices.IndexFunc(layer.Steps, func(a Applied) bool { return a.Key == k }); j >= 0 {
				steps = append(steps, layer.Steps[j])
			}
		}
		layer.Steps = steps
	}
	l.state.Env = env
	return l.root.saveState(l.state)
}

// Overlapping returns which of the steps that stay, given in order, have to be
// applied again: those that own a path which a step that fell away changed or
// took away, or which one applied again before it changes.
func (l *Lock) Overlapping(stay, fell []key.Key) (map[key.Key]bool, error) {
	touched := make(map[string]bool)
	add := func(k key.Key) error {
		return l.lastChanges(k, func(c Change) bool {
			if c.Kind != "dir" {
				touched[string(c.Path)] = true
			}
			return true
		})
	}
	for _, k := range fell {
		if err := add(k); err != nil {
			return nil, err
		}
	}
	again := make(map[key.Key]bool)
	for _, k := range stay {
		if len(touched) == 0 {
			break
		}
		err := l.lastChanges(k, func(c Change) bool {
			// The path, or a folder above it that was deleted or replaced.
			for p := string(c.Path); p != "." && !again[k]; p = path.Dir(p) {
				again[k] = touched[p]
			}
			return !again[k]
		})
		if err == nil && again[k] {
			err = add(k)
		}
		if err != nil {
			return nil, err
		}
	}
	return again, nil
}

// lastChanges calls f for the changes of a step's last apply while it returns true.
func (l *Lock) lastChanges(k key.Key, f func(Change) bool) error {
	for _, ev := range slices.Backward(l.state.Log) {
		if ev.Key != k {
			continue
		}
		for c, err := range l.root.Changes(ev.Seq) {
			if err != nil {
				return err
			}
			if !f(c) {
				return nil
			}
		}
		return nil
	}
	return nil
}
