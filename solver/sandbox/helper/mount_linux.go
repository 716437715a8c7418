package helper

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/clayer/clayer/internal/pathname"
	"github.com/clayer/clayer/solver/sandbox/internal/descriptor"
	"golang.org/x/sys/unix"
)

// The directories of a view.
const (
	UpperDir = "upper" // what was changed; its layout is that of the root in both modes
	WorkDir  = "work"  // overlayfs's own
	RootDir  = "root"  // where the merged tree is mounted, in the helper alone
	StageDir = "stage" // a tmpfs in the helper alone: secrets, scripts, private copies
	BaseDir  = "base"  // as WorkDir, where top-level directories have overlays of their own
)

func (h *helper) merged() string { return filepath.Join(h.View, RootDir) }

// mountRoot mounts the merged tree. Nothing of it is seen outside of the
// helper's mount namespace.
func (h *helper) mountRoot() error {
	if err := makePrivate(h.View); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	if h.Whole {
		return h.overlay(h.lowers("."), UpperDir, WorkDir, h.merged())
	}
	return h.mountTops()
}

// mountTops mounts the merged tree where the kernel refuses an overlay of Root: a user
// namespace may not take "/" as a lower directory, since mounts in it are locked. So the
// upper directory, or an overlay of it over Over, becomes the root, and each top-level
// directory of Root an overlay of its own. The kernel warns of an upper directory below
// that of another overlay, but only if the other is mounted before it.
func (h *helper) mountTops() error {
	tops, err := os.ReadDir(h.Root)
	if err != nil {
		return err
	}
	mounts, err := h.submounts() // will lie over their directories as they are
	if err != nil {
		return err
	}
	type top struct {
		name, at string // where its overlay is
		refused  error  // by the kernel
	}
	var made []top
	var works bool
	for _, d := range tops {
		t := top{name: d.Name()}
		if !d.IsDir() || !TopIsOverlaid(h.View, t.name) || slices.ContainsFunc(mounts, func(m submount) bool { return m.target == "/"+t.name }) {
			continue
		}
		lowers := h.lowers(t.name)
		if h.Task == TaskProbe && works && len(lowers) == 1 {
			continue // one shows that the others work, or what is wrong with each is a warning
		}
		if st, err := os.Lstat(filepath.Join(h.View, UpperDir, t.name)); err != nil || !st.IsDir() {
			return fmt.Errorf("the upper directory has no directory /%s: %w", t.name, cmp.Or(err, error(unix.ENOTDIR)))
		}
		if t.at, err = h.stageDir(); err != nil {
			return err
		}
		upper, work := filepath.Join(UpperDir, t.name), filepath.Join(WorkDir, t.name)
		t.refused = h.overlay(lowers, upper, work, t.at)
		if t.refused != nil && len(lowers) > 1 && h.overlay(lowers[1:], upper, work, t.at) == nil {
			return t.refused // Over is what cannot be shown
		}
		made = append(made, t)
		works = works || t.refused == nil
	}
	if !works && len(made) > 0 {
		return made[0].refused
	}

	if h.Over != "" {
		err = h.overlay([]string{h.Over}, UpperDir, BaseDir, h.merged())
	} else if err = unix.Mount(filepath.Join(h.View, UpperDir), h.merged(), "", unix.MS_BIND, ""); err != nil {
		err = fmt.Errorf("bind %s: %w", filepath.Join(h.View, UpperDir), err)
	}
	if err != nil {
		return err
	}
	for _, t := range made {
		at := filepath.Join(h.merged(), t.name)
		if t.refused == nil {
			if err := unix.Mount(t.at, at, "", unix.MS_MOVE, ""); err != nil {
				return fmt.Errorf("mount /%s: %w", t.name, err)
			}
			continue
		}
		if err := bindReadOnly(filepath.Join(h.Root, t.name), at); err != nil {
			return errors.Join(t.refused, err)
		}
		h.warn("/%s is read-only: %v", t.name, t.refused)
		if err := h.bindScratch("/" + t.name); err != nil {
			return err
		}
	}
	return nil
}

// lowers lists the directories that one of the view lies over, the highest first.
func (h *helper) lowers(name string) []string {
	root := filepath.Join(h.Root, name)
	if h.Over == "" {
		return []string{root}
	}
	over := filepath.Join(h.Over, name)
	if st, err := os.Lstat(over); err != nil || !st.IsDir() {
		return []string{root}
	}
	return []string{over, root}
}

// OverlayTop has a top-level directory of a view in a user namespace overlaid: it is
// as long as it has a directory of its own for overlayfs.
func OverlayTop(view, name string) error {
	err := os.Mkdir(filepath.Join(view, WorkDir, name), 0o700)
	if errors.Is(err, os.ErrExist) {
		return nil
	}
	return err
}

// TopIsOverlaid reports whether a top-level directory of a view in a user namespace
// lies over that of the root.
func TopIsOverlaid(view, name string) bool {
	st, err := os.Lstat(filepath.Join(view, WorkDir, name))
	return err == nil && st.IsDir()
}

// bareTop takes the overlay off a top-level directory of the merged tree, for good:
// it can be removed and replaced then, as a mount point can't.
func (h *helper) bareTop(name string) error {
	if h.Whole || !TopIsOverlaid(h.View, name) {
		return nil
	}
	at := filepath.Join(h.merged(), name)
	if err := unix.Unmount(at, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil && !errors.Is(err, unix.EINVAL) { // EINVAL: it was not mounted
		return &os.PathError{Op: "unmount", Path: at, Err: err}
	}
	return os.RemoveAll(filepath.Join(h.View, WorkDir, name))
}

// makePrivate keeps what is mounted from now on in this mount namespace. In a
// chroot the root is no mount of its own; then it is done from the root of the
// namespace, and the way back is through the descriptor. below is any directory.
func makePrivate(below string) error {
	private := func() error { return unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, "") }
	err := private()
	if !errors.Is(err, unix.EINVAL) {
		return err
	}
	root, err := unix.Open("/", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(root)
	// A root below the current directory does not stop "..".
	if err := unix.Chdir("/"); err != nil {
		return err
	}
	if err := unix.Chroot(below); err != nil {
		return err
	}
	for range 1000 {
		if err := unix.Chdir(".."); err != nil {
			return err
		}
	}
	if err := unix.Chroot("."); err != nil {
		return err
	}
	err = private()
	return errors.Join(err, unix.Fchdir(root), unix.Chroot("."))
}

// overlay mounts one overlay over lower directories, of which the last may hold the one
// before it, as "/" holds the directory of --dest.
func (h *helper) overlay(lowers []string, upper, work, at string) error {
	overlap := len(lowers) > 1 && overlaps(lowers[0], lowers[1])
	for {
		if overlap {
			nested, err := h.nest(lowers[0])
			if err != nil {
				return err
			}
			lowers = append([]string{nested}, lowers[1:]...)
		}
		// The first two would keep what a file is, or where it came from, in
		// the upper directory as a reference to the lower one. With the third, a
		// lower file of several names stays one file when it is written to.
		err := h.mountOverlay(at, 0, []directories{
			{"lowerdir", lowers},
			{"upperdir", []string{filepath.Join(h.View, upper)}},
			{"workdir", []string{filepath.Join(h.View, work)}},
		}, "redirect_dir=off", "metacopy=off", "index=on")
		if errors.Is(err, unix.ELOOP) && len(lowers) > 1 && !overlap {
			overlap = true
			continue
		}
		if err != nil {
			return fmt.Errorf("mount an overlay of %s: %w", lowers[len(lowers)-1], err)
		}
		return nil
	}
}

// overlaps reports whether the kernel takes one directory for a part of the other. Where
// paths don't tell, as with bind mounts, it says so itself, with a line in its log.
func overlaps(dir, root string) bool {
	var d, r unix.Stat_t
	return pathname.Under(dir, root) && unix.Stat(dir, &d) == nil && unix.Stat(root, &r) == nil && d.Dev == r.Dev
}

// nest returns a place where the directory is seen as part of another file system: the
// kernel refuses lower directories of which one is inside the other. That is a read-only
// overlay, which needs a second directory, and which can name its files, so that the overlay
// over it can have an index.
func (h *helper) nest(dir string) (string, error) {
	empty, err := h.stageDir()
	if err != nil {
		return "", err
	}
	at, err := h.stageDir()
	if err != nil {
		return "", err
	}
	err = h.mountOverlay(at, unix.MS_RDONLY, []directories{{"lowerdir", []string{dir, empty}}}, "redirect_dir=nofollow", "metacopy=off", "nfs_export=on")
	if err != nil {
		return "", fmt.Errorf("mount an overlay of %s: %w", dir, err)
	}
	return at, nil
}

// directories are the value of an option.
type directories struct {
	option string
	dirs   []string
}

// mountOverlay mounts an overlay with those of the options that this kernel knows. The
// directories go in as descriptors: paths would need an escape for each of ":,\\", and have
// to fit into a page together.
func (h *helper) mountOverlay(at string, flags uintptr, dirs []directories, options ...string) error {
	var opts []string
	for _, d := range dirs {
		var fds []string
		for _, dir := range d.dirs {
			fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
			if err != nil {
				return &os.PathError{Op: "open", Path: dir, Err: err}
			}
			defer unix.Close(fd)
			fds = append(fds, descriptor.Path(fd))
		}
		opts = append(opts, d.option+"="+strings.Join(fds, ":"))
	}
	if !h.Rooted {
		options = []string{"userxattr"} // there is no index, and the others are off
	}
	for _, o := range options {
		name, _, value := strings.Cut(o, "=")
		if _, err := os.Stat("/sys/module/overlay/parameters/" + name); err == nil || !value {
			opts = append(opts, o)
		}
	}
	// With an index the kernel requires the upper directory for itself, and the mount
	// of the helper before may take a moment to go.
	for start := time.Now(); ; time.Sleep(time.Millisecond) {
		err := unix.Mount("overlay", at, "overlay", flags, strings.Join(opts, ","))
		if !errors.Is(err, unix.EBUSY) || time.Since(start) > busyLimit {
			return err
		}
	}
}

const busyLimit = 5 * time.Second

func bindReadOnly(from, at string) error {
	if err := unix.Mount(from, at, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return fmt.Errorf("bind %s: %w", from, err)
	}
	return setReadOnly(at)
}

// setReadOnly keeps the flags that the mount has: in a user namespace those
// of an inherited mount are locked, and leaving one out is EPERM.
func setReadOnly(at string) error {
	var st unix.Statfs_t
	if err := unix.Statfs(at, &st); err != nil {
		return &os.PathError{Op: "statfs", Path: at, Err: err}
	}
	// ST_ and MS_ flags have the same values for all but relatime.
	flags := uintptr(st.Flags) & (unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC | unix.MS_NOATIME | unix.MS_NODIRATIME)
	if st.Flags&unix.ST_RELATIME != 0 {
		flags |= unix.MS_RELATIME
	}
	if err := unix.Mount("", at, "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY|flags, ""); err != nil {
		return fmt.Errorf("make %s read-only: %w", at, err)
	}
	return nil
}
