package program

import (
	"fmt"
	"os"
	"runtime"
	"slices"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/clayer/clayer/solver/sandbox"
)

// Accept returns the user whom this process can become: nil if it is the user already. The
// error says why it cannot.
func Accept(u *sandbox.User) (*sandbox.User, error) {
	err := As(u, func() {})
	switch {
	case err == nil:
		return u, nil
	case int(u.UID) == os.Geteuid() && int(u.GID) == os.Getegid():
		return nil, nil // with the groups that it has
	}
	return nil, err
}

// As calls f as a user sees the root; nil is the user of this process. The error says why
// this process cannot become the user: f is not called then.
func As(u *sandbox.User, f func()) error {
	if u == nil {
		f()
		return nil
	}
	result := make(chan error)
	go func() {
		// The thread ends with the goroutine: it can't become what it was.
		runtime.LockOSThread()
		err := become(u)
		if err == nil {
			f()
		}
		result <- err
	}()
	return <-result
}

// become makes this thread one of the user. Package unix does so for all threads.
func become(u *sandbox.User) error {
	groups := Groups(u)
	if _, _, errno := unix.RawSyscall(unix.SYS_SETGROUPS, uintptr(len(groups)), uintptr(unsafe.Pointer(&groups[0])), 0); errno != 0 {
		return fmt.Errorf("no group %d here: %w", groups[0], errno)
	}
	if _, _, errno := unix.RawSyscall(unix.SYS_SETRESGID, uintptr(u.GID), uintptr(u.GID), uintptr(u.GID)); errno != 0 {
		return fmt.Errorf("no group %d here: %w", u.GID, errno)
	}
	if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, uintptr(u.UID), uintptr(u.UID), uintptr(u.UID)); errno != 0 {
		return fmt.Errorf("no user %d here: %w", u.UID, errno)
	}
	return nil
}

// Groups returns the supplementary groups of a user, with the user's own as in a container.
func Groups(u *sandbox.User) []uint32 {
	if slices.Contains(u.Groups, u.GID) {
		return u.Groups
	}
	return append([]uint32{u.GID}, u.Groups...)
}

// Credential is for the process of a user.
func Credential(u *sandbox.User) *syscall.Credential {
	if u == nil {
		return nil
	}
	return &syscall.Credential{Uid: u.UID, Gid: u.GID, Groups: Groups(u)}
}

// GiveStreams makes the pipes that a command writes to the user's: who opens /dev/stdout
// needs that.
func GiveStreams(u *sandbox.User, fds ...int) {
	if u == nil {
		return
	}
	for _, fd := range fds {
		var st unix.Stat_t
		if unix.Fstat(fd, &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFIFO {
			_ = unix.Fchown(fd, int(u.UID), -1) // or the user can write to what is open
		}
	}
}

// MayReach reports whether the user gets to a path.
func MayReach(u *sandbox.User, path string) bool {
	reached := false
	err := As(u, func() { reached = unix.Access(path, unix.R_OK|unix.X_OK) == nil })
	return err == nil && reached
}
