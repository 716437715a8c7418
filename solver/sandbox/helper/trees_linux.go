package helper

import (
	"context"
	"errors"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/clayer/clayer/solver/sandbox"
	"github.com/clayer/clayer/solver/sandbox/internal/treecopy"
)

// treeMount completes the attachment of a part of another view, which is read-only. What may be
// written to is an overlay of it, or a copy where the kernel stacks no more overlays.
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
	show := in("shown")
	if errors.Is(err, unix.EINVAL) {
		show = in("upper")
		err = treecopy.Tree(context.Background(), from, show, nil)
	}
	if err == nil {
		a.tree, err = openTree(show)
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
