package overlay

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/clayer/clayer/cache/snapshot"
	"github.com/clayer/clayer/solver/sandbox/helper"
)

// begin fills the upper directory with what a view begins with, and reads it.
func (v *View) begin(ctx context.Context) error {
	upper := v.upper()
	if v.s.Over != "" {
		skip := make([]string, len(v.s.Hide))
		copy(skip, v.s.Hide)
		if err := v.files.copy(ctx, v.s.Over, upper, skip); err != nil {
			return err
		}
	}
	if !v.s.rooted {
		if err := v.seed(); err != nil {
			return err
		}
	}
	if !v.s.index {
		if err := v.seedGroups(ctx); err != nil {
			return err
		}
	}
	if err := v.seedScratch(); err != nil {
		return err
	}
	if err := likeLower(v.s.Root, upper); err != nil {
		return err
	}
	return v.refresh(ctx)
}

// seed puts a stub into the upper directory for each top-level name of the
// root: only inside the top-level directories does the kernel merge. Directories are
// mount points; links and small files are copied. All are part of the first
// reading, and so of no change unless a command changes them.
func (v *View) seed() error {
	top, err := os.ReadDir(v.s.Root)
	if err != nil {
		return err
	}
	for _, d := range top {
		name := d.Name()
		src, dst := filepath.Join(v.s.Root, name), filepath.Join(v.upper(), name)
		have, err := os.Lstat(dst)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
		switch {
		case d.IsDir() && snapshot.IsScratch(name):
			// seedScratch makes it: mounts in the root's own are in no way then.
		case err == nil && !(have.IsDir() && d.IsDir()):
			continue // the directory of changes over the root has its own
		case d.IsDir():
			if err := v.seedDir(src, dst, have != nil, name); err != nil {
				return err
			}
		case d.Type()&os.ModeSymlink != 0:
			if err := seedLink(src, dst); err != nil {
				return err
			}
		case d.Type().IsRegular():
			if err := seedFile(src, dst); err != nil {
				v.s.warn([]string{fmt.Sprintf("/%s is not seen: %v", name, err)})
			}
		}
	}
	return nil
}

func (v *View) seedDir(src, dst string, have bool, name string) error {
	if unix.Access(src, unix.R_OK|unix.X_OK) != nil {
		// An overlay over it could be mounted but not listed. Empty, it is at
		// least good for writing, as a HOME of /root is.
		v.s.warn([]string{fmt.Sprintf("/%s begins empty: it may not be read", name)})
	} else if err := helper.OverlayTop(v.dir, name); err != nil {
		return err
	}
	if have {
		return nil
	}
	if err := os.Mkdir(dst, 0o700); err != nil {
		return err
	}
	return likeLower(src, dst)
}

// likeLower gives a directory the mode and time, and as far as it may the owner,
// of the lower one.
func likeLower(lower, dir string) error {
	var st unix.Stat_t
	if err := unix.Stat(lower, &st); err != nil {
		return &os.PathError{Op: "stat", Path: lower, Err: err}
	}
	if os.Geteuid() == 0 {
		if err := os.Chown(dir, int(st.Uid), int(st.Gid)); err != nil && !errors.Is(err, unix.EPERM) {
			return err
		}
	}
	if err := unix.Chmod(dir, st.Mode&0o7777); err != nil {
		return &os.PathError{Op: "chmod", Path: dir, Err: err}
	}
	err := unix.UtimesNanoAt(unix.AT_FDCWD, dir, []unix.Timespec{st.Atim, st.Mtim}, 0)
	if err != nil {
		return &os.PathError{Op: "set times", Path: dir, Err: err}
	}
	return nil
}

func seedLink(src, dst string) error {
	target, err := os.Readlink(src)
	if err != nil {
		return err
	}
	if err := os.Symlink(target, dst); err != nil {
		return err
	}
	var st unix.Stat_t
	if err := unix.Lstat(src, &st); err != nil {
		return err
	}
	return unix.UtimesNanoAt(unix.AT_FDCWD, dst, []unix.Timespec{st.Atim, st.Mtim}, unix.AT_SYMLINK_NOFOLLOW)
}

// seedLimit bounds the top-level files that are copied: an init or a marker,
// not a swap file.
const seedLimit = 16 << 20

func seedFile(src, dst string) error {
	st, err := os.Stat(src)
	if err != nil {
		return err
	}
	if st.Size() > seedLimit {
		return fmt.Errorf("%d bytes are too large a file beside the directories", st.Size())
	}
	in, err := os.Open(src)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(dst, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	if err == nil {
		err = out.Chmod(st.Mode())
	}
	if err = errors.Join(err, out.Close()); err != nil {
		return err
	}
	return os.Chtimes(dst, st.ModTime(), st.ModTime())
}

// merges reports whether the top-level directory lies over the root's directory of
// that name, in a user namespace.
func (v *View) merges(top string) bool { return helper.TopIsOverlaid(v.dir, top) }

// overlayAlike has the same top-level directories of a clone overlaid.
func (v *View) overlayAlike(clone *View) error {
	if v.s.rooted {
		return nil
	}
	tops, err := os.ReadDir(filepath.Join(v.dir, helper.WorkDir))
	for _, d := range tops {
		err = errors.Join(err, helper.OverlayTop(clone.dir, d.Name()))
	}
	return err
}
