package remote

import (
	"bytes"
	"sync"
)

// A Tail has the end of what git prints, and counts all of it: a git that prints nothing
// makes no progress.
type Tail struct {
	mu sync.Mutex
	n  int64
	b  bytes.Buffer
}

const tailSize = 32 << 10

// Write never fails.
func (t *Tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.n += int64(len(p))
	if t.b.Len() > tailSize {
		t.b.Next(t.b.Len() - tailSize/2)
	}
	t.b.Write(p[max(0, len(p)-tailSize):])
	return len(p), nil
}

// Total returns how many bytes were printed.
func (t *Tail) Total() int64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.n
}

// String returns the end of what was printed.
func (t *Tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.b.String()
}
