package needs

import (
	"bufio"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"

	"github.com/clayer/clayer/cache/snapshot"
	"github.com/clayer/clayer/internal/lazyregexp"
	"github.com/clayer/clayer/solver/internal/names"
	"github.com/clayer/clayer/solver/internal/versions"
)

// A distribution is a Python package that is installed in a directory.
type distribution struct {
	name, version string
	site          string // the directory, relative to the root
	metadata      func() (io.ReadCloser, error)
	extras        map[string]bool // of those that something asks for
	requires      []requirement
}

var (
	infoName     = lazyregexp.New(`^(.+?)-([^-]+)(-py[0-9.]+)?\.(dist|egg)-info$`)
	siteDir      = lazyregexp.New(`^(.*/)?lib/python(3(?:\.[0-9]+)?)/(site|dist)-packages$`)
	requirement1 = lazyregexp.New(`^\s*([A-Za-z0-9][A-Za-z0-9._-]*)\s*(?:\[([^\]]*)\])?\s*\(?([^;()]*)\)?\s*(?:;(.*))?$`)
)

// A requirement is what Requires-Dist says.
type requirement struct {
	name    string
	extras  []string
	version string
	marker  string
}

func parseRequirement(text string) (requirement, bool) {
	m := requirement1().FindStringSubmatch(text)
	if m == nil {
		return requirement{}, false
	}
	r := requirement{name: versions.PythonName(m[1]), version: strings.Join(strings.Fields(m[3]), ""), marker: strings.TrimSpace(m[4])}
	for extra := range strings.SplitSeq(m[2], ",") {
		if extra = versions.PythonName(strings.TrimSpace(extra)); extra != "" {
			r.extras = append(r.extras, extra)
		}
	}
	return r, !strings.Contains(r.version, "@") // of a URL nobody knows the version
}

// noteDistribution notes a distribution that the step installs, or replaces.
func (r *Recorder) noteDistribution(e *snapshot.Entry, dir, base string) {
	if m := infoName().FindStringSubmatch(base); e.Kind == snapshot.Delete && m != nil {
		at := dir + versions.PythonName(m[1])
		r.replaced[at] = append(r.replaced[at], m[2])
		return
	}
	info := path.Base(dir)
	m := infoName().FindStringSubmatch(info)
	if e.Kind != snapshot.File || base != "METADATA" || m == nil {
		return
	}
	r.dists = append(r.dists, &distribution{name: versions.PythonName(m[1]), version: m[2], site: strings.TrimSuffix(path.Dir(strings.TrimSuffix(dir, "/")), "/"), metadata: e.Open, extras: make(map[string]bool)})
}

// pythonNeeds returns the distributions that the root had, and that those which the step
// installs require, or its command names.
func (r *Recorder) pythonNeeds() (list []snapshot.Need, err error) {
	own := make(map[string]*distribution)
	for _, d := range r.dists {
		own[d.name] = d
		if err := d.read(); err != nil {
			return nil, err
		}
	}
	var asked []requirement
	for _, named := range r.Named {
		if q, ok := parseRequirement(named.Package); named.Manager == snapshot.ManagerPython && ok {
			asked = append(asked, q)
		}
	}
	for range len(r.dists) + 1 { // extras ask for more, which has extras
		more := false
		ask := func(q requirement) {
			for _, extra := range q.extras {
				if d := own[q.name]; d != nil && !d.extras[extra] {
					d.extras[extra], more = true, true
				}
			}
		}
		for _, q := range asked {
			ask(q)
		}
		for _, d := range r.dists {
			for _, q := range d.requires {
				if d.applies(q) {
					ask(q)
				}
			}
		}
		if !more {
			break
		}
	}
	seen := make(map[string]bool)
	need := func(q requirement, search []string, by string) error {
		id := fmt.Sprintf("%s %s %q", q.name, q.version, search)
		if own[q.name] != nil || seen[id] {
			return nil
		}
		seen[id] = true
		there, err := r.installedInBase(q.name, search)
		if err == nil && there {
			list = append(list, snapshot.Need{Kind: snapshot.NeedPackage, Manager: snapshot.ManagerPython, Name: q.name, Version: q.version, Search: search, By: by})
		}
		return err
	}
	for _, d := range r.dists {
		list = append(list, snapshot.Need{
			Kind: snapshot.NeedPackage, Type: snapshot.PackageOwn, Manager: snapshot.ManagerPython, Name: d.name,
			Versions: append(r.replaced[d.site+"/"+d.name], d.version), Search: []string{"/" + d.site},
		})
		search, err := r.sitesOf(d.site)
		if err != nil {
			return nil, err
		}
		for _, q := range d.requires {
			if d.applies(q) {
				if err := need(q, search, d.name); err != nil {
					return nil, err
				}
			}
		}
	}
	for _, q := range asked {
		search, err := r.sitesOf("")
		if err == nil {
			err = need(q, search, "")
		}
		if err != nil {
			return nil, err
		}
	}
	return list, nil
}

func (d *distribution) read() error {
	f, err := d.metadata()
	if err != nil {
		return err
	}
	defer f.Close()
	lines := bufio.NewScanner(io.LimitReader(f, 4<<20))
	lines.Buffer(nil, 1<<20)
	for lines.Scan() && lines.Text() != "" { // the text after the fields is for people
		if text, ok := strings.CutPrefix(lines.Text(), "Requires-Dist:"); ok {
			if q, ok := parseRequirement(text); ok {
				d.requires = append(d.requires, q)
			}
		}
	}
	return nil // a line that is too long is no field
}

// applies reports whether a requirement holds here, with the extras that are asked for.
func (d *distribution) applies(q requirement) bool {
	if q.marker == "" {
		return true
	}
	version := ""
	if m := siteDir().FindStringSubmatch(d.site); m != nil && m[2] != "3" {
		version = m[2]
	}
	if versions.Marker(q.marker, version, "") {
		return true
	}
	for extra := range d.extras {
		if versions.Marker(q.marker, version, extra) {
			return true
		}
	}
	return false
}

// installedInBase reports whether a distribution is in one of the directories, and not
// through a step that the key covers.
func (r *Recorder) installedInBase(name string, search []string) (bool, error) {
	for _, dir := range search {
		d, err := r.View.Directory(dir)
		if err != nil {
			return false, err
		}
		list, err := d.Names()
		if err != nil {
			return false, err
		}
		for _, info := range list {
			m := infoName().FindStringSubmatch(info)
			if m == nil || versions.PythonName(m[1]) != name {
				continue
			}
			at := path.Join(d.Path(), info)
			if r.Before != nil && r.Before(at) == names.Missing {
				continue
			}
			return !r.Covered(at), nil
		}
	}
	return false, nil
}

// sitesOf returns the directories in which Python finds what a distribution in a
// directory requires: that one and, unless it is in a virtual environment, those of the
// system. "" is for the latter alone.
func (r *Recorder) sitesOf(site string) ([]string, error) {
	var dirs []string
	if site != "" {
		dirs = append(dirs, "/"+site)
		m := siteDir().FindStringSubmatch(site)
		if m == nil {
			return dirs, nil // of a --target, say
		}
		at, err := r.locate("/" + m[1] + "pyvenv.cfg")
		if err != nil || at.path != "" || r.venvs[m[1]] {
			return dirs, err
		}
	}
	for _, up := range []string{"usr/local/lib", "usr/lib"} {
		d, err := r.View.Directory(up)
		if err != nil {
			return nil, err
		}
		list, err := d.Names()
		if err != nil {
			return nil, err
		}
		for _, name := range list {
			for _, kind := range []string{"dist-packages", "site-packages"} {
				at := path.Join(up, name, kind)
				if m := siteDir().FindStringSubmatch(at); m == nil || slices.Contains(dirs, "/"+at) {
					continue
				}
				if f, err := r.View.Find(at); err != nil {
					return nil, err
				} else if f.Kind == names.Dir {
					dirs = append(dirs, "/"+at)
				}
			}
		}
	}
	return dirs, nil
}

// distributions returns the versions of those in a directory.
func (s *Site) distributions(dir string) (map[string]string, error) {
	if have, ok := s.known.sites[dir]; ok {
		return have, nil
	}
	d, err := s.View.Directory(dir)
	if err != nil {
		return nil, err
	}
	list, err := d.Names()
	if err != nil {
		return nil, err
	}
	have := make(map[string]string)
	for _, info := range list {
		if m := infoName().FindStringSubmatch(info); m != nil {
			have[versions.PythonName(m[1])] = m[2]
		}
	}
	s.known.sites[dir] = have
	return have, nil
}

// pythonPackage checks that a distribution is in one of the directories of a need, or that
// none is in the place of one that the snapshot installs.
func (s *Site) pythonPackage(n snapshot.Need) (string, error) {
	other, name := "", versions.PythonName(n.Name)
	for _, dir := range n.Search {
		have, err := s.distributions(dir)
		if err != nil {
			return "", err
		}
		if n.Type == snapshot.PackageOwn {
			if version, ok := have[name]; ok && !slices.Contains(n.Versions, version) {
				return otherVersion(n, version), nil
			}
			continue
		}
		if version, ok := have[name]; ok {
			fits, known := s.known.python[[2]string{version, n.Version}]
			if !known {
				fits = versions.Python(version, n.Version)
				s.known.python[[2]string{version, n.Version}] = fits
			}
			if fits {
				return "", nil
			}
			other = version
			break // Python takes the first
		}
	}
	if n.Type == snapshot.PackageOwn {
		return "", nil
	}
	if other != "" {
		return fmt.Sprintf("needs %s%s, which is %s here", n.Name, n.Version, other), nil
	}
	return fmt.Sprintf("needs %s%s, which this machine lacks", n.Name, n.Version), nil
}

// otherVersion says that the machine has another version of a package that a snapshot
// installs: the files of both would be mixed.
func otherVersion(n snapshot.Need, version string) string {
	return fmt.Sprintf("needs %s to be absent or %s, which is %s here", n.Name, strings.Join(n.Versions, " or "), version)
}
