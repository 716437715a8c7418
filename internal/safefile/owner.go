package safefile

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"
)

// An OwnerError says that others than the user can change a file or directory.
type OwnerError struct {
	Path string
	UID  uint32      // who it belongs to
	Mode fs.FileMode // its permissions; 0 if the owner is what is wrong
}

func (e *OwnerError) Error() string {
	if e.Mode != 0 {
		return fmt.Sprintf("%s: other users can write to it (mode %04o)", e.Path, e.Mode)
	}
	return fmt.Sprintf("%s: it belongs to another user (uid %d)", e.Path, e.UID)
}

// CheckDir returns an *OwnerError unless an open directory belongs to the user or
// root, and no other user can write to it.
func CheckDir(dir *os.Root) error {
	f, err := dir.Open(".")
	if err != nil {
		return err
	}
	defer f.Close()
	return CheckFile(f)
}

// CheckFile is CheckDir for an open file or directory. The user is also the one
// who called sudo. The group may write if it is root's, or the one of the same
// number as the owner: systems that give each user such a group let it write.
func CheckFile(f *os.File) error {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return &fs.PathError{Op: "stat", Path: f.Name(), Err: err}
	}
	if !Trusted(st.Uid) {
		return &OwnerError{Path: filepath.Clean(f.Name()), UID: st.Uid}
	}
	perm := fs.FileMode(st.Mode).Perm()
	if perm&0o002 != 0 || perm&0o020 != 0 && st.Gid != 0 && st.Gid != st.Uid {
		return &OwnerError{Path: filepath.Clean(f.Name()), UID: st.Uid, Mode: perm}
	}
	return nil
}

// Trusted reports whether an owner is one whose files CheckFile takes.
func Trusted(owner uint32) bool { return trusted(owner, os.Geteuid(), os.Getenv("SUDO_UID")) }

// trusted reports whether an owner is root, the user, or the one whom sudo made
// root.
func trusted(owner uint32, euid int, sudoUID string) bool {
	if owner == 0 || int(owner) == euid {
		return true
	}
	sudo, err := strconv.ParseUint(sudoUID, 10, 32)
	return err == nil && euid == 0 && uint32(sudo) == owner
}
