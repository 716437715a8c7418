package snapshot

import (
	"fmt"
	"path"
	"slices"
	"strings"
	"sync"

	"github.com/moby/patternmatcher"

	"github.com/clayer/clayer/internal/pathname"
)

// filterVersion names the lists below in the keys of steps: they decide what a
// snapshot holds. A change of the lists is a new version.
const filterVersion = "2"

// never is what no snapshot holds: it is the running machine's, not the root's.
var never = []string{"proc", "sys", "dev", "run", "var/lib/clayer"}

// usually is what is left out of the root unless SNAPSHOT names it: scratch, and the
// download caches of package managers.
var usually = append(ScratchDirs(), "var/cache/apt/archives")

// usuallyFiles are files of that sort: apt's indices of its lists; and what package managers
// write that is another each time, and that nothing reads but people: their logs, and what
// ldconfig remembers of libraries, by inode and time.
var usuallyFiles = []string{
	"var/cache/apt/pkgcache.bin", "var/cache/apt/srcpkgcache.bin", "var/cache/ldconfig/aux-cache",
	"var/log/apt/history.log", "var/log/apt/term.log", "var/log/apt/eipp.log.xz", "var/log/dpkg.log", "var/log/alternatives.log",
	"var/log/bootstrap.log", "var/log/fontconfig.log", "var/log/apk.log", "var/log/pacman.log",
	"var/log/dnf.log", "var/log/dnf.rpm.log", "var/log/dnf.librepo.log", "var/log/hawkey.log", "var/log/yum.log",
}

// compiled is of that sort in scratch: what Node has compiled.
var compiled = []string{"tmp/node-compile-cache"}

// homeCaches are download caches by their last path parts, in whatever home, and logs.
var homeCaches = [][]string{
	{".cache", "pip"}, {".cache", "uv"}, {".cache", "go-build"}, {".npm", "_cacache"}, {".cargo", "registry"},
	{".npm", "_logs"}, {".npm", "_update-notifier-last-checked"},
	{".cache", "clayer"}, // our own
}

// A Filter says which changes of a RUN are captured.
type Filter struct {
	Ignore  []string // patterns of .clayerignore, in .dockerignore's language, matched against Entry paths
	Include []string // absolute paths named by SNAPSHOT: below them only what is never captured is left out
}

// String returns the filter as it enters the key of a step.
func (f Filter) String() string {
	return fmt.Sprintf("%s ignore=%q include=%q", filterVersion, f.Ignore, f.Include)
}

// LiftsExclusion reports whether a SNAPSHOT of the absolute path p changes what
// RUNs capture: whether something is usually left out at, above or below it.
func LiftsExclusion(p string) bool {
	p = strings.Trim(path.Clean(p), "/")
	for _, x := range slices.Concat(usually, usuallyFiles) {
		if p == "" || pathname.Under(p, x) || pathname.Under(x, p) {
			return true
		}
	}
	if homeCache(p) {
		return true
	}
	// Above a cache: caches are in homes, which may be anywhere but in the
	// directories of the system.
	for _, sys := range []string{"usr", "bin", "sbin", "lib", "etc", "var", "opt"} {
		if pathname.Under(p, sys) {
			return false
		}
	}
	return isHome(p)
}

// isHome reports whether download caches are usually found below p.
func isHome(p string) bool {
	return p == "root" || p == "home" || strings.HasPrefix(p, "home/") && strings.Count(p, "/") == 1 ||
		strings.HasSuffix(p, "/.cache") || strings.HasSuffix(p, "/.npm") || strings.HasSuffix(p, "/.cargo")
}

// homeCache reports whether p is in a download cache, or is one.
func homeCache(p string) bool {
	if !strings.Contains(p, "/.") && !strings.HasPrefix(p, ".") {
		return false
	}
	for _, c := range homeCaches {
		at := c[0] + "/" + c[1]
		for rest := p; ; {
			i := strings.Index(rest, at)
			if i < 0 {
				break
			}
			before, after := i == 0 || rest[i-1] == '/', i+len(at) == len(rest) || rest[i+len(at)] == '/'
			if before && after {
				return true
			}
			rest = rest[i+1:]
		}
	}
	return false
}

// Compile makes a Matcher of what the root gets. The error names a malformed pattern.
func (f Filter) Compile() (*Matcher, error) { return f.compile(false) }

// CompileWithScratch makes a Matcher of all that the snapshot of a RUN holds.
func (f Filter) CompileWithScratch() (*Matcher, error) { return f.compile(true) }

func (f Filter) compile(scratch bool) (*Matcher, error) {
	m := &Matcher{scratch: scratch}
	for _, p := range f.Include {
		m.include = append(m.include, strings.Trim(path.Clean(p), "/"))
	}
	if len(f.Ignore) > 0 {
		pm, err := patternmatcher.New(f.Ignore)
		if err != nil {
			return nil, fmt.Errorf(".clayerignore: %w", err)
		}
		m.ignore = pm
	}
	return m, nil
}

// A Matcher says of paths whether they are captured. It is safe for concurrent use.
type Matcher struct {
	include []string
	scratch bool // scratch is captured too

	mu     sync.Mutex                     // guards ignore, which compiles a pattern when it first matches it
	ignore *patternmatcher.PatternMatcher // nil: no patterns
}

// Skip reports whether the entry at path, relative to the root, is left out.
func (m *Matcher) Skip(p string) bool {
	for _, x := range never {
		if pathname.Under(p, x) {
			return true
		}
	}
	for _, in := range m.include {
		if in == "" || pathname.Under(p, in) {
			return false
		}
	}
	if m.excluded(p) {
		// Directories on the way to what is named are captured: without them they
		// would be restored with another owner and mode. But /tmp and its like
		// are in every root, and as the machine has them.
		onTheWay := func(in string) bool { return pathname.Under(in, p) }
		return slices.Contains(usually, p) || !slices.ContainsFunc(m.include, onTheWay)
	}
	if m.ignore == nil {
		return false
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	// New has checked the patterns: they match without errors.
	skip, err := m.ignore.MatchesOrParentMatches(p)
	return err == nil && skip
}

// excluded reports whether a path is left out unless it is named.
func (m *Matcher) excluded(p string) bool {
	for _, x := range usually {
		if pathname.Under(p, x) && !(m.scratch && IsScratch(p) && p != x) {
			return true
		}
	}
	return slices.Contains(usuallyFiles, p) || homeCache(p) || slices.ContainsFunc(compiled, func(x string) bool { return pathname.Under(p, x) })
}

// Prune reports whether nothing at or below the directory at path can be captured,
// so that a walk need not enter it.
func (m *Matcher) Prune(p string) bool {
	for _, x := range never {
		if pathname.Under(p, x) {
			return true
		}
	}
	for _, in := range m.include {
		if in == "" || pathname.Under(p, in) || pathname.Under(in, p) {
			return false
		}
	}
	if m.excluded(p) {
		return !m.scratch || !slices.Contains(scratch, p)
	}
	return m.ignore != nil && !m.ignore.Exclusions() && m.Skip(p)
}
