package helper

import (
	"bytes"
	"errors"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// openProc opens /proc; nil if there is none, or if it is that of another PID
// namespace, where the numbers mean others.
func openProc() *os.File {
	if self, err := os.Readlink("/proc/self"); err != nil || self != strconv.Itoa(os.Getpid()) {
		return nil
	}
	f, err := os.Open("/proc")
	if err != nil {
		return nil
	}
	return f
}

// hangUp ends the command at once: the parent is gone, or has waited long enough.
// The rest of the job clears up, and ends the helper.
func (h *helper) hangUp() {
	h.mu.Lock()
	h.term = true
	h.mu.Unlock()
	for {
		h.killDescendants()
		time.Sleep(10 * time.Millisecond)
	}
}

// endLimit bounds how long a helper waits for a process that SIGKILL does not
// end: one in an uninterruptible call of a file system that hangs.
const endLimit = 5 * time.Second

// endDescendants kills what descends from the helper until nothing does.
func (h *helper) endDescendants() {
	start := time.Now()
	for wait := time.Millisecond; ; wait = min(2*wait, 50*time.Millisecond) {
		h.killDescendants()
		for {
			pid, err := unix.Wait4(-1, nil, unix.WNOHANG, nil)
			if errors.Is(err, unix.EINTR) {
				continue
			}
			if err != nil {
				return // ECHILD: no one is left
			}
			if pid == 0 {
				break
			}
		}
		if time.Since(start) > endLimit {
			h.warn("a process that RUN started does not end")
			return
		}
		time.Sleep(wait)
	}
}

// killDescendants kills all processes below the helper. A process that forks
// meanwhile is found the next time: its child is the helper's then.
func (h *helper) killDescendants() {
	parents := parentsIn(h.proc)
	for _, pid := range descendants(parents, nil) {
		_ = unix.Kill(pid, unix.SIGKILL)
	}
	if len(parents) == 0 {
		// Without a /proc only the command's own group is known.
		h.mu.Lock()
		if h.session > 0 {
			_ = unix.Kill(-h.session, unix.SIGKILL)
		}
		h.mu.Unlock()
	}
}

// orphans are what a helper leaves when it is killed itself: this process is
// given them while a command runs in place.
type orphans struct {
	proc   *os.File     // nil if they are unknown
	others map[int]bool // children that this process had before
}

func adoptOrphans() *orphans {
	o := &orphans{proc: openProc(), others: make(map[int]bool)}
	if unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != nil {
		o.close()
		return o
	}
	self := os.Getpid()
	for pid, parent := range parentsIn(o.proc) {
		if parent == self {
			o.others[pid] = true
		}
	}
	return o
}

// end kills them until none is left.
func (o *orphans) end() {
	if o == nil || o.proc == nil {
		return
	}
	for start := time.Now(); time.Since(start) < endLimit; time.Sleep(5 * time.Millisecond) {
		left := descendants(parentsIn(o.proc), o.others)
		for _, pid := range left {
			_ = unix.Kill(pid, unix.SIGKILL)
			_, _ = unix.Wait4(pid, nil, unix.WNOHANG, nil)
		}
		if len(left) == 0 {
			return
		}
	}
}

func (o *orphans) close() {
	_ = unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)
	if o.proc != nil {
		o.proc.Close()
		o.proc = nil
	}
}

// descendants returns the processes below this one, but for those at and below
// the children that are others.
func descendants(parents map[int]int, others map[int]bool) (pids []int) {
	self := os.Getpid()
	for pid := range parents {
		for p, depth := pid, 0; p > 1 && depth < 1000; p, depth = parents[p], depth+1 {
			if parents[p] == self && !others[p] {
				pids = append(pids, pid)
				break
			}
		}
	}
	return pids
}

// parentsIn reads the parent of every process.
func parentsIn(proc *os.File) map[int]int {
	if proc == nil {
		return nil
	}
	if _, err := proc.Seek(0, 0); err != nil {
		return nil
	}
	names, err := proc.Readdirnames(-1)
	if err != nil {
		return nil
	}
	parents := make(map[int]int)
	for _, name := range names {
		pid, err := strconv.Atoi(name)
		if err != nil {
			continue
		}
		fd, err := unix.Openat(int(proc.Fd()), name+"/stat", unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			continue // it has ended
		}
		var buf [512]byte
		n, err := unix.Read(fd, buf[:])
		unix.Close(fd)
		if err != nil || n <= 0 {
			continue
		}
		// proc_pid_stat(5): "pid (comm) state ppid"; comm may hold anything.
		_, rest, _ := bytes.Cut(buf[:n], []byte("("))
		fields := bytes.Fields(rest[bytes.LastIndexByte(rest, ')')+1:])
		if len(fields) < 2 {
			continue
		}
		if parents[pid], err = strconv.Atoi(string(fields[1])); err != nil {
			delete(parents, pid)
		}
	}
	return parents
}
