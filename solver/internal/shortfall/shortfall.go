// Package shortfall is what the last solve of a root left out, since it was asked for the
// best that could be had: a file beside the state of the root.
package shortfall

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"time"

	"github.com/clayer/clayer/dag/key"
	"github.com/clayer/clayer/solver/internal/record"
)

// A Report says what is missing of a composition, and why. It has a layer or a
// Problem.
type Report struct {
	At      time.Time `json:"at"`
	Layers  []Layer   `json:"layers"`            // those that are not whole, in composition order
	Problem string    `json:"problem,omitempty"` // what is no matter of one layer
	Command string    `json:"command,omitempty"` // what to run for the rest
	Late    bool      `json:"late,omitempty"`    // the budget has ended, and not all had been run
}

// A Layer is one that is in the root in part, or not at all.
type Layer struct {
	Name   string  `json:"name"`
	File   string  `json:"file"`
	Steps  int     `json:"steps"`            // that are in the root, of those that change it
	Of     int     `json:"of"`               // how many the file has
	Wanted key.Key `json:"wanted,omitempty"` // the key of the whole layer; zero: it cannot be computed here
	Key    key.Key `json:"key,omitempty"`    // of what is in the root; zero: nothing is
	Line   int     `json:"line"`             // of the first instruction that is missing
	Text   string  `json:"text"`             // that instruction
	Why    string  `json:"why"`

	As time.Time `json:"as,omitzero"` // when the layer was made that is there in its place; zero: it is a part
}

// FileName is the file in the state directory, which stays where nothing else of the state
// does.
const FileName = "shortfall.json"

// maxLayers bounds what is recorded.
const maxLayers = 1000

// Read returns the report of a root; nil for none.
func Read(dir record.Dir) (*Report, error) {
	data, err := dir.ReadFile(FileName)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	r := new(Report)
	if err := json.Unmarshal(data, r); err != nil {
		return nil, fmt.Errorf("%s is damaged; the next solve replaces it: %w", dir.Path(FileName), err)
	}
	return r, nil
}

// Write makes r the report of a root, under its lock; nil removes it.
func Write(dir record.Dir, r *Report) error {
	if r == nil {
		if is, err := dir.Exists(FileName); !is || err != nil {
			return err
		}
		return dir.Remove(FileName)
	}
	w := *r
	w.Layers = w.Layers[:min(len(w.Layers), maxLayers)]
	data, err := json.MarshalIndent(&w, "", " ")
	if err != nil {
		return err
	}
	return dir.ReplaceFile(FileName, data)
}

// Has notes what the root has of a layer that is not whole.
func (r *Report) Has(name string, k key.Key) {
	if r == nil {
		return
	}
	for i := range r.Layers {
		if r.Layers[i].Name == name {
			r.Layers[i].Key = k
		}
	}
}

// Lacks reports whether the layer of a name is not whole.
func (r *Report) Lacks(name string) bool {
	return r != nil && slices.ContainsFunc(r.Layers, func(l Layer) bool { return l.Name == name })
}
