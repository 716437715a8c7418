package helper

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/clayer/clayer/cache/snapshot"
	"github.com/clayer/clayer/internal/beneath"
	"github.com/clayer/clayer/internal/pathname"
	"github.com/clayer/clayer/internal/tree"
	"github.com/clayer/clayer/solver/internal/unpack"
)

// apply unpacks the snapshot on stdin onto the merged tree, so that the kernel
// makes whiteouts, opaque directories and copies as it does for a command. No
// other mount is in the way here. Devices and owners that are not for a user to
// make are left out by unpack, and what is in directories of other users is reported;
// any other problem is an error: what runs next would not see what its key promises.
func (h *helper) apply(ctx context.Context, out *result) error {
	changes := h.baringTops(snapshot.ReadUnvalidated(os.Stdin))
	if h.Scratch {
		changes = snapshot.Scratch(changes)
	}
	res, err := unpack.Unpack(ctx, h.merged(), changes, unpack.Options{Placement: h.Placement})
	if err != nil {
		return err
	}
	if res.Foreign.Files > 0 {
		out.Foreign = true
		h.warn("%s: an id that RUN does not have in its user namespace: it sees another one", res.Foreign)
	}
	for _, p := range res.Problems {
		if h.Rooted || !errors.Is(p.Err, unix.EACCES) {
			return fmt.Errorf("%q: %w (and %d more)", p.Path, p.Err, len(res.Problems)-1)
		}
		out.Closed = append(out.Closed, p.Path)
	}
	return nil
}

// baringTops takes the overlays off top-level directories that the changes delete, or
// replace by something else.
func (h *helper) baringTops(changes snapshot.Changes) snapshot.Changes {
	return func(yield func(*snapshot.Entry, error) bool) {
		for e, err := range changes {
			if err == nil && e.Kind != snapshot.Dir && e.Kind != snapshot.Opaque && !strings.Contains(e.Path, "/") {
				err = h.bareTop(e.Path)
			}
			if !yield(e, err) {
				return
			}
		}
	}
}

// capture packs a path of the merged tree into the spool: what the upper
// directory does not hold of it.
func (h *helper) capture(ctx context.Context) error {
	below, err := h.resolve(h.Path)
	if err != nil {
		return err
	}
	hidden := tree.Hide(h.Hide)
	opt := tree.Options{Below: below, Ownerless: !h.Rooted, Prune: hidden}
	merged, err := tree.Read(ctx, h.merged(), opt)
	if err != nil {
		return err
	}
	upper, err := tree.Read(ctx, filepath.Join(h.View, UpperDir), tree.Options{Ownerless: !h.Rooted})
	if err != nil {
		return err
	}
	filter, err := snapshot.Filter{Include: []string{h.Path, "/" + below}}.Compile()
	if err != nil {
		return err
	}
	whole := tree.Whole{
		Reading: merged, Below: below, Except: upper, Filter: filter,
		Dir: h.merged(),
	}
	if h.Seeded {
		whole.Stand = h.stands
	}
	if h.Over != "" { // where steps have put what they reported
		whole.Reported = func(p string) bool { _, err := os.Lstat(filepath.Join(h.Over, p)); return err == nil }
	}
	spool := os.NewFile(spoolFD, "spool")
	_, err = snapshot.Pack(ctx, spool, whole.Changes(), snapshot.PackOptions{Level: 1})
	return err
}

// exists looks for a path of the merged tree, not following a link there.
func (h *helper) exists() error {
	below, err := h.resolve(h.Path)
	if err == nil {
		_, err = os.Lstat(filepath.Join(h.merged(), below))
	}
	return err
}

// resolve follows the links above the last part of the path, inside the root,
// and returns what is below the root.
func (h *helper) resolve(path string) (string, error) {
	old, err := unix.Open("/", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", err
	}
	defer unix.Close(old)
	if err := unix.Chroot(h.merged()); err != nil {
		return "", fmt.Errorf("enter the root: %w", err)
	}
	dir, err := filepath.EvalSymlinks(filepath.Dir(path))
	if ferr := unix.Fchdir(old); ferr != nil {
		return "", ferr
	}
	if cerr := unix.Chroot("."); cerr != nil {
		return "", cerr
	}
	if err != nil {
		return "", err
	}
	return strings.TrimPrefix(filepath.Join(dir, filepath.Base(path)), "/"), nil
}

// stands reports whether the path was put into the upper directory as a stub
// for the root's own: a top-level name, or a hard link and the directories above it.
func (h *helper) stands(path string) bool {
	lower, err := os.Lstat(filepath.Join(h.Root, path))
	if err != nil || !strings.Contains(path, "/") {
		return err == nil && !h.Rooted
	}
	upper, err := os.Lstat(filepath.Join(h.View, UpperDir, path))
	return err == nil && lower.Mode() == upper.Mode() && lower.ModTime().Equal(upper.ModTime()) &&
		(lower.IsDir() || lower.Size() == upper.Size())
}

// copyUp opens files of the merged tree for writing, which is what copies them
// up. What is not there any more, or is something else, is passed over.
func (h *helper) copyUp() error {
	for _, name := range h.Names {
		f, err := beneath.Open(h.merged(), name, unix.O_WRONLY|unix.O_NONBLOCK)
		switch {
		case err == nil:
			f.Close()
		case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ENOTDIR), errors.Is(err, unix.ELOOP), errors.Is(err, unix.EISDIR), errors.Is(err, unix.ENXIO):
		default:
			return fmt.Errorf("%q: %w", name, err)
		}
	}
	return nil
}

// checkView makes a view in a tmpfs that only the helper sees.
func (h *helper) checkView() error {
	if err := makePrivate("/dev"); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	at := ""
	for _, dir := range []string{"/tmp", "/run", "/var/tmp", "/mnt", "/media", "/srv"} {
		if st, err := os.Lstat(dir); err != nil || !st.IsDir() || h.Root != "/" && pathname.Under(h.Root, dir) {
			continue
		}
		if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "mode=755"); err != nil {
			return fmt.Errorf("mount a tmpfs: %w", err)
		}
		at = dir
		break
	}
	if at == "" {
		return errors.New("there is no /tmp to try in")
	}
	h.View = filepath.Join(at, "view")
	for _, d := range []string{"", UpperDir, WorkDir, RootDir, StageDir, BaseDir} {
		if err := os.Mkdir(filepath.Join(h.View, d), 0o755); err != nil {
			return err
		}
	}
	if h.Rooted {
		if err := unix.Setxattr(filepath.Join(h.View, UpperDir), "trusted.overlay.probe", []byte("y"), 0); err != nil {
			return fmt.Errorf("set an xattr: %w", err)
		}
	}
	if h.Whole {
		return nil
	}
	top, err := os.ReadDir(h.Root)
	if err != nil {
		return err
	}
	for _, d := range top {
		p := filepath.Join(h.Root, d.Name())
		if d.IsDir() && unix.Access(p, unix.R_OK|unix.X_OK) == nil {
			if err := errors.Join(os.Mkdir(filepath.Join(h.View, UpperDir, d.Name()), 0o755), OverlayTop(h.View, d.Name())); err != nil {
				return err
			}
		}
	}
	return nil
}
