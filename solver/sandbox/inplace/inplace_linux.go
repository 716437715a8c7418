package inplace

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/clayer/clayer/cache/snapshot"
	"github.com/clayer/clayer/internal/beneath"
	"github.com/clayer/clayer/internal/fsclock"
	"github.com/clayer/clayer/internal/inroot"
	"github.com/clayer/clayer/internal/tree"
	"github.com/clayer/clayer/solver/sandbox"
	"github.com/clayer/clayer/solver/sandbox/helper"
	"github.com/clayer/clayer/solver/sandbox/internal/mountstubs"
)

// inplace runs commands on the root itself.
type inplace struct {
	sandbox.Options
	trusted bool      // ctime shows every change
	sums    tree.Sums // which files are read before a command runs
	clock   string    // a directory of the root's file system, to see its clock in
	xattrs  bool      // ctime shows changes of xattrs too
	bounded bool      // not all of a large root: see maxSumFiles
	how     string    // the same in words

	own  map[tree.ID]bool // clayer's own files, whatever a command renamed them to
	held []*os.File       // the same, open: else a new file may get the inode number of a deleted one

	warn func(texts []string) // prints each text once
}

// New returns a sandbox whose one view is the root itself: a command
// changes it, and two readings of its metadata show how. It needs no privilege,
// but for a Root other than "/": chroot(2).
//
// Whether ctime can be trusted is probed in Work, which takes a tick of the
// clock. The error wraps sandbox.ErrUnavailable if a command could not be run.
func New(opt sandbox.Options) (*sandbox.Sandbox, error) {
	if err := sandbox.CheckMain(); err != nil {
		return nil, err
	}
	if err := opt.Clean(); err != nil {
		return nil, fmt.Errorf("inplace sandbox: %w", err)
	}
	if err := allowed(opt); err != nil {
		return nil, err
	}
	s := &inplace{Options: opt}
	s.warn = s.WarnOnce("inplace")
	if err := s.compare(); err != nil {
		return nil, err
	}
	return &sandbox.Sandbox{Name: "inplace", How: s.how, InPlace: func() sandbox.InPlace {
		return &place{s: s, reported: make(map[string]bool)}
	}}, nil
}

// Check returns how New would work, without a probe of ctime.
func Check(opt sandbox.Options) (how string, err error) {
	if err := errors.Join(sandbox.CheckMain(), allowed(opt)); err != nil {
		return "", err
	}
	switch opt.Compare {
	case sandbox.CompareCTime:
		return "compares ctime, as asked", nil
	case sandbox.CompareDigest:
		return "compares digests, as asked", nil
	}
	return "compares ctime, if it can be trusted", nil
}

// Exec runs the command on the root itself, with the files as its streams, and finds out
// nothing about what it changes; Output, Filter and Mounts are ignored. The error wraps
// sandbox.ErrUnavailable if the command could not be run.
func Exec(ctx context.Context, opt sandbox.Options, c sandbox.Command, stdin, stdout, stderr *os.File) error {
	if err := errors.Join(sandbox.CheckMain(), opt.Clean(), allowed(opt)); err != nil {
		return err
	}
	c.Mounts = nil
	p := helper.Process{Warn: opt.WarnOnce("inplace")}
	return p.Exec(ctx, helper.Job{InPlace: true, Root: opt.Root, View: opt.Work}, c, stdin, stdout, stderr)
}

// allowed returns why a command could not be run in place, if so.
func allowed(opt sandbox.Options) error {
	if opt.Over != "" {
		return sandbox.Unavailable("inplace", fmt.Errorf("changes are to go to %s, and RUN in place changes the root itself", opt.Over))
	}
	if opt.Root != "/" && !mayChroot() {
		return sandbox.Unavailable("inplace", fmt.Errorf("to run in %s takes chroot, which needs root", opt.Root))
	}
	return nil
}

func mayChroot() bool {
	// Entering the root that one is in changes nothing.
	return unix.Chroot("/") == nil
}

// compare decides by what changes are found.
func (s *inplace) compare() error {
	var trust fsclock.Trust
	if s.clock = s.clockDir(); s.clock == "" {
		trust = fsclock.Trust{Doubt: "there is no directory in the root's file system to probe its clock in"}
	} else {
		var err error
		if trust, err = fsclock.Probe(s.clock); err != nil {
			return err
		}
	}
	s.xattrs = trust.Xattrs
	switch s.Compare {
	case sandbox.CompareCTime:
		s.trusted, s.sums, s.how = true, tree.SumLinked, "compares ctime, as asked"
		return nil
	case sandbox.CompareDigest:
		s.trusted, s.sums, s.how = false, tree.SumAll, "compares digests, as asked"
		return nil
	case sandbox.CompareAuto:
	default:
		return fmt.Errorf("compare by %q: want ctime or digest", s.Compare)
	}
	var st unix.Statfs_t
	onOverlay := unix.Statfs(s.Root, &st) == nil && st.Type == unix.OVERLAYFS_SUPER_MAGIC
	switch {
	case trust.Doubt != "":
		s.trusted, s.sums, s.how = false, tree.SumAll, "compares digests: "+trust.Doubt
	case onOverlay:
		// Copy-up renews ctime and inode of a file that stays what it is.
		s.trusted, s.sums, s.bounded, s.how = true, tree.SumAll, true, "compares ctime, and digests where it moved: the root is an overlay"
	default:
		s.trusted, s.sums, s.how = true, tree.SumLinked, "compares ctime"
	}
	return nil
}

// clockDir returns a directory that is in the root's own mount, and where a
// probe leaves no trace in a snapshot; "" if there is none.
func (s *inplace) clockDir() string {
	for _, dir := range []string{s.Work, filepath.Join(s.Root, "tmp"), filepath.Join(s.Root, "var/tmp")} {
		if st, err := os.Lstat(dir); err == nil && st.IsDir() && mountstubs.SameMount(dir, s.Root) &&
			unix.Access(dir, unix.W_OK|unix.X_OK) == nil {
			return dir
		}
	}
	return ""
}

// On a root that is an overlay, all files are read before the first command: a
// file that was only opened for writing, or given the mode that it has, is then
// seen to be the same. Of a root with more than this, some seconds of reading,
// such a file is reported, which is safe.
const (
	maxSumFiles = 200_000
	maxSumBytes = 4 << 30
)

// bound decides, once, whether a root is too large to be read: by a first
// reading of it, which is enough then.
func (p *place) bound(ctx context.Context, filter *snapshot.Matcher) (*tree.Reading, error) {
	p.s.bounded = false
	r, err := p.read(ctx, filter, tree.SumLinked, nil)
	if err != nil {
		return nil, err
	}
	if n, bytes := r.Files(); n > maxSumFiles || bytes > maxSumBytes {
		p.s.sums = tree.SumLinked
		p.s.warn([]string{fmt.Sprintf("the root is an overlay of %d files and %d MB: those that are only opened for writing are captured too, unless digests are compared", n, bytes>>20)})
		return r, nil
	}
	return p.read(ctx, filter, p.s.sums, r)
}

// place is the root itself, and the reading that the next change is compared with.
type place struct {
	s *inplace

	at       *tree.Reading // nil: not read yet
	before   *tree.Reading // what the last Run began with
	filter   string        // that at was read with
	stale    bool          // the root was changed since by other hands
	reported map[string]bool

	span    *fsclock.Span    // since the first Run; nil before
	watched snapshot.Changes // what the next Run returns; nil: it runs its command

	scratch map[string]bool // names in scratch directories that are the layer's
	foreign map[string]bool // those that are not
}

// Stale implements sandbox.InPlace.
func (p *place) Stale() { p.stale = true }

// Before implements sandbox.InPlace.
func (p *place) Before(path string) (directory *snapshot.Entry, existed bool) {
	return p.before.Lookup(path)
}

// Original implements sandbox.InPlace: nobody knows what a command here will replace.
func (p *place) Original(string, int, string) (bool, error) { return false, nil }

func (p *place) read(ctx context.Context, filter *snapshot.Matcher, sums tree.Sums, previous *tree.Reading) (*tree.Reading, error) {
	hidden := tree.Hide(p.s.Hide)
	return tree.Read(ctx, p.s.Root, tree.Options{
		Live: true, Own: p.s.own, Sums: sums, Previous: previous, RereadXattrs: !p.s.xattrs,
		Foreign: p.foreign,
		Prune:   func(path string) bool { return filter.Prune(path) || hidden != nil && hidden(path) },
	})
}

// Run implements sandbox.View. A command that fails has changed the root all the same:
// then both the changes and the error are there.
func (p *place) Run(ctx context.Context, c sandbox.Command) (snapshot.Changes, error) {
	filter, matcher, err := c.Changes()
	if err != nil {
		return nil, err
	}
	if p.watched != nil {
		if filter.String() != p.filter {
			return nil, errors.New("other files than usual are captured there")
		}
		return p.watched, nil
	}
	trusted, err := p.begin(ctx, filter.String(), matcher)
	if err != nil {
		return nil, err
	}
	covered, secrets := p.cover(c.Mounts)
	if c.Begin != nil {
		if err := c.Begin(p.at, secrets); err != nil {
			return nil, err
		}
	}
	if p.span == nil {
		if p.span, err = fsclock.Begin(p.s.clock); err != nil {
			return nil, err
		}
	}
	clock := time.Now()
	ran := p.command(ctx, c)
	if ran == nil {
		ran = sandbox.CheckSpace(p.s.Root)
	}
	setBack := wentBack(clock)
	p.RemoveSecrets(secrets)
	p.adoptScratch()

	// What it did is reported even if it failed.
	epoch := c.Epoch
	if ran != nil {
		epoch = time.Time{} // it is undone
	}
	changes, err := p.since(context.WithoutCancel(ctx), trusted, setBack, epoch, &tree.Between{
		Dirty: c.Dirty, Filter: matcher, Hide: p.hidesScratch(tree.Hide(append(covered, p.s.Hide...))),
	}, matcher)
	return changes, errors.Join(ran, err)
}

// since reads the root again, gives what was written the time, unless that is zero, and
// returns what has changed since the reading before, as b has it reported.
func (p *place) since(ctx context.Context, trusted bool, setBack, epoch time.Time, b *tree.Between, matcher *snapshot.Matcher) (snapshot.Changes, error) {
	sums, previous := p.s.sums, p.at
	if !trusted {
		sums, previous = tree.SumAll, nil
	}
	if !setBack.IsZero() {
		previous = nil // a ctime may have come twice
	}
	after, err := p.read(ctx, matcher, sums, previous)
	if err != nil {
		return nil, err
	}
	if err := p.clamp(epoch, after, b); err != nil {
		return nil, err
	}
	b.Before, b.After, b.Trusted, b.SetBack, b.Dir = p.at, after, trusted, setBack, p.s.Root
	changes, err := b.Changes(ctx)
	if err != nil {
		return nil, err
	}
	p.before, p.at = p.at, after
	return p.note(changes), nil
}

// cover lists where the mounts are, as they are written and without links on the
// way, and of those of secrets where nothing is yet.
func (p *place) cover(mounts []sandbox.Mount) (paths, secrets []string) {
	for _, m := range mounts {
		paths = append(paths, m.Target)
		at, err := p.resolve(m.Target)
		if err != nil {
			continue
		}
		if rel, err := filepath.Rel(p.s.Root, at); err == nil {
			paths = append(paths, filepath.Join("/", rel))
		}
		if _, err := os.Lstat(at); m.Content != nil && errors.Is(err, os.ErrNotExist) {
			secrets = append(secrets, m.Target)
		}
	}
	return paths, secrets
}

// resolve returns where on the machine an absolute path of the root is, without
// links on the way to it.
func (p *place) resolve(path string) (string, error) {
	dir, err := inroot.Inside(p.s.Root, filepath.Dir(path))
	return filepath.Join(dir, filepath.Base(path)), err
}

// RemoveSecrets implements sandbox.InPlace: a helper that was killed leaves them.
func (p *place) RemoveSecrets(targets []string) {
	for _, t := range targets {
		at, err := p.resolve(t)
		if err != nil {
			continue
		}
		if st, err := os.Lstat(at); err == nil && !st.IsDir() {
			_ = os.Remove(at)
		}
	}
}

// Recover implements sandbox.InPlace.
func (p *place) Recover(ctx context.Context, before *tree.Reading, c sandbox.Command) (snapshot.Changes, error) {
	filter, _, err := c.Changes()
	if err != nil {
		return nil, err
	}
	// What other programs have put into scratch directories since can't be told apart.
	matcher, err := filter.Compile()
	if err != nil {
		return nil, err
	}
	p.know()
	after, err := p.read(ctx, matcher, tree.SumLinked, nil)
	if err != nil {
		return nil, err
	}
	b := tree.Between{Before: before, After: after, Trusted: true, Dir: p.s.Root, Filter: matcher, Hide: tree.Hide(append(c.Targets(), p.s.Hide...))}
	p.before = before
	return b.Changes(ctx)
}

// know adds clayer's own files to those that are left out of readings: what Hide lists
// and this program, as far as they are there by now.
func (p *place) know() {
	paths := make([]string, 0, len(p.s.Hide)+1)
	for _, h := range p.s.Hide {
		if at, err := p.resolve(h); err == nil {
			paths = append(paths, at)
		}
	}
	if exe, err := os.Executable(); err == nil {
		paths = append(paths, exe)
	}
	for _, at := range paths {
		id, ok := tree.IDOf(at)
		if !ok || p.s.own[id] {
			continue
		}
		if fd, err := unix.Open(at, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0); err == nil {
			p.s.held = append(p.s.held, os.NewFile(uintptr(fd), at))
		}
		if p.s.own == nil {
			p.s.own = make(map[tree.ID]bool)
		}
		p.s.own[id] = true
	}
}

// begin makes sure that there is a reading of the root as it stands, and that
// the clock has moved on since. It reports whether ctime will show changes.
func (p *place) begin(ctx context.Context, filter string, matcher *snapshot.Matcher) (trusted bool, err error) {
	p.before = nil
	p.know()
	if p.findForeign() {
		p.stale = true
	}
	if p.at == nil || p.stale || p.filter != filter {
		var previous *tree.Reading
		if p.s.trusted && p.filter == filter {
			previous = p.at
		}
		if p.s.bounded {
			p.at, err = p.bound(ctx, matcher)
		} else {
			p.at, err = p.read(ctx, matcher, p.s.sums, previous)
		}
		if err != nil {
			return false, err
		}
		p.filter, p.stale = filter, false
		if closed := p.at.Closed(4); len(closed) > 0 {
			p.s.warn([]string{fmt.Sprintf("what is below %s is never captured: permission denied", list(closed))})
		}
	}
	if !p.s.trusted {
		return false, nil
	}
	err = fsclock.After(ctx, p.s.clock, p.at.Newest())
	if !fsclock.IsSetBack(err) {
		return err == nil, err
	}
	p.s.warn([]string{"digests decide what changed: " + err.Error()})
	p.at, err = p.read(ctx, matcher, tree.SumAll, nil)
	return false, err
}

// wentBack returns the time that the clock shows, if it was set back since
// start; else zero. Both of Go's clocks are in start.
func wentBack(start time.Time) time.Time {
	now := time.Now()
	elapsed := now.Sub(start) // by the clock that is never set
	if now.Round(0).Sub(start.Round(0)) >= elapsed-clockSlack {
		return time.Time{}
	}
	return now.Round(0).Add(-elapsed - clockSlack)
}

// clockSlack is how far the clocks may drift apart, by an adjustment of its
// speed, before it counts as set back.
const clockSlack = 20 * time.Millisecond

func (p *place) command(ctx context.Context, c sandbox.Command) error {
	j := helper.Job{InPlace: true, Root: p.s.Root, View: p.s.Work}
	return helper.Process{Warn: p.s.warn}.Run(ctx, j, c)
}

// note remembers what is reported, so that Capture does not repeat it.
func (p *place) note(changes snapshot.Changes) snapshot.Changes {
	return func(yield func(*snapshot.Entry, error) bool) {
		for e, err := range changes {
			if err == nil {
				if e.Kind == snapshot.Delete {
					delete(p.reported, e.Path)
				} else if !e.Implied {
					p.reported[e.Path] = true
				}
			}
			if !yield(e, err) {
				return
			}
		}
	}
}

// Capture implements sandbox.View.
func (p *place) Capture(ctx context.Context, path string) (snapshot.Changes, error) {
	if !filepath.IsAbs(path) {
		return nil, fmt.Errorf("capture %q: not an absolute path", path)
	}
	at, err := p.resolve(path)
	if err != nil {
		return nil, fmt.Errorf("capture %s: %w", path, err)
	}
	below, err := filepath.Rel(p.s.Root, at)
	if err != nil {
		return nil, fmt.Errorf("capture %s: %w", path, err)
	}
	if below == "." {
		below = ""
	}
	filter, err := snapshot.Filter{Include: []string{path, "/" + below}}.Compile()
	if err != nil {
		return nil, err
	}
	hidden := tree.Hide(p.s.Hide)
	p.findForeign()
	r, err := tree.Read(ctx, p.s.Root, tree.Options{Below: below, Live: true, Own: p.s.own, Prune: hidden, Foreign: p.foreign})
	if err != nil {
		return nil, fmt.Errorf("capture %s: %w", path, err)
	}
	whole := tree.Whole{
		Reading: r, Below: below, Dir: p.s.Root, Filter: filter,
		Reported: func(path string) bool { return p.reported[path] },
	}
	return p.note(whole.Changes()), nil
}

// Open implements sandbox.View.
func (p *place) Open(path string) (*os.File, error) {
	return sandbox.RegularFile(beneath.Open(p.s.Root, path, unix.O_RDONLY|unix.O_NONBLOCK))
}

// Exists implements sandbox.View.
func (p *place) Exists(_ context.Context, path string) (bool, error) {
	if !filepath.IsAbs(path) {
		return false, fmt.Errorf("look at %q: not an absolute path", path)
	}
	at, err := p.resolve(path)
	if err == nil {
		_, err = os.Lstat(at)
	}
	switch {
	case errors.Is(err, os.ErrNotExist), errors.Is(err, unix.ENOTDIR):
		return false, nil
	case err != nil:
		return false, fmt.Errorf("look at %s: %w", path, err)
	}
	return true, nil
}

// Close implements sandbox.View.
func (p *place) Close() error {
	p.at, p.before = nil, nil
	for _, f := range p.s.held {
		f.Close()
	}
	p.s.own, p.s.held = nil, nil
	return nil
}

// list says paths in words.
func list(paths []string) string {
	s := ""
	for i, p := range paths {
		switch {
		case i == 3:
			return s + " and others"
		case i > 0:
			s += ", "
		}
		s += "/" + p
	}
	return s
}
