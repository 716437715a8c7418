package rootfs

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/clayer/clayer/internal/inroot"
	"github.com/clayer/clayer/solver/internal/record"
)

// ErrStateGone says that the state directory was removed while its lock was held.
var ErrStateGone = errors.New("the state of clayer was removed")

// ErrStateCovered says that something was mounted over the state directory, or one
// above it, while its lock was held.
var ErrStateCovered = errors.New("something is mounted over the state of clayer")

// ErrStateCopied says that the state directory was replaced by a copy of it while its
// lock was held, as mv does from one file system to another.
var ErrStateCopied = errors.New("the state of clayer was replaced by a copy")

// Resettle sees to it that the next command finds the state, after a program may have
// moved the state directory, or one above it. Where the place of the state is the
// directory still, or leads to it, nothing is done; else the directory is moved back,
// and movedTo is where it was. The error wraps ErrStateCopied where a copy is in its
// place, at movedTo, which is the state from here on; ErrStateGone where the state is
// nowhere; and ErrStateCovered where it is in its place below a mount.
func (l *Lock) Resettle() (movedTo string, err error) {
	fd, err := l.root.state.Held().OpenFD(".")
	if errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("%w: %w", ErrStateGone, err)
	}
	if err != nil { // it may be in its place: nobody looked
		return "", err
	}
	defer unix.Close(fd)
	var held, st unix.Stat_t
	if err := unix.Fstat(fd, &held); err != nil {
		return "", err
	}
	want := l.root.state.String()
	at := want
	if l.root.inside {
		above, err := inroot.Inside(l.root.dir, filepath.Dir(stateInRoot))
		if err != nil {
			return "", err
		}
		at = filepath.Join(above, filepath.Base(stateInRoot))
	}
	switch err := unix.Lstat(at, &st); {
	case err == nil && inroot.IDOf(&st) == inroot.IDOf(&held):
		l.root.state = l.root.state.At(record.DirIn(l.root.dir, at).With(l.root.state.Sys()))
		return "", nil
	case err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, unix.ENOTDIR) && !errors.Is(err, unix.ELOOP):
		return "", &fs.PathError{Op: "lstat", Path: at, Err: err}
	}
	now, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", fd))
	if err != nil || held.Nlink == 0 || strings.HasSuffix(now, " (deleted)") {
		if l.useCopy(at) == nil {
			return at, ErrStateCopied
		}
		return "", fmt.Errorf("%w: it was %s", ErrStateGone, want)
	}
	if now == want {
		return "", fmt.Errorf("%w: %s", ErrStateCovered, want)
	}
	if err := l.root.sys.MkdirAll(filepath.Dir(want), 0o755); err != nil {
		return now, fmt.Errorf("move the state of clayer back from %s: %w", now, err)
	}
	if err := l.root.sys.Renameat(unix.AT_FDCWD, now, unix.AT_FDCWD, want, unix.RENAME_NOREPLACE); err != nil {
		return now, fmt.Errorf("move the state of clayer from %s back to %s: %w", now, want, err)
	}
	return now, nil
}

// useCopy goes on with a copy of the state.
func (l *Lock) useCopy(at string) error {
	state, err := record.DirIn(l.root.dir, at).With(l.root.state.Sys()).Open()
	if err != nil {
		return err
	}
	s, err := state.State()
	if err == nil && s.Tx != l.state.Tx {
		err = errors.New("it is another one")
	}
	if err != nil {
		return errors.Join(err, state.Close())
	}
	was, file := l.root.state, l.file
	l.root.state = state
	if err := l.take(context.Background(), false, nil); err != nil || l.file == file {
		l.root.state, l.file = was, file
		return errors.Join(err, state.Close())
	}
	return errors.Join(file.Close(), was.Close())
}
