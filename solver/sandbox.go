package solver

import (
	"github.com/clayer/clayer/dag"
	"github.com/clayer/clayer/solver/exec"
	"github.com/clayer/clayer/solver/rootfs"
	"github.com/clayer/clayer/solver/sandbox"
)

func (r *session) sandboxOptions(root *rootfs.Root) sandbox.Options {
	over := ""
	if r.Dest != "" {
		over = r.target()
	}
	return sandbox.Options{Root: r.base(), Over: over, Hide: []string{root.StateDir().String(), r.Cache}, Compare: r.Compare, Warn: r.inSandbox}
}

func (r *session) inSandbox(text string) { r.Report.WarnOnce("in the sandbox %s", text) }

// PlannedSandbox says which sandbox the steps of a plan would run in, how it works
// here, and why it is this one; "" if none of them runs. Nothing is written.
func PlannedSandbox(opt Options, p *dag.Plan) (string, error) {
	r := newReadOnly(opt)
	if !exec.Runs(p) {
		return "", nil
	}
	root, err := r.open()
	if err != nil {
		return "", err
	}
	s, err := sandbox.Check(r.Options.Sandbox, r.sandboxOptions(root), exec.Engines...)
	if err != nil {
		return "", err
	}
	return s.String(), nil
}
