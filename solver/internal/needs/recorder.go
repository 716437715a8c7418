package needs

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/opencontainers/go-digest"

	"github.com/clayer/clayer/cache/snapshot"
	"github.com/clayer/clayer/internal/order"
	"github.com/clayer/clayer/internal/pathname"
	"github.com/clayer/clayer/solver/internal/databases"
	"github.com/clayer/clayer/solver/internal/names"
	"github.com/clayer/clayer/solver/internal/owners"
)

// A Recorder finds the needs of a RUN in what it changes.
type Recorder struct {
	*Site // as the RUN finds it

	// Covered reports whether a step that the key covers wrote a path last.
	Covered func(path string) bool

	Command string // the text of the RUN

	// Chain has the needs of the steps that the key covers.
	Chain []snapshot.Need

	// Before returns what stood at a path, if the view shows it as the RUN left it:
	// of a RUN in place. nil: the view knows.
	Before func(path string) names.Kind
	Saved  Saved // of files before the RUN, with Before

	// Named are the packages that the command of the RUN names.
	Named []Named

	home      string            // where $HOME is
	path      []string          // the directories of programs
	inHome    string            // the first path below home
	databases map[string][]byte // before the RUN
	unread    map[string]bool   // databases that cannot be read

	in       names.Directory // the directory of the last entry
	dir      string
	made     map[string]bool // directories that were not there
	old      map[string]names.Found
	places   map[string]string
	changed  map[string]func() (io.ReadCloser, error) // databases after the RUN; nil: deleted
	lists    []list                                   // of the files of packages that the step installs
	usr      map[string]bool                          // see isLink
	dists    []*distribution
	replaced map[string][]string // versions of those that the step removes, by directory and name
	venvs    map[string]bool     // what the step makes virtual environments, with a final slash
	modules  []module
	links    map[string]snapshot.Need // of alternatives, by path; By is the target
	programs
	owners  owners.Owners
	problem error
}

// A Named is a package as a command names it.
type Named struct {
	Manager string // snapshot.ManagerDpkg or snapshot.ManagerPython
	Package string // as it stands there: "six==1.16"
}

// Of passes changes on, and notes what they need.
func (r *Recorder) Of(changes snapshot.Changes) snapshot.Changes {
	return func(yield func(*snapshot.Entry, error) bool) {
		r.dir, r.in, r.inHome, r.lists, r.problem = "", names.Directory{}, "", nil, nil // they may be read again
		r.home, r.path = r.Session()
		r.made, r.old, r.places = make(map[string]bool), make(map[string]names.Found), make(map[string]string)
		r.programs.reset()
		r.dists, r.venvs, r.modules = nil, make(map[string]bool), nil
		r.replaced = make(map[string][]string)
		r.links = make(map[string]snapshot.Need)
		r.owners = owners.Owners{Command: r.Command, Before: func(p string) []byte { return r.databases[p] }, OfSteps: r.isOfChain}
		r.owners.Reset()
		r.usr, r.changed = make(map[string]bool), make(map[string]func() (io.ReadCloser, error))
		for e, err := range changes {
			if err == nil && r.problem == nil {
				r.problem = r.note(e)
			}
			if err == nil {
				e, err = r.withoutSecrets(e)
			}
			if !yield(e, err) {
				return
			}
		}
	}
}

func (r *Recorder) note(e *snapshot.Entry) error {
	if e.Implied || snapshot.IsScratch(e.Path) || e.Kind == snapshot.Opaque || !utf8.ValidString(e.Path) {
		return nil
	}
	if r.inHome == "" && r.isBelowHome(e.Path) {
		r.inHome = e.Path
	}
	if _, known := databases.Known(e.Path); known {
		r.changed[e.Path] = e.Open
		return nil
	}
	if !IsRegenerated(e.Path) {
		r.owners.Note(e)
	}
	dir, base := path.Split(e.Path)
	r.programs.note(e, dir, base)
	r.noteList(e, dir, base)
	r.noteDistribution(e, dir, base)
	r.noteModule(e, dir, base)
	if base == "pyvenv.cfg" {
		r.venvs[dir] = true
	}
	r.noteLink(e, dir, base)
	if r.made[dir] {
		if e.Kind == snapshot.Dir {
			r.made[e.Path+"/"] = true
		}
		return nil
	}
	was, err := r.was(dir, base)
	if err != nil {
		return err
	}
	switch {
	case was.Kind == names.Missing && e.Kind == snapshot.Delete:
	case was.Kind == names.Missing && e.Kind == snapshot.Dir:
		r.made[e.Path+"/"] = true
		r.places[e.Path] = snapshot.PlaceDir
	case was.Kind == names.Missing:
		r.places[e.Path] = snapshot.PlaceFile
	case was.Kind == names.Dir && e.Kind != snapshot.Dir:
		r.places[e.Path] = snapshot.PlaceDir
	case was.Kind != names.Dir:
		r.old[e.Path] = was
	}
	return nil
}

// was returns what stood at a name.
func (r *Recorder) was(dir, base string) (names.Found, error) {
	if r.Before != nil {
		return names.Found{Kind: r.Before(dir + base)}, nil
	}
	if dir != r.dir || dir == "" {
		in, err := r.View.Directory(dir)
		if err != nil {
			return names.Found{}, err
		}
		r.dir, r.in = dir, in
	}
	return r.in.Look(base)
}

func (r *Recorder) isBelowHome(p string) bool {
	switch home := strings.Trim(r.home, "/"); {
	case r.home == "":
		return false
	case home == "": // all is below it: what programs leave in a home has a name that begins with a dot
		return strings.HasPrefix(p, ".")
	default:
		return strings.HasPrefix(p, home+"/")
	}
}

// Needs returns the needs of the changes that were passed on, which can still be read.
func (r *Recorder) Needs() ([]snapshot.Need, error) {
	all := []snapshot.Need{}
	if r.problem != nil {
		return nil, r.problem
	}
	for _, p := range slices.Sorted(maps.Keys(r.changed)) {
		n, err := r.databaseNeed(p)
		if err != nil {
			return nil, err
		}
		all = append(all, n...)
	}
	all = append(all, r.alternativeNeeds()...)
	if err := r.dropOwned(); err != nil {
		return nil, err
	}
	for p, was := range r.old {
		if IsRegenerated(p) || r.Covered(p) {
			continue
		}
		dg, err := r.oldDigest(p, was)
		if errors.Is(err, errUnknown) || errors.Is(err, fs.ErrPermission) || errors.Is(err, fs.ErrInvalid) {
			continue
		}
		if err != nil {
			return nil, err
		}
		all = append(all, snapshot.Need{Kind: snapshot.NeedContent, Path: p, Digest: dg})
	}
	for p, kind := range r.places {
		if isIndex(p) && kind == snapshot.PlaceFile {
			kind = snapshot.PlaceMissing
		}
		if !IsRegenerated(p) && !r.Covered(p) {
			all = append(all, snapshot.Need{Kind: snapshot.NeedPlace, Path: p, Type: kind})
		}
	}
	if r.inHome != "" {
		all = append(all, snapshot.Need{Kind: snapshot.NeedHome, Path: r.home, By: "/" + r.inHome})
	}
	if err := r.groupNeeds(); err != nil {
		return nil, err
	}
	used, err := r.programNeeds()
	if err != nil {
		return nil, err
	}
	all = append(append(all, used...), r.owners.Needs()...)
	for _, more := range []func() ([]snapshot.Need, error){r.debianNeeds, r.pythonNeeds, r.npmNeeds} {
		if used, err = more(); err != nil {
			return nil, err
		}
		all = append(all, used...)
	}
	order.Stable(all, func(a, b snapshot.Need) int {
		return cmp.Or(cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Path, b.Path), cmp.Compare(a.Name, b.Name))
	})
	return bounded(all)
}

// maxPlaces bounds the places of a step: one that puts thousands of files into directories
// that are there, as an installer without a package manager does, is restored all the same.
const maxPlaces = 1024

// bounded returns as many needs as Check takes, and an error where files are among what it
// leaves out. Without the rest a snapshot is restored where what is left is met.
func bounded(all []snapshot.Need) ([]snapshot.Need, error) {
	places := 0
	all = slices.DeleteFunc(all, func(n snapshot.Need) bool {
		if n.Kind == snapshot.NeedPlace {
			places++
		}
		return n.Kind == snapshot.NeedPlace && places > maxPlaces
	})
	excess, left := len(all)-maxNeeds, 0
	all = slices.DeleteFunc(all, func(n snapshot.Need) bool {
		if _, known := databases.Known(n.Path); n.Kind != snapshot.NeedContent || known || left >= excess {
			return false
		}
		left++
		return true
	})
	if left > 0 {
		return all, fmt.Errorf("what %d of the files were that it changed is left out, since there are too many", left)
	}
	return all, nil
}

func (r *Recorder) oldDigest(p string, was names.Found) (digest.Digest, error) {
	if r.Before == nil {
		return digestOf(was)
	}
	sum, ok := r.Saved[p]
	if !ok {
		return "", errUnknown
	}
	return digest.NewDigestFromBytes(digest.SHA256, sum.Digest[:]), nil
}

// IsRegenerated reports whether a path is none that a result depends on: a list, cache or
// log, a copy that a tool keeps of what it replaces, or what a tool makes of the files
// that are installed.
func IsRegenerated(p string) bool {
	dir, base := path.Split(p)
	switch {
	case isIndex(p):
		return false
	case slices.ContainsFunc([]string{"var/cache", "var/log", "var/lib/apt", "var/lib/dnf", "etc/alternatives", "var/lib/dpkg/alternatives",
		"etc/ssl/certs", "usr/share/mime", "usr/share/icons", "var/lib/dpkg/info", "var/lib/dpkg/triggers", "var/lib/dpkg/updates"}, func(top string) bool { return pathname.Under(p, top) }):
		return true
	case strings.HasSuffix(base, ".pyc") || dir == "etc/" && strings.HasSuffix(base, "-") || dir == "var/lib/dpkg/" && (strings.HasSuffix(base, "-old") || strings.HasPrefix(base, "lock")):
		return true
	}
	return p == "etc/machine-id" || p == "usr/share/info/dir" || strings.HasSuffix(p, "/fonts.cache-1")
}

// isIndex reports whether a tool makes a file of those of all packages, and programs find
// nothing that is not in it: the one of a step has no place where a machine has another.
func isIndex(p string) bool {
	return strings.HasPrefix(p, "usr/") &&
		slices.Contains([]string{"mime.cache", "mimeinfo.cache", "icon-theme.cache", "loaders.cache", "gschemas.compiled", "locale-archive"}, path.Base(p))
}
