// Package overlay runs commands on overlays of a root, which stays as it is.
package overlay

import "github.com/clayer/clayer/solver/sandbox"

// Engine makes overlays for sandbox.Choose.
var Engine = sandbox.Engine{
	Kind: "overlay",
	Why:  "it leaves the root untouched",
	New: func(opt sandbox.Options) (*sandbox.Sandbox, error) {
		s, err := New(opt)
		if err != nil {
			return nil, err
		}
		return s.Sandbox(), nil
	},
	Check: Check,
}
