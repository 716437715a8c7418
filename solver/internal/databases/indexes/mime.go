package indexes

import (
	"encoding/binary"
	"strconv"
	"strings"
	"unicode/utf8"
)

// mime.cache has all that is known of types of files, for programs that map it into memory.
// Numbers are of the highest byte first, offsets are from the beginning:
//
//	2 bytes  version 1, and 2 bytes 2
//	4 each   where the sections are
//
// Most sections have a number of entries, and the entries: offsets of texts, and for the
// patterns of names a weight. They are sorted by the first text, since programs search them.
//
//	aliases        alias, type
//	parents        type, and where its parents are: their number, and each
//	literals       pattern, type, weight (8 bits), and 0x100 if upper and lower case differ
//	suffixes       a tree; see suffixes
//	patterns       as the literals, with wildcards
//	magic          what stands in files; see contents
//	namespaces     URI, local name, type
//	icons          type, icon
//	generic icons  likewise
//	types          all types; update-mime-database writes zeros, and nobody reads them
const (
	mimeVersion = 1<<16 | 2
	mimeHeader  = 4 + 4*mimeSections
)

const (
	mimeAliases = iota
	mimeParents
	mimeLiterals
	mimeSuffixes
	mimePatterns
	mimeMagic
	mimeNamespaces
	mimeIcons
	mimeGeneric
	mimeTypes
	mimeSections
)

// Of which kind a record is. The patterns of all sections are of one.
const (
	kindAlias     = "alias"
	kindParent    = "parent"
	kindGlob      = "glob"
	kindMagic     = "magic"
	kindNamespace = "namespace"
	kindIcon      = "icon"
	kindGeneric   = "generic-icon"
)

// mimeTables are the sections of texts alone.
var mimeTables = []struct {
	section, words int
	kind           string
	naming         int // how many texts name an entry
}{
	{mimeAliases, 2, kindAlias, 1},
	{mimeNamespaces, 3, kindNamespace, 2},
	{mimeIcons, 2, kindIcon, 1},
	{mimeGeneric, 2, kindGeneric, 1},
}

// mimeRecord returns a record with fields, of which the first name it.
func mimeRecord(kind string, naming int, fields ...string) Record {
	return Record{kind + " " + strings.Join(fields[:naming], " "), join(kind, strings.Join(fields, "\x00"))}
}

// A mimeReader reads mime.cache.
type mimeReader struct {
	reader
	records []Record
}

func (r *mimeReader) add(kind string, naming int, fields ...string) {
	r.records = append(r.records, mimeRecord(kind, naming, fields...))
}

// section returns the number of entries of a section, and where they are.
func (r *mimeReader) section(section int) (n, first int) {
	at := r.number(4+4*section, 4)
	return r.number(at, 4), at + 4
}

// at returns the text that is referred to.
func (r *mimeReader) at(at int) string { return r.text(r.number(at, 4)) }

func parseMime(file []byte) ([]Record, bool) {
	r := mimeReader{reader: reader{file: file, budget: 16*len(file) + 1024}}
	if r.number(0, 4) != mimeVersion {
		return nil, false
	}
	for _, t := range mimeTables {
		n, at := r.section(t.section)
		for ; n > 0 && !r.broken; n, at = n-1, at+4*t.words {
			fields := make([]string, t.words)
			for i := range fields {
				fields[i] = r.at(at + 4*i)
			}
			r.add(t.kind, t.naming, fields...)
		}
	}
	n, at := r.section(mimeParents)
	for ; n > 0 && !r.broken; n, at = n-1, at+8 {
		list := r.number(at+4, 4)
		for i := r.number(list, 4); i > 0 && !r.broken; i-- {
			list += 4
			r.add(kindParent, 2, r.at(at), r.at(list))
		}
	}
	for _, section := range []int{mimeLiterals, mimePatterns} {
		n, at = r.section(section)
		for ; n > 0 && !r.broken; n, at = n-1, at+12 {
			r.addGlob(section, r.at(at), at+4)
		}
	}
	n, at = r.section(mimeSuffixes)
	r.suffixes(n, r.number(at, 4), "")
	n, at = r.section(mimeMagic)
	at = r.number(at+4, 4)
	for ; n > 0 && !r.broken; n, at = n-1, at+16 {
		contents := string(r.contents(nil, r.number(at+8, 4), r.number(at+12, 4), 0))
		r.add(kindMagic, 3, strconv.Itoa(r.number(at, 4)), r.at(at+4), shortDigest(contents), contents)
	}
	return distinct(r.records), !r.broken
}

// distinct leaves out what is there already: a type that two packages describe may have a
// pattern from both.
func distinct(records []Record) []Record {
	seen := make(map[string]bool, len(records))
	list := records[:0]
	for _, r := range records {
		if !seen[r.Name] {
			seen[r.Name] = true
			list = append(list, r)
		}
	}
	return list
}

// addGlob adds a pattern, if it stands where it belongs, with the type and the weight that
// are at an offset.
func (r *mimeReader) addGlob(section int, pattern string, at int) {
	r.broken = r.broken || sectionOf(pattern) != section
	if text := r.number(at, 4); text != 0 { // "*" has none
		r.add(kindGlob, 3, strconv.Itoa(r.number(at+4, 4)), pattern, r.text(text))
	}
}

// sectionOf returns where a pattern belongs.
func sectionOf(pattern string) int {
	switch rest, isSuffix := strings.CutPrefix(pattern, "*"); {
	case strings.ContainsAny(rest, `\[?*`):
		return mimePatterns
	case isSuffix:
		return mimeSuffixes
	}
	return mimeLiterals
}

// suffixes reads patterns like "*.png" by their characters, the last first. The nodes of a
// tree have 12 bytes: a character, the number of nodes below it, and where they are. Of a
// pattern that ends there is a node with the character 0, the type, and the weight. Nodes
// are sorted by their characters.
func (r *mimeReader) suffixes(n, first int, suffix string) {
	const longest = 1024
	for i := range n {
		at := first + 12*i
		r.budget -= 12
		switch c := r.number(at, 4); {
		case r.broken:
		case c == 0:
			r.addGlob(mimeSuffixes, "*"+suffix, at+4)
		case c > utf8.MaxRune || !utf8.ValidRune(rune(c)) || len(suffix) > longest || r.budget < 0:
			r.broken = true
		default:
			r.suffixes(r.number(at+4, 4), r.number(at+8, 4), string(rune(c))+suffix)
		}
		if r.broken {
			return
		}
	}
}

// contents reads what stands in files of a type, and appends it as it stands in the file
// magic. An entry has a priority, the type, and the number of matches and where they are; a
// match has 32 bytes:
//
//	4  where the range begins in which it may stand
//	4  its length
//	4  of how many bytes the words are
//	4  how many bytes it has
//	4  where they are
//	4  where the mask of as many bytes is; 0: none
//	8  the number of matches of which one must be there as well, and where they are
func (r *mimeReader) contents(b []byte, n, first, depth int) []byte {
	for i := range n {
		at := first + 32*i
		m := match{depth: depth, begin: r.number(at, 4), span: r.number(at+4, 4), word: r.number(at+8, 4)}
		size := r.number(at+12, 4)
		m.bytes = r.bytes(r.number(at+16, 4), size)
		if mask := r.number(at+20, 4); mask != 0 {
			m.mask = r.bytes(mask, size)
		}
		r.budget -= 32 + size
		if r.broken = r.broken || r.budget < 0 || size > maxMatch || depth > maxDepth; r.broken {
			return b
		}
		b = r.contents(m.append(b), r.number(at+24, 4), r.number(at+28, 4), depth+1)
	}
	return b
}

func (r *mimeReader) bytes(at, size int) string {
	if at < 0 || size < 0 || at > len(r.file)-size {
		r.broken = true
		return ""
	}
	return string(r.file[at : at+size])
}

func writeMime(records []Record) []byte {
	w := writer{file: make([]byte, mimeHeader), texts: make(map[string]int)}
	w.put(0, mimeVersion)
	sortBy(records, compareMime)
	var tree suffix
	var magic [][]string
	var rows [mimeSections][][]int // numbers, and where texts are
	sections := map[string]int{kindParent: mimeParents}
	for _, t := range mimeTables {
		sections[t.kind] = t.section
	}
	for _, r := range records {
		f := strings.SplitN(r.Text, "\x00", 5)
		switch f[0] {
		case kindGlob:
			if section := sectionOf(f[2]); section == mimeSuffixes {
				tree.add(f[2][1:], w.text(f[3]), number(f[1]))
			} else {
				rows[section] = append(rows[section], []int{w.text(f[2]), w.text(f[3]), number(f[1])})
			}
		case kindMagic:
			magic = append(magic, f[1:])
			w.text(f[2])
		default:
			section := sections[f[0]]
			var row []int
			for _, text := range f[1:] {
				row = append(row, w.text(text))
			}
			rows[section] = append(rows[section], row)
		}
	}
	for section := range mimeSections {
		switch section {
		case mimeParents:
			w.parents(rows[section])
		case mimeSuffixes:
			at := w.section(section, 8)
			n, first := w.suffixes(&tree)
			w.put(at, n)
			w.put(at+4, first)
		case mimeMagic:
			w.magic(magic)
		default:
			w.table(section, rows[section])
		}
	}
	return w.file
}

// compareMime orders records as those of a section are: what is said of magic by its
// priority, patterns and parents by what they are of, anything else by what names it.
func compareMime(a, b Record) int {
	x, y := strings.SplitN(a.Text, "\x00", 5), strings.SplitN(b.Text, "\x00", 5)
	switch c := strings.Compare(x[0], y[0]); {
	case c != 0:
		return c
	case x[0] == kindMagic:
		return byPriority(x[1], x[2], x[4], y[1], y[2], y[4])
	case x[0] == kindGlob:
		return strings.Compare(x[2], y[2])
	case x[0] == kindNamespace && x[1] == y[1]:
		return strings.Compare(x[2], y[2])
	default:
		return strings.Compare(x[1], y[1])
	}
}

func number(text string) int {
	n, _ := strconv.ParseUint(text, 10, 32)
	return int(n)
}

// section begins a section.
func (w *writer) section(section, size int) (at int) {
	at = w.grow(size)
	w.put(4+4*section, at)
	return at
}

// table writes a section.
func (w *writer) table(section int, rows [][]int) {
	at := w.section(section, 4)
	w.put(at, len(rows))
	for _, row := range rows {
		for _, n := range row {
			w.put(w.grow(4), n)
		}
	}
}

// parents writes of each type its parents.
func (w *writer) parents(rows [][]int) {
	var types [][]int
	for i, row := range rows {
		if i == 0 || row[0] != rows[i-1][0] {
			types = append(types, []int{row[0], 0})
		}
	}
	w.table(mimeParents, types)
	at := len(w.file) - 8*len(types)
	for i, row := range rows {
		if i == 0 || row[0] != rows[i-1][0] {
			w.put(at+4, w.grow(4))
			at += 8
		}
		list := int(binary.BigEndian.Uint32(w.file[at-4:]))
		w.put(w.grow(4), row[1])
		w.put(list, (len(w.file)-list)/4-1)
	}
}

// A suffix is a node of the tree of suffixes.
type suffix struct {
	char  rune
	below []*suffix // a pattern that ends here has nodes of the character 0, which are first

	name, weight int // of such a node
}

// add adds a type. With two weights it has the greater one.
func (s *suffix) add(text string, name, weight int) {
	c, size := rune(0), 0
	if text != "" {
		c, size = utf8.DecodeLastRuneInString(text)
	}
	i := 0
	for i < len(s.below) && (s.below[i].char < c || c == 0 && s.below[i].char == 0 && s.below[i].name != name) {
		i++
	}
	if i == len(s.below) || s.below[i].char != c {
		s.below = append(s.below, nil)
		copy(s.below[i+1:], s.below[i:])
		s.below[i] = &suffix{char: c, name: name, weight: weight}
	}
	switch b := s.below[i]; {
	case text != "":
		b.add(text[:len(text)-size], name, weight)
	case b.weight&0xff < weight&0xff:
		b.weight = b.weight&^0xff | weight&0xff
	}
}

func (w *writer) suffixes(s *suffix) (n, first int) {
	n = len(s.below)
	first = w.grow(12 * n)
	for i, b := range s.below {
		at := first + 12*i
		w.put(at, int(b.char))
		x, y := b.name, b.weight
		if b.char != 0 {
			x, y = w.suffixes(b)
		}
		w.put(at+4, x)
		w.put(at+8, y)
	}
	return n, first
}

// magic writes rows of a priority, a type, a digest, and matches as parseMatches reads them.
func (w *writer) magic(rows [][]string) {
	at := w.section(mimeMagic, 12+16*len(rows))
	w.put(at, len(rows))
	w.put(at+8, at+12)
	extent := 0
	for i, row := range rows {
		matches, _ := parseMatches(row[3])
		for _, m := range matches {
			extent = max(extent, len(m.bytes)+m.begin+m.span)
		}
		entry := at + 12 + 16*i
		w.put(entry, number(row[0]))
		w.put(entry+4, w.text(row[1]))
		n, first := w.matches(matches)
		w.put(entry+8, n)
		w.put(entry+12, first)
	}
	w.put(at+4, extent)
}

// matches writes matches, and those below each of them.
func (w *writer) matches(list []match) (n, first int) {
	for _, m := range list {
		if m.depth == list[0].depth {
			n++
		}
	}
	first = w.grow(32 * n)
	for at := first; len(list) > 0; at += 32 {
		m := list[0]
		end := 1
		for end < len(list) && list[end].depth != m.depth {
			end++
		}
		w.put(at, m.begin)
		w.put(at+4, m.span)
		w.put(at+8, m.word)
		w.put(at+12, len(m.bytes))
		w.put(at+16, w.bytes(m.bytes))
		if m.mask != "" {
			w.put(at+20, w.bytes(m.mask))
		}
		below, children := w.matches(list[1:end])
		w.put(at+24, below)
		w.put(at+28, children)
		list = list[end:]
	}
	return n, first
}
