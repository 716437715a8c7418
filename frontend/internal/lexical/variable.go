package lexical

import (
	"github.com/clayer/clayer/frontend/internal/fault"
	"github.com/clayer/clayer/internal/lazyregexp"
)

// variableName is what may be set: names that a shell can use, and with "." and
// "-" in them, which the environment can hold.
var variableName = lazyregexp.New(`^[A-Za-z_][A-Za-z0-9_.-]*$`)

// CheckName returns a *fault.Fault if no variable can have the name.
func CheckName(name string) error {
	if !variableName().MatchString(name) {
		return fault.Errorf("%q is no variable's name", name)
	}
	return nil
}
