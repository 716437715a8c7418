package storm

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A call is a system call on files that a command is about to make.
type call struct {
	pid     int // of the thread
	shape   *shape
	args    [6]uint64
	changes bool // it changes something, or opens a file for that
}

// A shape says where in the arguments of a system call its file is; -1 is nowhere.
type shape struct {
	name     string
	fd       int
	dir, at  int // a directory's descriptor, and the path from there
	changes  bool
	openFlag int // the argument with the flags of open
	openHow  int // the argument that points to them
}

func onFD(name string, fd int, changes bool) *shape {
	return &shape{name: name, fd: fd, dir: -1, at: -1, changes: changes, openFlag: -1, openHow: -1}
}

func onPath(name string, dir, at int, changes bool) *shape {
	return &shape{name: name, fd: -1, dir: dir, at: at, changes: changes, openFlag: -1, openHow: -1}
}

// shapes are the system calls that are reported: those on files that Go's
// packages and clayer make.
var shapes = map[uint32]*shape{
	unix.SYS_OPENAT:     {name: "openat", fd: -1, dir: 0, at: 1, openFlag: 2, openHow: -1},
	unix.SYS_OPENAT2:    {name: "openat2", fd: -1, dir: 0, at: 1, openFlag: -1, openHow: 2},
	unix.SYS_READ:       onFD("read", 0, false),
	unix.SYS_PREAD64:    onFD("pread64", 0, false),
	unix.SYS_GETDENTS64: onFD("getdents64", 0, false),
	unix.SYS_FSTAT:      onFD("fstat", 0, false),
	unix.SYS_STATX:      onPath("statx", 0, 1, false),
	unix.SYS_READLINKAT: onPath("readlinkat", 0, 1, false),
	unix.SYS_LGETXATTR:  onPath("lgetxattr", -1, 0, false),
	unix.SYS_LLISTXATTR: onPath("llistxattr", -1, 0, false),
	unix.SYS_FGETXATTR:  onFD("fgetxattr", 0, false),
	unix.SYS_FLISTXATTR: onFD("flistxattr", 0, false),

	unix.SYS_WRITE:           onFD("write", 0, true),
	unix.SYS_PWRITE64:        onFD("pwrite64", 0, true),
	unix.SYS_COPY_FILE_RANGE: onFD("copy_file_range", 2, true),
	unix.SYS_FTRUNCATE:       onFD("ftruncate", 0, true),
	unix.SYS_FALLOCATE:       onFD("fallocate", 0, true),
	unix.SYS_FSYNC:           onFD("fsync", 0, true),
	unix.SYS_FDATASYNC:       onFD("fdatasync", 0, true),
	unix.SYS_SYNCFS:          onFD("syncfs", 0, true),
	unix.SYS_FCHMOD:          onFD("fchmod", 0, true),
	unix.SYS_FCHOWN:          onFD("fchown", 0, true),
	unix.SYS_FSETXATTR:       onFD("fsetxattr", 0, true),
	unix.SYS_MKDIRAT:         onPath("mkdirat", 0, 1, true),
	unix.SYS_MKNODAT:         onPath("mknodat", 0, 1, true),
	unix.SYS_UNLINKAT:        onPath("unlinkat", 0, 1, true),
	unix.SYS_SYMLINKAT:       onPath("symlinkat", 1, 2, true),
	unix.SYS_LINKAT:          onPath("linkat", 2, 3, true),
	unix.SYS_RENAMEAT:        onPath("renameat", 2, 3, true),
	unix.SYS_RENAMEAT2:       onPath("renameat2", 2, 3, true),
	unix.SYS_FCHMODAT:        onPath("fchmodat", 0, 1, true),
	unix.SYS_FCHMODAT2:       onPath("fchmodat2", 0, 1, true),
	unix.SYS_FCHOWNAT:        onPath("fchownat", 0, 1, true),
	unix.SYS_UTIMENSAT:       onPath("utimensat", 0, 1, true),
	unix.SYS_LSETXATTR:       onPath("lsetxattr", -1, 0, true),
	unix.SYS_LREMOVEXATTR:    onPath("lremovexattr", -1, 0, true),
}

// auditArch is how the kernel calls the architectures in a filter.
var auditArch = map[string]uint32{"amd64": unix.AUDIT_ARCH_X86_64, "arm64": unix.AUDIT_ARCH_AARCH64}

// filter is the seccomp program that reports the calls of shapes and allows all.
func filter() []unix.SockFilter {
	load := func(offset uint32) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: offset}
	}
	ret := func(action uint32) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: action}
	}
	equal := func(value uint32, yes, no uint8) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: value, Jt: yes, Jf: no}
	}
	// struct seccomp_data: the number, then the architecture.
	prog := []unix.SockFilter{load(4), equal(auditArch[runtime.GOARCH], 1, 0), ret(unix.SECCOMP_RET_ALLOW), load(0)}
	for nr := range shapes {
		prog = append(prog, equal(nr, 0, 1), ret(unix.SECCOMP_RET_USER_NOTIF))
	}
	return append(prog, ret(unix.SECCOMP_RET_ALLOW))
}

// install puts the filter on this thread and returns the descriptor from which
// the calls are read.
func install() (listener int, err error) {
	prog := filter()
	fprog := unix.SockFprog{Len: uint16(len(prog)), Filter: &prog[0]}
	// Once a call was reported only a fatal signal interrupts it: the signals by
	// which Go's scheduler preempts would report it again and again.
	const flags = unix.SECCOMP_FILTER_FLAG_NEW_LISTENER | unix.SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV
	fd, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, flags, uintptr(unsafe.Pointer(&fprog)))
	if errno != 0 {
		return -1, errno
	}
	return int(fd), nil
}

// launcher is the name under which this test binary becomes the program: it
// installs the filter, sends the listener to descriptor 3, becomes the user, and
// executes the rest of its arguments.
const launcher = "storm-launcher"

func launch(user string, argv []string) error {
	runtime.LockOSThread()
	listener, err := install()
	if err != nil {
		return fmt.Errorf("install a seccomp filter: %w", err)
	}
	if err := unix.Sendmsg(3, []byte{0}, unix.UnixRights(listener), nil, 0); err != nil {
		return err
	}
	unix.CloseOnExec(3)
	// What reads without end is ended before the machine is.
	if err := unix.Setrlimit(unix.RLIMIT_AS, &unix.Rlimit{Cur: 8 << 30, Max: 8 << 30}); err != nil {
		return err
	}
	if user != "" {
		var id int
		if _, err := fmt.Sscan(user, &id); err != nil {
			return err
		}
		if err := errors.Join(syscall.Setgroups(nil), syscall.Setgid(id), syscall.Setuid(id)); err != nil {
			return err
		}
	}
	return syscall.Exec(argv[0], append([]string{"clayer"}, argv[1:]...), os.Environ())
}

// receive returns the listener that a launcher sends.
func receive(socket int) (int, error) {
	oob := make([]byte, unix.CmsgSpace(4))
	n, oobn, _, _, err := unix.Recvmsg(socket, make([]byte, 1), oob, unix.MSG_CMSG_CLOEXEC)
	if err != nil {
		return -1, err
	}
	if n == 0 {
		return -1, errors.New("the launcher ended")
	}
	messages, err := unix.ParseSocketControlMessage(oob[:oobn])
	if err != nil || len(messages) != 1 {
		return -1, errors.Join(err, errors.New("no listener"))
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil {
		return -1, err
	}
	return fds[0], nil
}

// The kernel's struct seccomp_notif and struct seccomp_notif_resp.
type notification struct {
	id    uint64
	pid   uint32
	flags uint32
	nr    int32
	arch  uint32
	ip    uint64
	args  [6]uint64
}

type answer struct {
	id    uint64
	val   int64
	err   int32
	flags uint32
}

// supervise reads calls of the program at exe from the listener until nobody is
// left to make any. before decides about each: 0 lets it go on.
func supervise(listener int, exe string, before func(call) unix.Errno) error {
	var self unix.Stat_t
	if err := unix.Stat(exe, &self); err != nil {
		return err
	}
	for {
		poll := []unix.PollFd{{Fd: int32(listener), Events: unix.POLLIN}}
		if _, err := unix.Poll(poll, -1); err == unix.EINTR {
			continue
		} else if err != nil {
			return err
		}
		if poll[0].Revents&unix.POLLIN == 0 {
			return nil // POLLHUP
		}
		var n notification
		switch err := ioctl(listener, unix.SECCOMP_IOCTL_NOTIF_RECV, unsafe.Pointer(&n)); err {
		case 0:
		case unix.EINTR, unix.ENOENT: // it was killed meanwhile
			continue
		default:
			return err
		}
		a := answer{id: n.id, flags: unix.SECCOMP_USER_NOTIF_FLAG_CONTINUE}
		var exec unix.Stat_t
		if err := unix.Stat(fmt.Sprintf("/proc/%d/exe", n.pid), &exec); err == nil && exec.Dev == self.Dev && exec.Ino == self.Ino {
			c := call{pid: int(n.pid), shape: shapes[uint32(n.nr)], args: n.args}
			c.changes = c.shape.changes || c.opensToWrite()
			if errno := before(c); errno != 0 {
				a.flags, a.err = 0, -int32(errno)
			}
		}
		if err := ioctl(listener, unix.SECCOMP_IOCTL_NOTIF_SEND, unsafe.Pointer(&a)); err != 0 && err != unix.ENOENT {
			return err
		}
	}
}

func ioctl(fd int, request uint, arg unsafe.Pointer) unix.Errno {
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), uintptr(request), uintptr(arg))
	return errno
}

func (c call) opensToWrite() bool {
	const toWrite = unix.O_WRONLY | unix.O_RDWR | unix.O_CREAT | unix.O_TRUNC
	switch {
	case c.shape.openFlag >= 0:
		return c.args[c.shape.openFlag]&toWrite != 0
	case c.shape.openHow >= 0:
		var flags [8]byte
		c.read(c.args[c.shape.openHow], flags[:])
		return *(*uint64)(unsafe.Pointer(&flags))&toWrite != 0
	}
	return false
}

// read fills p from the memory of the process.
func (c call) read(address uint64, p []byte) int {
	local := []unix.Iovec{{Base: &p[0], Len: uint64(len(p))}}
	n, err := unix.ProcessVMReadv(c.pid, local, []unix.RemoteIovec{{Base: uintptr(address), Len: len(p)}}, 0)
	if err != nil {
		return 0
	}
	return n
}

// target returns the file that the call is about, as this process sees it, and
// whether it lies in another mount namespace, as the files of a RUN do.
func (c call) target() (path string, elsewhere bool) {
	link := func(name string) string {
		target, err := os.Readlink(fmt.Sprintf("/proc/%d/%s", c.pid, name))
		if err != nil {
			return ""
		}
		return target
	}
	elsewhere = link("ns/mnt") != ownMounts()
	if c.shape.fd >= 0 {
		return link(fmt.Sprintf("fd/%d", int32(c.args[c.shape.fd]))), elsewhere
	}
	if address := c.args[c.shape.at]; address != 0 {
		// A path may end close to the end of what is mapped.
		buf := make([]byte, unix.PathMax)
		n := c.read(address, buf[:min(len(buf), 4096-int(address%4096))])
		if i := strings.IndexByte(string(buf[:n]), 0); i >= 0 {
			path = string(buf[:i])
		} else {
			n += c.read(address+uint64(n), buf[n:])
			path, _, _ = strings.Cut(string(buf[:n]), "\x00")
		}
	}
	if filepath.IsAbs(path) {
		return path, elsewhere
	}
	at := "cwd"
	if c.shape.dir >= 0 && int32(c.args[c.shape.dir]) != unix.AT_FDCWD {
		at = fmt.Sprintf("fd/%d", int32(c.args[c.shape.dir]))
	}
	if from := link(at); filepath.IsAbs(from) {
		return filepath.Join(from, path), elsewhere
	}
	return "", elsewhere
}

var ownMounts = func() func() string {
	var own string
	return func() string {
		if own == "" {
			own, _ = os.Readlink("/proc/self/ns/mnt")
		}
		return own
	}
}()
