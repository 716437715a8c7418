// Package filemode reads the modes of --chmod, and changes those of files by them.
package filemode

import (
	"fmt"
	"io/fs"
	"strconv"

	mode "github.com/tonistiigi/dchapes-mode"

	"github.com/clayer/clayer/frontend/internal/fault"
)

// Mode is --chmod: octal digits, which set a mode, or changes to it as chmod(1) has them,
// such as "u=rwX,go=r". The zero Mode leaves modes as they are.
type Mode string

// Parse returns the Mode that a flag gives. Octal digits lose leading zeros, so that
// one mode has one text.
func Parse(s string) (Mode, error) {
	if bits, err := strconv.ParseUint(s, 8, 12); err == nil {
		return Mode(strconv.FormatUint(bits, 8)), nil
	}
	if s == "" || '0' <= s[0] && s[0] <= '9' {
		return "", fault.Errorf("--chmod=%s: want octal digits, 0 to 7777", s).WithHint("--chmod=0755")
	}
	if _, err := mode.Parse(s); err != nil {
		return "", fault.Errorf("--chmod=%s: want octal digits, or changes as chmod has them", s).WithHint("--chmod=0755, --chmod=u=rwX,go=rX")
	}
	return Mode(s), nil
}

// Octal returns the permissions that the Mode sets, and whether it sets them, whatever
// they were.
func (m Mode) Octal() (bits uint32, ok bool) {
	n, err := strconv.ParseUint(string(m), 8, 12)
	return uint32(n), err == nil
}

// Change returns the function from the permissions of a file to those that the Mode
// gives it. Both are bits as in stat(2), 07777 at most. It fails if Parse did not
// return the Mode.
func (m Mode) Change() (func(bits uint32, dir bool) uint32, error) {
	if m == "" {
		return func(bits uint32, _ bool) uint32 { return bits }, nil
	}
	set, err := mode.Parse(string(m))
	if err != nil {
		return nil, fmt.Errorf("mode %q: %w", string(m), err)
	}
	return func(bits uint32, dir bool) uint32 {
		before := fs.FileMode(bits & 0o777)
		if dir {
			before |= fs.ModeDir // X asks for it
		}
		for _, b := range specialBits {
			if bits&b.unix != 0 {
				before |= b.mode
			}
		}
		after := set.Apply(before)
		bits = uint32(after.Perm())
		for _, b := range specialBits {
			if after&b.mode != 0 {
				bits |= b.unix
			}
		}
		return bits
	}, nil
}

var specialBits = []struct {
	unix uint32
	mode fs.FileMode
}{{0o4000, fs.ModeSetuid}, {0o2000, fs.ModeSetgid}, {0o1000, fs.ModeSticky}}
