// Package userns maps the ids of a user namespace.
package userns

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"strconv"
	"syscall"

	subids "github.com/moby/sys/user"
	"golang.org/x/sys/unix"
)

// Who is who in a user namespace of ours. A user may map one id without help:
// its own, to root. With subordinate ids (/etc/subuid, /etc/subgid) and the
// helpers of the uidmap package, newuidmap and newgidmap, these become the ids
// from 1 on: then a RUN can give files to others.

// IDs are the subordinate ids of this user.
type IDs struct{ uids, gids []idRange }

// An idRange maps the ids of a namespace from Inner on to the machine's from Outer on.
type idRange struct{ Inner, Outer, Count uint32 }

// Subordinate returns the map for this user; nil if there is but the one id.
func Subordinate() *IDs {
	if os.Geteuid() == 0 {
		return nil // of a container: what it may map is all mapped already
	}
	for _, tool := range []string{"newuidmap", "newgidmap"} {
		if _, err := exec.LookPath(tool); err != nil {
			return nil
		}
	}
	if _, err := user.Current(); err != nil {
		return nil
	}
	uids, err1 := subids.CurrentUserSubUIDs()
	gids, err2 := subids.CurrentUserSubGIDs()
	if err1 != nil || err2 != nil || len(uids) == 0 || len(gids) == 0 {
		return nil
	}
	return &IDs{ranges(os.Geteuid(), uids), ranges(os.Getegid(), gids)}
}

func ranges(own int, sub []subids.SubID) []idRange {
	list := []idRange{{0, uint32(own), 1}}
	next := uint32(1)
	for _, s := range sub {
		if s.Count <= 0 || s.SubID < 0 || s.SubID+s.Count > 1<<32-1 || int64(next)+s.Count > 1<<32-1 {
			continue
		}
		list = append(list, idRange{next, uint32(s.SubID), uint32(s.Count)})
		next += uint32(s.Count)
	}
	return list
}

// Inner returns what the namespace calls an owner of the machine.
func (m *IDs) Inner(uid, gid uint32) (uint32, uint32) {
	return inner(m.uids, uid), inner(m.gids, gid)
}

// Knows reports whether the namespace has both ids of an owner. nil is the namespace with
// the one user and the one group of this process.
func (m *IDs) Knows(uid, gid uint32) bool {
	if m == nil {
		return int(uid) == os.Geteuid() && int(gid) == os.Getegid()
	}
	return inner(m.uids, uid) != overflowID && inner(m.gids, gid) != overflowID
}

// overflowID is how the kernel shows an id that is not mapped.
const overflowID = 65534

func inner(ranges []idRange, id uint32) uint32 {
	for _, r := range ranges {
		if id >= r.Outer && id-r.Outer < r.Count {
			return r.Inner + id - r.Outer
		}
	}
	return overflowID
}

// Attr asks for a user namespace. With subordinate ids the process has to wait
// until they are mapped, and to become root then; it has the capabilities all
// the while.
func (m *IDs) Attr(a *syscall.SysProcAttr) {
	a.Cloneflags |= unix.CLONE_NEWUSER
	if m == nil {
		a.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Geteuid(), Size: 1}}
		a.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getegid(), Size: 1}}
		a.GidMappingsEnableSetgroups = false
		return
	}
	last := unix.CAP_LAST_CAP
	if b, err := os.ReadFile("/proc/sys/kernel/cap_last_cap"); err == nil {
		if n, err := strconv.Atoi(string(bytes.TrimSpace(b))); err == nil {
			last = min(last, n)
		}
	}
	for c := range last + 1 {
		a.AmbientCaps = append(a.AmbientCaps, uintptr(c))
	}
}

// Assign maps the ids of a process that Attr was asked for.
func (m *IDs) Assign(pid int) error {
	if m == nil {
		return nil
	}
	for tool, ranges := range map[string][]idRange{"newuidmap": m.uids, "newgidmap": m.gids} {
		args := []string{strconv.Itoa(pid)}
		for _, r := range ranges {
			for _, n := range []uint32{r.Inner, r.Outer, r.Count} {
				args = append(args, strconv.FormatUint(uint64(n), 10))
			}
		}
		if out, err := exec.Command(tool, args...).CombinedOutput(); err != nil {
			return fmt.Errorf("%s: %w: %s", tool, err, bytes.TrimSpace(out))
		}
	}
	return nil
}

// BecomeRoot makes a process root of its namespace, once its ids are mapped.
func BecomeRoot() error {
	if os.Geteuid() == 0 {
		return nil
	}
	return errors.Join(syscall.Setgroups(nil), syscall.Setresgid(0, 0, 0), syscall.Setresuid(0, 0, 0))
}
