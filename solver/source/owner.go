package source

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"strconv"
	"strings"

	"github.com/clayer/clayer/cache/snapshot"
	"github.com/clayer/clayer/frontend"
	"github.com/clayer/clayer/solver/internal/names"
)

// style is --chown and --chmod, with names resolved. The zero style is root's,
// with modes as they come.
type style struct {
	uid, gid int
	chmod    frontend.Mode
	change   func(mode uint32, dir bool) uint32 // what chmod makes of a mode; nil without it
}

// styleIn resolves an Ownership by the names that a step finds in the root. As with
// Docker, a name without a group has its group of /etc/passwd, and a number the group of
// the same number; without a user it is 0.
func styleIn(at *names.View, o frontend.Ownership) (style, error) {
	s, err := styleOfMode(o.Chmod)
	if o.Chown == "" || err != nil {
		return s, err
	}
	user, group, _ := strings.Cut(o.Chown, ":")
	user = cmp.Or(user, "0")
	hasGroup := group != ""
	uid, userIsNumber := number(user)
	gid, groupIsNumber := number(group)
	if userIsNumber {
		user = ""
	}
	if groupIsNumber {
		group = ""
	}
	if !hasGroup {
		gid = uid
	}
	if user != "" {
		var own int
		if uid, own, err = numbersOf(at, "etc/passwd", user); !hasGroup {
			gid = own
		}
	}
	if group != "" && err == nil {
		gid, _, err = numbersOf(at, "etc/group", group)
	}
	if err != nil {
		return s, &Fault{Message: fmt.Sprintf("--chown=%s: %v", o.Chown, err), Err: err}
	}
	s.uid, s.gid = uid, gid
	return s, nil
}

func number(s string) (int, bool) {
	n, err := strconv.ParseUint(s, 10, 31)
	return int(n), err == nil
}

// styleOfMode is the style of a --chmod alone.
func styleOfMode(m frontend.Mode) (s style, err error) {
	if m == "" {
		return s, nil
	}
	s.chmod = m
	s.change, err = m.Change()
	return s, err
}

// apply sets owner and mode of an entry that has its own mode.
//
// Unlike Docker's, octal digits in --chmod leave directories usable: a user who may read
// one may also enter it, so that --chmod=644 does not make a tree that cannot be walked.
func (s style) apply(e *snapshot.Entry) {
	e.UID, e.GID = s.uid, s.gid
	if s.change == nil || e.Kind != snapshot.File && e.Kind != snapshot.Dir {
		return
	}
	e.Mode = s.change(e.Mode, e.Kind == snapshot.Dir)
	if _, octal := s.chmod.Octal(); octal && e.Kind == snapshot.Dir {
		e.Mode = enterable(e.Mode)
	}
}

// enterable is a mode of a directory which who may read it may also enter.
func enterable(mode uint32) uint32 { return mode | mode&0o444>>2 }

// destMode is the mode of dest, where a COPY creates that as a directory: what it copies is
// for those who may enter it. As with Docker, setuid, setgid and sticky are not for it, and
// a symbolic mode changes only what has one.
func (s style) destMode() uint32 {
	if mode, octal := s.chmod.Octal(); octal {
		return enterable(mode) & 0o777
	}
	return 0o755
}

// numbersOf finds the number on a name's line, and that of a user's group after it.
func numbersOf(at *names.View, file, name string) (id, group int, err error) {
	what := "user"
	if file == "etc/group" {
		what = "group"
	}
	data, err := at.ReadFile(file)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return 0, 0, fmt.Errorf("%s %s: %w", what, name, err)
	}
	for line := range strings.Lines(string(data)) {
		fields := strings.Split(line, ":")
		if len(fields) >= 3 && fields[0] == name {
			if id, ok := number(strings.TrimSpace(fields[2])); ok {
				group, ok = number(strings.TrimSpace(fields[min(3, len(fields)-1)]))
				if !ok {
					group = id
				}
				return id, group, nil
			}
		}
	}
	return 0, 0, fmt.Errorf("%s %s: not in /%s", what, name, file)
}
