package oracle

import (
	"maps"
	"regexp"
	"slices"
	"strings"
)

// mostTries bounds how often a failing case is played to make it smaller.
const mostTries = 60

// shrink returns the smallest case found that still fails: without instructions, the last
// ones first, commands of a RUN, flags, files, and lines of .dockerignore.
func shrink(c *Case, fails func(*Case) bool) *Case {
	tries := 0
	try := func(s *Case) bool {
		if tries++; tries > mostTries || !fails(s) {
			return false
		}
		c = s
		return true
	}
	for again := true; again; {
		again = false
		for i := range slices.Backward(c.Lines) {
			again = try(c.without(i)) || again
		}
		for i := range c.Lines {
			for {
				list := simplerLines(c.Lines[i])
				j := slices.IndexFunc(list, func(l string) bool {
					s := c.clone()
					s.Lines[i] = l
					return try(s)
				})
				if j < 0 {
					break
				}
				again = true
			}
		}
		again = shrinkFiles(c, try) || again
	}
	return c
}

var flags = regexp.MustCompile(` --\w+=\S+`)

// simplerLines returns an instruction without one of its commands, or flags.
func simplerLines(line string) (list []string) {
	if commands := strings.Split(line, "; "); len(commands) > 1 {
		for i := range commands {
			rest := strings.Join(slices.Delete(slices.Clone(commands), i, i+1), "; ")
			if i == 0 {
				rest = "RUN " + rest
			}
			list = append(list, rest)
		}
	}
	for _, at := range flags.FindAllStringIndex(line, -1) {
		list = append(list, line[:at[0]]+line[at[1]:])
	}
	return list
}

// shrinkFiles tries the case without any of its files, then without each.
func shrinkFiles(c *Case, try func(*Case) bool) (smaller bool) {
	if len(c.Files) == 0 || try(&Case{c.Lines, nil}) {
		return false
	}
	for _, name := range slices.Sorted(maps.Keys(c.Files)) {
		s := c.clone()
		delete(s.Files, name)
		if try(s) {
			c, smaller = s, true
			continue
		}
		if !strings.HasSuffix(name, "ignore") {
			continue
		}
		lines := strings.SplitAfter(c.Files[name].Content, "\n")
		for i := len(lines) - 2; i >= 0 && len(lines) > 2; i-- {
			rest := slices.Delete(slices.Clone(lines), i, i+1)
			s := c.clone()
			s.Files[name] = File{Content: strings.Join(rest, ""), Mode: 0o644}
			if try(s) {
				c, lines, smaller = s, rest, true
			}
		}
	}
	return smaller
}
