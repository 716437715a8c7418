package filelist

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/moby/patternmatcher"
	"github.com/moby/patternmatcher/ignorefile"

	"github.com/clayer/clayer/cache/snapshot"
	"github.com/clayer/clayer/frontend"
	"github.com/clayer/clayer/solver/internal/archive"
	"github.com/clayer/clayer/solver/internal/contextdir"
	"github.com/clayer/clayer/solver/internal/fault"
)

// A scan reads the Containerfile's directory for one COPY. All reading goes
// through root, so that no link leads out of the directory.
type scan struct {
	root   *os.Root
	top    *os.File // the same directory
	found  *contextdir.Reading
	ignore *patternmatcher.PatternMatcher
	items  []*Item
	slab   []Item  // those that items gets next
	stage  *staged // that is read instead of the Containerfile's directory; nil for that
	where  string  // the directory, in words
	by     string  // the file of patterns that leave files out

	exclude map[string]bool // paths below the directory that are clayer's own

	archives []Item
	unpack   bool // archives are apart from other files
	source   int  // the number of the one that is read
	filter   filter
}

// leaveOut excludes those of the absolute paths that are in the directory dir.
func (s *scan) leaveOut(dir string, paths []string) error {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return err
	}
	s.exclude = make(map[string]bool)
	for _, p := range paths {
		if rel, err := filepath.Rel(dir, p); err == nil && filepath.IsLocal(rel) {
			s.exclude[filepath.ToSlash(rel)] = true
		}
	}
	return nil
}

// A match is what one source, or one name that its pattern matches, stands for.
type match struct {
	name    string // as it is called
	real    string // the path, links followed; "." for the directory itself
	isDir   bool
	pattern bool // it was found, not named

	below string // of --parents: a pattern of what is copied of it
}

func newScan(in *contextdir.Contexts, dir string, c *frontend.Copy) (*scan, error) {
	s := &scan{where: "the Containerfile's directory", by: ".dockerignore", found: in.Of(dir)}
	if err := s.open(dir); err != nil {
		return nil, err
	}
	if filepath.Clean(dir) != filepath.Dir(c.Pos.File) {
		s.where = "the context " + dir
	}
	patterns, err := s.patternsFor(c.Pos.File, c.Context == "")
	if err == nil {
		s.ignore, err = patternmatcher.New(patterns)
	}
	if err != nil {
		s.close()
		return nil, fault.New("%s: %v", s.by, err)
	}
	return s, nil
}

func (s *scan) open(dir string) (err error) {
	if s.root, err = os.OpenRoot(dir); err != nil {
		return err
	}
	if s.top, err = s.root.Open("."); err != nil {
		s.root.Close()
	}
	return err
}

func (s *scan) close() {
	s.root.Close()
	s.top.Close()
}

// patternsFor returns the patterns for COPYs of a file from its own context, or another one.
func (s *scan) patternsFor(file string, own bool) (patterns []string, err error) {
	beside := filepath.Dir(file)
	if own { // a list of a Containerfile is for its own context
		patterns, err = s.patterns(func(name string) (*os.File, error) { return openBeside(beside, name) }, filepath.Base(file)+".")
	}
	if patterns == nil && err == nil {
		patterns, err = s.patterns(func(name string) (*os.File, error) { return openRegular(s.root, name) }, ".")
	}
	return patterns, err
}

// Ignored returns the patterns of what a file does not copy from its context; none where they
// can't be read, which a COPY reports.
func Ignored(f *frontend.File) []string {
	root, err := os.OpenRoot(f.ContextOf(frontend.Origin{}))
	if err != nil {
		return nil
	}
	defer root.Close()
	patterns, _ := (&scan{root: root}).patternsFor(f.Path, true)
	return patterns
}

// ErrIgnored is the kind of a fault whose source .dockerignore leaves out.
var ErrIgnored = errors.New("left out by .dockerignore")

func openBeside(dir, name string) (*os.File, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	return openRegular(root, name)
}

// maxIgnore bounds a .dockerignore, in bytes.
const maxIgnore = 4 << 20

// patterns reads the file of patterns whose name begins with prefix; nil if there is none.
func (s *scan) patterns(open func(name string) (*os.File, error), prefix string) ([]string, error) {
	for _, name := range []string{prefix + "containerignore", prefix + "dockerignore"} {
		f, err := open(name)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		s.by = name
		if err != nil {
			return nil, err
		}
		defer f.Close()
		if info, err := f.Stat(); err != nil || info.Size() > maxIgnore {
			return nil, cmp.Or(err, fmt.Errorf("larger than %d MiB: this is no list of patterns", maxIgnore>>20))
		}
		list, err := ignorefile.ReadAll(f)
		return append([]string{}, list...), err
	}
	return nil, nil
}

// match returns what a source stands for, in order of name. A pattern may stand for nothing.
func (s *scan) match(src string) ([]match, error) {
	clean := path.Clean(strings.TrimLeft(src, "/")) // "/x" is the directory's x, as with Docker
	if clean == ".." || strings.HasPrefix(clean, "../") {
		return nil, &fault.Fault{
			Message: fmt.Sprintf("source %q leaves %s", src, s.place()),
			Hint:    "only what stands in that directory, or below it, can be copied",
		}
	}
	names, err := s.glob(".", strings.Split(clean, "/"))
	if errors.Is(err, filepath.ErrBadPattern) {
		return nil, fault.New("source %q: malformed pattern", src)
	}
	if err != nil {
		return nil, s.asFault(src, err)
	}
	var out []match
	ignored := 0
	for _, name := range names {
		real, err := s.resolve(name)
		if errors.Is(err, errIgnored) {
			ignored++
			continue
		}
		if err == nil && s.stage != nil && s.stage.Bare && s.notMade(real) {
			continue // then there is no such file
		}
		if err != nil {
			return nil, s.asFault(name, err)
		}
		info, err := s.lstat(real)
		if err != nil {
			return nil, s.asFault(name, err)
		}
		if isPattern(src) { // a file that is named is meant
			if out, err := s.leavesOut(real); err != nil {
				return nil, err
			} else if out {
				continue
			}
		}
		excluded, _, err := s.excluded(real)
		if err != nil {
			return nil, err
		}
		if excluded && (!info.IsDir() || !s.ignore.Exclusions()) {
			ignored++
			continue
		}
		out = append(out, match{name: name, real: real, isDir: info.IsDir(), pattern: isPattern(src)})
	}
	switch {
	case isPattern(src):
	case len(out) == 0 && ignored > 0:
		return nil, s.ignoredFault(src)
	case len(out) == 0:
		return nil, fault.New("source %q: no such file in %s", src, s.place())
	}
	return out, nil
}

// isPattern reports whether a source has a character that stands for others.
func isPattern(src string) bool {
	for i := 0; i < len(src); i++ {
		switch src[i] {
		case '\\':
			i++
		case '*', '?', '[':
			return true
		}
	}
	return false
}

func (s *scan) ignoredFault(src string) *fault.Fault {
	return &fault.Fault{
		Message: fmt.Sprintf("source %q is left out by %s", src, s.by),
		Hint:    "a line that begins with ! includes it again",
		Err:     ErrIgnored,
	}
}

// asFault words an error about a source.
func (s *scan) asFault(name string, err error) error {
	switch {
	case errors.Is(err, errLeaves):
		return &fault.Fault{
			Message: fmt.Sprintf("source %q is a link that leaves %s", name, s.place()),
			Err:     err,
		}
	case errors.Is(err, fs.ErrNotExist):
		return &fault.Fault{Message: fmt.Sprintf("source %q: no such file in %s", name, s.place()), Err: err}
	}
	return fmt.Errorf("source %q: %w", name, err)
}

// glob returns the paths below dir that match the parts of a pattern. A part
// without a pattern must not exist to be returned.
func (s *scan) glob(dir string, parts []string) ([]string, error) {
	for len(parts) > 0 && !strings.ContainsAny(parts[0], `*?[\`) {
		dir = path.Join(dir, parts[0])
		parts = parts[1:]
	}
	if len(parts) == 0 {
		return []string{dir}, nil
	}
	if _, err := filepath.Match(parts[0], ""); err != nil {
		return nil, err
	}
	real, err := s.resolve(dir)
	if errors.Is(err, errIgnored) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	names, err := s.names(real)
	if err != nil {
		return nil, err
	}
	var out []string
	for _, e := range names {
		ok, err := filepath.Match(parts[0], e.Name)
		if err != nil {
			return nil, err
		}
		if !ok {
			continue
		}
		name := path.Join(dir, e.Name)
		if len(parts) > 1 {
			// With more parts to come, only directories can match.
			real, err := s.resolve(name)
			if err != nil {
				continue
			}
			if info, err := s.lstat(real); err != nil || !info.IsDir() {
				continue
			}
		}
		more, err := s.glob(name, parts[1:])
		if err != nil {
			return nil, err
		}
		for _, name := range more {
			// A literal part after a pattern exists below some matches only.
			if _, err := s.root.Lstat(name); err == nil || !errors.Is(err, fs.ErrNotExist) {
				out = append(out, name)
			}
		}
	}
	return out, nil
}

// names lists a directory by name.
func (s *scan) names(dir string) ([]*contextdir.Node, error) { return s.found.List(s.top, dir) }

// lstat returns what stands at a path, in which no element but the last is a link.
func (s *scan) lstat(name string) (*contextdir.Node, error) { return s.found.Lookup(s.top, name) }

var (
	errLeaves  = errors.New("leads out of the directory")
	errIgnored = errors.New("goes through a link that .dockerignore leaves out")
)

// maxLinks is how many links a path may go through, as in the kernel.
const maxLinks = 40

// resolve follows all links of a path, as if the directory were a root: absolute ones start
// there, and .. does not leave it, as with Docker. Links that .dockerignore leaves out are not there;
// the caller asks it about the result: a link is no way around it.
func (s *scan) resolve(name string) (string, error) {
	done, todo := ".", strings.Split(name, "/")
	leaves := false
	for links := 0; len(todo) > 0; {
		part := todo[0]
		todo = todo[1:]
		switch part {
		case "", ".":
			continue
		case "..":
			leaves = leaves || done == "." && s.stage == nil
			done = path.Dir(done)
			continue
		}
		next := path.Join(done, part)
		info, err := s.lstat(next)
		if leaves && errors.Is(err, fs.ErrNotExist) {
			err = errLeaves
		}
		if err != nil {
			return "", err
		}
		if !info.IsSymlink() {
			done = next
			continue
		}
		if links++; links > maxLinks {
			return "", errors.New("too many links")
		}
		if out, _, err := s.excluded(next); err != nil || out {
			return "", cmp.Or(err, errIgnored)
		}
		target, err := contextdir.Readlink(s.top, next)
		if err != nil {
			return "", err
		}
		if path.IsAbs(target) {
			done, leaves = ".", s.stage == nil
		}
		todo = append(strings.Split(target, "/"), todo...)
	}
	return done, nil
}

// excluded asks .dockerignore about a path and all directories above it.
func (s *scan) excluded(name string) (bool, patternmatcher.MatchInfo, error) {
	var info patternmatcher.MatchInfo
	if name == "." {
		return false, info, nil
	}
	excluded := false
	for i := 0; i <= len(name); i++ {
		if i < len(name) && name[i] != '/' {
			continue
		}
		var err error
		if excluded, info, err = s.ignores(name[:i], info); err != nil {
			return false, info, fault.New("%s: %v", s.by, err)
		}
	}
	return excluded, info, nil
}

// ignores asks .dockerignore about a path, given what it says of the directory. The last
// pattern that matches decides, also where it leaves out again what an exception has
// included: of patterns that a directory matches, only the first is in its results.
func (s *scan) ignores(name string, parent patternmatcher.MatchInfo) (bool, patternmatcher.MatchInfo, error) {
	if len(s.ignore.Patterns()) == 0 {
		return false, patternmatcher.MatchInfo{}, nil
	}
	out, info, err := s.ignore.MatchesUsingParentResults(name, parent)
	if err == nil && !out && s.ignore.Exclusions() {
		out, err = s.ignore.MatchesOrParentMatches(name)
	}
	return out, info, err
}

// add adds what a match stands for: a file by its name, a directory's content.
func (s *scan) add(ctx context.Context, m match) error {
	excluded, info, err := s.excluded(m.real)
	if err != nil {
		return err
	}
	if err := s.filter.below(m.below); err != nil {
		return err
	}
	if m.isDir {
		before := len(s.items)
		if err := s.dir(ctx, m.real, "", nil, seen{ignored: excluded, ignore: info}); err != nil {
			return err
		}
		switch {
		case len(s.items) > before || m.pattern:
		case excluded:
			return s.ignoredFault(m.name)
		case m.below != "" && !isPattern(m.below) && !m.pattern:
			return fault.New("source %q: no %q in it", m.name, m.below)
		}
		return nil
	}
	fi, err := s.lstat(m.real)
	if err != nil {
		return err
	}
	if s.unpack && fi.IsRegular() {
		if kind, err := s.kindOf(m.real); err != nil {
			return err
		} else if kind != archive.None {
			s.archives = append(s.archives, Item{Rel: path.Base(m.name), From: m.real, Kind: snapshot.File, Size: fi.Size, Source: s.source, Archive: kind, found: fi})
			return nil
		}
	}
	return s.file(m.real, path.Base(m.name), fi)
}

// kindOf returns which kind of a tar archive a file is.
func (s *scan) kindOf(name string) (archive.Kind, error) {
	f, err := openRegular(s.root, name)
	if err != nil {
		return archive.None, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return archive.None, err
	}
	return archive.DetectTar(f, info.Size())
}

// dir adds what is below a directory, and, where it has a path in dest, the
// directory itself: if it is not left out, or something below it isn't.
func (s *scan) dir(ctx context.Context, real, rel string, at *contextdir.Node, is seen) error {
	if err := canceled(ctx); err != nil {
		return err
	}
	list, err := s.entries(real, rel)
	if err != nil {
		return err
	}
	before := len(s.items)
	for _, e := range list {
		child := below(real, e.Name)
		childRel := e.Name
		if rel != "" { // what is below a source, and nothing else is between
			childRel = child[len(child)-len(rel)-1-len(e.Name):]
		}
		if s.exclude[child] || s.notMade(child) {
			continue
		}
		if out, err := s.leavesOut(child); err != nil {
			return err
		} else if out {
			continue
		}
		it, err := s.look(child, childRel, is)
		if err != nil {
			return err
		}
		if e.IsDir() {
			if s.mayHold(it) {
				err = s.dir(ctx, child, childRel, e, it)
			}
			if err != nil {
				return err
			}
			continue
		}
		switch {
		case !it.taken():
			continue
		case e.Err != nil:
			return e.Err
		case e.IsSymlink():
			target, err := contextdir.Readlink(s.top, child)
			if err != nil {
				return err
			}
			s.put(s.owned(Item{Rel: childRel, From: child, Kind: snapshot.Symlink, Mode: 0o777, Target: target, Source: s.source}, e))
			continue
		case s.stage != nil && isLeftOut(e):
			continue
		}
		if err := s.file(child, childRel, e); err != nil {
			return err
		}
	}
	if rel == "" {
		return nil
	}
	inBase, err := s.isInBase(real)
	if err != nil {
		return err
	}
	if is.taken() && !inBase || len(s.items) > before {
		s.put(s.owned(Item{Rel: rel, From: real, Kind: snapshot.Dir, Mode: s.mode(at), Source: s.source, Above: is.excluded || is.left}, at))
	}
	return nil
}

// below is path.Join of a clean path and a name.
func below(dir, name string) string {
	if dir == "" || dir == "." {
		return name
	}
	return dir + "/" + name
}

// file adds what is neither a directory nor a link.
func (s *scan) file(real, rel string, fi *contextdir.Node) error {
	it := s.owned(Item{Rel: rel, From: real, Kind: snapshot.File, Mode: s.mode(fi), Source: s.source}, fi)
	switch {
	case fi.IsRegular():
		it.Size = fi.Size
	case fi.IsFifo():
		it.Kind = snapshot.Fifo
	case s.stage != nil && device(&it, fi):
	default:
		return &fault.Fault{
			Message: fmt.Sprintf("%q is a socket or a device, which COPY does not make", real),
			Hint:    s.leaveOutHint(),
		}
	}
	if s.stage != nil && it.Kind == snapshot.File {
		xattrs, err := s.xattrs(real)
		if err != nil {
			return err
		}
		it.Xattrs = xattrs
	}
	s.put(it)
	return nil
}

// put adds an item. A tree has many, so that each is copied once.
func (s *scan) put(it Item) {
	if len(s.slab) == 0 {
		s.slab = make([]Item, min(256, len(s.items)+1))
	}
	s.slab[0] = it
	s.items, s.slab = append(s.items, &s.slab[0]), s.slab[1:]
}
