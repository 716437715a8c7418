package helper

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/clayer/clayer/solver/sandbox"
	"github.com/clayer/clayer/solver/sandbox/internal/descriptor"
	"github.com/clayer/clayer/solver/sandbox/internal/treecopy"
)

// treeMount completes the attachment of a part of another view, which is read-only. What may be
// written to is an overlay of it, and of a file a copy.
func (h *helper) treeMount(a attachment, m sandbox.Mount, fd int) (attachment, error) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return a, err
	}
	a.tree, a.dir = fd, st.Mode&unix.S_IFMT == unix.S_IFDIR
	if m.ReadOnly {
		return a, nil
	}
	dropped, err := os.MkdirTemp(h.View, "dropped-") // it goes with the view
	if err != nil {
		return a, err
	}
	in := func(name string) string { return filepath.Join(dropped, name) }
	for _, name := range []string{"upper", "work", "shown"} {
		if err := os.Mkdir(in(name), 0o755); err != nil {
			return a, err
		}
	}
	from, err := h.stageDir()
	if err == nil && !a.dir {
		from = filepath.Join(from, "file")
		err = os.WriteFile(from, nil, 0o600)
	}
	if err == nil {
		err = moveTree(fd, from)
	}
	if err != nil {
		return a, err
	}
	defer unix.Close(fd)
	if !a.dir {
		return h.copyOf(a, from, in("upper"))
	}
	err = h.mountOverlay(in("shown"), 0, []directories{
		{"lowerdir", []string{from}}, {"upperdir", []string{in("upper")}}, {"workdir", []string{in("work")}},
	}, "redirect_dir=off", "metacopy=off")
	if errors.Is(err, unix.EINVAL) {
		// No copy is made: the tree may be all of the machine, with this view in it.
		return a, fmt.Errorf("it can't be written to here, where the kernel stacks no more overlays; it can be mounted to be read: %w", err)
	}
	if err == nil {
		a.tree, err = openTree(in("shown"))
	}
	return a, err
}

// copyOf has a mount show a copy of a file, in a directory.
func (h *helper) copyOf(a attachment, file, dir string) (attachment, error) {
	from, err := os.Open(file)
	if err != nil {
		return a, err
	}
	defer from.Close()
	to, err := os.Open(dir)
	if err != nil {
		return a, err
	}
	defer to.Close()
	if err = treecopy.File(int(from.Fd()), int(to.Fd()), "file"); err == nil {
		a.tree, err = openTree(filepath.Join(dir, "file"))
	}
	return a, err
}

// hideHeld covers in the merged tree what is clayer's own, as commands find it.
func (h *helper) hideHeld() error {
	root, err := unix.Open(h.merged(), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(root)
	for _, p := range h.Hide {
		at, err := unix.Openat2(root, p, &unix.OpenHow{Flags: unix.O_PATH | unix.O_DIRECTORY | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS})
		if err != nil {
			continue // nothing is there, or the kernel serves no parts of the tree either
		}
		err = unix.Mount("tmpfs", descriptor.Path(at), "tmpfs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_RDONLY, "mode=755")
		unix.Close(at)
		if err != nil {
			return &os.PathError{Op: "hide", Path: p, Err: err}
		}
	}
	return nil
}
