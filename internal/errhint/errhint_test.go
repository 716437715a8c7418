package errhint

import (
	"errors"
	"fmt"
	"io/fs"
	"testing"
)

func TestText(t *testing.T) {
	inner := With(fs.ErrNotExist, "create it")
	err := With(fmt.Errorf("read: %w", errors.Join(inner, errors.New("and more"))), "look there")
	if got, want := Text(err), "read: file does not exist\nand more\nhint: look there\nhint: create it"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if !errors.Is(err, fs.ErrNotExist) {
		t.Error("the error is hidden")
	}
	if hints := Of(nil); hints != nil {
		t.Errorf("hints of nil: %q", hints)
	}
}
