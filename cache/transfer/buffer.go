package transfer

import (
	"bytes"
	"fmt"
)

// A Buffer is what Get writes a small file to. More than Max bytes are an error.
type Buffer struct {
	Max int

	buf bytes.Buffer
}

// Bytes returns what was written.
func (b *Buffer) Bytes() []byte { return b.buf.Bytes() }

// Write implements io.Writer.
func (b *Buffer) Write(p []byte) (int, error) {
	if b.buf.Len()+len(p) > b.Max {
		return 0, fmt.Errorf("larger than %d bytes", b.Max)
	}
	return b.buf.Write(p)
}

// Rewind forgets what was written.
func (b *Buffer) Rewind() error {
	b.buf.Reset()
	return nil
}
