package stages

import (
	"errors"

	"github.com/clayer/clayer/frontend"
	"github.com/clayer/clayer/solver/sandbox"
)

// NameImage returns the error of a RUN in a stage, or a layer, of an image; it names the image where a
// program is missing. from is nil for a stage of none.
func NameImage(err error, from *frontend.From) error {
	var exit *sandbox.ExitError
	if named := (*missingProgram)(nil); errors.As(err, &named) {
		return err
	}
	if from == nil || !errors.As(err, &exit) || exit.Code != 127 {
		return err
	}
	return &missingProgram{exit, from.Image}
}

// A missingProgram says where a program was expected that a machine lacks.
type missingProgram struct {
	*sandbox.ExitError
	image string
}

func (e *missingProgram) Error() string {
	return e.ExitError.Error() + ": a program is missing; in Docker it is built on the image " + e.image
}

func (e *missingProgram) Unwrap() error { return e.ExitError }
