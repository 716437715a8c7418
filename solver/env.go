package solver

import (
	"fmt"

	"github.com/clayer/clayer/frontend"
	"github.com/clayer/clayer/internal/durability"
	"github.com/clayer/clayer/solver/exec"
	"github.com/clayer/clayer/solver/internal/record"
	"github.com/clayer/clayer/solver/internal/shortfall"
)

// Env returns the variables of the options' files, or, where it has none, of
// what is applied to its root.
func Env(opt Options) ([]frontend.Var, error) {
	if len(opt.Files) > 0 {
		g, err := newReadOnly(opt).graph()
		if err != nil {
			return nil, err
		}
		return g.Env(len(g.Layers)), nil
	}
	st, err := Status(opt)
	if err != nil {
		return nil, err
	}
	return envVars(st.State.Env), nil
}

func envVars(env []record.Var) []frontend.Var {
	var vars []frontend.Var
	for _, v := range env {
		vars = append(vars, frontend.Var(v))
	}
	return vars
}

// A RootStatus is what is known of a root.
type RootStatus struct {
	Root       string             `json:"root"`
	State      *record.State      `json:"state"`
	Durability []durability.Place `json:"durability"` // of the root, and of its state if that is another

	CutOff bool `json:"cutOff,omitempty"` // a command is changing the root, or was cut off: State is from before

	ByHand    []exec.Installed `json:"byHand,omitempty"`    // ByHand sets it
	Shortfall *Shortfall       `json:"shortfall,omitempty"` // what the last solve left out; nil: nothing
}

// Status reads what is applied to the root. It never waits.
func Status(opt Options) (*RootStatus, error) {
	root, state, err := opt.openState()
	if err != nil {
		return nil, err
	}
	cut, err := root.CutOff(state)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrRoot, err)
	}
	short, err := shortfall.Read(root.StateDir())
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnread, err)
	}
	return &RootStatus{Root: root.Dir(), State: state, Durability: root.Durability(), CutOff: cut, Shortfall: short}, nil
}
