package overlay

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/clayer/clayer/cache/snapshot"
	"github.com/clayer/clayer/solver/sandbox/internal/treecopy"
)

// seedScratch has a view begin with empty scratch directories, as a container does: with
// the mode of the root's, and nothing of the machine's temporary files. Those change
// while the view is mounted, which an overlay does not allow, and are nobody's to
// capture. A scratch directory that the root lacks, or has as a link, is left alone.
func (v *View) seedScratch() error {
	for _, dir := range snapshot.ScratchDirs() {
		if !v.s.isDir(dir) {
			continue
		}
		err := v.seedParents(path.Dir(dir))
		if err == nil {
			err = v.emptyScratch(dir)
		}
		if err != nil {
			return fmt.Errorf("empty /%s: %w", dir, err)
		}
	}
	return nil
}

// emptyScratch replaces a directory of the upper one by an empty one that hides the
// lower one. The directory above keeps its time.
func (v *View) emptyScratch(dir string) error {
	lower, upper := v.s.lower(dir), filepath.Join(v.upper(), dir)
	var above unix.Stat_t
	if err := unix.Lstat(filepath.Dir(upper), &above); err != nil {
		return &os.PathError{Op: "stat", Path: filepath.Dir(upper), Err: err}
	}
	if _, err := os.Lstat(upper); err == nil {
		if err := v.files.remove(upper); err != nil {
			return err
		}
	}
	if err := os.Mkdir(upper, 0o700); err != nil {
		return err
	}
	if v.covers(dir) {
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
	return unix.UtimesNanoAt(unix.AT_FDCWD, filepath.Dir(upper), []unix.Timespec{above.Atim, above.Mtim}, 0)
}

// ClearScratch implements sandbox.Layered.
func (v *View) ClearScratch(ctx context.Context) (err error) {
	if err := v.ready(); err != nil {
		return err
	}
	defer func() { v.broken = err }()
	for _, dir := range snapshot.ScratchDirs() {
		// A link, or nothing, is what a step has made of it.
		if !v.s.isDir(dir) || !isDir(v.upper(), dir) {
			continue
		}
		if err := v.emptyScratch(dir); err != nil {
			return fmt.Errorf("empty /%s: %w", dir, err)
		}
	}
	return v.refresh(ctx)
}

// covers reports whether an overlay lies over a directory.
func (v *View) covers(dir string) bool {
	top := dir
	for path.Dir(top) != "." {
		top = path.Dir(top)
	}
	return v.below(top) > 0
}

// isDir reports whether the path is a directory in the lower directories, with no link on
// the way.
func (s *Overlay) isDir(p string) bool {
	if above := path.Dir(p); above != "." && !s.isDir(above) {
		return false
	}
	st, err := os.Lstat(s.lower(p))
	return err == nil && st.IsDir()
}

// isDir reports whether the path is a directory, with no link on the way.
func isDir(root, p string) bool {
	if above := path.Dir(p); above != "." && !isDir(root, above) {
		return false
	}
	st, err := os.Lstat(filepath.Join(root, p))
	return err == nil && st.IsDir()
}

// mark names an xattr of overlayfs.
func (s *Overlay) mark(name string) string {
	if s.rooted {
		return "trusted.overlay." + name
	}
	return "user.overlay." + name
}
