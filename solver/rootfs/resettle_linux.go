package rootfs

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/clayer/clayer/solver/rootfs/inroot"
	"github.com/clayer/clayer/solver/rootfs/record"
)

// ErrStateGone says that the state directory was removed while its lock was held.
var ErrStateGone = errors.New("the state of clayer was removed")

// Resettle sees to it that the next command finds the state, after a program may have
// moved the state directory, or one above it. Where the place of the state is the
// directory still, or leads to it, nothing is done; else the directory is moved back,
// and movedTo is where it was. The error wraps ErrStateGone where it is nowhere.
func (l *Lock) Resettle() (movedTo string, err error) {
	fd, err := l.root.state.Held().OpenFD(".")
	if err != nil {
		return "", fmt.Errorf("%w: %w", ErrStateGone, err)
	}
	defer unix.Close(fd)
	var held, st unix.Stat_t
	if err := unix.Fstat(fd, &held); err != nil {
		return "", err
	}
	want := l.root.state.String()
	if l.root.inside {
		above, err := inroot.Inside(l.root.dir, filepath.Dir(stateInRoot))
		if err != nil {
			return "", err
		}
		if at := filepath.Join(above, filepath.Base(stateInRoot)); unix.Lstat(at, &st) == nil && inroot.IDOf(&st) == inroot.IDOf(&held) {
			l.root.state = l.root.state.At(record.DirIn(l.root.dir, at))
			return "", nil
		}
	} else if unix.Lstat(want, &st) == nil && inroot.IDOf(&st) == inroot.IDOf(&held) {
		return "", nil
	}
	now, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", fd))
	if err != nil || held.Nlink == 0 || strings.HasSuffix(now, " (deleted)") {
		return "", fmt.Errorf("%w: it was %s", ErrStateGone, want)
	}
	if err := inroot.MkdirAll(filepath.Dir(want), 0o755); err != nil {
		return now, fmt.Errorf("move the state of clayer back from %s: %w", now, err)
	}
	if err := inroot.Renameat(unix.AT_FDCWD, now, unix.AT_FDCWD, want, unix.RENAME_NOREPLACE); err != nil {
		return now, fmt.Errorf("move the state of clayer from %s back to %s: %w", now, want, err)
	}
	return now, nil
}
