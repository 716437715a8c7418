package needs

import (
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"

	"github.com/clayer/clayer/cache/snapshot"
	"github.com/clayer/clayer/solver/internal/names"
	"github.com/clayer/clayer/solver/internal/versions"
)

// A module is a package of npm that the step installs.
type module struct {
	dir  string // node_modules/NAME, with what is above it
	open func() (io.ReadCloser, error)
}

// A packageJSON is what a package says of itself.
type packageJSON struct {
	Name    string            `json:"name"`
	Version string            `json:"version"`
	Peers   map[string]string `json:"peerDependencies"`
	Meta    map[string]struct {
		Optional bool `json:"optional"`
	} `json:"peerDependenciesMeta"`
}

// maxPackageJSON bounds what is read of one.
const maxPackageJSON = 4 << 20

func readPackageJSON(r io.Reader) (p packageJSON) {
	_ = json.NewDecoder(io.LimitReader(r, maxPackageJSON)).Decode(&p) // one that makes no sense needs nothing
	return p
}

// noteModule notes a package that the step installs; files of its own that are called
// package.json are none.
func (r *Recorder) noteModule(e *snapshot.Entry, dir, base string) {
	if base != "package.json" || e.Kind != snapshot.File {
		return
	}
	dir = strings.TrimSuffix(dir, "/")
	up := path.Dir(dir)
	if strings.HasPrefix(path.Base(up), "@") {
		up = path.Dir(up)
	}
	if path.Base(up) == "node_modules" {
		r.modules = append(r.modules, module{dir, e.Open})
	}
}

// npmNeeds returns the peers that packages of the root are to those that the step
// installs. npm installs all else that a package requires with it.
func (r *Recorder) npmNeeds() (list []snapshot.Need, err error) {
	own := make(map[string]bool, len(r.modules))
	for _, m := range r.modules {
		own[m.dir] = true
	}
	for _, m := range r.modules {
		f, err := m.open()
		if err != nil {
			return nil, err
		}
		p := readPackageJSON(f)
		f.Close()
		up := strings.TrimSuffix(m.dir, "/"+p.Name)
		if isModuleName(p.Name) && !own[path.Dir(up)] && p.Version != "" && (!r.made[up+"/"] || path.Base(path.Dir(up)) == "lib") { // one made for a project is nobody else's
			was, err := r.moduleBefore(m.dir)
			if err != nil {
				return nil, err
			}
			list = append(list, snapshot.Need{
				Kind: snapshot.NeedPackage, Type: snapshot.PackageOwn, Manager: snapshot.ManagerNPM, Name: p.Name,
				Versions: append(was, p.Version), Search: []string{"/" + up},
			})
		}
		for _, peer := range sortedKeys(p.Peers) {
			if p.Meta[peer].Optional || !isModuleName(peer) {
				continue
			}
			search := searchedBy(m.dir)
			for _, dir := range search {
				at := strings.TrimPrefix(path.Join(dir, peer), "/")
				if own[at] {
					break
				}
				f, err := r.View.Find(path.Join(at, "package.json"))
				if err != nil {
					return nil, err
				}
				if f.Kind == names.Missing {
					continue
				}
				if !r.Covered(path.Join(at, "package.json")) {
					list = append(list, snapshot.Need{Kind: snapshot.NeedPackage, Manager: snapshot.ManagerNPM, Name: peer, Version: p.Peers[peer], Search: search, By: p.Name})
				}
				break
			}
		}
	}
	return list, nil
}

// moduleBefore returns the version of a package that the step replaces, if any.
func (r *Recorder) moduleBefore(dir string) (versions []string, err error) {
	if r.Before != nil {
		return nil, nil // of a RUN in place nobody knows
	}
	f, err := r.View.Find(path.Join(dir, "package.json"))
	if err != nil || f.Kind != names.File {
		return nil, err
	}
	file, err := f.Open()
	if err != nil {
		return nil, nil // nor of what cannot be read
	}
	defer file.Close()
	if p := readPackageJSON(file); p.Version != "" {
		versions = append(versions, p.Version)
	}
	return versions, nil
}

// isModuleName reports whether a name is one of npm: NAME or @SCOPE/NAME.
func isModuleName(name string) bool {
	scope, rest, scoped := strings.Cut(name, "/")
	return fs.ValidPath(name) && name != "." && (!scoped || strings.HasPrefix(scope, "@") && !strings.Contains(rest, "/"))
}

// searchedBy returns the directories in which Node finds what a package requires.
func searchedBy(dir string) (dirs []string) {
	for dir != "." && dir != "" {
		if path.Base(dir) == "node_modules" {
			dirs = append(dirs, "/"+dir)
		} else if up := path.Join(dir, "node_modules"); !slices.Contains(dirs, "/"+up) && len(dirs) > 0 {
			dirs = append(dirs, "/"+up)
		}
		dir = path.Dir(dir)
	}
	return dirs
}

// npmPackage checks that a package is where Node finds it.
func (s *Site) npmPackage(n snapshot.Need) (string, error) {
	if !isModuleName(n.Name) {
		return fmt.Sprintf("needs %q, which is no package", n.Name), nil
	}
	for _, dir := range n.Search {
		f, err := s.View.Follow(path.Join(dir, n.Name, "package.json"))
		if err != nil {
			return "", err
		}
		if f.Kind != names.File {
			continue
		}
		file, err := f.Open()
		if err != nil {
			return "", nil // nobody can say
		}
		p := readPackageJSON(file)
		file.Close()
		if n.Type == snapshot.PackageOwn {
			if !slices.Contains(n.Versions, p.Version) {
				return otherVersion(n, p.Version), nil
			}
			continue
		}
		if !versions.NPM(p.Version, n.Version) {
			return fmt.Sprintf("needs the npm package %s %s, which is %s here", n.Name, n.Version, p.Version), nil
		}
		return "", nil
	}
	if n.Type == snapshot.PackageOwn {
		return "", nil
	}
	return fmt.Sprintf("needs the npm package %s, which this machine lacks", n.Name), nil
}
