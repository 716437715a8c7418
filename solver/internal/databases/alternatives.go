package databases

import (
	"cmp"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/clayer/clayer/internal/order"
)

// The links in /etc/alternatives are of groups, in which a link leads to one of several
// choices, with other links that follow it. Of each group a file has what there is to
// choose from, as update-alternatives writes it:
//
//	auto                    or manual
//	/usr/bin/awk            the link that leads to the group's
//	awk.1.gz                name and link of one that follows, and so on
//	/usr/share/man/man1/awk.1.gz
//	                        an empty line
//	/usr/bin/mawk           a choice
//	5                       its priority
//	/usr/share/man/man1/mawk.1.gz    what each that follows leads to; may be empty
//	                        an empty line
const (
	alternativesDir = "var/lib/dpkg/alternatives/"
	linksDir        = "etc/alternatives/"

	modeKey, linkKey, followsKey = "mode", "link", "follows " // keys of records; those of choices begin with a slash
)

// IsAlternative reports whether a path is that of a link of a group of alternatives.
func IsAlternative(p string) bool { return path.Dir(p)+"/" == linksDir }

// parseAlternatives returns the records of a group: its mode, its link, each link that
// follows, and each choice, with what follows it by name. It reports false for a file that
// is not understood, or in which a name is no key: the records are written by their keys.
func parseAlternatives(file string) (list []record, ok bool) {
	text := strings.Split(file, "\n")
	n := make(numbering)
	named := true
	add := func(name, body string) {
		r := record{body: body}
		n.add(&r, name)
		named = named && r.key == name
		list = append(list, r)
	}
	next := func() (line string) {
		if ok = len(text) > 0; ok {
			line, text = text[0], text[1:]
		}
		return line
	}
	add(modeKey, next())
	add(linkKey, next())
	var follows []string
	for {
		name := next()
		if name == "" {
			break
		}
		follows = append(follows, name)
		add(followsKey+name, next())
	}
	for ok {
		choice := next()
		if choice == "" {
			break
		}
		body := []string{choice, next()}
		for _, name := range follows {
			if to := next(); to != "" {
				body = append(body, name+"\t"+to)
			}
		}
		if !strings.HasPrefix(choice, "/") {
			return nil, false
		}
		add(choice, strings.Join(body, "\n"))
	}
	if !named {
		return nil, false
	}
	return list, ok && len(text) == 1 && text[0] == "" && (list[0].body == "auto" || list[0].body == "manual")
}

// alternatives returns the records of a group; one that is not understood is one record.
func alternatives(file string) []record {
	if file == "" {
		return nil
	}
	list, ok := parseAlternatives(file)
	if !ok {
		return opaque(file)
	}
	return list
}

// writeAlternatives writes the file of a group as update-alternatives does, which sorts.
func writeAlternatives(list []record) []byte {
	if len(list) == 0 || isOpaque(list) {
		return []byte(strings.Join(bodies(list), ""))
	}
	byKey := func(a, b record) int { return cmp.Compare(a.key, b.key) }
	var head, follows, choices []record
	for _, r := range list {
		switch {
		case strings.HasPrefix(r.key, "/"):
			choices = append(choices, r)
		case strings.HasPrefix(r.key, followsKey):
			follows = append(follows, r)
		case r.key == modeKey:
			head = slices.Insert(head, 0, r)
		case r.key == linkKey:
			head = append(head, r)
		}
	}
	order.Stable(follows, byKey)
	order.Stable(choices, byKey)
	var out []string
	for _, r := range head {
		out = append(out, r.body)
	}
	for _, r := range follows {
		out = append(out, strings.TrimPrefix(r.key, followsKey), r.body)
	}
	out = append(out, "")
	for _, r := range choices {
		body := strings.Split(r.body, "\n")
		out = append(out, body[:2]...)
		for _, f := range follows {
			out = append(out, leadsTo(body[2:], strings.TrimPrefix(f.key, followsKey)))
		}
	}
	return []byte(strings.Join(append(out, "", ""), "\n"))
}

func bodies(list []record) (all []string) {
	for _, r := range list {
		all = append(all, r.body)
	}
	return all
}

// leadsTo returns where a link that follows leads for a choice; "" where it is not there.
func leadsTo(body []string, name string) string {
	for _, line := range body {
		if of, to, _ := strings.Cut(line, "\t"); of == name {
			return to
		}
	}
	return ""
}

// retainGroup drops what would leave choices of a machine's own without their group.
func (m *merging) retainGroup() {
	left := false
	for i := range m.here {
		key := m.here[i].key
		left = left || strings.HasPrefix(key, "/") && m.gone[key] == nil
	}
	for key := range m.gone {
		if left && !strings.HasPrefix(key, "/") {
			delete(m.gone, key)
		}
	}
}

// A Choice says of a link of alternatives which group decides about it, and with which
// priority it leads where it does.
type Choice struct {
	Group    string
	Priority string // "": the group is in manual mode
}

// ChoiceOf returns the choice by which a link leads to a target, of groups by their names;
// false where none does.
func ChoiceOf(groups map[string][]byte, link, target string) (c Choice, ok bool) {
	name := path.Base(link)
	if target == "" {
		return c, false
	}
	for group, file := range groups {
		list, parsed := parseAlternatives(string(file))
		if !parsed {
			continue
		}
		for _, r := range list {
			body := strings.Split(r.body, "\n")
			if !strings.HasPrefix(r.key, "/") || (name != group || body[0] != target) && leadsTo(body[2:], name) != target {
				continue
			}
			if list[0].body == "manual" {
				return Choice{Group: group}, true
			}
			if !ok || number(body[1]) > number(c.Priority) {
				c, ok = Choice{group, body[1]}, true
			}
		}
	}
	return c, ok
}

// Automatic returns where a link of a group leads that is in automatic mode; "" for any
// other.
func Automatic(file []byte, group, link string) (target string) {
	list, ok := parseAlternatives(string(file))
	if !ok || list[0].body != "auto" {
		return ""
	}
	best := -1 << 31
	for _, r := range list {
		if body := strings.Split(r.body, "\n"); strings.HasPrefix(r.key, "/") && number(body[1]) > best {
			best = number(body[1])
			if target = body[0]; path.Base(link) != group {
				target = leadsTo(body[2:], path.Base(link))
			}
		}
	}
	return target
}

// Outranks reports whether a link of a machine, of whose group file is what there is to
// choose from, stays as it is where a step makes another choice. asFound says that the
// step found the same link, so that its choice follows from that one.
func Outranks(file []byte, link, target string, asFound bool, c Choice) bool {
	here, ok := ChoiceOf(map[string][]byte{c.Group: file}, link, target)
	switch {
	case !ok, c.Priority == "":
		return false // no choice is known for it, or the step says which one counts
	case here.Priority == "":
		return true
	}
	return !asFound && number(here.Priority) >= number(c.Priority)
}

func number(text string) int {
	n, _ := strconv.Atoi(text)
	return n
}

// AlternativesFile returns the path of the file of a group.
func AlternativesFile(group string) string { return alternativesDir + path.Base(group) }

// AlternativesLink returns the path of the link of a group.
func AlternativesLink(group string) string { return linksDir + path.Base(group) }

// GroupOf returns the group of which a path is the file; "" for none.
func GroupOf(p string) string {
	if dir, name := path.Split(p); dir == alternativesDir {
		return name
	}
	return ""
}
