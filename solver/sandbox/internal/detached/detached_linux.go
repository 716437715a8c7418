// Package detached passes parts of a mounted tree from a process that holds it to another one, as
// detached mounts: a mount namespace takes none of another one.
package detached

import (
	"errors"
	"fmt"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// maxPath bounds a path that a tree is asked for, and the text of an error.
const maxPath = unix.PathMax

// Serve answers each path that the other end of a socket asks for by a mount of what is there in
// the tree, until that end is closed. It begins with a packet that says that the tree is there.
// A kernel without open_tree(2) has no such mounts.
func Serve(socket int, tree string, oldKernel bool) error {
	if _, err := unix.Write(socket, []byte(".")); err != nil {
		return err
	}
	path := make([]byte, maxPath)
	for {
		n, err := unix.Read(socket, path)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if n == 0 || err != nil {
			return err
		}
		fd, err := -1, error(unix.ENOSYS)
		if !oldKernel {
			fd, err = detach(tree, string(path[:n]))
		}
		if err := answer(socket, fd, err); err != nil {
			return err
		}
	}
}

// answer sends a mount, and then closes it, or the number of what has prevented it.
func answer(socket, fd int, err error) error {
	if err != nil {
		var errno syscall.Errno
		errors.As(err, &errno)
		return unix.Sendmsg(socket, fmt.Append(nil, int(errno)), nil, nil, 0)
	}
	defer unix.Close(fd)
	return unix.Sendmsg(socket, []byte("0"), unix.UnixRights(fd), nil, 0)
}

// detach takes a detached copy of what is at a path, with all mounts below it, that can only be
// read. Links lead nowhere out of the tree.
func detach(tree, path string) (int, error) {
	root, err := unix.Open(tree, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	defer unix.Close(root)
	at, err := unix.Openat2(root, path, &unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS})
	if err != nil {
		return -1, err
	}
	defer unix.Close(at)
	fd, err := unix.OpenTree(at, "", unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_RECURSIVE|unix.AT_EMPTY_PATH)
	if err != nil {
		return -1, err
	}
	if err := unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH|unix.AT_RECURSIVE, &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY}); err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// Ask returns what Serve answers at the other end of a socket. The error is of what has prevented
// it there: ENOENT where nothing is at the path.
func Ask(socket *os.File, path string) (*os.File, error) {
	if len(path) == 0 || len(path) >= maxPath {
		return nil, unix.ENAMETOOLONG
	}
	if _, err := socket.Write([]byte(path)); err != nil {
		return nil, err
	}
	text, oob := make([]byte, 32), make([]byte, unix.CmsgSpace(4))
	n, m, _, _, err := unix.Recvmsg(int(socket.Fd()), text, oob, unix.MSG_CMSG_CLOEXEC)
	if err != nil {
		return nil, err
	}
	var errno int
	if _, err := fmt.Sscan(string(text[:n]), &errno); err != nil {
		return nil, fmt.Errorf("the helper that holds a view has ended")
	}
	if errno != 0 {
		return nil, syscall.Errno(errno)
	}
	messages, err := unix.ParseSocketControlMessage(oob[:m])
	if err == nil && len(messages) == 1 {
		var fds []int
		if fds, err = unix.ParseUnixRights(&messages[0]); err == nil && len(fds) == 1 {
			return os.NewFile(uintptr(fds[0]), path), nil
		}
	}
	return nil, fmt.Errorf("the helper that holds a view sent no mount: %w", errors.Join(err, unix.EPROTO))
}
