package storm

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

var errnos = map[string]unix.Errno{
	"EIO": unix.EIO, "ENOSPC": unix.ENOSPC, "EDQUOT": unix.EDQUOT, "EMFILE": unix.EMFILE, "EROFS": unix.EROFS,
}

// An armed fault waits for the call at which it happens. A nil Fault counts.
type armed struct {
	*Fault
	g   *ground
	at  int // the call before which it happens
	pid int // of the command

	calls int    // so far
	hit   string // the call that it happened at; "" if it did not yet
	again int    // the call at which a second signal follows
	err   error  // of making the fault happen
}

// before is asked before each call of clayer.
func (a *armed) before(c call) unix.Errno {
	a.calls++
	if a.Fault == nil || !a.isDue(c) {
		return 0
	}
	if a.Kind == callFails {
		if (a.hit == "" || a.Lasts) && a.concerns(c) {
			a.happened(c)
			return errnos[a.Errno]
		}
		return 0
	}
	if a.hit != "" && a.calls != a.again {
		return 0
	}
	switch a.Kind {
	case signalKill:
		a.err = a.signal(syscall.SIGKILL)
	case signalTerm:
		a.err = a.signal(syscall.SIGTERM)
	case signalInt:
		a.err = a.signal(syscall.SIGINT)
	case signalTwice:
		a.err = a.signal(syscall.SIGINT)
		if a.again == 0 {
			a.again = a.calls + 10
		}
	case noBytes:
		a.err = a.g.fillBytes(a.Disk, a.Leave)
	case noInodes:
		a.err = a.g.fillInodes(a.Disk, a.Leave)
	case readOnly:
		// As long as a file is open for writing the kernel refuses.
		if err := a.g.remount(a.Disk, true); err == unix.EBUSY {
			return 0
		} else {
			a.err = err
		}
	}
	a.happened(c)
	return 0
}

// isDue reports whether the fault may happen at a call, or did before.
func (a *armed) isDue(c call) bool {
	if a.Call != "" && a.at == 0 {
		name, text, _ := strings.Cut(a.Call, " ")
		if path, _ := c.target(); name == c.shape.name && strings.Contains(path, text) {
			a.at = a.calls
		}
	}
	return a.at > 0 && a.calls >= a.at
}

func (a *armed) happened(c call) {
	if a.hit == "" {
		path, _ := c.target()
		a.hit = fmt.Sprintf("%s %s, call %d", c.shape.name, strings.TrimPrefix(path, a.g.dir), a.calls)
	}
}

// concerns reports whether a call is one that fails so, on that disk.
func (a *armed) concerns(c call) bool {
	switch a.Errno {
	case "EMFILE":
		if !strings.HasPrefix(c.shape.name, "open") {
			return false
		}
	case "ENOSPC", "EDQUOT":
		switch c.shape.name {
		case "unlinkat", "utimensat", "fchmod", "fchmodat", "fchmodat2", "fchown", "fchownat": // they need no room
			return false
		}
		if !c.changes {
			return false
		}
	case "EROFS":
		if !c.changes {
			return false
		}
	}
	path, elsewhere := c.target()
	if !filepath.IsAbs(path) { // a pipe or a socket
		return false
	}
	if elsewhere { // the root as a RUN sees it
		for _, dir := range []string{"/proc/", "/sys/", "/dev/", "/run/"} {
			if strings.HasPrefix(path, dir) {
				return false
			}
		}
		return a.Disk == rootDisk
	}
	if a.Disk == rootDisk {
		return isBelow(path, a.g.place())
	}
	return isBelow(path, a.g.cache())
}

func isBelow(path, dir string) bool { return path == dir || strings.HasPrefix(path, dir+"/") }

func (a *armed) signal(sig syscall.Signal) error {
	var err error
	switch a.Whom {
	case clayerAlone:
		err = syscall.Kill(a.pid, sig)
	case group:
		err = syscall.Kill(-a.pid, sig)
	case everything: // but this process, as the first of its namespace
		err = syscall.Kill(-1, sig)
	}
	if err == syscall.ESRCH {
		return nil
	}
	return err
}

// fillBytes leaves some pages of a disk free.
func (g *ground) fillBytes(disk string, leave int) error {
	path := filepath.Join(g.disk(disk), "filler")
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	for {
		var st unix.Statfs_t
		if err := unix.Fstatfs(int(f.Fd()), &st); err != nil {
			return err
		}
		n := int64(st.Bavail) - int64(leave)
		if n <= 0 {
			return nil
		}
		// A RUN, or another thread, may have been faster with the last pages.
		if err := unix.Fallocate(int(f.Fd()), 0, 0, n*st.Bsize); err != unix.ENOSPC {
			return err
		}
	}
}

// fillInodes leaves some inodes of a disk free.
func (g *ground) fillInodes(disk string, leave int) error {
	dir := filepath.Join(g.disk(disk), "fillers")
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return err
	}
	for i := range int64(st.Ffree) - int64(leave) {
		// A hard link takes an inode of a tmpfs, and less time than a file.
		err := unix.Mknod(filepath.Join(dir, fmt.Sprint(i)), unix.S_IFREG|0o600, 0)
		if err == unix.ENOSPC {
			return nil
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// free removes what fills the disks.
func (g *ground) free() error {
	var errs []error
	for _, disk := range []string{rootDisk, cacheDisk} {
		errs = append(errs, os.RemoveAll(filepath.Join(g.disk(disk), "fillers")), os.RemoveAll(filepath.Join(g.disk(disk), "filler")))
	}
	return errors.Join(errs...)
}

func (g *ground) remount(disk string, ro bool) error {
	flags := uintptr(unix.MS_REMOUNT)
	if ro {
		flags |= unix.MS_RDONLY
	}
	return unix.Mount("", g.disk(disk), "", flags, "")
}
