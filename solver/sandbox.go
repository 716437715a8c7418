package solver

import (
	"github.com/clayer/clayer/dag"
	"github.com/clayer/clayer/solver/rootfs"
	"github.com/clayer/clayer/solver/sandbox"
)

// SandboxText says which sandbox is used, how it works here, and why it is this one.
func SandboxText(name, how, why string) string {
	return name + " (" + how + "): " + why
}

func (r *session) sandboxOptions(root *rootfs.Root) sandbox.Options {
	over := ""
	if r.Dest != "" {
		over = r.target()
	}
	return sandbox.Options{Root: r.base(), Over: over, Hide: []string{root.StateDir().String(), r.Cache}, Compare: r.Compare}
}

// PlannedSandbox says which sandbox the steps of a plan would run in, as
// SandboxText does; "" if none of them runs. Nothing is written.
func PlannedSandbox(opt Options, p *dag.Plan) (string, error) {
	r := newReadOnly(opt)
	b := &builder{r: r, sv: &survey{plan: p}}
	if !b.runs() {
		return "", nil
	}
	root, err := r.open()
	if err != nil {
		return "", err
	}
	name, how, why, err := sandbox.Check(r.Sandbox, r.sandboxOptions(root))
	if err != nil {
		return "", err
	}
	return SandboxText(name, how, why), nil
}
