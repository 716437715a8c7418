//go:build unix && !linux

package shim

import "github.com/clayer/clayer/frontend/edit"

// A watching makes no snapshots: clayer changes roots on Linux alone.
type watching struct {
	env map[string]string // none
}

func (o Options) watch(edit.Reading, []string, func(string, ...any)) *watching { return &watching{} }

func (w *watching) ended()           {}
func (w *watching) adopt(bool) error { return nil }
func (w *watching) close()           {}

// Watch is of no use there.
func Watch(Options, []string) int { return 1 }
