// Package owners finds the users and groups of a machine, by their names, that have files
// of a snapshot.
package owners

import (
	"os"
	"strings"
	"unicode"

	"github.com/clayer/clayer/cache/snapshot"
	"github.com/clayer/clayer/internal/pathname"
	"github.com/clayer/clayer/solver/internal/databases"
)

// An owner is a user, or a group, that a file of a snapshot has.
type owner struct {
	kind string // snapshot.NameUser or snapshot.NameGroup
	id   int
}

// Database returns where the names of such owners are.
func Database(kind string) databases.Database {
	p := "etc/passwd"
	if kind == snapshot.NameGroup {
		p = "etc/group"
	}
	d, _ := databases.Known(p)
	return d
}

// Owners are those that files of a snapshot were found to have.
type Owners struct {
	Command string                           // the text of the RUN
	Before  func(database string) []byte     // what a database was before the RUN
	OfSteps func(database, name string) bool // reports whether a step that the key covers has added a record

	first map[owner]string         // by name: the first path of each
	names map[owner]databases.Name // that were looked up
}

// Reset forgets what was noted.
func (r *Owners) Reset() {
	r.first, r.names = make(map[owner]string), make(map[owner]databases.Name)
}

// firstHuman is the id from which on tools give ids to people. A system's users get
// theirs when their packages are installed, and scripts name them.
const firstHuman = 1000

// Note notes who has a file that is not root's. Of a plain user all files are his.
func (r *Owners) Note(e *snapshot.Entry) {
	if os.Geteuid() != 0 || e.Kind == snapshot.Delete {
		return
	}
	for _, o := range []owner{{snapshot.NameUser, e.UID}, {snapshot.NameGroup, e.GID}} {
		if _, known := r.first[o]; o.id == 0 || known {
			continue
		}
		if r.isByName(o, e.Path) {
			r.first[o] = e.Path
		}
	}
}

// isByName reports whether a file got its owner by a name, as far as that can be seen.
// What tar unpacks may have the number of whoever packed it.
func (r *Owners) isByName(o owner, p string) bool {
	name := r.nameOf(o)
	if name.Name == "" || o.id < firstHuman {
		return name.Name != ""
	}
	home := strings.Trim(name.Home, "/")
	return home != "" && pathname.Under(p, home) || hasWord(r.Command, name.Name)
}

// nameOf returns who had an id before the RUN; the zero Name for nobody.
func (r *Owners) nameOf(o owner) databases.Name {
	name, known := r.names[o]
	if !known {
		d := Database(o.kind)
		name, _ = d.NameOf(r.Before(d.String()), o.id)
		r.names[o] = name
	}
	return name
}

// hasWord reports whether a text has a name that is no part of a longer one.
func hasWord(text, name string) bool {
	isPart := func(c rune) bool { return unicode.IsLetter(c) || unicode.IsDigit(c) || strings.ContainsRune("_-.", c) }
	for word := range strings.FieldsFuncSeq(text, func(c rune) bool { return !isPart(c) }) {
		if word == name {
			return true
		}
	}
	return false
}

// Needs returns the names, of the machine, of those who have files of the snapshot.
func (r *Owners) Needs() (all []snapshot.Need) {
	for o, p := range r.first {
		if name := r.nameOf(o).Name; !r.OfSteps(Database(o.kind).String(), name) {
			all = append(all, snapshot.Need{Kind: snapshot.NeedName, Type: o.kind, Name: name, ID: o.id, By: "/" + p})
		}
	}
	return all
}
