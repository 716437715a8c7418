// Package needs finds what a snapshot takes from outside of itself and of the steps that
// its key covers, and checks on another root whether that is there.
//
// A Recorder looks at the changes of a step while they are packed. Its needs go with the
// snapshot, in its descriptor. A Site is a root as a step finds it: Unmet returns the
// first need that it does not meet.
package needs

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"path"
	"strings"
	"unicode"

	"github.com/opencontainers/go-digest"

	"github.com/clayer/clayer/cache/snapshot"
	"github.com/clayer/clayer/solver/internal/binaries"
	"github.com/clayer/clayer/solver/internal/databases"
	"github.com/clayer/clayer/solver/internal/names"
	"github.com/clayer/clayer/solver/internal/places"
)

// A Site is a root as a step finds it.
type Site struct {
	View *names.View

	// Session returns what the step gets of the session: where $HOME is, "" if its key
	// covers that, and the directories of programs. Both are absolute.
	Session func() (home string, path []string)

	pending map[string]map[string]bool // by database, the records that Expect has noted
	known   *known                     // what was read; shared by the sites of a view
}

// known is what was read of a view.
type known struct {
	files     map[string]file
	databases map[string]database
	libDirs   []string
	binaries  map[string]*binaries.Binary
	sites     map[string]map[string]string // by directory, the versions of Python's distributions
	debian    map[string][]offer
	places    map[[3]string]string // what is lacking of a place that leads somewhere
	python    map[[2]string]bool   // whether a version is one of a specifier
	led       *places.Places
}

// NewSite returns a site of a view.
func NewSite(view *names.View, session func() (home string, path []string)) *Site {
	return &Site{View: view, Session: session, pending: make(map[string]map[string]bool),
		known: &known{files: make(map[string]file), databases: make(map[string]database), binaries: make(map[string]*binaries.Binary), sites: make(map[string]map[string]string), places: make(map[[3]string]string), python: make(map[[2]string]bool), led: places.Of(view)}}
}

// For returns the site of another step in the same view: what was read is not read again.
// With what Expect notes of the one, it is noted of the other.
func (s *Site) For(session func() (home string, path []string)) *Site {
	return &Site{View: s.View, Session: session, pending: s.pending, known: s.known}
}

// Clone is For with what was noted so far.
func (s *Site) Clone() *Site {
	c := s.For(s.Session)
	c.pending = make(map[string]map[string]bool, len(s.pending))
	for p, records := range s.pending {
		c.pending[p] = maps.Clone(records)
	}
	return c
}

// Bounds of what a descriptor may say. Nothing that a step needs comes near them.
const (
	maxNeeds = 4096
	maxText  = 4096 // bytes of a field
	maxList  = 8192 // elements of a list
)

// Check returns an error where needs that a store has make no sense: they are as good as
// not met.
func Check(needs []snapshot.Need) error {
	if len(needs) > maxNeeds {
		return fmt.Errorf("it lists %d needs, more than %d", len(needs), maxNeeds)
	}
	for _, n := range needs {
		for _, list := range [][]string{n.Set, n.Removed, n.Items, n.Versions, n.Search, {n.Path, n.Target, n.Type, n.Name, n.Soname, n.Manager, n.Version, n.By, string(n.Kind)}} {
			if len(list) > maxList {
				return fmt.Errorf("a list in its needs has %d elements", len(list))
			}
			for _, text := range list {
				if len(text) > maxText || strings.ContainsRune(text, 0) {
					return fmt.Errorf("a text in its needs is larger than %d bytes, or no text", maxText)
				}
			}
		}
		if err := check(n); err != nil {
			return err
		}
	}
	return nil
}

func check(n snapshot.Need) error {
	inRoot, absolute := false, []string(nil)
	switch n.Kind {
	case snapshot.NeedContent:
		inRoot = true
		if n.Digest == "" && len(n.Set)+len(n.Removed) > 0 {
			break // the step made the database
		}
		if n.Digest.Validate() != nil || n.Digest.Algorithm() != digest.SHA256 {
			return fmt.Errorf("it needs /%s with the digest %q", n.Path, n.Digest)
		}
	case snapshot.NeedPlace, snapshot.NeedAlternative:
		inRoot = true
	case snapshot.NeedHome:
		absolute = []string{n.Path}
	case snapshot.NeedName:
		if !isName(n.Name) || n.Type != snapshot.NameUser && n.Type != snapshot.NameGroup {
			return fmt.Errorf("it needs the %s %q", n.Type, n.Name)
		}
		if n.Home != "" {
			absolute = []string{n.Home}
		}
	case snapshot.NeedInterpreter:
		if n.Path != "" {
			absolute = []string{n.Path}
		} else if !isName(n.Name) {
			return fmt.Errorf("it needs the interpreter %q", n.Name)
		}
	case snapshot.NeedLibrary:
		absolute = n.Search
		if !isName(n.Soname) {
			return fmt.Errorf("it needs the library %q", n.Soname)
		}
	case snapshot.NeedPackage:
		absolute = n.Search
	}
	if inRoot && (!fs.ValidPath(n.Path) || n.Path == ".") {
		return fmt.Errorf("it needs %q, which is no path in a root", n.Path)
	}
	if n.Target != "" && (n.Kind != snapshot.NeedPlace || !fs.ValidPath(n.Target) || n.Target == ".") {
		return fmt.Errorf("it needs %q to lead to %q", n.Path, n.Target)
	}
	if inRoot && n.Target == "" && isKernels(n.Path) { // of one with a target only links are read
		return fmt.Errorf("it needs %q, which is in no snapshot", n.Path)
	}
	for _, p := range absolute {
		if !path.IsAbs(p) || path.Clean(p) != p {
			return fmt.Errorf("it needs %q, which is no path", p)
		}
	}
	return nil
}

// isKernels reports whether a path, relative to the root, is the kernel's: to read a file
// there may take forever, or have effects.
func isKernels(p string) bool {
	top, _, _ := strings.Cut(p, "/")
	return top == "proc" || top == "sys" || top == "dev"
}

func isName(s string) bool { return s != "" && s != "." && s != ".." && !strings.Contains(s, "/") }

// Unmet returns what a root lacks of needs, as "needs libpq.so.5, which this machine
// lacks"; "" for nothing. Needs of a kind that this program does not know are not met.
func (s *Site) Unmet(needs []snapshot.Need) (string, error) {
	for _, n := range needs {
		reason, err := s.unmet(n)
		if reason != "" || err != nil {
			return oneLine(reason), err
		}
	}
	return "", nil
}

// oneLine shortens a text with what a store says, which could pretend to be clayer's next
// line.
func oneLine(text string) string {
	const longest = 300
	if len(text) > longest {
		text = strings.ToValidUTF8(text[:longest], "") + "…"
	}
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return '?'
		}
		return r
	}, text)
}

func (s *Site) unmet(n snapshot.Need) (string, error) {
	switch n.Kind {
	case snapshot.NeedContent:
		return s.content(n)
	case snapshot.NeedPlace:
		switch {
		case n.Target != "":
			return s.leads(n)
		case n.Type == snapshot.PlaceItems:
			return s.known.led.Unmet(n)
		}
		return s.place(n)
	case snapshot.NeedHome:
		if home, _ := s.Session(); home != "" && home != n.Path {
			return fmt.Sprintf("needs $HOME to be %s, which is %s here", n.Path, home), nil
		}
		return "", nil
	case snapshot.NeedAlternative:
		return "", nil
	case snapshot.NeedName:
		return s.name(n)
	case snapshot.NeedLibrary:
		return s.library(n)
	case snapshot.NeedInterpreter:
		return s.interpreter(n)
	case snapshot.NeedPackage:
		switch n.Manager {
		case snapshot.ManagerPython:
			return s.pythonPackage(n)
		case snapshot.ManagerDpkg:
			return s.debianPackage(n)
		case snapshot.ManagerNPM:
			return s.npmPackage(n)
		case snapshot.ManagerAPK:
			return s.alpinePackage(n)
		}
		return fmt.Sprintf("needs a package of %s, which this version of clayer knows nothing of", n.Manager), nil
	}
	return fmt.Sprintf("needs a %s, which this version of clayer knows nothing of", n.Kind), nil
}

// content checks that a file is what it was where the step changed it.
func (s *Site) content(n snapshot.Need) (string, error) {
	if d, known := databases.Known(n.Path); known {
		return s.database(d, n)
	}
	here, err := s.file(n.Path)
	switch {
	case err != nil:
		return "", err
	case here.unknown || here.digest == n.Digest:
		return "", nil
	case here.kind == names.Missing:
		return fmt.Sprintf("needs /%s, which this machine lacks", n.Path), nil
	}
	return fmt.Sprintf("needs /%s as it was where the step ran, which differs here", n.Path), nil
}

// A file is what a site has at a path.
type file struct {
	kind    names.Kind
	digest  digest.Digest
	unknown bool // nobody here can read it
}

func (s *Site) file(p string) (file, error) {
	if here, ok := s.known.files[p]; ok {
		return here, nil
	}
	f, err := s.View.Find(p)
	if err != nil {
		return file{}, err
	}
	here := file{kind: f.Kind}
	switch here.digest, err = digestOf(f); {
	case errors.Is(err, fs.ErrPermission):
		here.unknown = true
	case err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, fs.ErrInvalid):
		return file{}, err
	}
	s.known.files[p] = here
	return here, nil
}

// errUnknown says that nobody knows what a file was.
var errUnknown = errors.New("unknown")

// maxContent bounds a file of which the digest is computed.
const maxContent = 1 << 30

// digestOf returns the digest of a file, or of the target of a link.
func digestOf(f names.Found) (digest.Digest, error) {
	if f.Kind == names.Link {
		return digest.FromString(f.Target), nil
	}
	r, err := f.Open()
	if err != nil {
		return "", err
	}
	defer r.Close()
	h := sha256.New()
	if _, err := io.Copy(h, io.LimitReader(r, maxContent)); err != nil {
		return "", err
	}
	return digest.NewDigest(digest.SHA256, h), nil
}

// leads checks that a path leads where it led the step. Many steps are given the same one.
func (s *Site) leads(n snapshot.Need) (string, error) {
	at := [3]string{n.Path, n.Target, n.Type}
	if lacks, ok := s.known.places[at]; ok {
		return lacks, nil
	}
	lacks, err := s.known.led.Unmet(n)
	if err == nil {
		s.known.places[at] = lacks
	}
	return lacks, err
}

// place checks that a path has the kind of file that the step found, or made. A link to a
// directory is none: the step would write to where that leads.
func (s *Site) place(n snapshot.Need) (string, error) {
	f, err := s.View.Find(n.Path)
	if err != nil {
		return "", err
	}
	switch isDir := f.Kind == names.Dir; {
	case f.Kind == names.Missing:
	case n.Type == snapshot.PlaceMissing:
		return fmt.Sprintf("needs /%s to be missing, which is here", n.Path), nil
	case n.Type == snapshot.PlaceDir && !isDir:
		return fmt.Sprintf("needs /%s to be a directory, which it is not here", n.Path), nil
	case n.Type == snapshot.PlaceFile && isDir:
		return fmt.Sprintf("needs /%s, which is a directory here", n.Path), nil
	}
	return "", nil
}
