package ui

import (
	"io"

	"github.com/clayer/clayer/internal/printable"
)

// Data returns a writer for what a program may read byte by byte, such as a file's
// text: it is written exactly, unless a terminal shows it.
func Data(w io.Writer) io.Writer {
	if exact := printable.Exact(w); terminal(exact) == nil {
		return exact
	}
	return w
}
