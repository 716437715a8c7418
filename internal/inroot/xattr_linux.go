package inroot

import (
	"bytes"
	"errors"
	"strings"

	"golang.org/x/sys/unix"
)

// IsOverlayMark reports whether an attribute of that name makes a file mean
// something else once it is in a layer of an overlay.
func IsOverlayMark(name string) bool {
	return strings.HasPrefix(name, "trusted.overlay.") || strings.HasPrefix(name, "user.overlay.")
}

// Managed reports whether snapshots hold attributes of that name. Those of a
// security module belong to the machine.
func Managed(name string) bool {
	return strings.HasPrefix(name, "user.") && !IsOverlayMark(name) ||
		name == "security.capability" || strings.HasPrefix(name, "system.posix_acl_")
}

// ListXattrs returns the Managed attributes of an open file, nil for none.
func (s Sys) ListXattrs(fd int) (map[string][]byte, error) {
	n, err := s.flistxattr(fd, nil)
	if err != nil && noXattr(err) || err == nil && n == 0 {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	buf := make([]byte, n+256)
	if n, err = s.flistxattr(fd, buf); err != nil {
		return nil, err
	}
	var all map[string][]byte
	for name := range strings.SplitSeq(strings.TrimRight(string(buf[:n]), "\x00"), "\x00") {
		if !Managed(name) {
			continue
		}
		size, err := s.Fgetxattr(fd, name, nil)
		value := make([]byte, max(size, 0))
		if err == nil {
			size, err = s.Fgetxattr(fd, name, value)
		}
		if err != nil && noXattr(err) {
			continue // gone meanwhile
		}
		if err != nil {
			return nil, err
		}
		if all == nil {
			all = make(map[string][]byte)
		}
		all[name] = value[:size]
	}
	return all, nil
}

// SetXattrs gives an open file that has some attributes others in their place.
func (s Sys) SetXattrs(fd int, have, want map[string][]byte) error {
	for name := range have {
		if _, ok := want[name]; !ok {
			if err := s.Fremovexattr(fd, name); err != nil {
				return err
			}
		}
	}
	for name, value := range want {
		if v, ok := have[name]; ok && bytes.Equal(v, value) {
			continue
		}
		if err := s.Fsetxattr(fd, name, value); err != nil {
			return err
		}
	}
	return nil
}

// noXattr reports whether an error says that there is no such attribute: there is
// none here at all, or none that this user may know of.
func noXattr(err error) bool {
	return errors.Is(err, unix.ENODATA) || errors.Is(err, unix.ENOTSUP) || errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES) || errors.Is(err, unix.ENOSYS)
}
