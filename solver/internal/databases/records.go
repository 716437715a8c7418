package databases

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/clayer/clayer/solver/internal/databases/indexes"
)

// A record is a part of a database. All parts of a file are one, comments too.
type record struct {
	key     string // no two of a file have the same
	name    string // that several may have
	body    string // what is compared: without members and without what separates records
	listed  bool   // it ends in a list of members
	members []record
	tail    string // what separates it from the next
}

// opaqueMark begins the key of a file that is not understood, which is one record.
const opaqueMark = "#!"

func opaque(file string) []record {
	name := opaqueMark + digest(file)
	return []record{{key: name, name: name, body: file}}
}

func isOpaque(list []record) bool {
	return len(list) == 1 && strings.HasPrefix(list[0].key, opaqueMark)
}

// memberships are the members of all groups of a file.
func memberships(list []record) map[membership]bool {
	all := make(map[membership]bool)
	for i := range list {
		for j := range list[i].members {
			all[membership{list[i].key, list[i].members[j].key}] = true
		}
	}
	return all
}

// notIn returns, as entries of Changes, the members of r that another one lacks.
func (r *record) notIn(x *record) (entries []string) {
	var have map[string]*record
	if x != nil {
		have = index(x.members)
	}
	for _, m := range r.members {
		if have[m.key] == nil {
			entries = append(entries, r.key+":"+m.key)
		}
	}
	return entries
}

// isRemnant reports whether a record is of a package that was removed, and says no more than
// that it may have configuration files.
func (f format) isRemnant(r *record) bool {
	if f != dpkg {
		return false
	}
	for line := range strings.Lines(r.body) {
		if strings.HasPrefix(line, "Status: ") {
			return strings.HasSuffix(strings.TrimSpace(line), " config-files")
		}
	}
	return false
}

func index(list []record) map[string]*record {
	m := make(map[string]*record, len(list))
	for i := range list {
		m[list[i].key] = &list[i]
	}
	return m
}

// A numbering gives each record of a file a key of its own.
type numbering map[string]int

// add names a record. One without a name is known by its text.
func (n numbering) add(r *record, name string) {
	switch {
	case name == "":
		name = "#" + digest(r.body)
	case !isPlain(name):
		name = "#" + digest(name)
	}
	n[name]++
	r.name, r.key = name, name
	if i := n[name]; i > 1 {
		r.key += "#" + strconv.Itoa(i)
	}
}

// isPlain reports whether a name can be a key, and be printed: any other is known by
// its digest.
func isPlain(name string) bool {
	const longest = 128
	if name == "" || len(name) > longest || !utf8.ValidString(name) {
		return false
	}
	return !strings.ContainsFunc(name, func(r rune) bool { return !unicode.IsPrint(r) || strings.ContainsRune("#"+marks, r) })
}

const digestLength = 12 // in hex digits: enough for records that no one has forged

func digest(text string) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:digestLength/2])
}

func (f format) isStanzas() bool { return f == dpkg || f == apk || f == modules }

func (f format) hasMembers() bool { return f == groups || f == gshadow }

// parse divides a file into records.
func (f format) parse(file []byte) []record {
	if f == ldcache {
		return libraries(file)
	}
	if f == choices {
		return alternatives(string(file))
	}
	if ix, ok := indexed[f]; ok {
		return parseIndex(ix, file)
	}
	var list []record
	n := make(numbering)
	rest := string(file)
	if f.isStanzas() {
		for rest != "" {
			var r record
			r.body, r.tail, rest = cutStanza(rest)
			n.add(&r, f.stanzaName(r.body))
			list = append(list, r)
		}
		return list
	}
	if f == diversions && (bytes.Count(file, []byte("\n"))%3 != 0 || !strings.HasSuffix("\n"+rest, "\n")) {
		return opaque(rest)
	}
	end := "\n"
	if f == pem {
		end = pemEnd
	}
	list = make([]record, 0, bytes.Count(file, []byte(end))+1)
	for rest != "" {
		r := record{body: rest}
		if i := indexEnd(rest, end, f.perRecord()); i >= 0 {
			i += len(end) - 1
			r.body, r.tail, rest = rest[:i], "\n", rest[i+1:]
		} else {
			rest = ""
		}
		n.add(&r, f.lineName(r.body))
		if head, members, ok := cutMembers(r.body); f.hasMembers() && ok && !isForeign(r.body) {
			r.body, r.listed, r.members = head, true, parseMembers(members)
		}
		list = append(list, r)
	}
	return list
}

// parseIndex returns the records of an index.
func parseIndex(ix indexes.Format, file []byte) []record {
	found, ok := ix.Parse(file)
	if !ok {
		return opaque(string(file))
	}
	list := make([]record, len(found))
	n := make(numbering)
	for i, r := range found {
		list[i] = record{body: r.Text}
		n.add(&list[i], r.Name)
	}
	return list
}

func writeIndex(ix indexes.Format, list []record) []byte {
	if isOpaque(list) {
		return []byte(list[0].body)
	}
	records := make([]indexes.Record, len(list))
	for i, r := range list {
		records[i] = indexes.Record{Name: r.name, Text: r.body}
	}
	return ix.Write(records)
}

// perRecord is how many lines a record has.
func (f format) perRecord() int {
	if f == diversions {
		return 3
	}
	return 1
}

// indexEnd returns where in a text the n-th end is; -1 where there are fewer.
func indexEnd(text, end string, n int) int {
	at := strings.Index(text, end)
	for ; n > 1 && at >= 0; n-- {
		next := strings.Index(text[at+1:], end)
		if next < 0 {
			return -1
		}
		at += 1 + next
	}
	return at
}

// pemEnd ends a certificate. What stands before one, such as its name in a comment, goes
// with it.
const pemEnd = "-----END CERTIFICATE-----\n"

// lineName returns the name of a record that is a line; "" for a line that has none.
func (f format) lineName(line string) string {
	if f == lines {
		return line
	}
	if f == diversions {
		diverted, _, _ := strings.Cut(line, "\n")
		return diverted
	}
	if f == pem || isForeign(line) {
		return ""
	}
	name, _, _ := strings.Cut(line, ":")
	return name
}

// isForeign reports whether a line describes no user and no group: a comment, or a line
// by which NIS adds others.
func isForeign(line string) bool {
	return line == "" || strings.ContainsRune("#+-", rune(line[0])) || !strings.Contains(line, ":")
}

// cutMembers divides the line of a group before the list of its members.
func cutMembers(line string) (head, members string, ok bool) {
	at := 0
	for range 3 {
		i := strings.IndexByte(line[at:], ':')
		if i < 0 {
			return "", "", false
		}
		at += i + 1
	}
	return line[:at], line[at:], true
}

func parseMembers(text string) []record {
	if text == "" {
		return nil
	}
	n := make(numbering)
	var list []record
	for name := range strings.SplitSeq(text, ",") {
		m := record{body: name}
		n.add(&m, name)
		list = append(list, m)
	}
	return list
}

// cutStanza cuts off the first lines up to one that is empty. The tail begins with the
// end of the last line.
func cutStanza(text string) (body, tail, rest string) {
	end := 0
	for end < len(text) {
		line := text[end:]
		if i := strings.IndexByte(line, '\n'); i >= 0 {
			line = line[:i]
		}
		if isBlank(line) {
			break
		}
		end = min(end+len(line)+1, len(text))
	}
	next := end
	for next < len(text) {
		i := strings.IndexByte(text[next:], '\n')
		if i < 0 {
			i = len(text) - next - 1
		}
		if !isBlank(text[next : next+i]) {
			break
		}
		next += i + 1
	}
	if end > 0 && text[end-1] == '\n' {
		end--
	}
	return text[:end], text[end:next], text[next:]
}

func isBlank(line string) bool { return strings.Trim(line, " \t\r") == "" }

// stanzaName returns the name of a package, or the path of a module; "" for a stanza that
// names none.
func (f format) stanzaName(body string) string {
	if first, _, _ := strings.Cut(body, "\n"); f == modules {
		if strings.HasPrefix(first, "\"") {
			return strings.Trim(first, "\" ")
		}
		return ""
	}
	var name, arch string
	for line := range strings.SplitSeq(body, "\n") {
		field, value, ok := strings.Cut(line, ":")
		if !ok || field == "" || field[0] == ' ' {
			continue
		}
		value = strings.TrimSpace(value)
		switch {
		case f == apk && field == "P":
			return value
		case f == dpkg && strings.EqualFold(field, "Package"):
			name = value
		case f == dpkg && strings.EqualFold(field, "Architecture"):
			arch = value
		}
	}
	if name != "" && arch != "" {
		return name + ":" + arch
	}
	return name
}

// text writes records as a file.
func (f format) text(list []record) []byte {
	if f == ldcache {
		return writeLibraries(list)
	}
	if f == choices {
		return writeAlternatives(list)
	}
	if ix, ok := indexed[f]; ok {
		return writeIndex(ix, list)
	}
	size := 0
	for i := range list {
		size += len(list[i].body) + len(list[i].tail) + 2
	}
	out := bytes.NewBuffer(make([]byte, 0, size))
	for i := range list {
		r := &list[i]
		out.WriteString(r.body)
		for j, m := range r.members {
			if j > 0 {
				out.WriteByte(',')
			}
			out.WriteString(m.body)
		}
		out.WriteString(r.tail)
		if i < len(list)-1 {
			out.WriteString(f.between(r))
		}
	}
	return out.Bytes()
}

// between returns what the tail of a record lacks where another one follows.
func (f format) between(r *record) string {
	ends := strings.Count(r.tail, "\n")
	switch {
	case ends == 0 && f.isStanzas() && r.body != "":
		return "\n\n"
	case ends == 0, ends == 1 && f.isStanzas() && r.body != "":
		return "\n"
	}
	return ""
}
