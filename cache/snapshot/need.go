package snapshot

import (
	"fmt"
	"strings"

	"github.com/opencontainers/go-digest"

	"github.com/clayer/clayer/internal/sizes"
)

// A Need is something that a snapshot took from outside of itself and of the steps that
// its key covers: on a root that lacks it, its result would not work, or would be
// another. docs/format.md says which fields each kind has.
type Need struct {
	Kind NeedKind `json:"kind"`

	// Path is where it is in a root, as Entry.Path: of content and place. Of home, and of
	// an interpreter, which programs name, it is absolute.
	Path string `json:"path,omitempty"`

	// Digest of the file that was there when the step changed, replaced or deleted it;
	// of a symbolic link, that of its target.
	Digest digest.Digest `json:"digest,omitempty"`
	// Set and Removed name the records of a database at Path that the step added or
	// changed, and removed: the rest of it may be another.
	Set     []string `json:"set,omitempty"`
	Removed []string `json:"removed,omitempty"`

	// Target is where Path leads without links, relative to the root: of a place that a
	// FETCH, COPY or WORKDIR was given.
	Target string `json:"target,omitempty"`

	// Items are what a FETCH or COPY put below Path: of a place of PlaceItems. A directory
	// ends in "/"; one that may be a link to a directory, in "/.".
	Items []string `json:"items,omitempty"`

	Type string `json:"type,omitempty"` // of a place: PlaceDir, PlaceFile, PlaceMissing, PlaceExistingDir or PlaceItems; of a name: NameUser or NameGroup; of a package: PackageOwn or ""
	Name string `json:"name,omitempty"` // of a user or group, a package, or an interpreter on PATH
	ID   int    `json:"id,omitempty"`   // of a user or group

	Existing bool   `json:"existing,omitempty"` // of a user or group: one that is missing will not do
	Group    *int   `json:"group,omitempty"`    // of a user whose own group counts: its id
	Home     string `json:"home,omitempty"`     // of a user whose home counts: where it is

	Soname  string `json:"soname,omitempty"`
	Class   int    `json:"class,omitempty"`   // of a library: 32 or 64
	Machine int    `json:"machine,omitempty"` // of a library, as ELF numbers it
	// Versions of a library's symbols: the highest of each name, as "GLIBC_2.34". Of a
	// package that the snapshot installs: those in whose place it can be put.
	Versions []string `json:"versions,omitempty"`

	Manager string `json:"manager,omitempty"` // of a package: ManagerDpkg, ManagerPython, ManagerNPM or ManagerAPK
	Version string `json:"version,omitempty"` // of a package: those that will do, as its manager writes it; "" for any

	// Search has the directories that are searched for a library, before the default
	// ones, or for a package.
	Search []string `json:"search,omitempty"`

	By string `json:"by,omitempty"` // what of the snapshot needs it, for people: a path, or a package
}

// A NeedKind says what a Need is about.
type NeedKind string

const (
	NeedContent     NeedKind = "content"     // what a file was
	NeedPlace       NeedKind = "place"       // what kind of file a path is, if any
	NeedName        NeedKind = "name"        // which id a user or group has
	NeedHome        NeedKind = "home"        // where $HOME is
	NeedLibrary     NeedKind = "library"     // a shared library
	NeedInterpreter NeedKind = "interpreter" // a program that runs scripts
	NeedPackage     NeedKind = "package"     // a package of a package manager

	// NeedAlternative is met anywhere: it says of a link of /etc/alternatives which group
	// decides about it, and with which priority, where a root has another choice.
	NeedAlternative NeedKind = "alternative"
)

// Values of Need.Type and Need.Manager.
const (
	PlaceDir  = "directory"
	PlaceFile = "file" // or anything else that is no directory

	PlaceMissing = "missing" // nothing

	PlaceExistingDir = "existing directory" // which may not be missing

	PlaceItems = "items" // where nothing is that these do not replace

	NameUser  = "user"
	NameGroup = "group"

	PackageOwn = "own" // the snapshot installs it: a machine may have no other version in its place

	ManagerDpkg   = "dpkg"
	ManagerPython = "python"
	ManagerNPM    = "npm"
	ManagerAPK    = "apk"
)

// String says in a few words what is needed.
func (n Need) String() string {
	switch n.Kind {
	case NeedContent:
		if len(n.Set)+len(n.Removed) > 0 {
			return sizes.Count(len(n.Set)+len(n.Removed), "record") + " of /" + n.Path
		}
		return "/" + n.Path + " as it was"
	case NeedPlace:
		if n.Target != "" && n.Target != n.Path {
			return fmt.Sprintf("/%s to lead to /%s", n.Path, n.Target)
		}
		switch n.Type {
		case "":
			return fmt.Sprintf("/%s to lead nowhere else", n.Path)
		case PlaceMissing:
			return fmt.Sprintf("/%s to be missing", n.Path)
		case PlaceExistingDir:
			return fmt.Sprintf("/%s to be a directory", n.Path)
		case PlaceItems:
			if len(n.Items) == 1 {
				return fmt.Sprintf("/%s to have room for 1 item", n.Path)
			}
			return fmt.Sprintf("/%s to have room for %d items", n.Path, len(n.Items))
		}
		return fmt.Sprintf("/%s to be a %s or missing", n.Path, n.Type)
	case NeedHome:
		return "$HOME " + n.Path
	case NeedName:
		return fmt.Sprintf("%s %s with id %d", n.Type, n.Name, n.ID)
	case NeedLibrary:
		return n.Soname
	case NeedInterpreter:
		return n.Path + n.Name
	case NeedAlternative:
		return fmt.Sprintf("the choice of /%s", n.Path)
	case NeedPackage:
		if n.Type == PackageOwn {
			return fmt.Sprintf("%s (%s) to be absent or %s", n.Name, n.Manager, strings.Join(n.Versions, " or "))
		}
		return fmt.Sprintf("%s%s (%s)", n.Name, n.Version, n.Manager)
	}
	return string(n.Kind)
}
