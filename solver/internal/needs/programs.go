package needs

import (
	"bytes"
	"fmt"
	"io"
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/clayer/clayer/cache/snapshot"
	"github.com/clayer/clayer/solver/internal/binaries"
	"github.com/clayer/clayer/solver/internal/names"
)

// programs are the files of a step that may be programs, scripts or libraries, and what
// those on PATH, and the libraries in default directories, reach.
type programs struct {
	files map[string]func() (io.ReadCloser, error) // those that may be one, by path
	links map[string]string                        // symbolic links, and their targets
	conf  map[string]func() (io.ReadCloser, error) // files of /etc/ld.so.conf.d

	dirs    map[string]string // see realDir
	visited map[string]bool
	found   map[string]*snapshot.Need
	libDirs []string
}

func (p *programs) reset() {
	*p = programs{
		files: make(map[string]func() (io.ReadCloser, error)), links: make(map[string]string),
		conf: make(map[string]func() (io.ReadCloser, error)), dirs: make(map[string]string),
		visited: make(map[string]bool), found: make(map[string]*snapshot.Need),
	}
}

func (p *programs) note(e *snapshot.Entry, dir, base string) {
	switch {
	case e.Kind == snapshot.Symlink:
		p.links[e.Path] = e.Target
	case e.Kind == snapshot.Link && p.files[e.Target] != nil:
		p.files[e.Path] = p.files[e.Target]
	case e.Kind != snapshot.File:
	case e.Mode&0o111 != 0 || strings.Contains(base, ".so"):
		p.files[e.Path] = e.Open
	case dir == "etc/ld.so.conf.d/":
		p.conf[e.Path] = e.Open
	}
}

// maxVisited bounds how many files are read for their libraries.
const maxVisited = 4096

// programNeeds returns the libraries and interpreters that the root gave to the programs
// and libraries of a step.
func (r *Recorder) programNeeds() (list []snapshot.Need, err error) {
	p := &r.programs
	onPath := make(map[string]bool)
	for _, dir := range slices.Concat(r.path, programDirs) {
		onPath[r.realDir(strings.Trim(dir, "/"), 0)] = true
	}
	inLibs := make(map[string]bool)
	p.libDirs = libDirs(r.View, p.conf)
	for _, dir := range p.libDirs {
		inLibs[r.realDir(strings.Trim(dir, "/"), 0)] = true
	}
	for _, name := range slices.Sorted(maps.Keys(p.files)) {
		dir, base := path.Split(name)
		switch dir = strings.TrimSuffix(dir, "/"); {
		case onPath[dir]:
			err = r.visit(name, name, true)
		case inLibs[dir] && strings.Contains(base, ".so"):
			err = r.visit(name, name, false)
		}
		if err != nil {
			return nil, err
		}
	}
	for _, name := range sortedKeys(p.links) {
		if onPath[strings.TrimSuffix(path.Dir(name), "/")] {
			if real, ok := r.ownFile(name); ok {
				err = r.visit(real, name, true)
			} else {
				err = r.leadsOut(name, name)
			}
			if err != nil {
				return nil, err
			}
		}
	}
	for _, id := range sortedKeys(p.found) {
		n := p.found[id]
		n.Versions = binaries.Highest(n.Versions)
		list = append(list, *n)
	}
	return list, nil
}

// visit reads a file of the step. by is the program, or library, that reaches it.
func (r *Recorder) visit(name, by string, program bool) error {
	if r.programs.visited[name] || len(r.programs.visited) >= maxVisited {
		return nil
	}
	r.programs.visited[name] = true
	f, err := r.programs.files[name]()
	if err != nil {
		return err
	}
	defer f.Close()
	at, ok := f.(io.ReaderAt)
	if !ok {
		data, err := io.ReadAll(io.LimitReader(f, binaries.MaxSize))
		if err != nil {
			return err
		}
		at = bytes.NewReader(data)
	}
	var head [256]byte
	n, err := at.ReadAt(head[:], 0)
	if err != nil && err != io.EOF {
		return err
	}
	switch start := head[:n]; {
	case program && bytes.HasPrefix(start, []byte("#!")):
		line, _, _ := bytes.Cut(start[2:], []byte("\n"))
		return r.script(strings.Fields(string(line)), by)
	case bytes.HasPrefix(start, []byte("\x7fELF")):
		if b := binaries.Read(io.NewSectionReader(at, 0, 1<<40)); b != nil {
			return r.binary(b, name, by)
		}
	}
	return nil
}

func (r *Recorder) script(line []string, by string) error {
	if len(line) == 0 || !path.IsAbs(line[0]) {
		return nil
	}
	if path.Base(line[0]) != "env" {
		return r.interpreterAt(line[0], by)
	}
	args := line[1:]
	for len(args) > 0 && (strings.HasPrefix(args[0], "-") || strings.Contains(args[0], "=")) {
		args = args[1:]
	}
	if len(args) == 0 || !isName(args[0]) {
		return nil
	}
	for _, dir := range slices.Concat(r.path, programDirs) {
		switch where, err := r.locate(path.Join(dir, args[0])); {
		case err != nil:
			return err
		case where.own || where.covered:
			return nil
		case where.path != "":
			r.add(snapshot.Need{Kind: snapshot.NeedInterpreter, Name: args[0], By: "/" + by})
			return nil
		}
	}
	return nil
}

func (r *Recorder) interpreterAt(name, by string) error {
	where, err := r.locate(name)
	if err == nil && where.path != "" && !where.own && !where.covered {
		at := path.Clean(name)
		if where.through { // the link is the step's: what it leads to has to be there
			at = "/" + where.path
		}
		r.add(snapshot.Need{Kind: snapshot.NeedInterpreter, Path: at, By: "/" + by})
	}
	return err
}

func (r *Recorder) binary(b *binaries.Binary, name, by string) error {
	if path.IsAbs(b.Interpreter) {
		if err := r.interpreterAt(b.Interpreter, by); err != nil {
			return err
		}
	}
	search := b.Expand(name)
	for _, soname := range b.Needed {
		if !isName(soname) {
			continue
		}
		for _, dir := range slices.Concat(search, r.programs.libDirs) {
			where, err := r.locate(path.Join(dir, soname))
			if err != nil {
				return err
			}
			if where.own {
				if err := r.visit(where.path, by, false); err != nil {
					return err
				}
			} else if where.path != "" && !where.covered {
				r.add(snapshot.Need{
					Kind: snapshot.NeedLibrary, Soname: soname, Class: b.Class, Machine: b.Machine,
					Versions: b.Versions[soname], Search: search, By: "/" + by,
				})
			}
			if where.path != "" {
				break
			}
		}
	}
	return nil
}

// add adds a need, once for all that have it.
func (r *Recorder) add(n snapshot.Need) {
	id := fmt.Sprintf("%s\x00%s\x00%s\x00%s\x00%d %d\x00%q", n.Kind, n.Path, n.Name, n.Soname, n.Class, n.Machine, n.Search)
	if old := r.programs.found[id]; old != nil {
		old.Versions = append(old.Versions, n.Versions...)
		return
	}
	n.Versions = slices.Clone(n.Versions)
	r.programs.found[id] = &n
}

// A location is where a path leads when the step has run.
type location struct {
	path    string // without links; "" for nowhere, or a directory
	own     bool   // the step made the file
	covered bool   // a step that its key covers did
	through bool   // a link of the step leads there
}

// locate follows a path.
func (r *Recorder) locate(name string) (location, error) {
	at := location{path: strings.Trim(path.Clean(name), "/")}
	for range 40 {
		dir, base := path.Split(at.path)
		at.path = path.Join(r.realDir(strings.Trim(dir, "/"), 0), base)
		if target, ok := r.programs.links[at.path]; ok {
			at.through, at.path = true, follow(at.path, target)
			continue
		}
		if r.programs.files[at.path] != nil {
			at.own = true
			return at, nil
		}
		if r.Covered(at.path) {
			at.covered = true
			return at, nil
		}
		f, err := r.View.Find(at.path)
		switch {
		case err != nil:
			return location{}, err
		case f.Kind == names.Link:
			at.path = follow(at.path, f.Target)
		case f.Kind == names.File:
			return at, nil
		default:
			return location{}, nil
		}
	}
	return location{}, nil
}

func follow(link, target string) string {
	if path.IsAbs(target) {
		return strings.Trim(path.Clean(target), "/")
	}
	return strings.Trim(path.Join("/", path.Dir(link), target), "/")
}

// ownFile returns the file of the step that a path leads to.
func (r *Recorder) ownFile(name string) (string, bool) {
	at, err := r.locate(name)
	return at.path, err == nil && at.own
}

// leadsOut adds as a need where a path of the step leads out of it, if a file is there.
func (r *Recorder) leadsOut(name, by string) error {
	where, err := r.locate(name)
	if err != nil || where.path == "" || where.own || where.covered {
		return err
	}
	for range 40 {
		name = path.Join(r.realDir(path.Dir(name), 0), path.Base(name))
		target, ok := r.programs.links[name]
		if !ok {
			break
		}
		name = follow(name, target)
	}
	if !r.Covered(name) {
		r.add(snapshot.Need{Kind: snapshot.NeedInterpreter, Path: "/" + name, By: "/" + by})
	}
	return nil
}

// realDir returns a directory without links in its path, as it is when the step has run.
func (r *Recorder) realDir(dir string, depth int) string {
	if dir == "" || dir == "." || depth > 40 {
		return ""
	}
	if real, ok := r.programs.dirs[dir]; ok {
		return real
	}
	real := path.Join(r.realDir(strings.Trim(path.Dir(dir), "/"), depth+1), path.Base(dir))
	target, isLink := r.programs.links[real]
	if !isLink {
		if f, err := r.View.Find(real); err == nil && f.Kind == names.Link {
			target, isLink = f.Target, true
		}
	}
	if isLink {
		real = r.realDir(follow(real, target), depth+1)
	}
	r.programs.dirs[dir] = real
	return real
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
