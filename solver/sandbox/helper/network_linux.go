package helper

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/clayer/clayer/solver/sandbox"
)

// noNetwork explains why a helper could not be started in a network of its own.
func noNetwork(j Job, err error) error {
	if !j.NoNetwork || !errors.Is(err, unix.EPERM) && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOSPC) && !errors.Is(err, unix.ENOSYS) {
		return err
	}
	what := "a command without network takes a network namespace"
	if j.InPlace {
		what += ", which in place only root can make"
	}
	return fmt.Errorf("%s: %w: %w", what, sandbox.ErrNoNetworkNamespace, err)
}

// loopback makes the one interface of a new network work, as runc does it.
func (h *helper) loopback() {
	s, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err == nil {
		defer unix.Close(s)
		var lo *unix.Ifreq
		if lo, err = unix.NewIfreq("lo"); err == nil {
			lo.SetUint16(unix.IFF_UP | unix.IFF_LOOPBACK | unix.IFF_RUNNING)
			err = unix.IoctlIfreq(s, unix.SIOCSIFFLAGS, lo)
		}
	}
	if err != nil {
		h.warn("the loopback interface is not up: %v", err)
	}
}
