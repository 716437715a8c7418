package stores

import (
	"context"
	"strings"

	"github.com/clayer/clayer/cache/git"
	"github.com/clayer/clayer/cmd/clayer/internal/usage"
)

// branches returns the branches of Git repositories that --store names.
func (o *Opener) branches() (map[string]git.Address, error) {
	all := make(map[string]git.Address)
	for _, s := range o.Stores {
		name, ok := strings.CutPrefix(s, "git:")
		if !ok {
			continue
		}
		addr, err := git.ParseAddress(name)
		if err == nil {
			addr, err = addr.FindOrigin(context.Background(), "")
		}
		if err != nil {
			return nil, usage.Errorf("--store=git: %w", err)
		}
		all[s] = addr
	}
	return all, nil
}
