package rootfs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/clayer/clayer/cache/snapshot"
	"github.com/clayer/clayer/internal/durability"
	"github.com/clayer/clayer/internal/inroot"
	"github.com/clayer/clayer/internal/rounds"
	"github.com/clayer/clayer/internal/treetest"
	"github.com/clayer/clayer/solver/internal/record"
)

// errDead is what every system call of a process returns that is no more.
var errDead = errors.New("killed")

// fastDir is a directory for tests that sync often, in memory where that can be had. Each
// is for another durability, in turn, which openRoot reads off its name.
func fastDir(t testing.TB) string {
	t.Helper()
	return dirFor(t, durability.Setting(turn.Add(1)%3+1))
}

var turn atomic.Int32

const dirPrefix = "clayer-test-"

func dirFor(t testing.TB, how durability.Setting) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", fmt.Sprint(dirPrefix, how, "-"))
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() {
		if os.RemoveAll(dir) != nil {
			removeAllModes(dir)
		}
	})
	return dir
}

func removeAllModes(dir string) {
	if os.Geteuid() != 0 {
		exec.Command("chmod", "-R", "u+rwx", dir).Run()
	}
	exec.Command("rm", "-rf", dir).Run()
}

// notOwn leaves clayer's own directory out of a description.
func notOwn(p string) bool { return p == "var/lib/clayer" }

// A seam is the hook of a root that a test opens. Several goroutines call it, since
// files are created by several; what a test sets in it is called by one at a time.
type seam struct {
	mu     sync.Mutex
	before func(call string, reads bool) error // nil: nothing
}

// Before implements inroot.Hook.
func (s *seam) Before(call string, reads bool) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.before == nil {
		return nil
	}
	return s.before(call, reads)
}

func (s *seam) set(before func(call string, reads bool) error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.before = before
}

// openRoot opens a root that hooked can stop.
func openRoot(dir string) (*Root, error) {
	var how durability.Policy
	if _, rest, ok := strings.Cut(dir, dirPrefix); ok {
		how.Setting = durability.Setting(rest[0] - '0')
	}
	return Open(dir, Options{sys: inroot.Sys{Hook: new(seam)}, Durability: how})
}

// hooked has a hook called before each system call on a root of openRoot, for the time
// of f.
func hooked(r *Root, before func(call string, reads bool) error, f func() error) error {
	s := r.sys.Hook.(*seam)
	s.set(before)
	defer s.set(nil)
	return f()
}

// killedAt is a seam of a process that is killed at the n-th call that changes
// something: no call has an effect from there on.
func killedAt(n int) func(name string, reads bool) error {
	calls := 0
	return func(_ string, reads bool) error {
		if !reads {
			calls++
		}
		if calls >= n {
			return errDead
		}
		return nil
	}
}

// operation is what is stopped: a change of a root that has two steps applied.
type operation struct {
	name string
	do   func(l *Lock) (incomplete bool, err error)
}

func before(t testing.TB, dir string) {
	t.Helper()
	shell(t, dir, `mkdir -p root/var/lib root/etc root/tree/sub root/d; cd root
		echo conf > etc/conf; echo deep > tree/sub/f; echo x > gone; chmod 4711 gone; ln -s etc link; chmod 700 d; echo 1 > d/1; ln gone hard
		mkdir -p locked/in; echo 1 > locked/in/f; echo 1 > locked/in/g
		mkdir -m 751 emptied whole; echo 1 > whole/f
		mkfifo pipe; touch -d @1000000000 emptied whole/f whole etc/conf tree/sub/f locked/in/f locked/in/g locked/in locked tree/sub tree gone d/1 d etc pipe var/lib var .; touch -h -d @1000000000 link; chmod 0 locked/in locked`)
	l := lockOf(t, dir)
	applyAll(t, l, "1", file("etc/conf", "1"), dirEntry("made"), file("made/f", "1"), &snapshot.Entry{Path: "made/l", Kind: snapshot.Link, Target: "made/f"}, gone("gone"))
	applyAll(t, l, "2", file("etc/conf", "2"), file("tree", "a file"), dirEntry("d"), file("d/1", "2"), file("d/new", "2"), gone("made/l"), symlink("link", "d"),
		closed("closed"), closed("closed/in"), file("closed/in/f", "2"))
	commit(t, l)
	if err := l.Unlock(); err != nil {
		t.Fatal(err)
	}
}

func lockOf(t testing.TB, dir string) *Lock {
	t.Helper()
	r, err := openRoot(filepath.Join(dir, "root"))
	if err != nil {
		t.Fatal(err)
	}
	l, err := lockRoot(r)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// lockRoot locks a root. It waits for moments: a program that another test starts has
// what is locked open until it is executed.
func lockRoot(r *Root) (*Lock, error) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	return r.Lock(ctx, true, nil)
}

func applyAll(t testing.TB, l *Lock, name string, es ...*snapshot.Entry) {
	t.Helper()
	if res, err := l.Apply(context.Background(), step(name), stream(es...)); err != nil || len(res.Problems) > 0 {
		t.Fatal(err, res.Problems)
	}
}

var operations = []operation{
	{"apply", func(l *Lock) (bool, error) {
		return applySteps(l, 2, "3", "4")
	}},
	{"edit", func(l *Lock) (bool, error) { // the second step falls away, and three others come
		return applySteps(l, 1, "3", "5", "6")
	}},
	{"undo", func(l *Lock) (bool, error) {
		undone, err := l.Undo(context.Background(), 0, false)
		if err != nil {
			return false, err
		}
		return len(undone.Problems) > 0, l.Commit("test", nil, nil)
	}},
}

// closed is a directory that only root may use as it is.
func closed(p string) *snapshot.Entry {
	return with(dirEntry(p), func(e *snapshot.Entry) { e.Mode = 0 })
}

// stepEntries are what the steps of operations do: to the root, and to each other.
func stepEntries(name string) []*snapshot.Entry {
	switch name {
	case "3":
		return []*snapshot.Entry{
			file("etc/conf", "3"), {Path: "pipe", Kind: snapshot.Fifo, Mode: 0o600, UID: os.Geteuid(), GID: os.Getegid(), ModTime: when},
			gone("made"), file("new/a/b", "3"), file("made2", "3"), {Path: "made3", Kind: snapshot.Link, Target: "made2"}, file("etc/more", "3"),
			with(dirEntry("d"), func(e *snapshot.Entry) { e.Mode = 0o750; e.Xattrs = map[string]string{"user.x": "3"} }), {Path: "d", Kind: snapshot.Opaque}, file("d/3", "3"),
			gone("locked/in/f"), file("locked/in/g", "3"), file("closed/in/new", "3"), gone("emptied"), gone("whole"),
		}
	case "4":
		return []*snapshot.Entry{dirEntry("tree"), file("tree/x", "4"), gone("d/3"), file("link", "4"), file("new/a/c", "4"), symlink("new/a/b", "c"), gone("locked/in"), file("closed/in/new", "4")}
	case "big":
		es := []*snapshot.Entry{dirEntry("big")}
		for i := range 500 {
			es = append(es, file(fmt.Sprint("big/", i), strings.Repeat("content ", i)))
		}
		return es
	case "5": // of what step 3 deleted, or what was undone before, it makes some again
		return []*snapshot.Entry{
			gone("tree/sub"), file("link/through", "5"), file("d/1", "5"), file("new", "5"), file("locked", "5"),
			file("emptied/in/f", "5"), dirEntry("whole"), {Path: "whole/f", Kind: snapshot.Dir, Mode: 0o700, UID: os.Geteuid(), GID: os.Getegid(), ModTime: when},
		}
	}
	return []*snapshot.Entry{gone("emptied/in"), closed("emptied"), closed("whole"), file("whole/f", "6")}
}

func applySteps(l *Lock, stay int, names ...string) (incomplete bool, err error) {
	undone, err := l.Undo(context.Background(), stay, false)
	if err != nil {
		return false, err
	}
	incomplete = len(undone.Problems) > 0
	layer := record.LayerKeys{Name: "base"}
	if l.tx != nil { // else there is nothing to build on
		for _, ev := range l.tx.next.Log {
			layer.Steps = append(layer.Steps, ev.Key)
		}
	}
	for _, name := range names {
		res, err := l.Apply(context.Background(), step(name), stream(stepEntries(name)...))
		if err != nil {
			return false, err
		}
		incomplete = incomplete || len(res.Problems) > 0
		layer.Steps = append(layer.Steps, keyOf(name))
	}
	return incomplete, l.Commit("test", []record.LayerKeys{layer}, []record.Var{{Name: "A", Value: "1"}})
}

// outcome is a root with what its state says of it.
type outcome struct {
	tree string
	tx   int
}

func outcomeOf(t testing.TB, dir string) outcome {
	t.Helper()
	r, err := Open(filepath.Join(dir, "root"), Options{})
	if err != nil {
		t.Fatal(err)
	}
	s, err := r.State()
	if err != nil {
		t.Fatal(err)
	}
	return outcome{treetest.Describe(t, r.Dir(), notOwn), s.Tx}
}

// reference returns the root before and after an operation, and how many system
// calls it makes: those that change something, and all.
func reference(t *testing.T, op operation, before func(testing.TB, string)) (was, is outcome, calls, all int) {
	t.Helper()
	dir := dirFor(t, durability.Always) // the most calls
	before(t, dir)
	was = outcomeOf(t, dir)
	l := lockOf(t, dir)
	err := hooked(l.root, func(_ string, reads bool) error {
		all++
		if !reads {
			calls++
		}
		return nil
	}, func() error {
		incomplete, err := op.do(l)
		if incomplete {
			err = errors.Join(err, errors.New("incomplete"))
		}
		return errors.Join(err, l.close())
	})
	if err != nil {
		t.Fatal(err)
	}
	is = outcomeOf(t, dir)
	if was.tree == is.tree || calls < 40 || all <= calls+calls/4 {
		t.Fatalf("%s changes nothing, in %d calls", op.name, calls)
	}
	return was, is, calls, all
}

// recovered locks the root as the next command does, and checks that it is one of
// the two, which the state and Recovered tell.
func recovered(t *testing.T, dir string, was, is outcome, what string) {
	t.Helper()
	l := lockOf(t, dir)
	got := outcomeOf(t, dir)
	want, says := was, l.Recovered != Finished
	if got.tx == is.tx {
		want, says = is, l.Recovered != RolledBack
	}
	if got.tree != want.tree || !says {
		t.Errorf("%s: recovered %q, transaction %d", what, l.Recovered, got.tx)
		treetest.Diff(t, want.tree, got.tree)
	}
	for _, rest := range []string{"stage", "trash", "work"} {
		if _, err := os.Lstat(l.root.state.Path(rest)); err == nil {
			t.Errorf("%s: %s is left", what, rest)
		}
	}
	if err := l.close(); err != nil {
		t.Error(err)
	}
	if t.Failed() {
		t.FailNow()
	}
}

// kill does an operation, of which no system call has an effect from the n-th on.
// It returns how much of the journal had been synced.
func kill(t *testing.T, dir string, op operation, n int) (synced int64, settled bool) {
	t.Helper()
	l := lockOf(t, dir)
	dead := killedAt(n)
	_ = hooked(l.root, func(name string, reads bool) error {
		if err := dead(name, reads); err != nil {
			return err
		}
		settled = settled || name == "syncfs"
		if l.tx != nil {
			synced = l.tx.journal.Durable()
		}
		return nil
	}, func() error {
		_, err := op.do(l)
		return err
	})
	if l.tx != nil {
		synced = l.tx.journal.Durable()
		l.tx.journal.Close()
	}
	l.close()
	return synced, settled
}

// After a kill at any system call, also of the recovery itself, the root is what
// it was, or what it was to be.
func TestKilledAtEverySystemCall(t *testing.T) {
	for _, user := range users {
		for _, op := range operations {
			t.Run(user.name+" "+op.name, func(t *testing.T) {
				t.Parallel()
				alone(t, &user.attr, func() { killedAtEach(t, op, before) })
			})
		}
	}
}

func killedAtEach(t *testing.T, op operation, before func(testing.TB, string)) {
	was, is, calls, all := reference(t, op, before)
	t.Logf("%d system calls that change something, %d in all", calls, all)
	for n := 1; n <= calls; n++ {
		dir := fastDir(t)
		before(t, dir)
		kill(t, dir, op, n)
		if n%3 == 0 { // and again, while it is rolled back
			for m := 1 + n%7; ; m += 5 {
				r, err := openRoot(filepath.Join(dir, "root"))
				if err != nil {
					t.Fatal(err)
				}
				var l *Lock
				err = hooked(r, killedAt(m), func() (err error) {
					l, err = lockRoot(r)
					return err
				})
				if m > 5*calls {
					t.Fatalf("killed at call %d of %d: %v", n, calls, err)
				}
				if err == nil {
					l.close()
					break
				}
			}
		}
		recovered(t, dir, was, is, fmt.Sprintf("killed at call %d of %d", n, calls))
		removeAllModes(dir)
	}
}

// After a loss of power, of what was written since the last sync anything may be
// missing: the end of the journal, and the content of files. What names stand
// where stays in order, as journaling file systems do.
func TestPowerLostAtEverySystemCall(t *testing.T) {
	for _, op := range operations {
		t.Run(op.name, func(t *testing.T) {
			t.Parallel()
			was, is, calls, _ := reference(t, op, before)
			for n := 1; n <= calls; n++ {
				dir := dirFor(t, durability.Always)
				before(t, dir)
				old := inodes(t, dir)
				synced, settled := kill(t, dir, op, n)
				r, err := Open(filepath.Join(dir, "root"), Options{})
				if err != nil {
					t.Fatal(err)
				}
				if !settled {
					loseContent(t, dir, old)
				}
				loseEnd(t, r.state.Path(record.LogName(2)), synced, n)
				recovered(t, dir, was, is, fmt.Sprintf("power lost at call %d of %d", n, calls))
				removeAllModes(dir)
			}
		})
	}
}

func inodes(t *testing.T, dir string) map[uint64]bool {
	all := make(map[uint64]bool)
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		var st unix.Stat_t
		if err == nil {
			err = unix.Lstat(p, &st)
		}
		all[st.Ino] = true
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// loseContent empties the files that are new, but for the journal.
func loseContent(t *testing.T, dir string, old map[uint64]bool) {
	log := filepath.Join(dir, "root/var/lib/clayer/log")
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		var st unix.Stat_t
		if err == nil {
			err = unix.Lstat(p, &st)
		}
		if err != nil || old[st.Ino] || !d.Type().IsRegular() || filepath.Dir(p) == log {
			return err
		}
		return os.Truncate(p, 0)
	})
	if err != nil {
		t.Fatal(err)
	}
}

// loseEnd cuts off a file somewhere after what was synced, or leaves its length
// with something else in it.
func loseEnd(t *testing.T, path string, synced int64, n int) {
	info, err := os.Stat(path)
	if err != nil || info.Size() <= synced {
		return
	}
	rest := info.Size() - synced
	if err = os.Truncate(path, synced+rest*int64(n%4)/4); err == nil && n%2 == 0 {
		err = os.Truncate(path, info.Size()) // zeros
	}
	if err != nil {
		t.Fatal(err)
	}
}

// When a system call fails, once or from then on, the root is what it was, or
// what it was to be; or it is told what is not, and the same once more does it.
func TestFailureOfEverySystemCall(t *testing.T) {
	ofChange := []unix.Errno{unix.ENOSPC, unix.EIO, unix.EROFS, unix.EDQUOT}
	ofRead := []unix.Errno{unix.EIO, unix.EMFILE}
	for _, op := range operations {
		t.Run(op.name, func(t *testing.T) {
			t.Parallel()
			was, is, _, calls := reference(t, op, before)
			t.Logf("%d system calls", calls)
			for n := 1; n <= calls; n++ {
				errnos := ofChange
				for i := 0; i < len(errnos); i++ {
					errno := errnos[i]
					if (n+i)%2 == 1 && errno != unix.EIO && !rounds.Long() {
						continue
					}
					dir := dirFor(t, durability.Setting(n%3+1)) // the same calls for all errors
					before(t, dir)
					l := lockOf(t, dir)
					count, failed := 0, ""
					lasting := (n+i)%2 == 0 && (errno == unix.ENOSPC || errno == unix.EDQUOT)
					var incomplete bool
					err := hooked(l.root, func(name string, reads bool) error {
						count++
						if count == n && reads {
							errnos, errno, lasting = ofRead, ofRead[i], false
						}
						if count == n || lasting && count > n && !reads && takesSpace[name] {
							if failed == "" {
								failed = name
							}
							return errno
						}
						return nil
					}, func() (err error) {
						incomplete, err = op.do(l)
						return errors.Join(err, l.Rollback())
					})
					what := fmt.Sprintf("%v of call %d of %d, %s", errno, n, calls, failed)
					l.close()
					recovered2 := func() { recovered(t, dir, was, is, fmt.Sprintf("%s: incomplete %t, error %v", what, incomplete, err)) }
					if !incomplete {
						recovered2()
					}
					if err == nil && (incomplete || outcomeOf(t, dir).tx == is.tx && op.name == "undo" && incomplete) {
						again(t, dir, op, is, what)
					}
					removeAllModes(dir)
				}
			}
		})
	}
}

// again does an operation once more where it could not be done wholly.
func again(t *testing.T, dir string, op operation, is outcome, what string) {
	t.Helper()
	l := lockOf(t, dir)
	defer l.close()
	stay := 0
	for _, ev := range l.state.Log {
		if ev.Incomplete {
			break
		}
		stay++
	}
	var incomplete bool
	var err error
	if op.name == "undo" {
		incomplete, err = op.do(l)
	} else {
		var names []string
		for i := stay; i < len(l.state.Log); i++ {
			for _, name := range []string{"3", "4", "5", "6"} {
				if l.state.Log[i].Key == keyOf(name) {
					names = append(names, name)
				}
			}
		}
		incomplete, err = applySteps(l, stay, names...)
	}
	if err != nil || incomplete {
		t.Fatalf("%s: and again: incomplete %t, error %v", what, incomplete, err)
	}
	if got := outcomeOf(t, dir); got.tree != is.tree {
		t.Errorf("%s: and again", what)
		treetest.Diff(t, is.tree, got.tree)
		t.FailNow()
	}
}

// What fails while a command that was cut off is rolled back is told, and the next
// command goes on: also a journal that can't be read is not taken for one that ends.
func TestFailureWhileItIsTakenBack(t *testing.T) {
	op := operations[1]
	was, is, calls, _ := reference(t, op, before)
	for _, n := range []int{calls / 4, calls / 2, calls * 3 / 4, calls - 8} {
		for m, more := 1, true; more; m++ {
			dir := fastDir(t)
			before(t, dir)
			kill(t, dir, op, n)
			r, err := openRoot(filepath.Join(dir, "root"))
			if err != nil {
				t.Fatal(err)
			}
			var l *Lock
			count, failed := 0, ""
			err = hooked(r, func(name string, _ bool) error {
				if count++; count == m {
					failed = name
					return unix.EIO
				}
				return nil
			}, func() (err error) {
				l, err = lockRoot(r)
				return err
			})
			if l != nil {
				l.close()
			}
			more = failed != ""
			recovered(t, dir, was, is, fmt.Sprintf("killed at call %d of %d, then EIO of call %d, %s: %v", n, calls, m, failed, err))
			removeAllModes(dir)
		}
	}
}

// The same with a real kill, of a process of its own.
func TestKilledProcess(t *testing.T) {
	op := operations[1]
	was, is, calls, _ := reference(t, op, before)
	for n := 1; n <= calls; n += 7 {
		how := durability.Setting(n%3 + 1)
		dir := dirFor(t, how)
		before(t, dir)
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), helperDoes+"=edit", helperRoot+"="+filepath.Join(dir, "root"), fmt.Sprintf("%s=%d", helperKill, n))
		out, err := cmd.CombinedOutput()
		if how != durability.Always && n > calls-20 && bytes.Contains(out, []byte("not killed")) {
			continue // it makes fewer calls, and came to its end
		}
		var exit *exec.ExitError
		if !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
			t.Fatalf("call %d: %v\n%s", n, err, out)
		}
		recovered(t, dir, was, is, fmt.Sprintf("killed at call %d of %d", n, calls))
	}
}

// helperKill names the variable with the number of the call at which the helper
// kills itself.
const helperKill = "ROOTFS_TEST_KILL"

// killAt has this process killed before the n-th system call on a root.
func killAt(r *Root, n int) {
	dead := killedAt(n)
	r.sys.Hook.(*seam).set(func(name string, reads bool) error {
		if dead(name, reads) != nil {
			syscall.Kill(os.Getpid(), syscall.SIGKILL)
			select {}
		}
		return nil
	})
}
