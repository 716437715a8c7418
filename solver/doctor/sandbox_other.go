//go:build !linux

package doctor

import (
	"context"

	"github.com/clayer/clayer/solver/sandbox"
	"github.com/clayer/clayer/solver/sandbox/inplace"
)

func (p *Patient) sandbox(context.Context) []Finding {
	_, err := inplace.Check(sandbox.Options{})
	return []Finding{privileges(), {"sandbox", "sandbox", false, err.Error(), "Linux"}}
}
