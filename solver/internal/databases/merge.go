package databases

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
)

// An entry is one of Changes, of a record.
type entry struct {
	key string
	id  string // that no other record has; "": none
	was string // the digest of what was there; "": nothing
	now string // the digest of what is there now; "": nothing
}

// marks are what follows a key in an entry. No key has one of them.
const marks = "(=>"

func (e entry) String() string {
	text := e.key
	if e.id != "" {
		text += "(" + e.id + ")"
	}
	if e.was != "" {
		text += "=" + e.was
	}
	if e.now != "" {
		text += ">" + e.now
	}
	return text
}

func parseEntry(text string) (e entry, err error) {
	rest := text
	if i := strings.IndexAny(rest, marks); i >= 0 {
		e.key, rest = rest[:i], rest[i:]
	} else {
		e.key, rest = rest, ""
	}
	if after, ok := strings.CutPrefix(rest, "("); ok {
		e.id, rest, ok = strings.Cut(after, ")")
		if !ok || parseID(e.id).count == 0 {
			return e, fmt.Errorf("%q names no id", text)
		}
	}
	rest, e.now, _ = strings.Cut(rest, ">")
	e.was = strings.TrimPrefix(rest, "=")
	if e.key == "" || rest != "" && rest[0] != '=' {
		return e, fmt.Errorf("%q is no record", text)
	}
	return e, nil
}

// A membership is an entry of Changes about the member of a group.
type membership struct{ group, member string }

// A merging applies changes to a database.
type merging struct {
	format    format
	here      []record
	at        map[string]*record // here, by key
	members   map[membership]bool
	set       []entry
	removed   []entry
	join      []membership
	leave     []membership
	conflicts []Conflict
	force     bool            // records here are changed whatever they are
	pending   map[string]bool // records here that give their ids up, by key

	// What is decided.
	changed map[string]*entry   // by the key of each record that is added, or has another value: its entry
	gone    map[string]*entry   // by key
	ranges  map[string]id       // by key: the numbers of those that get others
	joins   map[membership]bool // those that change something
	leaves  map[membership]bool
	result  []record
	to      map[string]*record // result, by key
}

func (d Database) merging(here []byte, c Changes) (*merging, error) {
	m := &merging{format: d.format, here: d.format.parse(here), force: d.IsIndex()}
	m.at, m.members = index(m.here), memberships(m.here)
	read := func(list []string, entries *[]entry, members *[]membership) error {
		for _, text := range list {
			if group, member, ok := strings.Cut(text, ":"); ok && d.format.hasMembers() {
				*members = append(*members, membership{group, member})
				continue
			}
			e, err := parseEntry(text)
			if err != nil {
				return err
			}
			*entries = append(*entries, e)
		}
		return nil
	}
	err := errors.Join(read(c.Set, &m.set, &m.join), read(c.Removed, &m.removed, &m.leave))
	return m, err
}

func (m *merging) conflict(key, why string, args ...any) {
	m.conflicts = append(m.conflicts, Conflict{key, fmt.Sprintf(why, args...)})
}

// decide finds what changes here, and what may not.
func (m *merging) decide() {
	m.changed, m.gone = make(map[string]*entry), make(map[string]*entry)
	m.joins, m.leaves = make(map[membership]bool), make(map[membership]bool)
	if isOpaque(m.here) && !slices.ContainsFunc(m.removed, func(e entry) bool { return e.key == m.here[0].key }) {
		for _, e := range slices.Concat(m.set, m.removed) {
			m.conflict(e.key, "the file is not understood here")
		}
		return
	}
	leaving := make(map[membership]bool)
	for _, x := range m.leave {
		leaving[x] = true
	}
	for i := range m.removed {
		e := &m.removed[i]
		r := m.at[e.key]
		switch {
		case r == nil:
		case m.force:
			m.gone[e.key] = e
		case digest(r.body) != e.was && !m.format.isRemnant(r):
			m.conflict(e.key, "is another one here")
		case hasOthers(r, leaving):
			m.conflict(e.key, "has members of its own here")
		default:
			m.gone[e.key] = e
		}
	}
	if m.format == choices {
		m.retainGroup()
	}
	if len(m.set) == 1 && strings.HasPrefix(m.set[0].key, opaqueMark) && m.at[m.set[0].key] == nil && len(m.here) > len(m.gone) {
		m.conflict(m.set[0].key, "what the step made is not understood, and there are other records here")
		clear(m.gone)
		return
	}
	for i := range m.set {
		e := &m.set[i]
		switch r := m.at[e.key]; {
		case r == nil && e.was == "":
			m.changed[e.key] = e
		case r == nil && !m.force:
			m.conflict(e.key, "is not here")
		case r != nil && digest(r.body) == e.now:
		case m.force:
			m.changed[e.key] = e
		case digest(r.body) != e.was:
			m.conflict(e.key, "is another one here")
		default:
			m.changed[e.key] = e
		}
	}
	if !m.force {
		m.decideIDs()
	}
	for _, x := range m.leave {
		if m.members[x] && m.gone[x.group] == nil {
			m.leaves[x] = true
		}
	}
	for _, x := range m.join {
		r, e := m.at[x.group], m.changed[x.group]
		switch {
		case r == nil && e == nil:
			m.conflict(x.group+":"+x.member, "the group is not here")
		case r != nil && !r.listed && e == nil:
			m.conflict(x.group+":"+x.member, "the group has no list of members here")
		case r != nil && !m.members[x]:
			m.joins[x] = true
		}
	}
}

// decideIDs drops changes by which two records would have one id.
func (m *merging) decideIDs() {
	leftOut := make(map[string]*entry, len(m.changed)+len(m.gone))
	for _, list := range []map[string]*entry{m.changed, m.gone} {
		for k, e := range list {
			leftOut[k] = e
		}
	}
	for key := range m.pending {
		leftOut[key] = &entry{}
	}
	ids := m.format.idsOf(m.here, leftOut)
	for i := range m.set {
		e := &m.set[i]
		if m.changed[e.key] != e || e.id == "" {
			continue
		}
		if other, ok := ids.owner(parseID(e.id), e.key); ok {
			if m.format == ranges && e.was == "" && m.moveRange(e, ids) {
				continue
			}
			m.conflict(e.key, "%s has its %s %s here", other, m.format.idName(), e.id)
			delete(m.changed, e.key)
		}
	}
}

// moveRange gives a range that is added other numbers, after all that are taken: any will
// do.
func (m *merging) moveRange(e *entry, ids taken) bool {
	x := parseID(e.id)
	end := uint64(0)
	for _, other := range ids {
		end = max(end, other.last()+1)
	}
	for i := range m.set {
		if other := parseID(m.set[i].id); &m.set[i] != e && other.count > 0 {
			end = max(end, other.last()+1)
		}
	}
	for _, other := range m.ranges {
		end = max(end, other.last()+1)
	}
	x.first = end
	if x.last() >= math.MaxUint32 { // which is no valid id
		return false
	}
	if m.ranges == nil {
		m.ranges = make(map[string]id)
	}
	m.ranges[e.key] = x
	return true
}

// hasOthers reports whether a group has members that do not leave.
func hasOthers(r *record, leaving map[membership]bool) bool {
	for i := range r.members {
		if !leaving[membership{r.key, r.members[i].key}] {
			return true
		}
	}
	return false
}

// take checks that the changes lead to result.
func (m *merging) take(result []record) error {
	m.result, m.to = result, index(result)
	for _, e := range m.set {
		if r := m.to[e.key]; r == nil || digest(r.body) != e.now {
			return fmt.Errorf("the changes set %q to something else than the file has", e.key)
		} else if e.id != "" && m.format.id(r) != parseID(e.id) {
			return fmt.Errorf("the changes give %q the %s %s, which it has not in the file", e.key, m.format.idName(), e.id)
		}
	}
	for _, e := range m.removed {
		if m.to[e.key] != nil {
			return fmt.Errorf("the changes remove %q, which the file has", e.key)
		}
	}
	members := memberships(result)
	for _, x := range m.join {
		if !members[x] {
			return fmt.Errorf("the changes add %q, which the file lacks", x.group+":"+x.member)
		}
	}
	for _, x := range m.leave {
		if members[x] {
			return fmt.Errorf("the changes remove %q, which the file has", x.group+":"+x.member)
		}
	}
	return nil
}

// merged returns the records here with what was decided.
func (m *merging) merged() []record {
	var joined, left map[string]map[string]bool
	if m.format.hasMembers() {
		joined, left = byGroup(m.joins), byGroup(m.leaves)
	}
	here := make([]record, 0, len(m.here))
	for _, r := range m.here {
		if m.gone[r.key] != nil {
			continue
		}
		to := m.to[r.key]
		if len(left[r.key]) > 0 {
			r.members = without(r.members, left[r.key])
		}
		switch {
		case m.changed[r.key] == nil:
		case !to.listed && len(r.members) > 0:
			m.conflict(r.key, "has members of its own here")
		default:
			r.body, r.listed = to.body, to.listed
		}
		if r.listed && len(joined[r.key]) > 0 {
			r.members = insert(r.members, to.members, joined[r.key])
		}
		if to != nil && to.body == r.body {
			r.tail = to.tail
		}
		here = append(here, r)
	}
	added := make(map[string]bool)
	for k := range m.changed {
		if m.at[k] == nil {
			added[k] = true
		}
	}
	result := m.result
	if len(m.ranges) > 0 {
		result = slices.Clone(result)
		for i := range result {
			if x, ok := m.ranges[result[i].key]; ok {
				part := strings.SplitN(result[i].body, ":", 3)
				result[i].body = fmt.Sprintf("%s:%d:%s", part[0], x.first, part[2])
			}
		}
	}
	return insert(here, result, added)
}

func byGroup(list map[membership]bool) map[string]map[string]bool {
	m := make(map[string]map[string]bool)
	for x := range list {
		if m[x.group] == nil {
			m[x.group] = make(map[string]bool)
		}
		m[x.group][x.member] = true
	}
	return m
}

func without(list []record, gone map[string]bool) []record {
	var rest []record
	for _, r := range list {
		if !gone[r.key] {
			rest = append(rest, r)
		}
	}
	return rest
}

// insert adds to here those records of result that are added: each before the first of
// those after it in result that is here, but after those here that have its name, since
// it is known by their number.
func insert(here, result []record, added map[string]bool) []record {
	if len(added) == 0 {
		return here
	}
	at, after := make(map[string]int), make(map[string]int)
	for i, r := range here {
		at[r.key], after[r.name] = i, i+1
	}
	before := make([]int, len(result))
	next, n := len(here), 0
	for i := len(result) - 1; i >= 0; i-- {
		if h, ok := at[result[i].key]; ok && !added[result[i].key] {
			next = h
		}
		before[i] = next
	}
	insert := make(map[int][]record) // by the index here
	for i, r := range result {
		if added[r.key] {
			to := max(before[i], after[r.name])
			after[r.name] = to
			insert[to] = append(insert[to], r)
			n++
		}
	}
	out := make([]record, 0, len(here)+n)
	for i, r := range here {
		out = append(append(out, insert[i]...), r)
	}
	return append(out, insert[len(here)]...)
}

// drift returns what is not as it was before the changes.
func (m *merging) drift() []Conflict {
	leaving := make(map[membership]bool)
	for _, x := range m.leave {
		leaving[x] = true
	}
	compare := func(e *entry) {
		switch r := m.at[e.key]; {
		case r == nil && e.was != "":
			m.conflict(e.key, "is missing")
		case r != nil && e.was == "":
			m.conflict(e.key, "was created again")
		case r != nil && digest(r.body) != e.was:
			m.conflict(e.key, "was changed")
		}
	}
	for i := range m.removed {
		compare(&m.removed[i])
	}
	for i := range m.set {
		compare(&m.set[i])
	}
	for _, x := range m.leave {
		if !m.members[x] {
			m.conflict(x.group+":"+x.member, "is missing")
		}
	}
	for _, x := range m.join {
		if m.members[x] {
			m.conflict(x.group+":"+x.member, "was created again")
		}
	}
	return m.conflicts
}
