package needs

import (
	"bufio"
	"bytes"
	"fmt"
	"slices"
	"strings"

	"github.com/clayer/clayer/cache/snapshot"
	"github.com/clayer/clayer/internal/lazyregexp"
	"github.com/clayer/clayer/solver/internal/versions"
)

const dpkgStatus = "var/lib/dpkg/status"

// A debian is a package as dpkg's status has it.
type debian struct {
	version  string
	depends  string // Pre-Depends and Depends
	provides string
}

// parseStatus returns the packages that are installed, by name; of several architectures
// the first.
func parseStatus(status []byte) map[string]debian {
	all := make(map[string]debian)
	var name string
	var d debian
	installed := false
	end := func() {
		if _, met := all[name]; name != "" && installed && !met {
			all[name] = d
		}
		name, d, installed = "", debian{}, false
	}
	lines := bufio.NewScanner(bytes.NewReader(status))
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		line := lines.Text()
		field, value, _ := strings.Cut(line, ": ")
		switch {
		case line == "":
			end()
		case field == "Package":
			name = value
		case field == "Status":
			installed = strings.HasSuffix(value, " installed")
		case field == "Version":
			d.version = value
		case field == "Depends" || field == "Pre-Depends":
			if d.depends != "" {
				d.depends += ", "
			}
			d.depends += value
		case field == "Provides":
			d.provides = value
		}
	}
	end()
	return all
}

// debianNeeds returns the dependencies of packages that the step installs, as dpkg
// writes them, which packages of the root satisfied.
func (r *Recorder) debianNeeds() ([]snapshot.Need, error) {
	if r.changed[dpkgStatus] == nil && !slices.ContainsFunc(r.Named, func(n Named) bool { return n.Manager == snapshot.ManagerDpkg }) {
		return nil, nil
	}
	before := parseStatus(r.databases[dpkgStatus])
	own := make(map[string]debian)
	if open := r.changed[dpkgStatus]; open != nil {
		f, err := open()
		if err != nil {
			return nil, err
		}
		data, err := readDatabase(f)
		f.Close()
		if err != nil {
			return nil, err
		}
		for name, d := range parseStatus(data) {
			if before[name] != d {
				own[name] = d
			}
		}
	}
	base := make(map[string]debian)
	for name, d := range before {
		if _, replaced := own[name]; !replaced {
			base[name] = d
		}
	}
	clauses := make(map[string]string)
	for _, name := range sortedKeys(own) {
		for clause := range strings.SplitSeq(own[name].depends, ",") {
			if clause = strings.TrimSpace(clause); clause != "" && clauses[clause] == "" {
				clauses[clause] = name
			}
		}
	}
	for _, n := range r.Named {
		name, version, exact := strings.Cut(n.Package, "=")
		if n.Manager != snapshot.ManagerDpkg || strings.ContainsAny(name, "/*~^") {
			continue
		}
		if name = strings.TrimSuffix(name, "+"); exact {
			name += " (= " + version + ")"
		}
		clauses[name] = name
	}
	ownOnes, baseOnes := provided(own), provided(base)
	var list []snapshot.Need
	for _, clause := range sortedKeys(clauses) {
		if satisfies(ownOnes, clause) != "" {
			continue
		}
		by := satisfies(baseOnes, clause)
		if by == "" || r.coversPackage(by) {
			continue
		}
		n := snapshot.Need{Kind: snapshot.NeedPackage, Manager: snapshot.ManagerDpkg, Name: clause, By: clauses[clause]}
		if n.By == clause {
			n.By = ""
		}
		list = append(list, n)
	}
	return list, nil
}

// coversPackage reports whether a step that the key covers installed a package.
func (r *Recorder) coversPackage(name string) bool {
	return r.Covered(dpkgInfo+name+".list") || slices.ContainsFunc([]string{"amd64", "arm64"}, func(arch string) bool {
		return r.Covered(dpkgInfo + name + ":" + arch + ".list")
	})
}

// An offer is a package, or what one provides, in a version; "" for none.
type offer struct{ by, version string }

// provided returns what packages offer, by name.
func provided(packages map[string]debian) map[string][]offer {
	all := make(map[string][]offer)
	for name, d := range packages {
		all[name] = append(all[name], offer{name, d.version})
		for p := range strings.SplitSeq(d.provides, ",") {
			virtual, version, _ := parseRelation(p)
			if virtual != "" {
				all[virtual] = append(all[virtual], offer{name, version})
			}
		}
	}
	return all
}

var relation = lazyregexp.New(`^\s*([a-z0-9][a-z0-9+.-]*)(?::[a-z0-9-]+)?\s*(?:\(\s*(<<|<=|=|>=|>>|<|>)\s*([^)\s]+)\s*\))?`)

// parseRelation reads "libc6:any (>= 2.34)".
func parseRelation(text string) (name, version, op string) {
	m := relation().FindStringSubmatch(text)
	if m == nil {
		return "", "", ""
	}
	return m[1], m[3], m[2]
}

// satisfies returns the package by which a clause of a dependency is satisfied.
func satisfies(offers map[string][]offer, clause string) string {
	for alternative := range strings.SplitSeq(clause, "|") {
		name, want, op := parseRelation(alternative)
		for _, o := range offers[name] {
			if op == "" || o.version != "" && versions.Debian(o.version, op, want) {
				return o.by
			}
		}
	}
	return ""
}

// debianPackage checks that packages of the root satisfy a dependency.
func (s *Site) debianPackage(n snapshot.Need) (string, error) {
	if s.known.debian == nil {
		status, err := s.readHere(dpkgStatus)
		if err != nil {
			return "", err
		}
		s.known.debian = provided(parseStatus(status.data))
	}
	if satisfies(s.known.debian, n.Name) != "" {
		return "", nil
	}
	first, _, _ := strings.Cut(n.Name, "|")
	if name, _, op := parseRelation(first); op != "" {
		for _, o := range s.known.debian[name] {
			if o.version != "" {
				return fmt.Sprintf("needs the package %s, of which this machine has %s", n.Name, o.version), nil
			}
		}
	}
	return fmt.Sprintf("needs the package %s, which this machine lacks", n.Name), nil
}

// A Broken is a package of dpkg that lacks what it depends on.
type Broken struct {
	Name string
	On   string // the package that satisfied it before
}

// BreaksDebian returns the packages which are installed both before and after a change of
// dpkg's status, and whose dependencies were satisfied only before.
func BreaksDebian(before, after []byte) (list []Broken) {
	if bytes.Equal(before, after) {
		return nil
	}
	was, is := parseStatus(before), parseStatus(after)
	wasOffered, isOffered := provided(was), provided(is)
	for _, name := range sortedKeys(is) {
		if is[name] != was[name] {
			continue
		}
		for clause := range strings.SplitSeq(is[name].depends, ",") {
			if on := satisfies(wasOffered, clause); on != "" && satisfies(isOffered, clause) == "" && !slices.Contains(list, Broken{name, on}) {
				list = append(list, Broken{name, on})
			}
		}
	}
	return list
}
