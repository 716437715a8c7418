// Package databases knows the files in which users, groups and packages are recorded,
// and applies a change of one record by record, so that the records which a machine
// has of its own stay. It is pure: bytes in, bytes out.
package databases

import (
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/clayer/clayer/solver/internal/databases/indexes"
)

// A Database says how a known file is divided into records.
type Database struct {
	path   string
	format format
}

// A format is how records are written.
type format uint8

const (
	lines      format = iota + 1 // each line is a record, known by its text
	users                        // name:password:uid:…
	groups                       // name:password:gid:members
	shadow                       // name:…
	gshadow                      // name:password:administrators:members
	ranges                       // name:first:count
	dpkg                         // stanzas with Package and Architecture
	apk                          // stanzas with P
	pem                          // certificates, each known by its text
	ldcache                      // the cache of the dynamic linker
	diversions                   // three lines: what is diverted, where to, and by which package
	choices                      // a group of alternatives
	modules                      // paragraphs that begin with the path of a module
	schemas                      // as indexes.Schemas, and so on
	icons
	opens
	info
	mime
	mimeLists
	mimeParents
	mimeIcons
	mimeGlobs
	mimeMagic
	mimeTreeMagic
	backup // what the tool that changed a database left: the version before, a lock, former passwords
)

var known = map[string]format{
	"etc/passwd":  users,
	"etc/group":   groups,
	"etc/shadow":  shadow,
	"etc/gshadow": gshadow,
	"etc/subuid":  ranges,
	"etc/subgid":  ranges,
	"etc/shells":  lines,

	"etc/ld.so.cache": ldcache,

	"etc/ssl/certs/ca-certificates.crt": pem,

	"etc/passwd-":  backup,
	"etc/group-":   backup,
	"etc/shadow-":  backup,
	"etc/gshadow-": backup,
	"etc/subuid-":  backup,
	"etc/subgid-":  backup,

	// Those of update-passwd.
	"etc/passwd.org":  backup,
	"etc/group.org":   backup,
	"etc/shadow.org":  backup,
	"etc/gshadow.org": backup,

	// Former passwords, by which PAM refuses to use one again.
	"etc/security/opasswd":     backup,
	"etc/security/opasswd.old": backup,

	"var/lib/dpkg/status":         dpkg,
	"var/lib/dpkg/status-old":     backup,
	"var/lib/dpkg/lock":           backup,
	"var/lib/dpkg/lock-frontend":  backup,
	"var/lib/dpkg/triggers/Lock":  backup,
	"var/lib/dpkg/statoverride":   lines,
	"var/lib/dpkg/diversions":     diversions,
	"var/lib/dpkg/diversions-old": backup,
	"var/lib/apt/extended_states": dpkg,

	"etc/apk/world":        lines,
	"lib/apk/db/installed": apk,
	"lib/apk/db/triggers":  lines,
}

// indexed are formats that package indexes knows.
var indexed = map[format]indexes.Format{
	schemas: indexes.Schemas, icons: indexes.Icons, opens: indexes.Opens, info: indexes.Info,
	mime: indexes.Mime, mimeLists: indexes.MimeLists, mimeParents: indexes.MimeParents, mimeIcons: indexes.MimeIcons,
	mimeGlobs: indexes.MimeGlobs, mimeMagic: indexes.MimeMagic, mimeTreeMagic: indexes.MimeTreeMagic,
}

// mimeFiles are those of update-mime-database.
var mimeFiles = map[string]format{
	"mime.cache": mime, "aliases": mimeLists, "types": mimeLists, "XMLnamespaces": mimeLists, "subclasses": mimeParents,
	"icons": mimeIcons, "generic-icons": mimeIcons, "globs": mimeGlobs, "globs2": mimeGlobs, "magic": mimeMagic, "treemagic": mimeTreeMagic,
}

func init() {
	for name, f := range mimeFiles {
		known["usr/share/mime/"+name], known["usr/local/share/mime/"+name] = f, f
	}
	known["usr/share/info/dir"] = info
	known["usr/share/applications/mimeinfo.cache"] = opens
	known["usr/share/glib-2.0/schemas/gschemas.compiled"] = schemas
	for _, theme := range []string{"hicolor", "Adwaita", "gnome", "locolor", "Papirus", "breeze", "oxygen"} {
		known["usr/share/icons/"+theme+"/icon-theme.cache"] = icons
	}
	for _, lib := range []string{"usr/lib", "usr/lib64", "usr/lib/x86_64-linux-gnu", "usr/lib/aarch64-linux-gnu", "usr/lib/arm-linux-gnueabihf"} {
		known[lib+"/gio/modules/giomodule.cache"] = lines
		for _, name := range []string{"gdk-pixbuf-2.0/2.10.0/loaders.cache", "gtk-2.0/2.10.0/immodules.cache", "gtk-3.0/3.0.0/immodules.cache"} {
			known[path.Join(lib, name)] = modules
		}
	}
}

// IsIndex reports whether a tool makes the database of files that are installed: what it
// says of one is no conflict.
func (d Database) IsIndex() bool {
	_, ok := indexed[d.format]
	return ok || d.format == ldcache || d.format == modules || path.Base(d.path) == "giomodule.cache"
}

// IsLibraries reports whether the records are the libraries of the dynamic linker.
func (d Database) IsLibraries() bool { return d.format == ldcache }

// Known returns the database at a path, which is relative to the root.
func Known(p string) (Database, bool) {
	f, ok := known[p]
	// Each of dpkg's triggers has a list of the packages that wait for it.
	switch dir, name := path.Split(p); {
	case ok:
	case dir == triggersDir && name != "Unincorp":
		f, ok = lines, true
	case dir == alternativesDir:
		f, ok = choices, true
	}
	return Database{path: p, format: f}, ok
}

const triggersDir = "var/lib/dpkg/triggers/"

// Dirs are directories in which all files are databases.
var Dirs = []string{strings.TrimSuffix(alternativesDir, "/"), strings.TrimSuffix(triggersDir, "/")}

// Paths returns where the databases are that Known knows by their paths alone, sorted.
func Paths() []string { return slices.Sorted(maps.Keys(known)) }

// MaxSize is the size of the largest file that is read as a database.
const MaxSize = 64 << 20

func (d Database) check(files ...[]byte) error {
	for _, f := range files {
		if len(f) > MaxSize {
			return fmt.Errorf("%s has more than %d bytes", d.path, MaxSize)
		}
	}
	return nil
}

// CanMerge reports whether two versions of a database can be merged: any can but those of
// the dynamic linker's cache which are not understood.
func (d Database) CanMerge(here, result []byte) bool {
	if d.format != ldcache {
		return true
	}
	_, ok := parseLibraries(here)
	if ok {
		_, ok = parseLibraries(result)
	}
	return ok
}

// Misses reports whether programs that use an index find nothing without it: of one that is
// not understood, that of a step is of no use where a machine has another.
func (d Database) Misses(files ...[]byte) bool {
	return d.format != info || !slices.ContainsFunc(files, func(f []byte) bool { return isOpaque(d.format.parse(f)) })
}

// IsBackup reports whether a tool keeps in this file what another database was before.
// Nothing is merged there: a machine keeps its own.
func (d Database) IsBackup() bool { return d.format == backup }

// IsList reports whether a database is one of several in a directory, as of dpkg's triggers
// and alternatives.
func (d Database) IsList() bool { return slices.Contains(Dirs, path.Dir(d.path)) }

// IsOfPackages reports whether the records are the packages of dpkg.
func (d Database) IsOfPackages() bool { return d.format == dpkg }

// Partner returns the path of the database with the other part of what is said of a user
// or a group; "" for none.
func (d Database) Partner() string {
	return map[string]string{"etc/passwd": "etc/shadow", "etc/shadow": "etc/passwd", "etc/group": "etc/gshadow", "etc/gshadow": "etc/group"}[d.path]
}

// Main returns the path of the database itself, of which this may be a backup.
func (d Database) Main() string {
	if !d.IsBackup() {
		return d.path
	}
	if d.path == "var/lib/dpkg/diversions-old" {
		return "var/lib/dpkg/diversions"
	}
	if strings.HasPrefix(d.path, "var/lib/dpkg/") {
		return "var/lib/dpkg/status"
	}
	return strings.TrimSuffix(strings.TrimSuffix(d.path, "-"), ".org")
}

// isHistory reports whether a file has the passwords that users had before.
func (d Database) isHistory() bool { return path.Dir(d.path) == "etc/security" }

// Changes are what changed in a database, with what Check and Merge compare. An entry
// begins with the key of a record, which is its name, of a package with the
// architecture: "libc6:amd64"; or "#" and a digest, of a line without a name. Of
// several records with one name, the second has "#2" after it.
//
//	bob(1000)>1a2b3c4d5e6f            in Set: is there now; no other record has the id
//	root=5e6f1a2b3c4d>1a2b3c4d5e6f    in Set: the first is the digest of what it was
//	games=5e6f1a2b3c4d                in Removed
//	sudo:bob                          the member bob of the group sudo
type Changes struct {
	Set     []string `json:"set,omitempty"`
	Removed []string `json:"removed,omitempty"`
}

// IsEmpty reports whether no record changed.
func (c Changes) IsEmpty() bool { return len(c.Set)+len(c.Removed) == 0 }

// Names returns the keys of what changed, to print.
func (c Changes) Names() (names []string) {
	for _, text := range slices.Concat(c.Set, c.Removed) {
		names = append(names, keyOf(text))
	}
	return names
}

// Adds reports whether a record is there now that was not before.
func (c Changes) Adds(key string) bool {
	return slices.ContainsFunc(c.Set, func(text string) bool {
		e, err := parseEntry(text)
		return err == nil && e.key == key && e.was == ""
	})
}

func keyOf(text string) string {
	if i := strings.IndexAny(text, marks); i >= 0 {
		return text[:i]
	}
	return text
}

// A Conflict is a record that could not be changed, since the file has another one in
// its place.
type Conflict struct {
	Record string // its key
	Why    string
}

func (c Conflict) String() string { return c.Record + ": " + c.Why }

// Diff returns which records differ between two versions of a database. nil is one that
// is not there.
func (d Database) Diff(before, after []byte) (Changes, error) {
	if err := d.check(before, after); err != nil || d.format == backup {
		return Changes{}, err
	}
	var c Changes
	old, now := d.format.parse(before), d.format.parse(after)
	was, is := index(old), index(now)
	ids := d.format.idsOf(now, nil)
	for i := range now {
		r := &now[i]
		o := was[r.key]
		if o == nil || o.body != r.body {
			e := entry{key: r.key, now: digest(r.body)}
			if o != nil {
				e.was = digest(o.body)
			}
			if id := d.format.id(r); (o == nil || d.format.id(o) != id) && ids.isOf(id, r.key) {
				e.id = id.String()
			}
			c.Set = append(c.Set, e.String())
		}
		c.Set = append(c.Set, r.notIn(o)...)
		if o != nil {
			c.Removed = append(c.Removed, o.notIn(r)...)
		}
	}
	for i := range old {
		if o := &old[i]; is[o.key] == nil {
			c.Removed = append(c.Removed, entry{key: o.key, was: digest(o.body)}.String())
			c.Removed = append(c.Removed, o.notIn(nil)...)
		}
	}
	return c, nil
}

// Check returns the conflicts that Merge will find when the records with the keys of
// pending, which nothing in c names, have been changed or removed.
func (d Database) Check(here []byte, c Changes, pending map[string]bool) ([]Conflict, error) {
	if err := d.check(here); err != nil || d.format == backup {
		return nil, err
	}
	m, err := d.merging(here, c)
	if err != nil {
		return nil, err
	}
	m.pending = pending
	m.decide()
	return m.conflicts, nil
}

// Merge returns the database here with the changes, whose records get the values that
// they have in result. Order, comments and all other records stay. What is here
// already as the changes make it is no conflict.
//
// A conflict is a record that is here, but not as it was before the change, or whose id
// another one has. merged has all other changes then. An error says that the changes
// do not lead to result.
//
// Onto the file that result was made from, this gives result, unless that has the
// records that stayed in another order.
func (d Database) Merge(here, result []byte, c Changes) (merged []byte, conflicts []Conflict, err error) {
	return d.merge(here, result, c, false)
}

// Force is Merge of records that may be others here than they were before the change.
func (d Database) Force(here, result []byte, c Changes) (merged []byte, err error) {
	merged, _, err = d.merge(here, result, c, true)
	return merged, err
}

func (d Database) merge(here, result []byte, c Changes, force bool) (merged []byte, conflicts []Conflict, err error) {
	if err := d.check(here, result); err != nil || d.format == backup {
		return here, nil, err
	}
	m, err := d.merging(here, c)
	if err == nil {
		m.force = m.force || force
		m.decide()
		err = m.take(d.format.parse(result))
	}
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", d.path, err)
	}
	return d.format.text(m.merged()), m.conflicts, nil
}

// Drift returns the records of a database that are not as they were before the changes.
// If those are what undoes an apply, it is what has changed since.
func (d Database) Drift(here []byte, c Changes) ([]Conflict, error) {
	if err := d.check(here); err != nil || d.format == backup {
		return nil, err
	}
	m, err := d.merging(here, c)
	if err != nil {
		return nil, err
	}
	return m.drift(), nil
}

// String returns the path of the database, relative to the root.
func (d Database) String() string { return d.path }

// Join returns what the first of several changes leaves of the others, of records that it
// does not change itself.
func Join(list ...Changes) (all Changes) {
	have := make(map[string]bool)
	for _, c := range list {
		var keys []string
		add := func(to *[]string, from []string) {
			for _, text := range from {
				if key := keyOf(text); !have[key] {
					*to = append(*to, text)
					keys = append(keys, key)
				}
			}
		}
		add(&all.Set, c.Set)
		add(&all.Removed, c.Removed)
		for _, key := range keys {
			have[key] = true
		}
	}
	return all
}

// Where returns the changes of those records, and members, that takes says: by their
// keys, whether they are added, and whether they are removed.
func (c Changes) Where(takes func(key string, added, removed bool) bool) (some Changes) {
	for _, text := range c.Set {
		e, err := parseEntry(text)
		if err == nil && takes(e.key, e.was == "", false) {
			some.Set = append(some.Set, text)
		}
	}
	for _, text := range c.Removed {
		if takes(keyOf(text), false, true) {
			some.Removed = append(some.Removed, text)
		}
	}
	return some
}

// Only returns the changes of the records that have a conflict.
func (c Changes) Only(conflicts []Conflict) Changes {
	only := func(list []string) []string {
		return slices.DeleteFunc(slices.Clone(list), func(text string) bool {
			return !slices.ContainsFunc(conflicts, func(x Conflict) bool { return x.Record == keyOf(text) })
		})
	}
	return Changes{Set: only(c.Set), Removed: only(c.Removed)}
}

// Without returns the changes of other records than those with the keys, and the keys
// of those that were left out.
func (c Changes) Without(keys []string) (rest Changes, left []string) {
	if len(keys) == 0 {
		return c, nil
	}
	without := func(list []string) []string {
		return slices.DeleteFunc(slices.Clone(list), func(text string) bool {
			key := keyOf(text)
			group, _, _ := strings.Cut(key, ":")
			is := slices.Contains(keys, key) || slices.Contains(keys, group)
			if is && !slices.Contains(left, key) {
				left = append(left, key)
			}
			return is
		})
	}
	return Changes{Set: without(c.Set), Removed: without(c.Removed)}, left
}
