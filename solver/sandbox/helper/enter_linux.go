package helper

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"
)

// enter makes the merged tree the root of the helper, with all mounts in it.
func (h *helper) enter(mounts []attachment) error {
	old, err := unix.Open("/", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(old)
	tempDirs, tempFiles := h.namedTemp()
	oldProc, err := openTree("/proc")
	if err != nil {
		return err
	}
	defer unix.Close(oldProc)

	// Targets are resolved inside the root: an absolute link there must not
	// lead to the machine.
	if err := unix.Chroot(h.merged()); err != nil {
		return fmt.Errorf("enter the root: %w", err)
	}
	if err := unix.Chdir("/"); err != nil {
		return err
	}
	if err := h.mountProc(oldProc); err != nil {
		return err
	}
	if h.Dir == "" {
		h.Dir = "/"
	}
	made := h.Task != TaskRun
	for i, m := range mounts {
		// The command's own mounts are the last: they may lie in its directory.
		if !made && i == len(mounts)-len(h.Mounts) {
			if err := errors.Join(h.putTemp(tempDirs, tempFiles), h.makeDir()); err != nil {
				return err
			}
			made = true
		}
		if err := h.attach(m); err != nil {
			if !m.optional {
				return fmt.Errorf("mount %s: %w", m.target, err)
			}
			h.warn("the mount at %s is left out: %v", m.target, err)
		}
		if m.tree >= 0 {
			unix.Close(m.tree)
		}
	}
	if !made {
		if err := errors.Join(h.putTemp(tempDirs, tempFiles), h.makeDir()); err != nil {
			return err
		}
	}

	// Out of the chroot again, and in by pivot_root: user namespaces, which
	// RUN may want to make, are refused below a chroot.
	if err := unix.Fchdir(old); err != nil {
		return err
	}
	if err := unix.Chroot("."); err != nil {
		return err
	}
	if err := unix.Chdir(h.merged()); err != nil {
		return err
	}
	if err := h.pivot(); err != nil {
		return err
	}
	return unix.Chdir(h.Dir)
}

func (h *helper) makeDir() error {
	unix.Umask(0o022)
	defer unix.Umask(0)
	if err := os.MkdirAll(h.Dir, 0o777); err != nil {
		return fmt.Errorf("make the working directory: %w", err)
	}
	return nil
}

// pivot makes the current directory the root, and lets go of the old one.
func (h *helper) pivot() error {
	err := unix.PivotRoot(".", ".")
	if err == nil {
		// The old root now lies over the new one.
		if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
			return fmt.Errorf("leave the old root: %w", err)
		}
		return unix.Chdir("/")
	}
	if !errors.Is(err, unix.EINVAL) {
		return fmt.Errorf("pivot_root: %w", err)
	}
	// An initramfs cannot be pivoted away from, only be covered.
	if err := unix.Mount(".", "/", "", unix.MS_MOVE, ""); err != nil {
		return fmt.Errorf("cover the old root: %w", err)
	}
	return unix.Chroot(".")
}

// mountProc mounts a /proc for the new PID namespace, or, where a container
// has parts of its /proc covered and the kernel refuses a fresh one, the old.
func (h *helper) mountProc(old int) error {
	if err := h.stubs.ensure("/proc", true); err != nil {
		return err
	}
	err := unix.Mount("proc", "/proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "")
	h.stubs.mounted = append(h.stubs.mounted, "/proc")
	if err == nil {
		return nil
	}
	if merr := moveTree(old, "/proc"); merr != nil {
		return fmt.Errorf("mount /proc: %w", errors.Join(err, merr))
	}
	return nil
}

// attach mounts at the target, which is a path in the root.
func (h *helper) attach(m attachment) error {
	st, err := os.Stat(m.target)
	switch {
	case err == nil && m.absent == replaceFile:
		if l, err := os.Lstat(m.target); err != nil || !l.Mode().IsRegular() {
			return err
		}
	case err == nil && st.IsDir() != m.dir:
		return &os.PathError{Op: "mount over", Path: m.target, Err: unix.ENOTDIR}
	case errors.Is(err, os.ErrNotExist):
		if m.absent == skipIt {
			return nil
		}
		if _, err := os.Lstat(m.target); err == nil && m.absent == replaceFile {
			return nil // a link that leads nowhere
		}
		if err := h.stubs.ensure(m.target, m.dir); err != nil {
			return err
		}
	case err != nil:
		return err
	}
	if m.tree < 0 {
		if err := unix.Mount(m.fs, m.target, m.fs, unix.MS_NOSUID|unix.MS_NODEV, m.data); err != nil {
			return err
		}
	} else if err := moveTree(m.tree, m.target); err != nil {
		return err
	}
	h.stubs.mounted = append(h.stubs.mounted, m.target)
	if m.readOnly {
		return setReadOnly(m.target)
	}
	return nil
}

// leave takes the mounts off and removes the mount points that were made.
func (h *helper) leave() error {
	if err := unix.Chdir("/"); err != nil {
		return err
	}
	return h.stubs.remove()
}

// stubs are the mount points that had to be made. They must leave no trace in
// the upper directory: not even the times of the directories that they stood in.
type stubs struct {
	mounted []string
	made    []stub
	parents map[string]*parentTimes
}

type stub struct {
	path string
	dir  bool
}

type parentTimes struct{ before, after unix.Timespec }

// ensure makes the path and the directories above it where they are missing.
func (s *stubs) ensure(path string, dir bool) error {
	if _, err := os.Stat(path); err == nil {
		return nil
	}
	if err := s.ensure(filepath.Dir(path), true); err != nil {
		return err
	}
	return s.put(path, stub{path: path, dir: dir}, func() error {
		if dir {
			return os.Mkdir(path, 0o755)
		}
		f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
		if err == nil {
			err = f.Close()
		}
		return err
	})
}

// put makes a stub in a directory that is there.
func (s *stubs) put(path string, st stub, make func() error) error {
	parent := filepath.Dir(path)
	before, err := mtime(parent)
	if err != nil {
		return err
	}
	if err := make(); err != nil {
		return fmt.Errorf("make a mount point: %w", err)
	}
	s.made = append(s.made, st)
	after, err := mtime(parent)
	if err != nil {
		return err
	}
	s.note(parent, before, after)
	return nil
}

func (s *stubs) note(parent string, before, after unix.Timespec) {
	if s.parents == nil {
		s.parents = make(map[string]*parentTimes)
	}
	if p := s.parents[parent]; p != nil {
		p.after = after
	} else {
		s.parents[parent] = &parentTimes{before, after}
	}
}

// remove takes all mounts off that could hold a stub, removes the stubs, and
// puts back the times of their parents. A parent whose time is not the one
// that the last stub gave it was changed by the command too: it keeps it.
func (s *stubs) remove() error {
	if len(s.made) == 0 {
		return nil
	}
	for _, at := range slices.Backward(s.mounted) {
		_ = unix.Unmount(at, unix.MNT_DETACH) // the command may have done it, or moved it away
	}
	now := make(map[string]unix.Timespec)
	for parent := range s.parents {
		if cur, err := mtime(parent); err == nil { // else gone, by the command's will
			now[parent] = cur
		}
	}
	changed := make(map[string]bool)
	for _, st := range slices.Backward(s.made) {
		err := st.remove()
		switch {
		case err == nil, errors.Is(err, unix.ENOENT), errors.Is(err, unix.ENOTDIR):
		case errors.Is(err, unix.ENOTEMPTY), errors.Is(err, unix.EISDIR):
			// The command put something there: it is its own now.
			changed[filepath.Dir(st.path)] = true
		default:
			return fmt.Errorf("remove mount point %s: %w", st.path, err)
		}
	}
	for parent, t := range now {
		if p := s.parents[parent]; t == p.after && !changed[parent] {
			t = p.before
		}
		err := unix.UtimesNanoAt(unix.AT_FDCWD, parent, []unix.Timespec{{Nsec: unix.UTIME_OMIT}, t}, 0)
		if err != nil && !errors.Is(err, unix.ENOENT) {
			return &os.PathError{Op: "set times", Path: parent, Err: err}
		}
	}
	return nil
}

func (st stub) remove() error {
	if st.dir {
		return unix.Rmdir(st.path)
	}
	return unix.Unlink(st.path)
}

func mtime(path string) (unix.Timespec, error) {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return unix.Timespec{}, &os.PathError{Op: "stat", Path: path, Err: err}
	}
	return st.Mtim, nil
}
