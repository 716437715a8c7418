// Package wrote says which paths the steps of a solve have written.
package wrote

import (
	"io"
	"sync"

	"github.com/clayer/clayer/cache/snapshot"
	"github.com/clayer/clayer/dag/key"
	"github.com/clayer/clayer/solver/internal/record"
	"github.com/clayer/clayer/solver/rootfs"
)

// Paths are those of steps that were asked for. The zero Paths is ready for use, also by
// several goroutines.
type Paths struct {
	mu sync.Mutex
	of map[key.Key]map[string]bool
}

// By returns the paths that the step of a key has written, as far as that is known: by its
// snapshot, or, where that is nil, by the log of a root.
func (p *Paths) By(k key.Key, packed io.ReaderAt, size int64, root *rootfs.Root, log []record.Event) map[string]bool {
	p.mu.Lock()
	paths := p.of[k]
	p.mu.Unlock()
	if paths != nil {
		return paths
	}
	paths = make(map[string]bool)
	if packed != nil {
		for l, err := range snapshot.List(packed, size) {
			if err != nil {
				break // of another tool: what it wrote counts as the base's
			}
			paths[l.Path] = true
		}
	} else {
		for _, ev := range log {
			if ev.Key != k {
				continue
			}
			wrote, err := root.Wrote(ev)
			if err != nil {
				break
			}
			for _, path := range wrote {
				paths[path] = true
			}
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.of == nil {
		p.of = make(map[key.Key]map[string]bool)
	}
	p.of[k] = paths
	return paths
}
