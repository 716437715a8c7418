package helper

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"

	"github.com/clayer/clayer/cache/snapshot"
	"github.com/clayer/clayer/internal/order"
	"github.com/clayer/clayer/internal/pathname"
	"github.com/clayer/clayer/solver/sandbox"
	"github.com/clayer/clayer/solver/sandbox/internal/descriptor"
	"github.com/clayer/clayer/solver/sandbox/internal/emulate"
)

// copyLimit bounds what is copied to be written by a RUN without a trace:
// resolv.conf, hosts, hostname. A larger file that is a mount is bound read-only.
const copyLimit = 1 << 20

// An attachment is a mount that the command sees at target. Its source is a
// detached copy of a mount, taken before the helper goes into the merged root:
// from there the machine's paths can't be named any more, and a link in the
// root cannot lead a target out of it.
type attachment struct {
	tree     int    // from openTree; -1: see fs
	fs, data string // a new file system in place of tree
	target   string // absolute in the merged root
	dir      bool
	readOnly bool
	optional bool // left out with a warning if it fails
	absent   absent
}

// absent says what happens if nothing stands at the target.
type absent uint8

const (
	stubIt      absent = iota // a mount point is made, and removed afterwards
	skipIt                    // then there is nothing to cover
	replaceFile               // as stubIt; but anything else than a regular file there is left alone
)

// attachments collects what is mounted into the root beside the overlay.
func (h *helper) attachments() ([]attachment, error) {
	mounts, err := h.submounts()
	if err != nil {
		return nil, err
	}
	var l []attachment
	has := func(target string) bool {
		return slices.ContainsFunc(l, func(a attachment) bool { return a.target == target })
	}
	var inside []string
	for _, m := range mounts {
		inside = append(inside, m.target)
		if m.target == "/proc" {
			continue
		}
		a, err := h.submount(m)
		if err != nil {
			h.warn("the mount at %s is left out: %v", m.target, err)
			continue
		}
		l = append(l, a)
	}
	for _, dir := range h.covered(inside) {
		t, err := openTree(filepath.Join(h.View, UpperDir, dir))
		if err != nil {
			return nil, err
		}
		l = append(l, attachment{tree: t, target: dir, dir: true})
	}
	for _, dir := range []string{"/dev", "/sys"} {
		if has(dir) || h.Root == "/" && h.Rooted {
			continue // seen already, or part of the lower directory itself
		}
		t, err := openTree(dir)
		if err != nil {
			return nil, err
		}
		l = append(l, attachment{tree: t, target: dir, dir: true})
	}
	if h.Root != "/" {
		const resolv = "/etc/resolv.conf"
		if st, err := os.Stat(resolv); err == nil && st.Mode().IsRegular() && !has(resolv) {
			a, err := h.privateCopy(resolv, st)
			if err != nil {
				return nil, err
			}
			a.target, a.absent = resolv, replaceFile
			l = append(l, a)
		}
	}
	hide := slices.Clone(h.Hide)
	slices.Sort(hide)
	for i, p := range hide {
		if i > 0 && strings.HasPrefix(p, hide[i-1]+"/") {
			continue
		}
		l = append(l, attachment{tree: -1, fs: "tmpfs", data: "mode=755", target: p, dir: true, readOnly: true, absent: skipIt})
	}
	for i, m := range h.Mounts {
		a, err := h.commandMount(i, m)
		if err != nil {
			return nil, fmt.Errorf("mount %s: %w", m.Target, err)
		}
		l = append(l, a)
	}
	return l, nil
}

// A submount is a mount below a lower directory.
type submount struct{ target, source string } // the path in the root, and that of the machine

// submounts returns the outermost mounts below the lower directories. What is clayer's own
// is left out, and so are mounts in scratch directories: a view has its own.
func (h *helper) submounts() ([]submount, error) {
	infos, err := mountinfo.GetMounts(nil)
	if err != nil {
		return nil, fmt.Errorf("read mounts: %w", err)
	}
	var all []submount
	for _, dir := range []string{h.Over, h.Root} {
		for _, m := range infos {
			if dir == "" || m.Mountpoint == dir || !pathname.Under(m.Mountpoint, dir) || pathname.Under(m.Mountpoint, h.View) {
				continue
			}
			p := "/" + strings.Trim(strings.TrimPrefix(m.Mountpoint, dir), "/")
			if snapshot.IsScratch(p[1:]) && !h.MachineTemp {
				continue
			}
			if !slices.ContainsFunc(h.Hide, func(hidden string) bool { return pathname.Under(p, hidden) }) {
				all = append(all, submount{p, m.Mountpoint})
			}
		}
	}
	order.Stable(all, func(a, b submount) int { return strings.Compare(a.target, b.target) })
	var outer []submount
	for _, m := range all {
		if len(outer) == 0 || !pathname.Under(m.target, outer[len(outer)-1].target) {
			outer = append(outer, m)
		}
	}
	return outer, nil
}

func (h *helper) submount(m submount) (attachment, error) {
	st, err := os.Stat(m.source)
	if err != nil {
		return attachment{}, err
	}
	if st.Mode().IsRegular() && st.Size() <= copyLimit {
		a, err := h.privateCopy(m.source, st)
		a.target, a.optional = m.target, true
		return a, err
	}
	t, err := openTree(m.source)
	return attachment{tree: t, target: m.target, dir: st.IsDir(), readOnly: st.Mode().IsRegular(), optional: true}, err
}

// privateCopy stages a copy of a file, so that a command may write it.
func (h *helper) privateCopy(path string, st os.FileInfo) (attachment, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return attachment{}, err
	}
	f, err := h.stageFile(b, uint32(st.Mode().Perm()), 0, 0)
	if err != nil {
		return attachment{}, err
	}
	if err := os.Chtimes(f, time.Time{}, st.ModTime()); err != nil {
		return attachment{}, err
	}
	t, err := openTree(f)
	return attachment{tree: t}, err
}

func (h *helper) commandMount(i int, m sandbox.Mount) (attachment, error) {
	a := attachment{tree: -1, target: m.Target, readOnly: m.ReadOnly, dir: true}
	tree, shown := h.Trees[i]
	switch {
	case shown:
		return h.treeMount(a, m, tree)
	case m.Tmpfs:
		mode := m.Mode
		if mode == 0 {
			mode = 0o1777 // as /tmp
		}
		a.fs, a.data = "tmpfs", fmt.Sprintf("mode=%o,uid=%d,gid=%d", mode&0o7777, m.UID, m.GID)
		if m.Size > 0 {
			a.data += ",size=" + strconv.FormatInt(m.Size, 10)
		}
		return a, nil
	case m.Source != "":
		var err error
		if a.tree, err = openTree(m.Source); err != nil {
			return a, err
		}
		a.dir, err = emulate.CheckSource(m, a.tree)
		return a, err
	default:
		mode := m.Mode
		if mode == 0 {
			mode = 0o400
		}
		f, err := h.stageFile(m.Content, mode, m.UID, m.GID)
		if err != nil {
			return a, err
		}
		a.dir = false
		a.tree, err = openTree(f)
		return a, err
	}
}

// script stages the job's script, so that its "#!" line is honoured; nil if there is none.
func (h *helper) script() (*os.File, error) {
	if len(h.Script) == 0 || h.Task != TaskRun {
		return nil, nil
	}
	p, err := h.stageFile(h.Script, 0o755, 0, 0)
	if err != nil {
		return nil, fmt.Errorf("stage the script: %w", err)
	}
	return os.Open(p) // alone: a file that is open for writing can't be executed
}

// stage returns the directory of a tmpfs that only the helper's namespace sees.
func (h *helper) stage() (string, error) {
	stage := filepath.Join(h.View, StageDir)
	if !h.staged {
		if err := unix.Mount("tmpfs", stage, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=700"); err != nil {
			return "", fmt.Errorf("mount a tmpfs: %w", err)
		}
		h.staged = true
	}
	return stage, nil
}

// stageDir makes a directory there.
func (h *helper) stageDir() (string, error) {
	stage, err := h.stage()
	if err != nil {
		return "", err
	}
	return os.MkdirTemp(stage, "")
}

// stageFile makes a file there.
func (h *helper) stageFile(content []byte, mode uint32, uid, gid int) (string, error) {
	stage, err := h.stage()
	if err != nil {
		return "", err
	}
	f, err := os.CreateTemp(stage, "")
	if err != nil {
		return "", err
	}
	_, err = f.Write(content)
	if err == nil && (uid != 0 || gid != 0) {
		err = f.Chown(uid, gid)
	}
	if err == nil {
		err = unix.Fchmod(int(f.Fd()), mode&0o7777)
	}
	return f.Name(), errors.Join(err, f.Close())
}

// openTree takes a detached copy of the mount at path with all below it. A
// kernel before 5.2 has no such copies: there, and where the call is refused,
// it is the directory or file itself, to be bound later.
func openTree(path string) (int, error) {
	fd, err := unix.OpenTree(unix.AT_FDCWD, path, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_RECURSIVE)
	if errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EPERM) || WithoutOpenTree {
		fd, err = unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0)
	}
	if err != nil {
		return -1, fmt.Errorf("bind %s: %w", path, err)
	}
	return fd, nil
}

// WithoutOpenTree is set by tests, for a kernel that has it not.
var WithoutOpenTree bool

// moveTree mounts what openTree gave at target.
func moveTree(fd int, target string) error {
	err := unix.MoveMount(fd, "", unix.AT_FDCWD, target, unix.MOVE_MOUNT_F_EMPTY_PATH|unix.MOVE_MOUNT_T_SYMLINKS)
	if err == nil {
		return nil
	}
	var st unix.Stat_t
	if serr := unix.Fstat(fd, &st); serr != nil {
		return err
	}
	source := descriptor.Path(fd)
	if st.Mode&unix.S_IFMT == unix.S_IFDIR {
		// Without a way through /proc, which may be what is to be mounted.
		if cerr := unix.Fchdir(fd); cerr != nil {
			return err
		}
		defer unix.Chdir("/")
		source = "."
	}
	if berr := unix.Mount(source, target, "", unix.MS_BIND|unix.MS_REC, ""); berr != nil {
		return errors.Join(err, berr)
	}
	return nil
}
