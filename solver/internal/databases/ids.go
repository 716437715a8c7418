package databases

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/clayer/clayer/internal/order"
)

// An id is the numbers that a record takes, which no other may have. The zero id takes
// none.
type id struct {
	first uint64
	count uint64
}

func (x id) String() string {
	switch x.count {
	case 0:
		return ""
	case 1:
		return strconv.FormatUint(x.first, 10)
	}
	return fmt.Sprintf("%d-%d", x.first, x.last())
}

func (x id) last() uint64 { return x.first + x.count - 1 }

func parseID(text string) id {
	from, to, isRange := strings.Cut(text, "-")
	first, err := strconv.ParseUint(from, 10, 32)
	if err != nil {
		return id{}
	}
	if !isRange {
		return id{first, 1}
	}
	last, err := strconv.ParseUint(to, 10, 32)
	if err != nil || last < first {
		return id{}
	}
	return id{first, last - first + 1}
}

// id returns the numbers of a user, of a group, or of a range of those.
func (f format) id(r *record) id {
	if isForeign(r.body) {
		return id{}
	}
	part := strings.SplitN(r.body, ":", 4)
	switch {
	case (f == users || f == groups) && len(part) > 2:
		if n, err := strconv.ParseUint(part[2], 10, 32); err == nil {
			return id{n, 1}
		}
	case f == ranges && len(part) > 2:
		first, err1 := strconv.ParseUint(part[1], 10, 32)
		count, err2 := strconv.ParseUint(part[2], 10, 32)
		if err1 == nil && err2 == nil && count > 0 {
			return id{first, min(count, math.MaxUint32-first+1)}
		}
	}
	return id{}
}

// name returns what ids of this format are called.
func (f format) idName() string {
	switch f {
	case users:
		return "uid"
	case groups:
		return "gid"
	}
	return "range"
}

// taken are the ids of a file, sorted.
type taken []idOf

type idOf struct {
	id
	key string
	// The record before this one that reaches furthest, of those whose name is another
	// one than that of the furthest: see owner.
	reach int
}

// idsOf returns the ids of records, without those that are left out.
func (f format) idsOf(list []record, leftOut map[string]*entry) taken {
	if f != users && f != groups && f != ranges {
		return nil
	}
	var t taken
	for i := range list {
		r := &list[i]
		if x := f.id(r); x.count > 0 && leftOut[r.key] == nil {
			t = append(t, idOf{id: x, key: r.key})
		}
	}
	order.Stable(t, func(a, b idOf) int { return cmp.Compare(a.first, b.first) })
	furthest := 0
	for i := range t {
		if t[i].last() >= t[furthest].last() {
			furthest = i
		}
		t[i].reach = furthest
	}
	return t
}

// owner returns a record that has some of the numbers of x, and is not key.
func (t taken) owner(x id, key string) (string, bool) {
	if x.count == 0 {
		return "", false
	}
	// Those that begin up to the end of x: the last of them, and the one that reaches
	// furthest, tell whether one reaches x. Of one key only, the others are asked.
	end, _ := slices.BinarySearchFunc(t, x.last()+1, func(e idOf, first uint64) int { return cmp.Compare(e.first, first) })
	for end > 0 {
		at := t[end-1].reach
		if t[at].last() < x.first {
			return "", false
		}
		if t[at].key != key {
			return t[at].key, true
		}
		// Keys are unique: no other one is skipped twice.
		for i := end - 1; i > at; i-- {
			if t[i].last() >= x.first {
				return t[i].key, true
			}
		}
		end = at
	}
	return "", false
}

// isOf reports whether no other record than key has an id.
func (t taken) isOf(x id, key string) bool {
	if x.count == 0 {
		return false
	}
	_, other := t.owner(x, key)
	return !other
}

// A Name is a user or a group as a database has it.
type Name struct {
	Name string
	Home string // of a user
}

// NameOf returns the first user or group with an id.
func (d Database) NameOf(file []byte, number int) (Name, bool) {
	for _, r := range d.format.parse(file) {
		if d.format.id(&r) == (id{uint64(number), 1}) {
			name := Name{Name: r.key}
			if part := strings.Split(r.body, ":"); d.format == users && len(part) > 5 {
				name.Home = part[5]
			}
			if isPlain(r.key) {
				return name, true
			}
		}
	}
	return Name{}, false
}

// IDOf returns the id of a user or a group.
func (d Database) IDOf(file []byte, name string) (int, bool) {
	r := index(d.format.parse(file))[name]
	if r == nil {
		return 0, false
	}
	x := d.format.id(r)
	return int(x.first), x.count == 1
}
