package sandbox

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/clayer/clayer/internal/pathname"
)

// overlay makes views of a root by overlayfs.
type overlay struct {
	Options
	rooted    bool   // has CAP_SYS_ADMIN over the machine; else in a user namespace
	elsewhere bool   // Work is not the one that was given
	ids       *idMap // of the user namespace; nil for the one id that needs no help
	index     bool   // the kernel keeps hard links of the root together: see links_linux.go

	told tellOnce

	grouping    sync.Mutex // guards what follows
	grouped     bool
	lowerGroups []group
}

// NewOverlay returns a sandbox whose views are overlays: a command sees the
// root with the view's changes in namespaces of its own, and the root stays as
// it is. As root of the machine one overlay covers the root; other users get a
// user namespace of their own, in which they are root, with an overlay for each
// top-level folder. There a file can have no other owner than 0:0, which is
// what its entry tells; a top-level folder can be emptied but not removed.
//
// Whether the machine allows it is found out by doing it, which takes some
// milliseconds. If not, the error wraps ErrUnavailable and says why.
func NewOverlay(opt Options) (Sandbox, error) {
	for _, p := range []*string{&opt.Root, &opt.Work, &opt.Over} {
		if *p == "" && p == &opt.Over {
			continue
		}
		abs, err := filepath.Abs(*p)
		if err == nil {
			// Mounts are compared by the kernel's names for them.
			abs, err = filepath.EvalSymlinks(abs)
		}
		if err != nil {
			return nil, fmt.Errorf("overlay sandbox: %w", err)
		}
		*p = abs
	}
	if err := opt.cleanHide(); err != nil {
		return nil, fmt.Errorf("overlay sandbox: %w", err)
	}
	return firstWay(func(rooted bool) (*overlay, error) { return newOverlayAs(rooted, opt) })
}

// firstWay returns the first of the two ways to have overlays that try finds to
// work here. The error wraps ErrUnavailable.
func firstWay(try func(rooted bool) (*overlay, error)) (Sandbox, error) {
	why := &reason{}
	for _, rooted := range []bool{true, false} {
		if rooted && os.Geteuid() != 0 {
			continue
		}
		s, err := try(rooted)
		if err == nil {
			return s, nil
		}
		why.errs = append(why.errs, fmt.Errorf("%s: %w", (&overlay{rooted: rooted}).How(), err))
	}
	return nil, fmt.Errorf("overlay %w: %w", ErrUnavailable, why)
}

// withIDs tries the way with the subordinate ids of this user, if there are any;
// what /etc/subuid promises and can't be had is not needed.
func (s *overlay) withIDs(try func() error) error {
	if !s.rooted {
		s.ids = subordinate()
	}
	err := try()
	if err != nil && s.ids != nil {
		s.ids = nil
		err = try()
	}
	return err
}

// newOverlayAs probes one way, with views in Work, or, where that lies on a
// file system that can't hold the upper folder of an overlay, in one that can.
func newOverlayAs(rooted bool, opt Options) (*overlay, error) {
	s := &overlay{Options: opt, rooted: rooted}
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
		s := &overlay{Options: elsewhere, rooted: rooted, elsewhere: true, ids: ids}
		if s.probe() == nil {
			return s, nil
		}
		_ = os.Remove(dir)
	}
	return nil, fmt.Errorf("%w, and there is no other place with %d MiB free", err, minUpper>>20)
}

// cleanHide makes Hide a list of clean paths in the root.
func (opt *Options) cleanHide() error {
	// A RUN that saw the uppers could change them below the kernel's feet.
	given := append(slices.Clone(opt.Hide), opt.Work)
	opt.Hide = nil
	for _, p := range given {
		if p == "" {
			continue
		}
		if !filepath.IsAbs(p) {
			return fmt.Errorf("hide %q: not an absolute path", p)
		}
		p = filepath.Clean(p)
		for _, dir := range []string{opt.Root, opt.Over} {
			if dir != "" && dir != "/" && p != dir && pathname.Under(p, dir) {
				p = p[len(dir):]
			}
		}
		opt.Hide = append(opt.Hide, p)
	}
	return nil
}

func (s *overlay) Name() string   { return "overlay" }
func (s *overlay) Isolates() bool { return true }

// owner returns how an owner of the root is called where commands run; nil for
// as it is.
func (s *overlay) owner() func(uid, gid uint32) (uint32, uint32) {
	switch {
	case s.rooted:
		return nil
	case s.ids != nil:
		return s.ids.inner
	}
	return func(uint32, uint32) (uint32, uint32) { return 0, 0 }
}

func (s *overlay) How() string {
	if s.rooted {
		return "as root"
	}
	if s.ids != nil {
		return "in a user namespace with subordinate ids"
	}
	return "in a user namespace"
}

// probe makes a view, mounts all that a command would see, and takes it away.
func (s *overlay) probe() (err error) {
	ctx := context.Background()
	// What can't be shown is told only if this way is taken.
	var texts []string
	quiet := &overlay{Options: s.Options, rooted: s.rooted, elsewhere: s.elsewhere, ids: s.ids}
	quiet.Warn = func(text string) { texts = append(texts, text) }
	v, err := quiet.view(ctx)
	if err != nil {
		return err
	}
	defer func() {
		if err = errors.Join(err, v.Close()); err == nil {
			s.warn(texts)
		}
	}()
	// Without xattrs overlayfs mounts, and then cannot mark a folder as opaque.
	mark := "user.overlay.probe"
	if s.rooted {
		mark = "trusted.overlay.probe"
	}
	upper := v.upper()
	if err := unix.Setxattr(upper, mark, []byte("y"), 0); err != nil {
		return fmt.Errorf("set an xattr in %s: %w (%w)", s.Work, err, errUpper)
	}
	if err := unix.Removexattr(upper, mark); err != nil {
		return fmt.Errorf("remove an xattr in %s: %w", s.Work, err)
	}
	if !s.rooted {
		if err := v.seed(); err != nil {
			return err
		}
	}
	if err := v.help(ctx, job{Task: taskProbe, Mounts: probeMounts}, nil, nil, nil); err != nil {
		var st unix.Statfs_t
		if errors.Is(err, unix.EINVAL) && unix.Statfs(upper, &st) == nil && st.Type == unix.OVERLAYFS_SUPER_MAGIC {
			return fmt.Errorf("%s %w: it lies on an overlay itself, as a container's root does", s.Work, errUpper)
		}
		if errors.Is(err, unix.EINVAL) {
			return fmt.Errorf("%s %w, perhaps: %w", s.Work, errUpper, err)
		}
		return err
	}
	// It is made where the root's file system has handles for its files.
	_, err = os.Stat(filepath.Join(v.dir, workDir, "index"))
	s.index = s.rooted && err == nil
	s.sweep(v.files)
	return nil
}

// probeMounts are tried with all the rest: a file that is mounted on its own.
var probeMounts = []Mount{{Target: "/run/clayer-probe", Content: []byte("x")}}

// errUpper says that a folder lies where no upper folder of an overlay can be.
var errUpper = errors.New("can't hold the changes of an overlay")

// warn tells what a view cannot show, once.
func (s *overlay) warn(texts []string) { s.told.warn(s, s.Warn, texts) }

// tellOnce remembers what was told.
type tellOnce struct{ texts sync.Map }

func (o *tellOnce) warn(s Sandbox, warn func(text string), texts []string) {
	for _, t := range texts {
		switch _, again := o.texts.LoadOrStore(t, true); {
		case again:
		case warn != nil:
			warn(t)
		default:
			slog.Warn(s.Name() + " sandbox: " + t)
		}
	}
}

// View implements Sandbox.
func (s *overlay) View(ctx context.Context) (View, error) {
	v, err := s.view(ctx)
	if err != nil {
		return nil, err
	}
	if err := v.begin(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("begin a view: %w", err), v.Close())
	}
	return v, nil
}
