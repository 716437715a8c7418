package exec

import (
	"errors"
	"fmt"
	"strings"

	"github.com/clayer/clayer/dag"
	"github.com/clayer/clayer/frontend"
	"github.com/clayer/clayer/solver/internal/record"
	"github.com/clayer/clayer/solver/internal/unpack"
	"github.com/clayer/clayer/solver/source"
)

// placement says what the snapshot of a step must not replace: no COPY removes a
// directory to put a file there, nor does a FETCH of what is no archive. What a
// RUN replaced is what its command did.
func (b *builder) placement(s *dag.Step) record.Placement {
	if b.Steps.Unstored(s.Layer) {
		return record.Placement{}
	}
	switch in := s.Instr.(type) {
	case *frontend.Copy:
		return record.Placement{ProtectDirs: true, File: strings.Trim(in.Dest, "/")}
	case *frontend.Fetch:
		return record.Placement{File: source.PlainFile(in)}
	}
	return record.Placement{}
}

// misplaced explains that a file of a step would replace a directory; any other
// error is returned as it is.
func misplaced(s *dag.Step, err error) error {
	var dir *unpack.DirError
	if !errors.As(err, &dir) {
		return err
	}
	return OverDirectory(s, "/"+dir.Path, err)
}

// OverDirectory says that a file of a step would replace the directory at a path.
func OverDirectory(s *dag.Step, at string, err error) *source.Fault {
	f := &source.Fault{
		Message: at + " is a directory, which a file would replace",
		Hint:    "choose another dest, or remove the directory in a RUN before",
		Err:     err,
	}
	if c, ok := s.Instr.(*frontend.Copy); ok && at == c.Dest {
		f.Message, f.Hint = at+" is a directory, which the file would replace", fmt.Sprintf("write %s/ to copy into it", at)
	}
	return f
}
