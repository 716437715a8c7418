package overlay

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"github.com/clayer/clayer/internal/pathname"
	"github.com/clayer/clayer/solver/sandbox"
	"github.com/clayer/clayer/solver/sandbox/helper"
	"github.com/clayer/clayer/solver/sandbox/internal/userns"
	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"
)

// Overlay makes views of a root by overlayfs.
type Overlay struct {
	sandbox.Options
	rooted    bool        // has CAP_SYS_ADMIN over the machine; else in a user namespace
	elsewhere bool        // Work is not the one that was given
	ids       *userns.IDs // of the user namespace; nil for the one id that needs no help
	index     bool        // the kernel keeps hard links of the root together: see links_linux.go
	whole     bool        // one overlay covers the root; else each top-level directory has its own
	copied    bool        // the kernel takes no Over as a lower directory: views begin with a copy of it

	warn func(texts []string) // prints what a view cannot show, once

	grouping    sync.Mutex // guards what follows
	grouped     bool
	lowerGroups []group
	closed      []string // directories of Over that can't be shown through: see seedClosed
}

// New returns a sandbox whose views are overlays: a command sees the
// root with the view's changes in namespaces of its own, and the root stays as
// it is. Other users than root get a user namespace of their own, in which they are
// root. There a file can have no other owner than 0:0, which is what its entry says.
// One overlay covers the root; but in a user namespace, where the root has mounts in
// it, each top-level directory has its own, and can be emptied but not removed.
//
// Whether the machine allows it is found out by doing it, which takes some
// milliseconds. If not, the error wraps sandbox.ErrUnavailable and says why.
func New(opt sandbox.Options) (*Overlay, error) {
	if err := opt.Clean(); err != nil {
		return nil, fmt.Errorf("overlay sandbox: %w", err)
	}
	return firstWay(func(rooted bool) (*Overlay, error) { return newAnywhere(rooted, opt) })
}

// Sandbox returns the overlay as what a solve uses.
func (s *Overlay) Sandbox() *sandbox.Sandbox {
	return &sandbox.Sandbox{Name: "overlay", How: s.How(), Layered: func(ctx context.Context) (sandbox.Layered, error) {
		v, err := s.View(ctx)
		if err != nil {
			return nil, err
		}
		return v, nil
	}}
}

// NewWay is New for one of the two ways alone: as root of the machine, or in a user
// namespace.
func NewWay(rooted bool, opt sandbox.Options) (*Overlay, error) {
	if err := opt.Clean(); err != nil {
		return nil, fmt.Errorf("overlay sandbox: %w", err)
	}
	s := newOverlay(rooted, opt)
	return s, s.probe()
}

func newOverlay(rooted bool, opt sandbox.Options) *Overlay {
	s := &Overlay{Options: opt, rooted: rooted}
	s.warn = s.WarnOnce("overlay")
	return s
}

// firstWay returns the first of the two ways to have overlays that try finds to
// work here. The error wraps sandbox.ErrUnavailable.
func firstWay(try func(rooted bool) (*Overlay, error)) (*Overlay, error) {
	if err := sandbox.CheckMain(); err != nil {
		return nil, err
	}
	var refused []error
	for _, rooted := range []bool{true, false} {
		if rooted && os.Geteuid() != 0 {
			continue
		}
		s, err := try(rooted)
		if err == nil {
			return s, nil
		}
		refused = append(refused, fmt.Errorf("%s: %w", (&Overlay{rooted: rooted}).How(), err))
	}
	return nil, sandbox.Unavailable("overlay", refused...)
}

// withIDs tries the way with the subordinate ids of this user, if there are any;
// what /etc/subuid promises and can't be had is not needed.
func (s *Overlay) withIDs(try func() error) error {
	if !s.rooted {
		s.ids = userns.Subordinate()
	}
	err := try()
	if err != nil && s.ids != nil {
		s.ids = nil
		err = try()
	}
	return err
}

// newAnywhere probes one way, with views in Work, or, where that lies on a
// file system that can't hold the upper directory of an overlay, in one that can.
func newAnywhere(rooted bool, opt sandbox.Options) (*Overlay, error) {
	s := newOverlay(rooted, opt)
	err := s.withIDs(s.probe)
	if !errors.Is(err, errUpper) {
		return s, err
	}
	ids := s.ids
	for _, dir := range uppers(opt.Work) {
		if makeUpper(dir) != nil {
			continue
		}
		elsewhere := opt
		elsewhere.Work = dir
		elsewhere.Hide = append(slices.Clone(opt.Hide), dir)
		s := newOverlay(rooted, elsewhere)
		s.elsewhere, s.ids = true, ids
		if s.probe() == nil {
			return s, nil
		}
		_ = os.Remove(dir)
	}
	return nil, fmt.Errorf("%w, and there is no other place with %d MiB free", err, minUpper>>20)
}

// owner returns how an owner of the root is called where commands run; nil for
// as it is.
func (s *Overlay) owner() func(uid, gid uint32) (uint32, uint32) {
	switch {
	case s.rooted:
		return nil
	case s.ids != nil:
		return s.ids.Inner
	}
	return func(uint32, uint32) (uint32, uint32) { return 0, 0 }
}

func (s *Overlay) How() string {
	if s.rooted {
		return "as root"
	}
	if s.ids != nil {
		return "in a user namespace with subordinate ids"
	}
	return "in a user namespace"
}

// tryLayers has try find out how the kernel takes what views lie over: all at once, then
// each top-level directory by itself, and at last a copy of Over. EINVAL is what it says of
// a root with locked mounts, and of a stack of too many overlays.
func (s *Overlay) tryLayers(try func() error) error {
	s.copied, s.whole = false, s.rooted || !mountsBelow(s.Root) && s.ownsTop()
	for {
		err := try()
		switch {
		case !errors.Is(err, unix.EINVAL) || errors.Is(err, errNoUpper):
			return err
		case s.whole && !s.rooted:
			s.whole = false
		case s.over() != "":
			s.copied = true
		default:
			return err
		}
	}
}

// ownsTop reports whether the top-level directories of the root have owners and groups
// that the user namespace knows. Below one that has not, a single overlay could create
// nothing: it copies the directory first, with its owner.
func (s *Overlay) ownsTop() bool {
	entries, err := os.ReadDir(s.Root)
	if err != nil {
		return false
	}
	dirs := []string{s.Root}
	for _, e := range entries {
		if e.IsDir() {
			dirs = append(dirs, filepath.Join(s.Root, e.Name()))
		}
	}
	return !slices.ContainsFunc(dirs, func(dir string) bool {
		var st unix.Stat_t
		return unix.Lstat(dir, &st) != nil || !s.ids.Knows(st.Uid, st.Gid)
	})
}

// mountsBelow reports whether something is mounted below a directory.
func mountsBelow(dir string) bool {
	below, err := mountinfo.GetMounts(func(m *mountinfo.Info) (skip, stop bool) {
		return m.Mountpoint == dir || !pathname.Under(m.Mountpoint, dir), false
	})
	return err != nil || len(below) > 0
}

// over is the directory that views lie over, above the root; "" for none.
func (s *Overlay) over() string {
	if s.copied {
		return ""
	}
	return s.Over
}

// lowers lists the directories that views lie over, the highest first.
func (s *Overlay) lowers() []string {
	if over := s.over(); over != "" {
		return []string{over, s.Root}
	}
	return []string{s.Root}
}

// lower is where what is seen at a path in them stands. The directories above the path
// are directories there.
func (s *Overlay) lower(p string) string {
	if over := s.over(); over != "" {
		at := filepath.Join(over, p)
		if _, err := os.Lstat(at); err == nil {
			return at
		}
	}
	return filepath.Join(s.Root, p)
}

func (s *Overlay) probe() error { return s.tryLayers(s.probeView) }

// probeView makes a view, mounts all that a command would see, and takes it away.
func (s *Overlay) probeView() (err error) {
	ctx := context.Background()
	// What can't be shown is printed only if this way is taken.
	var texts []string
	quiet := &Overlay{Options: s.Options, rooted: s.rooted, elsewhere: s.elsewhere, ids: s.ids, whole: s.whole, copied: s.copied}
	quiet.warn = func(more []string) { texts = append(texts, more...) }
	v, err := quiet.view()
	if err != nil {
		return err
	}
	defer func() {
		if err = errors.Join(err, v.Close()); err == nil {
			s.warn(texts)
		}
	}()
	// Without xattrs overlayfs mounts, and then cannot mark a directory as opaque.
	mark := s.mark("probe")
	upper := v.upper()
	if err := unix.Setxattr(upper, mark, []byte("y"), 0); err != nil {
		return fmt.Errorf("set an xattr in %s: %w (%w)", s.Work, err, errNoUpper)
	}
	if err := unix.Removexattr(upper, mark); err != nil {
		return fmt.Errorf("remove an xattr in %s: %w", s.Work, err)
	}
	if !s.rooted {
		if err := errors.Join(v.seed(), v.seedScratch()); err != nil {
			return err
		}
	}
	if err := v.do(ctx, helper.Job{Task: helper.TaskProbe, Mounts: probeMounts}, helper.Process{}); err != nil {
		var st unix.Statfs_t
		if errors.Is(err, unix.EINVAL) && unix.Statfs(upper, &st) == nil && st.Type == unix.OVERLAYFS_SUPER_MAGIC {
			return fmt.Errorf("%s %w: it lies on an overlay itself, as a container's root does", s.Work, errNoUpper)
		}
		if errors.Is(err, unix.EINVAL) {
			return fmt.Errorf("%s %w, perhaps: %w", s.Work, errUpper, err)
		}
		return err
	}
	// It is made where the root's file system has handles for its files.
	_, err = os.Stat(filepath.Join(v.dir, helper.WorkDir, "index"))
	s.index = s.rooted && err == nil
	s.sweep(v.files)
	return nil
}

// probeMounts are tried with all the rest: a file that is mounted on its own.
var probeMounts = []sandbox.Mount{{Target: "/run/clayer-probe", Content: []byte("x")}}

// errUpper says that a directory lies where perhaps no upper directory of an overlay can
// be, and errNoUpper that none can.
var (
	errUpper   = errors.New("can't hold the changes of an overlay")
	errNoUpper = fmt.Errorf("%w", errUpper)
)

// View returns a new view of the root as it is now.
func (s *Overlay) View(ctx context.Context) (*View, error) {
	v, err := s.view()
	if err != nil {
		return nil, err
	}
	if err := v.begin(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("begin a view: %w", err), v.Close())
	}
	return v, nil
}

// Check returns how New would work, and writes nothing: an overlay is tried with its
// changes in memory, in namespaces of its own. Whether Work can hold one stays open.
func Check(opt sandbox.Options) (how string, err error) {
	s, err := firstWay(func(rooted bool) (*Overlay, error) {
		s := newOverlay(rooted, opt)
		return s, s.withIDs(s.check)
	})
	if err != nil {
		return "", err
	}
	return s.How(), nil
}

// CheckWay is Check for one of the two ways alone.
func CheckWay(rooted bool, opt sandbox.Options) (how string, err error) {
	s := newOverlay(rooted, opt)
	return s.How(), s.check()
}

// check has a helper mount all that a command would see, over nothing but memory.
func (s *Overlay) check() error {
	root, err := filepath.Abs(s.Root)
	if err == nil {
		root, err = filepath.EvalSymlinks(root)
	}
	if err != nil {
		return err
	}
	// New warns. Over is in no way: a view can begin with a copy of it.
	s.Root, s.Over, s.warn = root, "", func([]string) {}
	v := &View{s: s}
	return s.tryLayers(func() error {
		return v.do(context.Background(), helper.Job{Task: helper.TaskCheck, Mounts: probeMounts}, helper.Process{})
	})
}

// Indexed reports whether the kernel keeps the names of the root's hard links
// together when one of them is written to.
func (s *Overlay) Indexed() bool { return s.index }
