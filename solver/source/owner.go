package source

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"strconv"
	"strings"

	"github.com/clayer/clayer/cache/snapshot"
	"github.com/clayer/clayer/frontend"
)

// style is --chown and --chmod, with names resolved. The zero style is root's,
// with modes as they come.
type style struct {
	uid, gid int
	chmod    *uint32
}

// style resolves an Ownership. As with Docker, a user without a group has the
// group of the same number.
func (r *Resolver) style(o frontend.Ownership) (style, error) {
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
	if user != "" || group != "" {
		if r.Owner == nil {
			return s, faultf("--chown=%s: names are not known here; use numbers", o.Chown)
		}
		u, g, err := r.Owner(user, group)
		if err != nil {
			return s, &Fault{Message: fmt.Sprintf("--chown=%s: %v", o.Chown, err), Err: err}
		}
		if user != "" {
			uid = u
		}
		if group != "" {
			gid = g
		}
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

// Owners returns a Resolver's Owner that reads etc/passwd and etc/group of root
// each time it is asked, since a RUN may have added the name.
func Owners(root fs.FS) func(user, group string) (uid, gid int, err error) {
	return func(user, group string) (uid, gid int, err error) {
		if user != "" {
			if uid, err = numberOf(root, "etc/passwd", user); err != nil {
				return 0, 0, fmt.Errorf("user %s: %w", user, err)
			}
		}
		if group != "" {
			if gid, err = numberOf(root, "etc/group", group); err != nil {
				return 0, 0, fmt.Errorf("group %s: %w", group, err)
			}
		}
		return uid, gid, nil
	}
}

// numberOf finds the third field of a name's line.
func numberOf(root fs.FS, file, name string) (int, error) {
	f, err := root.Open(file)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, fmt.Errorf("not in /%s", file)
	}
	if err != nil {
		return 0, err
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		fields := strings.Split(lines.Text(), ":")
		if len(fields) >= 3 && fields[0] == name {
			if n, ok := number(fields[2]); ok {
				return n, nil
			}
		}
	}
	if err := lines.Err(); err != nil {
		return 0, fmt.Errorf("/%s: %w", file, err)
	}
	return 0, fmt.Errorf("not in /%s", file)
}
