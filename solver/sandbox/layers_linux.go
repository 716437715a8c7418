package sandbox

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/clayer/clayer/cache/snapshot"
	"github.com/clayer/clayer/solver/rootfs/unpack"
	"github.com/clayer/clayer/solver/tree"
)

// apply unpacks the snapshot on stdin onto the merged tree, so that the kernel
// makes whiteouts, opaque folders and copies as it does for a command. No
// other mount is in the way here.
func (h *helper) apply(ctx context.Context) error {
	res, err := unpack.Unpack(ctx, h.merged(), snapshot.ReadUnvalidated(os.Stdin), unpack.Options{Placement: h.Placement})
	if err != nil {
		return err
	}
	for i, p := range res.Problems {
		if h.Rooted {
			// What runs next would not see what its key promises.
			return fmt.Errorf("%q: %w (and %d more)", p.Path, p.Err, len(res.Problems)-1)
		}
		// Devices and file capabilities are not for a user to make.
		if h.warn("%q cannot be shown in a user namespace: %v", p.Path, p.Err); i == 9 {
			h.warn("and %d more", len(res.Problems)-10)
			break
		}
	}
	return nil
}

// capture packs a path of the merged tree into the spool: what the upper
// folder does not hold of it.
func (h *helper) capture(ctx context.Context) error {
	below, err := h.resolve(h.Path)
	if err != nil {
		return err
	}
	hidden := hides(h.Hide)
	opt := tree.Options{Below: below, Ownerless: !h.Rooted, Prune: hidden}
	merged, err := tree.Read(ctx, h.merged(), opt)
	if err != nil {
		return err
	}
	upper, err := tree.Read(ctx, filepath.Join(h.View, upperDir), tree.Options{Ownerless: !h.Rooted})
	if err != nil {
		return err
	}
	keep, err := snapshot.Filter{Include: []string{h.Path, "/" + below}}.Compile()
	if err != nil {
		return err
	}
	whole := tree.Whole{
		Reading: merged, Below: below, Except: upper, Keep: keep,
		Open: func(p string) (*os.File, error) { return tree.OpenAt(h.merged(), p, unix.O_RDONLY) },
	}
	if h.Seeded {
		whole.Stand = h.stands
	}
	spool := os.NewFile(spoolFD, "spool")
	_, err = snapshot.Pack(ctx, spool, whole.Changes(), snapshot.PackOptions{Level: 1})
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

// stands reports whether the path was put into the upper folder as a stand-in
// for the root's own: a top-level name, or a hard link and the folders above it.
func (h *helper) stands(path string) bool {
	lower, err := os.Lstat(filepath.Join(h.Root, path))
	if err != nil || !strings.Contains(path, "/") {
		return err == nil && !h.Rooted
	}
	upper, err := os.Lstat(filepath.Join(h.View, upperDir, path))
	return err == nil && lower.Mode() == upper.Mode() && lower.ModTime().Equal(upper.ModTime()) &&
		(lower.IsDir() || lower.Size() == upper.Size())
}

// hides returns a test for the paths below a root that are hidden, or nil.
func hides(absolute []string) func(path string) bool {
	if len(absolute) == 0 {
		return nil
	}
	hidden := make(map[string]bool, len(absolute))
	for _, p := range absolute {
		hidden[strings.TrimPrefix(p, "/")] = true
	}
	return func(path string) bool { return hidden[path] }
}
