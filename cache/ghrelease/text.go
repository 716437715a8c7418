package ghrelease

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"

	"github.com/clayer/clayer/cache"
	"github.com/clayer/clayer/cache/github"
	"github.com/clayer/clayer/dag/key"
)

// A record is what the text of a release, or its manifest.json, says.
type record struct {
	Name  string // of the layer that the steps are of; "" for an unnamed one
	Layer *layer // nil until the layer is whole
	Steps map[key.Key]*step
}

// A layer is that of a release that is whole.
type layer struct {
	Version  int       `json:"version,omitempty"`
	Name     string    `json:"name,omitempty"`
	Key      key.Key   `json:"key"`
	Platform string    `json:"platform"`
	Project  string    `json:"project,omitempty"`
	From     key.Key   `json:"from,omitzero"`
	Created  time.Time `json:"created"`
	Keys     []key.Key `json:"steps"` // in order

	LeftOut []cache.LeftOut `json:"leftOut,omitempty"`

	// Beside says that another release has the layer too, made of other snapshots.
	Beside bool `json:"beside,omitempty"`
}

// A step is a snapshot with where its files are.
type step struct {
	cache.Descriptor
	Tag   string `json:"tag,omitempty"`   // of the release that has them; "" for this one
	Parts []part `json:"parts,omitempty"` // where the snapshot is several files

	// Again is when it was stored to replace others, which it precedes.
	Again time.Time `json:"again,omitzero"`
}

// before reports whether a snapshot precedes another one of the same step.
func (st *step) before(other *step) bool {
	if !st.Again.Equal(other.Again) {
		return st.Again.After(other.Again)
	}
	return st.Created.Before(other.Created)
}

// A part is one file.
type part struct {
	Name   string        `json:"name"`
	Size   int64         `json:"size"`
	Digest digest.Digest `json:"digest"`
}

// files returns the files of a step, in order.
func (st *step) files() []part {
	if len(st.Parts) > 0 {
		return st.Parts
	}
	return []part{{fileName(st.Key, 0), st.Size, st.Digest}}
}

// step returns what is listed under a key: also under the second key of a snapshot, which
// keeps the files of the first.
func (r *record) step(k key.Key) *step {
	if st := r.Steps[k]; st != nil {
		return st
	}
	for _, st := range r.Steps {
		if second, ok := st.Second(); ok && second.Key == k {
			other := *st
			other.Descriptor, other.Parts = second, st.files()
			return &other
		}
	}
	return nil
}

// fileName returns the name of a step's file, and of its n-th part, from 1.
// GitHub would change any but letters, digits, dots, dashes and underscores.
func fileName(k key.Key, n int) string {
	name := k.String() + ".tar.zst"
	if n > 0 {
		name += fmt.Sprintf(".%03d", n)
	}
	return name
}

// inOrder returns the steps as they were made.
func (r *record) inOrder() []*step {
	var list []*step
	for _, st := range r.Steps {
		list = append(list, st)
	}
	slices.SortFunc(list, func(a, b *step) int {
		if c := a.Created.Compare(b.Created); c != 0 {
			return c
		}
		return bytes.Compare(a.Key[:], b.Key[:])
	})
	if r.Layer != nil {
		at := func(st *step) int { return slices.Index(r.Layer.Keys, st.Key) }
		slices.SortStableFunc(list, func(a, b *step) int { return at(a) - at(b) })
	}
	return list
}

// The lines of a release's text that are for the program. JSON escapes "<" and
// ">", so that nothing in it ends the comment.
const (
	markName  = "<!-- clayer-release "
	markLayer = "<!-- clayer-layer "
	markStep  = "<!-- clayer-step "
	markSteps = "<!-- clayer-steps " // all of them, compressed, in base64
	markEnd   = " -->"
)

// errFull says that a release's text has no room for another step.
var errFull = errors.New("the release's text is full")

// body writes the text of a release. Where it gets too long for GitHub, first
// the lists of frames are left out, which manifest.json has; then the records that explain
// a change of key, then the table; then the steps are compressed.
func (r *record) body() (string, error) {
	for short := range 5 {
		if text := r.text(short); utf8.RuneCountInString(text) <= github.MaxBody-1000 {
			return text, nil
		}
	}
	return "", errFull
}

func (r *record) text(short int) string {
	var b strings.Builder
	what := "an unnamed layer"
	if r.Name != "" {
		what = "the layer **" + r.Name + "**"
	}
	fmt.Fprintf(&b, "Snapshots of %s, stored by clayer so that a machine restores them in place of building.\n\n", what)
	b.WriteString("It is safe to delete this release: what is missing is built again. `clayer cache prune` does it for old ones.\n\n")
	steps := r.inOrder()
	if short < 3 {
		if r.Layer != nil {
			fmt.Fprintf(&b, "Made for %s.\n\n", code(r.Layer.Platform))
		}
		b.WriteString("| step | bytes | key |\n| --- | --- | --- |\n")
		for _, st := range steps {
			where := ""
			if st.Tag != "" {
				where = " in " + st.Tag
			}
			fmt.Fprintf(&b, "| %s | %d | `%s`%s |\n", code(st.Text), st.Size, st.Key.Short(), where)
		}
		if r.Layer != nil {
			for _, l := range r.Layer.LeftOut {
				fmt.Fprintf(&b, "| %s | left out: it installed nothing | `%s` |\n", code(l.Text), l.Key.Short())
			}
		}
		b.WriteString("\n")
	}
	line := func(mark string, v any) {
		data, err := json.Marshal(v)
		if err != nil {
			panic("ghrelease: " + err.Error()) // structs of plain values
		}
		b.WriteString(mark + string(data) + markEnd + "\n")
	}
	line(markName, r.Name)
	if r.Layer != nil {
		l := *r.Layer
		if short > 1 {
			l.LeftOut = slices.Clone(l.LeftOut)
			for i := range l.LeftOut {
				l.LeftOut[i].Record, l.LeftOut[i].Text = nil, ""
			}
		}
		line(markLayer, l)
	}
	var lines []byte
	for _, st := range steps {
		s := *st
		if short > 0 {
			s.Frames = nil
		}
		if short > 1 {
			s.Record, s.Text, s.Cutoff = nil, "", key.Key{}
		}
		if short < 4 {
			line(markStep, s)
			continue
		}
		data, err := json.Marshal(s)
		if err != nil {
			panic("ghrelease: " + err.Error())
		}
		lines = append(append(lines, data...), '\n')
	}
	if short == 4 {
		enc, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1))
		if err != nil {
			panic("ghrelease: " + err.Error()) // of its options
		}
		b.WriteString(markSteps + base64.StdEncoding.EncodeToString(enc.EncodeAll(lines, nil)) + markEnd + "\n")
	}
	return b.String()
}

// unpackSteps reads the compressed form of the steps.
func unpackSteps(data []byte) []byte {
	packed, err := base64.StdEncoding.AppendDecode(nil, data)
	if err != nil {
		return nil
	}
	dec, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(64<<20))
	if err != nil {
		return nil
	}
	defer dec.Close()
	lines, err := dec.DecodeAll(packed, nil)
	if err != nil {
		return nil
	}
	return lines
}

// code shows a text as code in a table of Markdown, cut to what is readable.
func code(s string) string {
	s = strings.Map(func(c rune) rune {
		switch {
		case c == '`':
			return '\''
		case c == '|' || c < ' ' || c == 0x7f:
			return ' '
		}
		return c
	}, s)
	if r := []rune(s); len(r) > 100 {
		s = string(r[:99]) + "…"
	}
	if strings.TrimSpace(s) == "" {
		return ""
	}
	return "`" + s + "`"
}

// parseBody reads what body wrote. It reports false for a text of another kind.
// What can't be read counts as not there.
func parseBody(text string) (record, bool) {
	r := record{Steps: make(map[key.Key]*step)}
	ok := false
	for line := range strings.Lines(text) {
		line = strings.TrimRight(line, "\r\n")
		data := func(mark string) ([]byte, bool) {
			rest, ok := strings.CutPrefix(line, mark)
			if !ok {
				return nil, false
			}
			return []byte(strings.TrimSuffix(rest, markEnd)), true
		}
		if d, is := data(markName); is {
			ok = json.Unmarshal(d, &r.Name) == nil
		}
		if d, is := data(markLayer); is {
			var l layer
			if json.Unmarshal(d, &l) == nil {
				r.Layer = &l
			}
		}
		if d, is := data(markStep); is {
			r.add(d)
		}
		if d, is := data(markSteps); is {
			for line := range bytes.Lines(unpackSteps(d)) {
				r.add(line)
			}
		}
	}
	return r, ok
}

// add reads a step; one that can't be read is left out.
func (r *record) add(data []byte) {
	var st step
	if json.Unmarshal(data, &st) == nil && st.valid() {
		r.Steps[st.Key] = &st
	}
}

// valid reports whether a step can be what it says: its text comes from where
// others may write.
func (st *step) valid() bool {
	sum := int64(0)
	if len(st.Parts) > github.MaxAssets {
		return false
	}
	for _, p := range st.files() {
		if p.Digest.Validate() != nil || p.Digest.Algorithm() != digest.SHA256 || p.Size < 0 || p.Size > github.MaxAssetSize {
			return false
		}
		sum += p.Size
	}
	return !st.Key.IsZero() && sum == st.Size && cache.ValidDigest(st.Digest)
}

// manifestFile is manifest.json.
type manifestFile struct {
	Version int     `json:"version"` // 1
	Layer   layer   `json:"layer"`
	Steps   []*step `json:"steps"` // in order
}

func (r *record) manifest() ([]byte, error) {
	m := manifestFile{Version: 1, Layer: *r.Layer}
	for _, k := range r.Layer.Keys {
		m.Steps = append(m.Steps, r.Steps[k])
	}
	data, err := json.MarshalIndent(m, "", " ")
	return append(data, '\n'), err
}

func parseManifest(data []byte) (record, error) {
	var m manifestFile
	r := record{Steps: make(map[key.Key]*step)}
	if err := json.Unmarshal(data, &m); err != nil {
		return r, err
	}
	if m.Version != 1 {
		return r, fmt.Errorf("version %d; this program knows 1", m.Version)
	}
	r.Name, r.Layer = m.Layer.Name, &m.Layer
	for _, st := range m.Steps {
		if st == nil || !st.valid() {
			return r, errors.New("a step in it makes no sense")
		}
		r.Steps[st.Key] = st
	}
	return r, nil
}
