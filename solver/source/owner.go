package source

import (
	"fmt"

	"github.com/clayer/clayer/cache/snapshot"
	"github.com/clayer/clayer/frontend"
	"github.com/clayer/clayer/frontend/filemode"
	"github.com/clayer/clayer/solver/internal/names"
	"github.com/clayer/clayer/solver/internal/owners"
)

// style is --chown and --chmod, with names resolved. The zero style is root's,
// with modes as they come.
type style struct {
	uid, gid int
	chown    bool // they were asked for
	chmod    filemode.Mode
	change   func(mode uint32, dir bool) uint32 // what chmod makes of a mode; nil without it
}

// styleIn resolves an Ownership by the names that a step finds in the root.
func styleIn(at *names.View, o frontend.Ownership) (style, error) {
	s, err := styleOfMode(o.Chmod)
	if o.Chown == "" || err != nil {
		return s, err
	}
	who, err := owners.Resolve(at, o.Chown)
	if err != nil {
		return s, &Fault{Message: fmt.Sprintf("--chown=%s: %v", o.Chown, err), Err: err}
	}
	s.uid, s.gid, s.chown = who.UID, who.GID, true
	return s, nil
}

// styleOfMode is the style of a --chmod alone.
func styleOfMode(m filemode.Mode) (s style, err error) {
	if m == "" {
		return s, nil
	}
	s.chmod = m
	s.change, err = m.Change()
	return s, err
}

// apply sets owner and mode of an entry that has its own mode.
func (s style) apply(e *snapshot.Entry) {
	e.UID, e.GID = s.uid, s.gid
	if s.change == nil || e.Kind == snapshot.Symlink {
		return
	}
	e.Mode = s.change(e.Mode, e.Kind == snapshot.Dir)
}

// applyEnterable is apply for FETCH, whose octal digits in --chmod leave directories usable: a
// user who may read one may also enter it, so that --chmod=644 does not make a tree that
// cannot be walked.
func (s style) applyEnterable(e *snapshot.Entry) {
	if s.apply(e); s.change == nil || e.Kind != snapshot.Dir {
		return
	}
	if _, octal := s.chmod.Octal(); octal {
		e.Mode |= e.Mode & 0o444 >> 2
	}
}

// destMode is the mode of dest, where a COPY creates that as a directory, and of those above
// it. As with Docker, setuid, setgid and sticky are not for it, and a symbolic mode changes
// only what has one.
func (s style) destMode() uint32 {
	if mode, octal := s.chmod.Octal(); octal {
		return mode & 0o777
	}
	return 0o755
}

// parent is a directory that a COPY creates for what it copies.
func (s style) parent(dir string) *snapshot.Entry {
	e := impliedDir(dir, s)
	e.Mode = s.destMode()
	return e
}
