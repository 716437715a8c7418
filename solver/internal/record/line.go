package record

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// The JSON of lines is written and read here without reflection, as encoding/json has it:
// a restore writes one for each file. What is rare is left to encoding/json.

// preserved is the name of Change.Preserved in JSON.
var preserved, _, _ = strings.Cut("kept,omitempty", ",")

// appendChange appends the JSON of a change.
func appendChange(b []byte, c *Change) ([]byte, error) {
	l := writer{b: append(b, '{'), first: true}
	l.number("seq", int64(c.Seq))
	l.bytes("path", c.Path)
	l.word("kind", string(c.Kind))
	l.number("n", int64(c.N))
	l.meta("was", c.Was)
	l.meta("now", c.Now)
	l.flag(preserved, c.Preserved)
	l.flag("lost", c.Lost)
	l.rare = l.rare || c.Records != nil
	l.flag("whole", c.Whole)
	l.number("with", int64(c.With))
	l.bytes("from", c.From)
	l.word("in", c.In)
	l.word("out", c.Out)
	l.flag("left", c.Left)
	l.number("again", int64(c.Again))
	l.flag("beside", c.Beside)
	if !l.rare {
		return append(l.b, '}'), nil
	}
	buf := bytes.NewBuffer(b)
	enc := json.NewEncoder(buf)
	enc.SetEscapeHTML(false)
	err := enc.Encode(c)
	return bytes.TrimSuffix(buf.Bytes(), []byte("\n")), err
}

// A writer appends members of an object that are not zero.
type writer struct {
	b     []byte
	first bool // nothing stands in the object yet
	rare  bool // it has something that encoding/json is to write
}

func (l *writer) name(name string) {
	if !l.first {
		l.b = append(l.b, ',')
	}
	l.first = false
	l.b = append(append(append(l.b, '"'), name...), '"', ':')
}

func (l *writer) number(name string, n int64) {
	if n != 0 {
		l.always(name, n)
	}
}

func (l *writer) always(name string, n int64) {
	l.name(name)
	l.b = strconv.AppendInt(l.b, n, 10)
}

func (l *writer) flag(name string, is bool) {
	if is {
		l.name(name)
		l.b = append(l.b, "true"...)
	}
}

func (l *writer) bytes(name string, data []byte) {
	if len(data) > 0 {
		l.name(name)
		l.b = append(base64.StdEncoding.AppendEncode(append(l.b, '"'), data), '"')
	}
}

func (l *writer) word(name, w string) {
	if w == "" {
		return
	}
	for i := range len(w) {
		l.rare = l.rare || !isPlain(w[i])
	}
	l.name(name)
	l.b = append(append(append(l.b, '"'), w...), '"')
}

// isPlain reports whether a byte stands for itself in a string of JSON.
func isPlain(c byte) bool { return c >= ' ' && c < 0x7f && c != '"' && c != '\\' }

func (l *writer) meta(name string, m *Meta) {
	if m == nil {
		return
	}
	l.name(name)
	l.b, l.first = append(l.b, '{'), true
	l.always("mode", int64(m.Mode))
	l.always("uid", int64(m.UID))
	l.always("gid", int64(m.GID))
	l.number("size", m.Size)
	l.name("mtime")
	if year := m.ModTime.Year(); m.ModTime.Location() != time.UTC || year < 1 || year > 9999 {
		l.rare = true
	}
	l.b = append(m.ModTime.AppendFormat(append(l.b, '"'), time.RFC3339Nano), '"')
	l.bytes("target", m.Target)
	if m.Rdev != 0 {
		l.name("rdev")
		l.b = strconv.AppendUint(l.b, m.Rdev, 10)
	}
	l.word("type", string(m.Type))
	if m.Sum != nil {
		l.always("sum", int64(*m.Sum))
	}
	l.rare = l.rare || len(m.Xattrs) > 0
	l.b = append(l.b, '}')
}

// parseChange reads the JSON of a change.
func parseChange(path string, text []byte) (c Change, err error) {
	if c, ok := quickChange(text); ok {
		return c, nil
	}
	if err = json.Unmarshal(text, &c); err != nil {
		err = fmt.Errorf("%s: %w", path, err)
	}
	return c, err
}

// quickChange reads JSON as appendChange writes it, and says whether it is that.
func quickChange(text []byte) (c Change, ok bool) {
	l := scanner{rest: text}
	l.open()
	l.number("seq", &c.Seq)
	l.bytes("path", &c.Path)
	c.Kind = l.kind("kind")
	l.number("n", &c.N)
	c.Was = l.meta("was")
	c.Now = l.meta("now")
	l.flag(preserved, &c.Preserved)
	l.flag("lost", &c.Lost)
	l.flag("whole", &c.Whole)
	l.number("with", &c.With)
	l.bytes("from", &c.From)
	c.In = string(l.word("in"))
	c.Out = string(l.word("out"))
	l.flag("left", &c.Left)
	l.number("again", &c.Again)
	l.flag("beside", &c.Beside)
	l.close()
	return c, !l.other && len(l.rest) == 0
}

// A scanner reads members of an object in the order in which they are asked for.
type scanner struct {
	rest  []byte
	first bool // nothing of the object was read yet
	other bool // it is not as expected
}

func (l *scanner) skip(prefix string) bool {
	if l.other || len(l.rest) < len(prefix) || string(l.rest[:len(prefix)]) != prefix {
		return false
	}
	l.rest = l.rest[len(prefix):]
	return true
}

func (l *scanner) open() {
	l.other, l.first = l.other || !l.skip("{"), true
}

func (l *scanner) close() {
	l.other, l.first = l.other || !l.skip("}"), false
}

// name reads the name of a member, if it is the next.
func (l *scanner) name(name string) bool {
	at := 1 // after a comma
	if l.first {
		at = 0
	}
	n := at + len(name) + 3
	r := l.rest
	if l.other || len(r) < n || at == 1 && r[0] != ',' || r[at] != '"' || string(r[at+1:n-2]) != name || r[n-2] != '"' || r[n-1] != ':' {
		return false
	}
	l.rest, l.first = r[n:], false
	return true
}

// digits reads a number of at most 18 digits.
func (l *scanner) digits() (n int64) {
	i := 0
	for i < len(l.rest) && '0' <= l.rest[i] && l.rest[i] <= '9' {
		n = 10*n + int64(l.rest[i]-'0')
		i++
	}
	if i == 0 || i > 18 || i > 1 && l.rest[0] == '0' {
		l.other = true
	}
	l.rest = l.rest[i:]
	return n
}

func (l *scanner) number(name string, n *int) {
	if l.name(name) {
		*n = int(l.digits())
	}
}

func (l *scanner) must(name string, n *int64) {
	if !l.name(name) {
		l.other = true
		return
	}
	*n = l.digits()
}

func (l *scanner) flag(name string, is *bool) {
	if l.name(name) {
		*is = l.skip("true")
		l.other = l.other || !*is
	}
}

// word reads a string that stands for itself; nil where it is not the next.
func (l *scanner) word(name string) []byte {
	if !l.name(name) {
		return nil
	}
	return l.text()
}

func (l *scanner) text() []byte {
	i := 1
	for i < len(l.rest) && isPlain(l.rest[i]) {
		i++
	}
	if i == 1 || i >= len(l.rest) || l.rest[0] != '"' || l.rest[i] != '"' {
		l.other = true
		return nil
	}
	w := l.rest[1:i]
	l.rest = l.rest[i+1:]
	return w
}

func (l *scanner) bytes(name string, data *[]byte) {
	if w := l.word(name); w != nil {
		var err error
		*data, err = base64.StdEncoding.AppendDecode(make([]byte, 0, base64.StdEncoding.DecodedLen(len(w))), w)
		l.other = l.other || err != nil
	}
}

// kind reads a Kind, without making a copy of one that is known.
func (l *scanner) kind(name string) Kind {
	w := l.word(name)
	for _, k := range [...]Kind{KindFile, KindDir, KindSymlink, KindLink, KindGone, KindTime, KindUndo} {
		if string(w) == string(k) {
			return k
		}
	}
	return Kind(w)
}

func (l *scanner) meta(name string) *Meta {
	if !l.name(name) {
		return nil
	}
	var m Meta
	var mode, uid, gid, sum int64
	l.open()
	l.must("mode", &mode)
	l.must("uid", &uid)
	l.must("gid", &gid)
	if l.name("size") {
		m.Size = l.digits()
	}
	if !l.name("mtime") {
		l.other = true
		return nil
	}
	quoted := l.rest
	if w := l.text(); w != nil {
		l.other = m.ModTime.UnmarshalJSON(quoted[:len(w)+2]) != nil
	}
	l.bytes("target", &m.Target)
	if l.name("rdev") {
		m.Rdev = uint64(l.digits())
	}
	m.Type = l.kind("type")
	if l.name("sum") {
		sum = l.digits()
		small := uint32(sum)
		m.Sum = &small
	}
	l.close()
	l.other = l.other || mode>>32 != 0 || sum>>32 != 0
	m.Mode, m.UID, m.GID = uint32(mode), int(uid), int(gid)
	return &m
}
