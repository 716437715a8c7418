package needs

import (
	"cmp"
	"fmt"
	"strconv"

	"github.com/clayer/clayer/cache/snapshot"
	"github.com/clayer/clayer/solver/internal/databases"
	"github.com/clayer/clayer/solver/internal/owners"
)

// isOfChain reports whether a step that the key covers has added a record to a database.
func (r *Recorder) isOfChain(database, key string) bool {
	for _, n := range r.Chain {
		if n.Path == database && (databases.Changes{Set: n.Set}).Adds(key) {
			return true
		}
	}
	return false
}

// name checks that files which belong to a name where the snapshot was made do so here. A
// name that is not here is no harm, as long as no other one has the id; --chown has to find
// its own.
func (s *Site) name(n snapshot.Need) (string, error) {
	d := owners.Database(n.Type)
	if s.pending[d.String()][n.Name] {
		return "", nil // checked again when that is applied
	}
	here, err := s.readHere(d.String())
	if err != nil {
		return "", err
	}
	if n.Existing {
		id, group, ok := owners.Numbers(here.data, n.Name)
		switch {
		case !ok:
			return fmt.Sprintf("needs the %s %s, which this machine lacks", n.Type, n.Name), nil
		case id == n.ID && n.Group != nil && group != *n.Group:
			return fmt.Sprintf("needs the user %s to have the group %d, which is %d here", n.Name, *n.Group, group), nil
		case id == n.ID:
			if first, _ := d.NameOf(here.data, id); n.Home != "" && cmp.Or(first.Home, "/") != n.Home {
				return fmt.Sprintf("needs the user %s to have the home %s, which is %s here", n.Name, n.Home, cmp.Or(first.Home, "/")), nil
			}
			return "", nil
		}
		return fmt.Sprintf("needs the %s %s to have the id %d, which is %d here", n.Type, n.Name, n.ID, id), nil
	}
	if n.Name == strconv.Itoa(n.ID) {
		if other, ok := d.NameOf(here.data, n.ID); ok {
			return fmt.Sprintf("needs the id %d to be nobody's, which is that of %s here", n.ID, other.Name), nil
		}
		return "", nil
	}
	if id, ok := d.IDOf(here.data, n.Name); ok && id != n.ID {
		return fmt.Sprintf("needs the %s %s to have the id %d, which is %d here", n.Type, n.Name, n.ID, id), nil
	} else if ok {
		return "", nil
	}
	if other, ok := d.NameOf(here.data, n.ID); ok {
		return fmt.Sprintf("needs the %s %s with the id %d, which %s has here", n.Type, n.Name, n.ID, other.Name), nil
	}
	return "", nil
}
