// Package drift compares a root with the record of it: what is as it was applied,
// what was changed since, and what else was. It changes nothing.
package drift

import "github.com/clayer/clayer/dag/key"

// DriftState says how a file stands to what was applied.
type DriftState string

// How a file stands to what was applied, or to the root as it was then.
const (
	AsApplied DriftState = "as applied"
	Changed   DriftState = "changed"
	Missing   DriftState = "missing"
	New       DriftState = "new" // of Diff alone
)

// FileState is how one path stands.
type FileState struct {
	Path  string     `json:"path"` // relative to the root
	State DriftState `json:"state"`
	What  []string   `json:"what,omitempty"` // what changed: content, mode, owner, ..
	Key   key.Key    `json:"key,omitzero"`   // the step that it is of; zero for one of none
	Dir   bool       `json:"dir,omitempty"`
	Size  int64      `json:"size,omitempty"` // of a file, in bytes; of Diff alone
}
