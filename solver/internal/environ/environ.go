// Package environ is the environment of RUNs: what they get of the session's variables, of
// ENV and ARG, and of what makes package managers work on a bare machine.
package environ

import (
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/clayer/clayer/dag"
	"github.com/clayer/clayer/frontend"
	"github.com/clayer/clayer/frontend/predefined"
	"github.com/clayer/clayer/solver/internal/installs"
)

// A Session is where the variables come from.
type Session struct {
	Environ    []string // as os.Environ returns them
	Hermetic   bool     // a RUN gets those that reach the network, and no others
	InheritEnv bool     // it gets all

	BuildArgs map[string]string // those of proxies are set in all RUNs
}

// DefaultPath is what a root is searched for programs by where nothing else is known.
const DefaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// Variables returns the session's variables. Under Hermetic these are what reaches the
// network, and a PATH and HOME that are the same on all machines of a kind.
func (e Session) Variables() map[string]string {
	env := make(map[string]string, len(e.Environ))
	for _, kv := range e.Environ {
		k, v, ok := strings.Cut(kv, "=")
		if !ok || k == "" || e.Hermetic && k != "HOME" && !dag.IsNetwork(k) {
			continue
		}
		env[k] = v
	}
	if e.Hermetic {
		env["PATH"] = DefaultPath
		if os.Geteuid() == 0 {
			env["HOME"] = "/root"
		}
	}
	return env
}

// Inherit says which of them a RUN gets.
func (e Session) Inherit() dag.Inherit {
	switch {
	case e.Hermetic:
		return dag.Hermetic
	case e.InheritEnv:
		return dag.InheritAll
	}
	return dag.InheritNamed
}

// inherited returns those of the session's variables that a RUN gets.
func (e Session) inherited(s *dag.Step) map[string]string {
	session, env := e.Variables(), make(map[string]string)
	for _, v := range s.Session() {
		if value, ok := session[v.Name]; ok {
			env[v.Name] = value
		}
	}
	return env
}

// referred returns the session's variables, as an ENV can refer to them.
func (e Session) referred() map[string]string {
	session := e.Variables()
	if !e.InheritEnv {
		maps.DeleteFunc(session, func(name, _ string) bool { return dag.IsShells(name) })
	}
	return session
}

// SetBefore adds to env the ENV of the layers that l is composed after.
func SetBefore(env map[string]string, l *dag.Layer, session map[string]string) {
	for _, l := range l.Before() {
		dag.SetVars(env, l.Scope.Env, session)
	}
}

// Of returns the environment of a RUN, sorted.
func (e Session) Of(s *dag.Step, run *frontend.Run) []string {
	env, session := e.inherited(s), e.referred()
	python, inherited := env[installs.SystemPython]
	delete(env, installs.SystemPython)
	SetBefore(env, s.Layer, session)
	if s.Epoch != "" {
		env[dag.EpochVar] = s.Epoch
	}
	dag.SetVars(env, run.Args, session)
	dag.SetVars(env, run.Env, session)
	more := installs.Defaults(env, s, run)
	if _, ok := more[installs.SystemPython]; ok && inherited {
		more[installs.SystemPython] = python
	}
	for name, value := range more {
		if _, ok := env[name]; !ok {
			env[name] = value
		}
	}
	for name, value := range e.BuildArgs { // as BuildKit has them
		if upper := strings.ToUpper(name); value != "" && slices.Contains(predefined.Proxies, upper) {
			env[upper], env[strings.ToLower(name)] = value, value
		}
	}
	env["CLAYER_SHIM"] = "off" // what a RUN installs is in the Containerfile already
	list := make([]string, 0, len(env))
	for k, v := range env {
		list = append(list, k+"="+v)
	}
	slices.Sort(list)
	return list
}

// ofSession are variables of the session's user, which are none of another one's.
var ofSession = []string{"HOME", "USER", "LOGNAME", "TMPDIR"}

// OfUser returns the environment of a RUN, as Of does, for the user that USER names. Unless
// an ENV or ARG says otherwise, HOME is the user's.
func OfUser(env []string, s *dag.Step, run *frontend.Run, home string) []string {
	set := slices.Concat(run.Args, run.Env)
	for _, l := range s.Layer.Before() {
		set = append(set, l.Scope.Env...)
	}
	env = slices.DeleteFunc(slices.Clone(env), func(kv string) bool {
		name, value, _ := strings.Cut(kv, "=")
		isSet := slices.ContainsFunc(set, func(v frontend.Var) bool { return v.Name == name })
		return slices.Contains(ofSession, name) && (!isSet || name == "HOME" && value == "")
	})
	if !slices.ContainsFunc(env, func(kv string) bool { return strings.HasPrefix(kv, "HOME=") }) {
		env = append(env, "HOME="+home)
	}
	return env
}

// RunOf returns the RUN of a step, or, of a COPY from a stage or an image, one in which what it copies
// would run; nil for another step.
func RunOf(s *dag.Step) *frontend.Run {
	switch in := s.Instr.(type) {
	case *frontend.Run:
		return in
	case *frontend.Copy:
		if in.IsRoot() {
			return &frontend.Run{User: "nobody", Env: s.Layer.Scope.Env} // whose home is of no account
		}
	}
	return nil
}
