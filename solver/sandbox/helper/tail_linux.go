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

// tail passes output on as it comes and keeps the end of it. What the reader
// of the output answers is of no concern to the command: it is not killed
// because a terminal went away.
type tail struct {
	out io.Writer // may be nil

	mu   sync.Mutex
	kept []byte // at most 2*tailBytes
}

func (t *tail) Write(p []byte) (int, error) {
	if t.out != nil {
		_, _ = t.out.Write(p)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	end := p[max(0, len(p)-tailBytes):]
	t.kept = append(t.kept, end...)
	if len(t.kept) > 2*tailBytes {
		t.kept = append(t.kept[:0], t.kept[len(t.kept)-tailBytes:]...)
	}
	return len(p), nil
}

// last returns the last lines, within the bounds.
func (t *tail) last() []byte {
	t.mu.Lock()
	defer t.mu.Unlock()
	b := t.kept[max(0, len(t.kept)-tailBytes):]
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
