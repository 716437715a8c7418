package key

import (
	"crypto/sha256"
	"encoding/hex"
	"slices"
)

// A Record is the inputs of a step as they may be stored and shown: in order,
// private values as digests.
type Record []Input

// An Input is one entry of a Record.
type Input struct {
	Name  string `json:"name"`
	Value string `json:"value"`          // "sha256:" and 16 hex digits where the value is private or long
	Note  bool   `json:"note,omitempty"` // it enters no key
}

// maxValue is the longest value, in bytes, that a record holds as it is.
// A longer one, such as a script of many lines, is recorded as its digest.
const maxValue = 200

// Explain returns the record of inputs.
func Explain(in Inputs) Record {
	var r recorder
	in(&r)
	return r.rec
}

type recorder struct{ rec Record }

func (r *recorder) Field(name, value string) {
	if len(value) > maxValue {
		value = shortDigest(value)
	}
	r.rec = append(r.rec, Input{Name: name, Value: value})
}

func (r *recorder) Private(name, value string) {
	r.rec = append(r.rec, Input{Name: name, Value: shortDigest(value)})
}

func (r *recorder) Note(name, value string) {
	r.rec = append(r.rec, Input{Name: name, Value: shortDigest(value), Note: true})
}

// Noted reports whether value is that of a note of the record.
func (r Record) Noted(name, value string) bool {
	return slices.Contains(r, Input{Name: name, Value: shortDigest(value), Note: true})
}

func shortDigest(value string) string {
	sum := sha256.Sum256([]byte(value))
	return "sha256:" + hex.EncodeToString(sum[:8])
}

// Changed returns the names of the inputs in which r differs from old:
// those with another value, in r's order, then those that old alone has. Notes are none.
func (r Record) Changed(old Record) []string {
	var names []string
	add := func(name string) {
		if !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	for _, in := range r {
		if !in.Note && !slices.Contains(old, in) {
			add(in.Name)
		}
	}
	for _, in := range old {
		if !in.Note && !slices.Contains(r, in) {
			add(in.Name)
		}
	}
	return names
}

// Get returns the value of the first input of that name, or "".
func (r Record) Get(name string) string {
	for _, in := range r {
		if in.Name == name {
			return in.Value
		}
	}
	return ""
}
