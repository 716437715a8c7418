//go:build !linux

package doctor

import (
	"context"

	"github.com/clayer/clayer/solver/sandbox"
	"github.com/clayer/clayer/solver/sandbox/inplace"
)

func (t *Target) sandbox(context.Context) []Finding {
	_, err := inplace.Check(sandbox.Options{})
	return []Finding{privileges(), {Area: "sandbox", Name: "sandbox", Text: err.Error(), Remedy: "Linux"}}
}
