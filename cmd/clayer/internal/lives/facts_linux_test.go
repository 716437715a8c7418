package lives

import (
	"fmt"
	"maps"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/clayer/clayer/internal/treetest"
)

// facts are what a root has: by path the kind, mode, owner and content of a file, and by
// path and name, as etc/passwd#bob, the records of databases.
type facts map[string]string

// skipped are logs, lists and what tools keep of what they replace; and what lies in a
// machine without being of it.
var skipped = map[string]bool{
	"work": true, "proc": true, "dev": true, "sys": true, "run": true, "tmp": true, "var/tmp": true, "var/log": true, "var/cache": true,
	"var/lib/clayer": true, "var/lib/apt": true, registry: true, "usr/bin/busybox": true,
	"etc/passwd-": true, "etc/group-": true, "etc/shadow-": true, "var/lib/dpkg/status-old": true,
}

// databases are the files of which each record is a fact.
var databases = []string{"etc/passwd", "etc/group", "etc/shadow", "etc/shells", "var/lib/dpkg/status"}

var (
	described = regexp.MustCompile(`^("(?:[^"\\]|\\.)*") (\w+ \d+ \d+:\d+) \d+\.\d+(.*)$`)
	content   = regexp.MustCompile(`^ \d+ [0-9a-f]+`)
)

func read(root string) (facts, error) {
	lines, err := treetest.Lines(root, func(p string) bool { return skipped[p] })
	if err != nil {
		return nil, err
	}
	all := make(facts, len(lines))
	for _, line := range lines {
		m := described.FindStringSubmatch(line)
		if m == nil {
			return nil, fmt.Errorf("what is %q?", line)
		}
		name, err := strconv.Unquote(m[1])
		if err != nil {
			return nil, err
		}
		if slices.Contains(databases, name) {
			m[3] = content.ReplaceAllString(m[3], "")
			if err := all.addRecords(root, name); err != nil {
				return nil, err
			}
		}
		if name == "etc/profile" {
			data, err := os.ReadFile(filepath.Join(root, name))
			if err != nil {
				return nil, err
			}
			m[3] = "\n" + string(data)
		}
		all[name] = m[2] + m[3]
	}
	return all, nil
}

func (f facts) addRecords(root, name string) error {
	data, err := os.ReadFile(filepath.Join(root, name))
	if err != nil {
		return err
	}
	separator := "\n"
	if strings.HasSuffix(name, "status") {
		separator = "\n\n"
	}
	for record := range strings.SplitSeq(string(data), separator) {
		if record = strings.TrimSpace(record); record == "" {
			continue
		}
		id, _, _ := strings.Cut(record, "\n")
		id = strings.TrimPrefix(id, "Package: ")
		id, _, _ = strings.Cut(id, ":")
		for f[name+"#"+id] != "" {
			id += " again"
		}
		f[name+"#"+id] = record
	}
	return nil
}

// matches reports whether a fact is one of a list of paths and records, or below one. A
// name may end with a star.
func matches(list []string, fact string) bool {
	for p := fact; p != "." && p != "/"; p = path.Dir(p) {
		if slices.ContainsFunc(list, func(pattern string) bool {
			prefix, star := strings.CutSuffix(pattern, "*")
			return p == pattern || star && strings.HasPrefix(p, prefix) && !strings.Contains(p[len(prefix):], "/")
		}) {
			return true
		}
	}
	return false
}

// isAbove reports whether a fact is a directory above one of a list.
func isAbove(list []string, fact string) bool {
	return slices.ContainsFunc(list, func(p string) bool { return strings.HasPrefix(p, fact+"/") })
}

// since returns what is now and was not, or was otherwise, and what is gone.
func (f facts) since(before facts) (changed facts, gone []string) {
	changed = make(facts)
	for name, what := range f {
		if before[name] != what {
			changed[name] = what
		}
	}
	for name := range before {
		if _, ok := f[name]; !ok {
			gone = append(gone, name)
		}
	}
	return changed, gone
}

// difference describes how facts differ from those that are expected; "" for not at all.
func difference(want, got facts) string {
	var b strings.Builder
	names := maps.Clone(want)
	maps.Copy(names, got)
	for _, name := range slices.Sorted(maps.Keys(names)) {
		w, inWant := want[name]
		g, inGot := got[name]
		switch {
		case !inGot:
			fmt.Fprintf(&b, "\n- %s: %s", name, w)
		case !inWant:
			fmt.Fprintf(&b, "\n+ %s: %s", name, g)
		case w != g:
			fmt.Fprintf(&b, "\n  %s: %s\n      and not %s", name, g, w)
		}
	}
	return b.String()
}

// wrong describes what a root with base, as the lines of a recipe leave it, should not have,
// or lacks. What is loose may be there or not.
func wrong(base, now facts, lines []string, loose []facts) string {
	isLoose := func(name string) bool {
		return slices.ContainsFunc(loose, func(d facts) bool { return d[name] != "" && d[name] == now[name] })
	}
	e := effectOfAll(lines)
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(base)) {
		is, there := now[name]
		was := base[name]
		switch {
		case is == was || matches(e.touches, name) || isLoose(name):
		case there && slices.Contains(e.appends, name) && isAppended(was, is):
		case !there:
			fmt.Fprintf(&b, "\n- %s: %s: the machine's own is gone", name, was)
		default:
			fmt.Fprintf(&b, "\n  %s: %s\n      and not %s: the machine's own has changed", name, is, was)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(now)) {
		if _, own := base[name]; !own && !matches(e.adds, name) && !isAbove(e.adds, name) && !isLoose(name) {
			fmt.Fprintf(&b, "\n+ %s: %s: nothing explains it", name, now[name])
		}
	}
	return b.String()
}

// isAppended reports whether a file has what it had, and lines after that.
func isAppended(was, is string) bool { return strings.HasPrefix(is, was) }
