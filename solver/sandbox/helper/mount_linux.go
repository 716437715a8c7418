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

	"github.com/clayer/clayer/solver/sandbox/internal/descriptor"
	"golang.org/x/sys/unix"
)

// The directories of a view.
const (
	UpperDir = "upper" // what was changed; its layout is that of the root in both modes
	WorkDir  = "work"  // overlayfs's own
	RootDir  = "root"  // where the merged tree is mounted, in the helper alone
	StageDir = "stage" // a tmpfs in the helper alone: secrets, scripts, private copies
)

func (h *helper) merged() string { return filepath.Join(h.View, RootDir) }

// mountRoot mounts the merged tree. Nothing of it is seen outside of the
// helper's mount namespace.
func (h *helper) mountRoot() error {
	if err := makePrivate(h.View); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	if h.Rooted {
		return h.overlay(h.Root, UpperDir, WorkDir, h.merged())
	}
	// A user namespace may not take "/" as a lower directory: it has mounts in
	// it that are locked together. So the upper directory itself becomes the
	// root, and each top-level directory an overlay of its own.
	upper := filepath.Join(h.View, UpperDir)
	if err := unix.Mount(upper, h.merged(), "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("bind %s: %w", upper, err)
	}
	top, err := os.ReadDir(h.Root)
	if err != nil {
		return err
	}
	mounts, err := h.submounts() // will lie over their directories as they are
	if err != nil {
		return err
	}
	var refused error // by the kernel, and not for one directory alone
	overlaid := 0
	for _, d := range top {
		name := d.Name()
		if !d.IsDir() || !TopIsOverlaid(h.View, name) || slices.Contains(mounts, "/"+name) {
			continue
		}
		at := filepath.Join(h.merged(), name)
		if st, err := os.Lstat(at); err != nil || !st.IsDir() {
			return fmt.Errorf("the upper directory has no directory /%s: %w", name, cmp.Or(err, error(unix.ENOTDIR)))
		}
		lower := filepath.Join(h.Root, name)
		err := h.overlay(lower, UpperDir+"/"+name, WorkDir+"/"+name, at)
		if err == nil {
			overlaid++
			continue
		}
		refused = err
		if berr := bindReadOnly(lower, at); berr != nil {
			return errors.Join(err, berr)
		}
		h.warn("/%s is read-only: %v", name, err)
		if err := h.bindScratch("/" + name); err != nil {
			return err
		}
	}
	if overlaid == 0 {
		return refused
	}
	return nil
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
	if h.Rooted || !TopIsOverlaid(h.View, name) {
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

// overlay mounts one overlay. The directories go in as descriptors: paths would
// need an escape for each of ":,\\", and have to fit into a page together.
func (h *helper) overlay(lower, upper, work, at string) error {
	opts := []string{}
	for _, o := range []struct{ key, dir string }{
		{"lowerdir", lower},
		{"upperdir", filepath.Join(h.View, upper)},
		{"workdir", filepath.Join(h.View, work)},
	} {
		fd, err := unix.Open(o.dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			return &os.PathError{Op: "open", Path: o.dir, Err: err}
		}
		defer unix.Close(fd)
		opts = append(opts, o.key+"="+descriptor.Path(fd))
	}
	if h.Rooted {
		// The first two would keep what a file is, or where it came from, in
		// the upper directory as a reference to the lower one. With the third, a
		// lower file of several names stays one file when it is written to.
		for _, o := range []string{"redirect_dir=off", "metacopy=off", "index=on"} {
			name, _, _ := strings.Cut(o, "=")
			if _, err := os.Stat("/sys/module/overlay/parameters/" + name); err == nil {
				opts = append(opts, o)
			}
		}
	} else {
		opts = append(opts, "userxattr") // implies the first two
	}
	// With an index the kernel requires the upper directory for itself, and the mount
	// of the helper before may take a moment to go.
	var err error
	for start := time.Now(); time.Since(start) < busyLimit; time.Sleep(time.Millisecond) {
		if err = unix.Mount("overlay", at, "overlay", 0, strings.Join(opts, ",")); !errors.Is(err, unix.EBUSY) {
			break
		}
	}
	if err != nil {
		return fmt.Errorf("mount an overlay of %s: %w", lower, err)
	}
	return nil
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
