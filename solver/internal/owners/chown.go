package owners

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"strconv"
	"strings"

	"github.com/clayer/clayer/cache/snapshot"
	"github.com/clayer/clayer/solver/internal/databases"
	"github.com/clayer/clayer/solver/internal/names"
)

// A Chown is the value of --chown, with its names resolved.
type Chown struct {
	UID, GID int
	Needs    []snapshot.Need // what another root has to have for the same
}

// Resolve resolves the value of --chown by the names that a step finds in a root. As with
// Docker, a name without a group has its group of /etc/passwd, and a number the group of
// the same number; without a user it is 0.
func Resolve(at *names.View, chown string) (c Chown, err error) {
	user, group, _ := strings.Cut(chown, ":")
	user = cmp.Or(user, "0")
	uid, isNumber := idOf(user)
	own := uid
	if !isNumber {
		n := snapshot.Need{Kind: snapshot.NeedName, Type: snapshot.NameUser, Name: user, Existing: true}
		if uid, own, err = numbersOf(at, n); err != nil {
			return c, err
		}
		if n.ID = uid; group == "" {
			n.Group = &own
		}
		c.Needs = append(c.Needs, n)
	}
	c.UID, c.GID = uid, own
	if group == "" {
		return c, nil
	}
	if c.GID, isNumber = idOf(group); !isNumber {
		n := snapshot.Need{Kind: snapshot.NeedName, Type: snapshot.NameGroup, Name: group, Existing: true}
		if n.ID, _, err = numbersOf(at, n); err != nil {
			return c, err
		}
		c.GID = n.ID
		c.Needs = append(c.Needs, n)
	}
	return c, nil
}

// idOf returns what needs no database: a number, and root, as with Docker.
func idOf(name string) (int, bool) {
	if name == "root" {
		return 0, true
	}
	return number(name)
}

func number(s string) (int, bool) {
	n, err := strconv.ParseUint(s, 10, 31)
	return int(n), err == nil
}

func numbersOf(at *names.View, n snapshot.Need) (id, group int, err error) {
	file := Database(n.Type).String()
	data, err := at.ReadFile(file)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return 0, 0, fmt.Errorf("%s %s: %w", n.Type, n.Name, err)
	}
	id, group, ok := Numbers(data, n.Name)
	if !ok {
		return 0, 0, fmt.Errorf("%s %s: not in /%s", n.Type, n.Name, file)
	}
	return id, group, nil
}

// Numbers finds the number on a name's line of /etc/passwd or /etc/group, and that of a
// user's group after it.
func Numbers(file []byte, name string) (id, group int, ok bool) {
	for line := range strings.Lines(string(file)) {
		fields := strings.Split(line, ":")
		if len(fields) < 3 || fields[0] != name {
			continue
		}
		if id, ok = number(strings.TrimSpace(fields[2])); ok {
			if group, ok = number(strings.TrimSpace(fields[min(3, len(fields)-1)])); !ok {
				group = id
			}
			return id, group, true
		}
	}
	return 0, 0, false
}

// AddNeeds adds to needs those of a --chown by the names that a step finds, but for names
// about which the steps of its chain decide: chain is what these need, and wrote reports
// whether one has written a path. by is what the names stand in.
func AddNeeds(all []snapshot.Need, chown, by string, at *names.View, chain []snapshot.Need, wrote func(path string) bool) ([]snapshot.Need, error) {
	c, err := Resolve(at, chown)
	if err != nil {
		return all, err
	}
	return AddUndecided(all, c.Needs, by, at, chain, wrote)
}

// AddUndecided is AddNeeds of names that were found in at.
func AddUndecided(all, found []snapshot.Need, by string, at *names.View, chain []snapshot.Need, wrote func(path string) bool) ([]snapshot.Need, error) {
	for _, n := range found {
		n.By = by
		file := Database(n.Type).String()
		real, _, err := at.Resolve(file)
		if err != nil {
			return all, err
		}
		byRecord, decided := false, false
		for _, c := range chain {
			if c.Path == file && len(c.Set)+len(c.Removed) > 0 {
				byRecord = true
				decided = decided || (databases.Changes{Set: c.Set}).Adds(n.Name)
			}
		}
		if !decided && (byRecord || !wrote(file) && !wrote(real)) {
			all = append(all, n)
		}
	}
	return all, nil
}
