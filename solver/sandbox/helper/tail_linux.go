package helper

import (
	"bytes"
	"io"
	"sync"
)

// The bounds of ExitError.Output.
const (
	tailLines = 20
	tailBytes = 16 << 10
)

// tail passes output on as it comes and holds the end of it. An error of the
// writer does not reach the command: it is not killed because a terminal went
// away.
type tail struct {
	out io.Writer // may be nil

	mu  sync.Mutex
	end []byte // at most 2*tailBytes
}

func (t *tail) Write(p []byte) (int, error) {
	if t.out != nil {
		_, _ = t.out.Write(p)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	end := p[max(0, len(p)-tailBytes):]
	t.end = append(t.end, end...)
	if len(t.end) > 2*tailBytes {
		t.end = append(t.end[:0], t.end[len(t.end)-tailBytes:]...)
	}
	return len(p), nil
}

// last returns the last lines, within the bounds.
func (t *tail) last() []byte {
	t.mu.Lock()
	defer t.mu.Unlock()
	b := t.end[max(0, len(t.end)-tailBytes):]
	from := len(bytes.TrimSuffix(b, []byte("\n")))
	for range tailLines {
		i := bytes.LastIndexByte(b[:from], '\n')
		if i < 0 {
			return bytes.Clone(b)
		}
		from = i
	}
	return bytes.Clone(b[from+1:])
}
