package names

import "sync"

// A Made knows what steps have made in a root, and what is there without them. Its methods
// are safe for concurrent use.
type Made struct {
	mu          sync.Mutex
	steps, base *View
}

// NewMade returns a Made of what steps make in an empty root, the zero View, and of the root
// without them.
func NewMade(steps, base *View) *Made { return &Made{steps: steps, base: base} }

// Has reports whether the steps have made what is at a path without links.
func (m *Made) Has(name string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	n := m.steps.nodeOf(name)
	return n != nil && n.kind != Missing
}

// BaseDir reports whether a directory is at a path without links where the steps have made
// nothing.
func (m *Made) BaseDir(name string) (bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	kind, err := m.base.Lookup(name)
	return kind == Dir, err
}
