package overlay

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/clayer/clayer/cache/snapshot"
	"github.com/clayer/clayer/solver/sandbox/helper"
	"github.com/clayer/clayer/solver/sandbox/internal/treecopy"
)

// begin fills the upper directory with what a view begins with, and reads it.
func (v *View) begin(ctx context.Context) error {
	upper := v.upper()
	if v.s.copied {
		if err := v.files.copy(ctx, v.s.Over, upper, v.s.Hide); err != nil {
			return err
		}
	}
	if !v.s.rooted {
		err := v.seed()
		if err == nil {
			err = v.seedClosed(ctx)
		}
		if err != nil {
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

// seed puts a stub into the upper directory for each top-level name of the root, where only
// inside the top-level directories the kernel merges. Directories are mount points; links
// and small files are copied. All are part of the first reading, and so of no change
// unless a command changes them.
func (v *View) seed() error {
	top, err := os.ReadDir(v.s.Root)
	if err != nil {
		return err
	}
	for _, d := range top {
		name := d.Name()
		src, dst := filepath.Join(v.s.Root, name), filepath.Join(v.upper(), name)
		have, err := v.above(name)
		if err != nil {
			return err
		}
		switch {
		case d.IsDir() && snapshot.IsScratch(name):
			// seedScratch makes it: mounts in the root's own are in no way then.
		case have != nil && !(have.IsDir() && d.IsDir()):
			continue // the directory of changes over the root has its own
		case d.IsDir():
			if err := v.seedTop(name, have != nil); err != nil {
				return err
			}
		case v.s.whole:
		case d.Type()&os.ModeSymlink != 0:
			if err := seedLink(src, dst); err != nil {
				return err
			}
		case d.Type().IsRegular():
			if err := seedTopFile(src, dst); err != nil {
				v.s.warn([]string{fmt.Sprintf("/%s is not seen: %v", name, err)})
			}
		}
	}
	return nil
}

// above returns what of the directory of changes over the root is at a top-level name; nil
// for nothing.
func (v *View) above(name string) (os.FileInfo, error) {
	at := filepath.Join(v.upper(), name) // of a copy
	if over := v.s.over(); over != "" {
		at = filepath.Join(over, name)
	}
	st, err := os.Lstat(at)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	return st, err
}

func (v *View) seedTop(name string, have bool) error {
	closed := isClosed(filepath.Join(v.s.Root, name))
	if closed {
		// An overlay over it could be mounted but not listed. Empty, it is at
		// least good for writing, as a HOME of /root is.
		v.s.warn([]string{fmt.Sprintf("/%s begins empty: it may not be read", name)})
	} else if !v.s.whole && !isEmpty(filepath.Join(v.s.Root, name)) {
		if err := helper.OverlayTop(v.dir, name); err != nil {
			return err
		}
	}
	if have && (v.s.copied || v.s.whole) || v.s.whole && !closed {
		return nil
	}
	return v.seedDir(name, v.s.whole)
}

// isClosed reports whether a directory may not be read or entered by this user.
func isClosed(dir string) bool {
	st, err := os.Lstat(dir)
	return err == nil && st.IsDir() && unix.Access(dir, unix.R_OK|unix.X_OK) != nil
}

// isEmpty reports whether a directory holds nothing: an overlay over it would show nothing.
func isEmpty(dir string) bool {
	f, err := os.Open(dir)
	if err != nil {
		return false
	}
	defer f.Close()
	_, err = f.Readdirnames(1)
	return errors.Is(err, io.EOF)
}

// seedDir makes a directory as the lower one is, in one that was made so. It hides what the
// lower one holds, if hide says so.
func (v *View) seedDir(dir string, hide bool) error {
	lower, upper := v.s.lower(dir), filepath.Join(v.upper(), dir)
	if err := os.Mkdir(upper, 0o700); err != nil {
		return err
	}
	if hide {
		if err := v.hideLower(dir); err != nil {
			return err
		}
	}
	if err := treecopy.Xattrs(lower, upper); err != nil && !errors.Is(err, os.ErrPermission) {
		return err
	}
	if err := likeLower(lower, upper); err != nil {
		return err
	}
	return likeLower(v.s.lower(path.Dir(dir)), filepath.Dir(upper))
}

// hideLower has a directory of the upper one hide what the lower ones hold.
func (v *View) hideLower(dir string) error {
	return unix.Setxattr(filepath.Join(v.upper(), dir), v.s.mark("opaque"), []byte("y"), 0)
}

// seedAbove makes the directories above a path as the lower ones are, where the upper one
// has none. What a closed one holds is hidden.
func (v *View) seedAbove(p string) error {
	for i, c := range p {
		if c != '/' {
			continue
		}
		dir := p[:i]
		st, err := os.Lstat(filepath.Join(v.upper(), dir))
		switch {
		case err == nil && !st.IsDir(), err != nil && !v.s.isDir(dir):
			return nil
		case err == nil:
			continue
		}
		top, _, _ := strings.Cut(dir, "/")
		if err := v.seedDir(dir, v.merges(top) && isClosed(filepath.Join(v.s.Root, dir))); err != nil {
			return err
		}
	}
	return nil
}

// seedClosed copies the directories of Over that no overlay can show: the kernel lists none
// of which it may not read a part. A directory of another user can be such a part, and a
// RUN as root of a user namespace may have made one that is closed to its owner.
func (v *View) seedClosed(ctx context.Context) error {
	if v.s.Over == "" {
		return nil
	}
	if _, err := v.s.groups(ctx); err != nil {
		return err
	}
	for _, dir := range v.s.closed {
		if v.s.copied {
			at := filepath.Join(v.upper(), dir)
			st, err := os.Lstat(at)
			if err == nil {
				err = errors.Join(os.Chmod(at, 0o700), v.hideLower(dir), os.Chmod(at, st.Mode()))
			}
			if err != nil {
				return err
			}
			continue
		}
		err := v.seedParents(path.Dir(dir))
		if err == nil {
			err = v.seedDir(dir, true)
		}
		if err == nil {
			err = v.files.copy(ctx, filepath.Join(v.s.over(), dir), filepath.Join(v.upper(), dir), nil)
		}
		if err != nil {
			return fmt.Errorf("copy /%s: %w", dir, err)
		}
	}
	return nil
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

func seedTopFile(src, dst string) error {
	st, err := os.Stat(src)
	if err == nil && st.Size() > seedLimit {
		err = fmt.Errorf("%d bytes are too large a file beside the directories", st.Size())
	}
	if err != nil {
		return err
	}
	return seedFile(src, dst)
}

func seedFile(src, dst string) error {
	st, err := os.Stat(src)
	if err != nil {
		return err
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

// merges reports whether what is below a top-level directory lies over that of the root.
func (v *View) merges(top string) bool { return v.s.whole || helper.TopIsOverlaid(v.dir, top) }

// below says how many of the lower directories a top-level name lies over.
func (v *View) below(top string) int {
	n := len(v.s.lowers())
	if !v.merges(top) {
		n-- // the last is the root
	}
	return n
}

// overlayAlike has the same top-level directories of a clone overlaid.
func (v *View) overlayAlike(clone *View) error {
	if v.s.whole {
		return nil
	}
	tops, err := os.ReadDir(filepath.Join(v.dir, helper.WorkDir))
	for _, d := range tops {
		err = errors.Join(err, helper.OverlayTop(clone.dir, d.Name()))
	}
	return err
}
