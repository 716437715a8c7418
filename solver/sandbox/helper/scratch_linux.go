package helper

import (
	"errors"
	"os"
	"path/filepath"
	"slices"

	"github.com/clayer/clayer/cache/snapshot"
	"github.com/clayer/clayer/internal/pathname"
)

// covered lists the scratch directories of the view that would not be seen: in mounts,
// or in a directory that is shown read-only.
func (h *helper) covered(mounts []string) (dirs []string) {
	for _, d := range snapshot.ScratchDirs() {
		dir := "/" + d
		in := func(above string) bool { return above != dir && pathname.Under(dir, above) }
		if !slices.ContainsFunc(mounts, in) && !slices.ContainsFunc(h.readOnly, in) {
			continue
		}
		if st, err := os.Lstat(filepath.Join(h.View, UpperDir, dir)); err == nil && st.IsDir() {
			dirs = append(dirs, dir)
		}
	}
	return dirs
}

// machineTemp mounts the machine's own temporary files over the scratch of steps. What
// changes there goes into directories of the view that nobody reads. mounts are attached
// as they are.
func (h *helper) machineTemp() error {
	if !h.MachineTemp {
		return nil
	}
	mounts, err := h.submounts()
	if err != nil {
		return err
	}
	for _, dir := range snapshot.ScratchDirs() {
		lower, at := filepath.Join(h.Root, dir), filepath.Join(h.merged(), dir)
		if !realDir(h.Root, dir) || !realDir(h.merged(), dir) || slices.ContainsFunc(mounts, func(m string) bool { return pathname.Under("/"+dir, m) }) {
			continue
		}
		upper, work := filepath.Join("temp", dir), filepath.Join("temp-work", dir)
		if err := errors.Join(os.MkdirAll(filepath.Join(h.View, upper), 0o755), os.MkdirAll(filepath.Join(h.View, work), 0o755)); err != nil {
			return err
		}
		err := h.overlay(lower, upper, work, at)
		if err == nil {
			if st, serr := os.Stat(lower); serr == nil {
				err = os.Chmod(at, st.Mode())
			}
		}
		if err == nil {
			continue
		}
		if berr := bindReadOnly(lower, at); berr != nil {
			return errors.Join(err, berr)
		}
		h.warn("/%s is read-only: %v", dir, err)
	}
	return nil
}

// realDir reports whether the path is a directory, with no link on the way.
func realDir(root, p string) bool {
	if above := filepath.Dir(p); above != "." && !realDir(root, above) {
		return false
	}
	st, err := os.Lstat(filepath.Join(root, p))
	return err == nil && st.IsDir()
}
