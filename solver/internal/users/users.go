// Package users finds who runs a RUN after USER: the ids, groups and home of a name in the
// root as the step finds it.
package users

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/moby/sys/user"

	"github.com/clayer/clayer/cache/snapshot"
	"github.com/clayer/clayer/dag"
	"github.com/clayer/clayer/frontend"
	"github.com/clayer/clayer/solver/internal/environ"
	"github.com/clayer/clayer/solver/internal/fault"
	"github.com/clayer/clayer/solver/internal/names"
	"github.com/clayer/clayer/solver/internal/owners"
	"github.com/clayer/clayer/solver/sandbox"
)

// A User is who runs a RUN.
type User struct {
	UID, GID uint32
	Groups   []uint32 // supplementary
	Home     string   // absolute

	Needs []snapshot.Need // what another root has to have for the same

	numbers bool // both ids are given: a database says no more than the home
}

// Resolve resolves the value of USER by the names that a step finds in a root. As with
// BuildKit, a name has its group of /etc/passwd, and those of which it is a member; with a
// group it has that one alone. A number that nobody has is in group 0.
func Resolve(at *names.View, spec string) (*User, error) {
	passwd, err := read(at, "etc/passwd")
	if err != nil {
		return nil, err
	}
	group, err := read(at, "etc/group")
	if err != nil {
		return nil, err
	}
	u := new(User)
	name, of, named := strings.Cut(spec, ":")
	uid, uerr := idOf(name)
	gid, gerr := idOf(of)
	if errors.Is(uerr, strconv.ErrRange) || errors.Is(gerr, strconv.ErrRange) {
		return nil, &fault.Fault{Message: fmt.Sprintf("USER %s: ids are at most %d", spec, math.MaxInt32), Err: strconv.ErrRange}
	}
	if named && uerr == nil && gerr == nil {
		u.UID, u.GID, u.numbers = uid, gid, true // nobody looks for such a user
	} else if err := u.find(spec, passwd, group); err != nil {
		return nil, err
	}
	byID, err := user.ParsePasswdFilter(bytes.NewReader(passwd), func(p user.User) bool { return p.Uid == int(u.UID) })
	if err != nil {
		return nil, err
	}
	u.Home = "/"
	if len(byID) > 0 && path.IsAbs(byID[0].Home) {
		u.Home = path.Clean(byID[0].Home)
	}
	u.note(name, of, passwd, byID)
	return u, nil
}

// Give has the command of a RUN run as the user.
func (u *User) Give(cmd *sandbox.Command, s *dag.Step, run *frontend.Run) {
	cmd.User = &sandbox.User{UID: u.UID, GID: u.GID, Groups: u.Groups, Env: environ.OfUser(cmd.Env, s, run, u.Home)}
	if slices.Contains(cmd.User.Env, "HOME="+u.Home) {
		return
	}
	for i := range u.Needs {
		u.Needs[i].Home = "" // an ENV says where it is
	}
	if u.numbers {
		u.Needs = nil
	}
}

// GiveIn has the command of a RUN run as its user, by the names of a view.
func GiveIn(ctx context.Context, view sandbox.Layered, s *dag.Step, run *frontend.Run, cmd *sandbox.Command) error {
	if run.User == "" {
		return nil
	}
	tree, done, err := view.Tree(ctx)
	if err != nil {
		return err
	}
	u, err := Resolve(names.New(tree.Dir, ""), run.User)
	if err = errors.Join(err, done()); err != nil || u.IsOwn() {
		return err
	}
	u.Give(cmd, s, run)
	return nil
}

// IsOwn reports whether the user is the one who runs clayer, without privilege: what that
// one makes is root's.
func (u *User) IsOwn() bool { return os.Geteuid() != 0 && u.UID == 0 && u.GID == 0 }

// find looks a user up who has a name, or whose group has one or is not given.
func (u *User) find(spec string, passwd, group []byte) error {
	found, err := user.GetExecUser(spec, nil, bytes.NewReader(passwd), bytes.NewReader(group))
	name, of, _ := strings.Cut(spec, ":")
	switch {
	case errors.Is(err, user.ErrNoPasswdEntries):
		return missing(spec, "user", name, "etc/passwd", "RUN useradd "+name)
	case errors.Is(err, user.ErrNoGroupEntries):
		return missing(spec, "group", of, "etc/group", "RUN groupadd "+of)
	case err != nil:
		return &fault.Fault{Message: fmt.Sprintf("USER %s: %v", spec, err), Err: err}
	}
	u.UID, u.GID = uint32(found.Uid), uint32(found.Gid)
	for _, g := range found.Sgids {
		u.Groups = append(u.Groups, uint32(g))
	}
	return nil
}

func missing(spec, kind, name, file, add string) error {
	return &fault.Fault{
		Message: fmt.Sprintf("USER %s: %s %s: not in /%s", spec, kind, name, file),
		Hint:    "a line before it can add one: " + add,
	}
}

// note notes what the names are here: that of the user, or of whoever has the number, and
// that of the group.
func (u *User) note(name, group string, passwd []byte, byID []user.User) {
	if _, err := idOf(cmp.Or(name, "0")); err == nil {
		if len(byID) == 0 { // nobody's: where somebody has the number, there are a home and groups
			u.Needs = append(u.Needs, snapshot.Need{Kind: snapshot.NeedName, Type: snapshot.NameUser, Name: strconv.Itoa(int(u.UID)), ID: int(u.UID)})
			name = ""
		} else {
			name = byID[0].Name
		}
	}
	id, own, ok := owners.Numbers(passwd, name)
	if ok && id == int(u.UID) {
		n := snapshot.Need{Kind: snapshot.NeedName, Type: snapshot.NameUser, Name: name, ID: id, Existing: true, Home: u.Home}
		if group == "" {
			n.Group = &own
		}
		u.Needs = append(u.Needs, n)
	}
	if _, err := idOf(group); err != nil && group != "" {
		u.Needs = append(u.Needs, snapshot.Need{Kind: snapshot.NeedName, Type: snapshot.NameGroup, Name: group, ID: int(u.GID), Existing: true})
	}
}

// idOf returns what needs no database: a number, and root.
func idOf(name string) (uint32, error) {
	if name == "root" {
		return 0, nil
	}
	id, err := strconv.ParseUint(cmp.Or(name, "none"), 10, 31)
	return uint32(id), err
}

// read returns a database; nothing where there is none.
func read(at *names.View, name string) ([]byte, error) {
	data, err := at.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) || errors.Is(err, syscall.ELOOP) {
		return nil, nil
	}
	return data, err
}
