package filelist

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"

	"github.com/moby/patternmatcher"

	"github.com/clayer/clayer/frontend"
	"github.com/clayer/clayer/solver/internal/contextdir"
	"github.com/clayer/clayer/solver/internal/fault"
)

// A filter is --exclude and --parents of a COPY: patterns of paths below a source. As with
// Docker they are no patterns of the source itself.
type filter struct {
	exclude *patternmatcher.PatternMatcher // nil: nothing is excluded
	include *patternmatcher.PatternMatcher // nil: all is included
	literal []string                       // the parts that all begin with that is included
}

// leaveOutOf sets what the flags of a COPY say.
func (s *scan) leaveOutOf(c *frontend.Copy) (err error) {
	s.unpack = c.Unpack
	if len(c.Exclude) > 0 {
		if s.filter.exclude, err = patternmatcher.New(c.Exclude); err != nil {
			return fault.New("a pattern of what is excluded: %v", err)
		}
	}
	return nil
}

// below sets the pattern of what is included of a source, "" for all.
func (f *filter) below(pattern string) (err error) {
	f.include, f.literal = nil, nil
	if pattern == "" {
		return nil
	}
	if f.include, err = patternmatcher.New([]string{pattern}); err != nil {
		return fault.New("source %q: malformed pattern", pattern)
	}
	f.literal = plainParts(pattern)
	return nil
}

// plainParts returns the parts of a pattern before the first one that stands for others.
func plainParts(pattern string) []string {
	parts := strings.Split(pattern, "/")
	if i := slices.IndexFunc(parts, func(p string) bool { return strings.ContainsAny(p, `*?[\`) || p == "" }); i >= 0 {
		parts = parts[:i]
	}
	return parts
}

// pivot divides a source of --parents: paths stay as they are below the first part.
func pivot(src string) (above, below string, ok bool) {
	if above, below, ok = strings.Cut(src, "/./"); !ok {
		return ".", src, false
	}
	return above, below, true
}

// matches returns what a source stands for.
func (s *scan) matches(c *frontend.Copy, src string) ([]match, error) {
	if !c.Parents {
		return s.match(src)
	}
	above, below, _ := pivot(src)
	ms, err := s.match(above)
	if below == "" && err == nil {
		err = &fault.Fault{Message: fmt.Sprintf("source %q names nothing whose parents could be copied", src), Hint: "*, for all that is there"}
	}
	for i := range ms {
		switch {
		case ms[i].isDir:
			ms[i].below = below
		case !isPattern(src):
			return nil, fault.New("source %q: %q is a file", src, above)
		}
	}
	return ms, err
}

// seen is what all patterns say of a path.
type seen struct {
	ignored  bool // by .dockerignore
	excluded bool
	left     bool // --parents does not include it

	ignore, exclude, include patternmatcher.MatchInfo
}

// taken reports whether a path is copied.
func (is seen) taken() bool { return !is.ignored && !is.excluded && !is.left }

// mayHold reports whether something in a directory may be copied.
func (s *scan) mayHold(is seen) bool {
	return !(is.ignored && !s.ignore.Exclusions() || is.excluded && !s.filter.exclude.Exclusions())
}

// look returns what the patterns say of a path, given what they say of the directory.
func (s *scan) look(name, rel string, parent seen) (is seen, err error) {
	if is.ignored, is.ignore, err = s.ignores(name, parent.ignore); err != nil {
		return is, fault.New("%s: %v", s.by, err)
	}
	if m := s.filter.exclude; m != nil {
		if is.excluded, is.exclude, err = m.MatchesUsingParentResults(rel, parent.exclude); err != nil {
			return is, fault.New("a pattern of what is excluded: %v", err)
		}
	}
	if m := s.filter.include; m != nil {
		var in bool
		if in, is.include, err = m.MatchesUsingParentResults(rel, parent.include); err != nil {
			return is, fault.New("source %q: %v", strings.Join(s.filter.literal, "/"), err)
		}
		is.left = !in
	}
	return is, nil
}

// entries lists a directory that is rel below its source, as far as it may be included.
func (s *scan) entries(real, rel string) ([]*contextdir.Node, error) {
	depth := 0
	if rel != "" {
		depth = strings.Count(rel, "/") + 1
	}
	if s.filter.include == nil || depth >= len(s.filter.literal) {
		return s.names(real)
	}
	info, err := s.lstat(below(real, path.Base(s.filter.literal[depth])))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return []*contextdir.Node{info}, nil
}
