package source

import (
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
	chmod    *uint32
}

// styleIn resolves an Ownership by the names that a step finds in the root. As with
// Docker, a user without a group has the group of the same number.
func styleIn(at *names.View, o frontend.Ownership) (style, error) {
	s := style{chmod: o.Chmod}
	if o.Chown == "" {
		return s, nil
	}
	user, group, hasGroup := strings.Cut(o.Chown, ":")
	if user == "" || hasGroup && group == "" {
		return s, faultf("--chown=%s: want USER or USER:GROUP", o.Chown)
	}
	uid, userIsNumber := number(user)
	gid, groupIsNumber := number(group)
	if userIsNumber {
		user = ""
	}
	if groupIsNumber {
		group = ""
	}
	var err error
	if user != "" {
		uid, err = numberOf(at, "etc/passwd", user)
	}
	if group != "" && err == nil {
		gid, err = numberOf(at, "etc/group", group)
	}
	if err != nil {
		return s, &Fault{Message: fmt.Sprintf("--chown=%s: %v", o.Chown, err), Err: err}
	}
	if !hasGroup {
		gid = uid
	}
	s.uid, s.gid = uid, gid
	return s, nil
}

func number(s string) (int, bool) {
	n, err := strconv.ParseUint(s, 10, 31)
	return int(n), err == nil
}

// apply sets owner and mode of an entry that has its own mode.
//
// Unlike Docker's, --chmod leaves directories usable: a user who may read one may also
// enter it, so that --chmod=644 does not make a tree that cannot be walked.
func (s style) apply(e *snapshot.Entry) {
	e.UID, e.GID = s.uid, s.gid
	if s.chmod == nil {
		return
	}
	switch e.Kind {
	case snapshot.File:
		e.Mode = *s.chmod
	case snapshot.Dir:
		e.Mode = *s.chmod | *s.chmod&0o444>>2
	}
}

// numberOf finds the third field of a name's line.
func numberOf(at *names.View, file, name string) (int, error) {
	what := "user"
	if file == "etc/group" {
		what = "group"
	}
	data, err := at.ReadFile(file)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return 0, fmt.Errorf("%s %s: %w", what, name, err)
	}
	for line := range strings.Lines(string(data)) {
		fields := strings.Split(line, ":")
		if len(fields) >= 3 && fields[0] == name {
			if n, ok := number(strings.TrimSpace(fields[2])); ok {
				return n, nil
			}
		}
	}
	return 0, fmt.Errorf("%s %s: not in /%s", what, name, file)
}
