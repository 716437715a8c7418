package helper

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/clayer/clayer/cache/snapshot"
	"github.com/clayer/clayer/internal/pathname"
)

// bindScratch has the scratch directories of the view in a directory that is shown
// read-only.
func (h *helper) bindScratch(above string) error {
	for _, dir := range h.covered([]string{above}) {
		at := filepath.Join(h.merged(), dir)
		if err := unix.Mount(filepath.Join(h.View, UpperDir, dir), at, "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("bind %s: %w", dir, err)
		}
	}
	return nil
}

// covered lists the scratch directories of the view that would not be seen: in mounts.
func (h *helper) covered(mounts []string) (dirs []string) {
	for _, d := range snapshot.ScratchDirs() {
		dir := "/" + d
		in := func(above string) bool { return above != dir && pathname.Under(dir, above) }
		if slices.ContainsFunc(mounts, in) && realDir(filepath.Join(h.View, UpperDir), d) {
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
		if !realDir(h.Root, dir) || !realDir(h.merged(), dir) || slices.ContainsFunc(mounts, func(m submount) bool { return pathname.Under("/"+dir, m.target) }) {
			continue
		}
		upper, work := filepath.Join("temp", dir), filepath.Join("temp-work", dir)
		if err := errors.Join(os.MkdirAll(filepath.Join(h.View, upper), 0o755), os.MkdirAll(filepath.Join(h.View, work), 0o755)); err != nil {
			return err
		}
		err := h.overlay([]string{lower}, upper, work, at)
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

// A tempFile is a temporary file of the machine that the command's environment names: a
// bundle of certificates, a package manager's settings. The command finds a copy.
type tempFile struct {
	path    string
	mode    uint32
	content []byte
}

// namedTemp lists what the command's environment names in scratch directories of the
// machine: small files, and TMPDIR and HOME. It is called before the helper goes into
// its root.
func (h *helper) namedTemp() (dirs []string, files []tempFile) {
	if h.Task != TaskRun || h.MachineTemp {
		return nil, nil
	}
	root, err := os.OpenRoot(h.Root)
	if err != nil {
		return nil, nil
	}
	defer root.Close()
	for _, kv := range h.Env {
		name, p, _ := strings.Cut(kv, "=")
		p = strings.TrimSuffix(p, "/")
		if !strings.HasPrefix(p, "/") || !snapshot.IsScratch(p[1:]) || filepath.Clean(p) != p {
			continue
		}
		st, err := root.Stat(p[1:])
		switch {
		case err != nil:
		case st.IsDir():
			if name == "TMPDIR" || name == "HOME" {
				dirs = append(dirs, p)
			}
		case st.Mode().IsRegular() && st.Size() <= copyLimit:
			if b, err := root.ReadFile(p[1:]); err == nil {
				files = append(files, tempFile{p, uint32(st.Mode().Perm()), b})
			}
		}
	}
	return dirs, files
}

// putTemp puts what namedTemp has listed into the root, where nothing is. What is as it
// was when the command has ended goes then, as mount points do.
func (h *helper) putTemp(dirs []string, files []tempFile) error {
	for _, dir := range dirs {
		if _, err := os.Lstat(dir); err == nil {
			continue
		}
		if err := h.stubs.ensure(dir, true); err != nil {
			return err
		}
		if err := unix.Chmod(dir, 0o1777); err != nil {
			return err
		}
	}
	for _, f := range files {
		if _, err := os.Lstat(f.path); err == nil {
			continue
		}
		if err := h.stubs.ensure(filepath.Dir(f.path), true); err != nil {
			return err
		}
		err := h.stubs.put(f.path, stub{path: f.path}, func() error {
			return errors.Join(os.WriteFile(f.path, f.content, 0o600), unix.Chmod(f.path, f.mode))
		})
		if err != nil {
			return err
		}
	}
	return nil
}
