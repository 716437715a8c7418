package inventory

import (
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/clayer/clayer/cache/snapshot"
	"github.com/clayer/clayer/dag/key"
	"github.com/clayer/clayer/internal/pathname"
	"github.com/clayer/clayer/solver/internal/record"
	"github.com/clayer/clayer/solver/rootfs"
)

// Removed returns the packages that applied steps have put into a root, and that it lacks by
// now in whichever version: they were removed by hand.
func Removed(root *rootfs.Root, state *record.State, home string) (list []Unmet, err error) {
	if len(state.Log) == 0 {
		return nil, nil
	}
	now, err := Read(root.Names(), home)
	if err != nil {
		return nil, err
	}
	type made struct {
		key  key.Key
		gone bool
	}
	last := make(map[Package]made)
	for _, ev := range state.Log {
		for c, err := range root.StateDir().ChangesOf(ev, func(p string) bool { return now.describedBy(p) != nil }) {
			if err != nil {
				return nil, err
			}
			gone := c.Kind == record.KindGone
			if p := now.describedBy(string(c.Path)); p != nil && (gone || !p.whole) {
				last[p.Package] = made{ev.Key, gone}
			}
		}
	}
	lacks := make(map[key.Key][]Package)
	for p, m := range last {
		place := p.Manager
		if p.Dir != "" {
			place += " " + p.Dir
		}
		if _, is := now.Packages[place][p.Name]; !is && !m.gone {
			lacks[m.key] = append(lacks[m.key], p)
		}
	}
	for _, l := range state.Layers {
		for _, a := range l.Steps {
			if gone := lacks[a.Key]; len(gone) > 0 {
				sortPackages(gone)
				list = append(list, Unmet{l.Name, a.Line, a.Text, "lacks " + Text(gone) + ", which was removed by hand"})
			}
		}
	}
	return list, nil
}

// shown are where removals show: the lists of managers, and the directories of packages.
var shown = []string{
	dpkgStatus, "usr/lib/python3*/dist-packages", "usr/local/lib/python3*/dist-packages", "usr/local/lib/python3*/site-packages", "opt/conda/lib/python3*/site-packages",
	"usr/lib/node_modules", "usr/lib/node_modules/@*", "usr/local/lib/node_modules", "usr/local/lib/node_modules/@*",
}

// MayHaveRemoved reports whether packages may have been removed from a root since it was solved. It
// reads the times of a few files, where Removed reads what all steps have changed.
func MayHaveRemoved(root *rootfs.Root, state *record.State, home string) bool {
	if len(state.Log) == 0 {
		return false
	}
	since := state.Log[len(state.Log)-1].Done
	patterns := slices.Clone(shown)
	for _, p := range []string{".local/lib/python3*/site-packages", ".npm-global/lib/node_modules", ".npm-global/lib/node_modules/@*"} {
		patterns = append(patterns, path.Join(home, p))
	}
	for _, dir := range root.Dirs() {
		for _, pattern := range patterns {
			names, _ := filepath.Glob(filepath.Join(dir, pattern))
			if slices.ContainsFunc(names, func(name string) bool { return changedSince([]string{name}, "", since) }) {
				return true
			}
		}
	}
	return false
}

// WarnRemoved warns of what Removed returns.
func WarnRemoved(root *rootfs.Root, state *record.State, home string, warnf func(format string, args ...any)) {
	list, err := Removed(root, state, home)
	if err != nil {
		warnf("whether packages of applied steps were removed by hand is not known: %v", err)
	}
	for _, u := range list {
		warnf("%s:%d: %s %s; clayer undo and clayer solve install it again", u.Layer, u.Line, u.Text, u.Unmet)
	}
}

// A described is the package whose file, or whole directory, a path is.
type described struct {
	Package
	whole bool
}

// describedBy returns of which package a path says that it is there, or that all of it is
// gone: nil for none in a place that is known.
func (i *Inventory) describedBy(p string) *described {
	dir, base := path.Split(p)
	dir = strings.TrimSuffix(dir, "/")
	if dir == "var/lib/dpkg/info" {
		// The list of a package with configuration files stays when that is removed, also
		// by the RUN that installed it; its digests do not.
		base, ok := strings.CutSuffix(base, ".md5sums")
		if !ok {
			return nil
		}
		name, _, _ := strings.Cut(base, ":")
		return &described{Package: Package{Manager: snapshot.ManagerDpkg, Name: name}}
	}
	of := &described{whole: base != "METADATA" && base != "PKG-INFO" && base != "package.json"}
	if !of.whole {
		dir, base = path.Split(dir)
		dir = strings.TrimSuffix(dir, "/")
	}
	if m := infoDir().FindStringSubmatch(base); m != nil && i.Packages[snapshot.ManagerPython+" /"+dir] != nil {
		of.Package = Package{Manager: snapshot.ManagerPython, Name: normal(m[1]), Dir: "/" + dir}
		return of
	}
	if up, scope := path.Split(dir); strings.HasPrefix(scope, "@") {
		dir, base = strings.TrimSuffix(up, "/"), scope+"/"+base
	}
	if i.Packages[snapshot.ManagerNPM+" /"+dir] != nil {
		of.Package = Package{Manager: snapshot.ManagerNPM, Name: base, Dir: "/" + dir}
		return of
	}
	return nil
}

// withoutCaptured drops what is at the path of a SNAPSHOT that is applied: it is a step by now.
func withoutCaptured(state *record.State, list []Package) []Package {
	if len(list) == 0 {
		return list
	}
	var captured []string
	for _, l := range state.Layers {
		for _, a := range l.Steps {
			if p := snapshotPath(a.Text); p != "" {
				captured = append(captured, p)
			}
		}
	}
	var left []Package
	for _, p := range list {
		at := path.Join(p.Dir, p.Name)
		if p.Manager == snapshot.ManagerPython {
			at = p.Dir // its files have other names
		}
		is := false
		for _, c := range captured {
			is = is || p.Dir != "" && pathname.Under(at, c)
		}
		if !is {
			left = append(left, p)
		}
	}
	return left
}

// snapshotPath returns the path that a SNAPSHOT names; "" where that is not known from its
// text alone.
func snapshotPath(text string) string {
	words := strings.Fields(text)
	if len(words) < 2 || !strings.EqualFold(words[0], "SNAPSHOT") {
		return ""
	}
	p := words[len(words)-1]
	if !path.IsAbs(p) || strings.ContainsAny(p, `$\"'*?`) {
		return ""
	}
	return path.Clean(p)
}
