package sandbox

import (
	"errors"
	"fmt"
	"strings"
)

// ExitError reports that a command ran and failed.
type ExitError struct {
	Code   int    // its exit status; 128+n when signal n ended it, as in a shell
	Output []byte // its last 20 lines of output, at most 16 KiB
	Reason string // "" or, in words, why it was ended: "timeout after 5s"
}

func (e *ExitError) Error() string {
	if e.Reason != "" {
		return fmt.Sprintf("exit code %d (%s)", e.Code, e.Reason)
	}
	return fmt.Sprintf("exit code %d", e.Code)
}

// ErrUnavailable reports that this machine does not allow a sandbox of this kind.
// The error that wraps it says why.
var ErrUnavailable = errors.New("sandbox not available")

// ErrNoNetworkNamespace says that this machine allows a command no network of its own.
var ErrNoNetworkNamespace = errors.New("no network namespace here")

// Unavailable returns an error that wraps ErrUnavailable and says why no sandbox
// of the kind works here.
func Unavailable(kind string, reasons ...error) error {
	return fmt.Errorf("%s %w: %w", kind, ErrUnavailable, joined{reasons, "; "})
}

// joined are errors with a separator between them.
type joined struct {
	errs []error
	sep  string
}

func (j joined) Error() string {
	var texts []string
	for _, err := range j.errs {
		texts = append(texts, err.Error())
	}
	return strings.Join(texts, j.sep)
}

func (j joined) Unwrap() []error { return j.errs }

// firstReason returns the first of the reasons that Unavailable got.
func firstReason(err error) error {
	if j := (joined{}); errors.As(err, &j) && len(j.errs) > 0 {
		return j.errs[0]
	}
	return err
}
