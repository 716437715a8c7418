// Package identity gives RUNs the user that USER names, and knows which steps ran as
// another one.
package identity

import (
	"slices"
	"sync"

	"github.com/clayer/clayer/cache/snapshot"
	"github.com/clayer/clayer/dag"
	"github.com/clayer/clayer/frontend"
	"github.com/clayer/clayer/solver/internal/names"
	"github.com/clayer/clayer/solver/internal/owners"
	"github.com/clayer/clayer/solver/internal/stages"
	"github.com/clayer/clayer/solver/internal/survey"
	"github.com/clayer/clayer/solver/internal/users"
	"github.com/clayer/clayer/solver/sandbox"
)

// Steps are those of a solve.
type Steps struct {
	Survey *survey.Survey
	Warn   func(format string, args ...any)
	Stages *stages.Stages // which others take files from, and other sessions solve; may be nil
	Stage  *frontend.File // that is solved; nil for layers

	mu      sync.Mutex
	refused map[*dag.Step]bool // they ran as the user who runs clayer
}

// A User is who runs a RUN. nil is the user who runs clayer.
type User struct {
	at    *names.View
	home  string
	needs []snapshot.Need
}

// Home returns where the home of the user is; own is that of the user who runs clayer.
func (u *User) Home(own string) string {
	if u == nil {
		return own
	}
	return u.home
}

// Give has a command run as the user of its RUN, whose name it looks up in what the step
// finds. Without privilege root is the user who runs clayer, as for a RUN without USER.
func (x *Steps) Give(s *dag.Step, run *frontend.Run, before func(*dag.Step) (*names.View, error), cmd *sandbox.Command) (*User, error) {
	if run.User == "" {
		return nil, nil
	}
	at, err := before(s)
	if err != nil {
		return nil, err
	}
	u, err := users.Resolve(at, run.User)
	if err != nil || u.IsOwn() {
		return nil, err
	}
	u.Give(cmd, s, run)
	cmd.Refused = func(why string) {
		x.mu.Lock()
		defer x.mu.Unlock()
		if x.refused == nil {
			x.refused = make(map[*dag.Step]bool)
		}
		x.refused[s] = true
		if x.Stage != nil {
			x.Stages.Refuse(x.Stage)
		}
		x.Warn("%s: RUN: it runs as the user who runs clayer, and not as USER %s: %s. Its snapshot, and those of the RUNs after it, are neither stored nor pushed, nor is what other steps take from its stage. "+
			"Root can run it as that user, and so can a user with subordinate ids (newuidmap, /etc/subuid)", s.Pos(), run.User, why)
	}
	return &User{at, u.Home, u.Needs}, nil
}

// AddNeeds adds to the needs of a RUN those of its user: chain is what the steps of its
// chain need, and wrote reports whether one has written a path.
func (u *User) AddNeeds(all, chain []snapshot.Need, wrote func(path string) bool) ([]snapshot.Need, error) {
	if u == nil {
		return all, nil
	}
	// It says more of the name than the owner of a file does.
	all = slices.DeleteFunc(all, func(n snapshot.Need) bool {
		return n.Kind == snapshot.NeedName && slices.ContainsFunc(u.needs, func(o snapshot.Need) bool { return o.Type == n.Type && o.Name == n.Name })
	})
	return owners.AddUndecided(all, u.needs, "USER", u.at, chain, wrote)
}

// Refused reports whether a step has not made what its key says, as the user of a RUN was
// refused in this solve: of itself, of a stage that it takes files from, or of a step before
// it in its chain, if it looks at that.
func (x *Steps) Refused(s *dag.Step) bool {
	return x.wrong(s) || s.LooksAtRoot() && slices.ContainsFunc(x.Survey.Covered(s), func(it *dag.Item) bool {
		return it.State == dag.ToRun && x.wrong(it.Step)
	})
}

// wrong is Refused, of a step on a chain that is right.
func (x *Steps) wrong(s *dag.Step) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.refused[s] || x.Stages != nil && slices.ContainsFunc(frontend.Uses(s.Instr), x.Stages.Refused)
}

// Differ is Refused, and reports whether a step before it that the root has found something
// else than its chain describes.
func (x *Steps) Differ(s *dag.Step) bool {
	return x.Refused(s) || s.LooksAtRoot() && slices.ContainsFunc(x.Survey.Covered(s), func(it *dag.Item) bool {
		return it.State == dag.Present && x.Survey.Applied(it.Key).Differs
	})
}
