package shim

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/clayer/clayer/frontend"
	"github.com/clayer/clayer/frontend/reference"
	"github.com/clayer/clayer/internal/inherited"
	"github.com/clayer/clayer/internal/pathname"
	"github.com/clayer/clayer/solver"
)

// shimFD is the descriptor of the process that watches at whose other end the shim is.
const shimFD = 3

// Watch is "clayer shim watch", the process that a shim starts before an install. It has the
// root's lock, reads the root before the program runs and after it, and packs what changed:
// after the shim has ended, so that the prompt is there at once. A shim that ends before
// it asks for that leaves nothing of this.
func Watch(o Options, argv []string) int {
	inherited.Close(shimFD) // a lock of the session's, say, which ends with the shim
	unix.CloseOnExec(shimFD)
	conn := os.NewFile(shimFD, "shim")
	defer conn.Close()
	ctx, stop := interruptible()
	defer stop()
	asked, cancel := context.WithCancel(ctx) // until the shim is gone
	defer cancel()
	requests := make(chan request)
	go func() {
		defer close(requests)
		defer cancel()
		for d := json.NewDecoder(conn); ; {
			var r request
			if d.Decode(&r) != nil {
				return
			}
			requests <- r
		}
	}()
	say := func(a answer) { _ = json.NewEncoder(conn).Encode(a) } // a shim that is gone needs none
	w := &watcher{o: o}
	defer w.close()
	begun := answerOf(w.begin(asked, argv, func() { say(answer{Waiting: true}) }))
	begun.Env = w.lacking(asked)
	say(begun)
	for r := range requests {
		switch r.Do {
		case doEnd:
			c, err := o.openCount() // shims may be uninstalled before the snapshot is made
			w.alone = func() error { return errors.Join(err, c.alone(r.Before, r.Shared)) }
			say(answerOf(w.ended(asked)))
		case doAdopt:
			w.env = r.Env
			pack, err := w.prepare(asked, r.Own)
			if err == nil && !r.Wait {
				_ = o.write(Note{Text: w.text}) // before the shim ends: the next install looks for it
			}
			say(answerOf(err))
			switch {
			case err != nil:
			case r.Wait:
				say(answerOf(pack(asked)))
			default:
				if err := pack(ctx); err != nil {
					_ = o.write(Note{Text: w.text, Error: err.Error(), Store: errors.Is(err, solver.ErrStore)})
				} else {
					_ = os.Remove(o.noteFile())
				}
			}
			return 0
		}
	}
	return 0
}

func answerOf(err error) (a answer) {
	if err != nil {
		a.Error, a.Store = err.Error(), errors.Is(err, solver.ErrStore)
	}
	return a
}

// A watcher makes a snapshot of what is installed.
type watcher struct {
	o     Options
	opt   solver.Options
	watch *solver.Watch
	alone func() error      // an error if another install was at work
	text  string            // of the line
	env   map[string]string // what the install ran with that the session has not
}

// begin reads the root. It waits for who changes that: most often the install before this one
// has ended, and its snapshot is being made. It does not wait for another one.
func (w *watcher) begin(ctx context.Context, argv []string, waiting func()) (err error) {
	if w.opt, err = w.o.Solver(ctx); err != nil {
		return err
	}
	var replaced []string
	if filepath.Join("/", w.opt.Root) == "/" {
		replaced = w.o.replaced(ctx, argv)
	}
	start := time.Now()
	for {
		w.watch, err = solver.WatchInstall(ctx, w.opt, w.o.Dir, replaced)
		if !errors.Is(err, solver.ErrAtWork) || ctx.Err() != nil || time.Since(start) > packingTime {
			return err
		}
		if is, e := w.o.isInstalling(); is || e != nil {
			return errors.Join(err, e)
		}
		if waiting != nil && time.Since(start) > time.Second {
			waiting()
			waiting = nil
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// lacking returns the variables that the line will have by ENV and the session lacks; of
// $PATH, the directories that the session lacks and then its own. A Containerfile that can't
// be read is an error later, when the line is written.
func (w *watcher) lacking(ctx context.Context) map[string]string {
	if w.watch == nil {
		return nil
	}
	opt := w.opt
	var err error
	if opt.Files, err = w.o.composition(ctx, opt); err != nil {
		return nil
	}
	vars, err := solver.Env(opt)
	if err != nil {
		return nil
	}
	lacks := make(map[string]string)
	for _, v := range vars {
		want := reference.Substitute(v.Value, os.Getenv)
		have, ok := os.LookupEnv(v.Name)
		list := strings.Split(have, ":")
		more := slices.DeleteFunc(strings.Split(want, ":"), func(dir string) bool { return slices.Contains(list, dir) })
		switch {
		case !ok:
			lacks[v.Name] = want
		case v.Name == "PATH" && len(more) > 0:
			lacks[v.Name] = strings.Join(append(more, have), ":")
		}
	}
	return lacks
}

// ended reads the root again.
func (w *watcher) ended(ctx context.Context) error {
	if err := w.watch.Ended(ctx); err != nil {
		return err
	}
	return w.alone()
}

// prepare returns what makes the snapshot, that of the last line of the Containerfile.
func (w *watcher) prepare(ctx context.Context, own bool) (pack func(context.Context) error, err error) {
	if !own {
		return nil, errors.New("it changed a RUN that was in the file before")
	}
	files, err := w.o.composition(ctx, w.opt)
	if err != nil {
		return nil, err
	}
	i := slices.IndexFunc(files, func(f *frontend.File) bool { return f.Path == w.o.File })
	w.text = files[i].Instructions[len(files[i].Instructions)-1].Base().Text
	w.watch.With = w.env
	adopt, err := w.watch.Prepare(ctx, files, w.text, w.projects(), w.alone)
	if err != nil {
		return nil, err
	}
	return func(ctx context.Context) error {
		err := adopt(ctx)
		var failed *solver.BuildError
		if errors.As(err, &failed) {
			err = failed.Err
		}
		return err
	}, nil
}

// projects are the directories of the Containerfile and of the session, relative to the root,
// as far as they are not those of all that the user has, or of the system.
func (w *watcher) projects() (dirs []string) {
	home, _ := os.UserHomeDir()
	here, _ := os.Getwd()
	for _, dir := range []string{contextOf(w.o.File), here} {
		rel, err := filepath.Rel(filepath.Join("/", w.opt.Root), dir)
		isSystem := slices.Contains([]string{".", "opt", "srv", "home", "root"}, rel) || slices.ContainsFunc([]string{"usr", "etc", "var"}, func(top string) bool { return pathname.Under(rel, top) })
		if err == nil && filepath.IsLocal(rel) && !isSystem && !pathname.Under(home, dir) {
			dirs = append(dirs, rel)
		}
	}
	return dirs
}

// close gives the machine back to others.
func (w *watcher) close() {
	if w.watch != nil {
		_ = w.watch.Close() // what it leaves is removed by the next command
	}
}

// interruptible returns a context that signals cancel: what is installed stays, and the exit
// code is the program's.
func interruptible() (context.Context, context.CancelFunc) {
	return signal.NotifyContext(context.Background(), forwarded[:4]...)
}
