package solver

import (
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/clayer/clayer/dag"
	"github.com/clayer/clayer/frontend"
	"github.com/clayer/clayer/solver/internal/installs"
)

// variables returns the session's variables. Under Hermetic these are what reaches the
// network, and a PATH and HOME that are the same on all machines of a kind.
func (r *session) variables() map[string]string {
	env := make(map[string]string, len(r.Environ))
	for _, kv := range r.Environ {
		k, v, ok := strings.Cut(kv, "=")
		if !ok || k == "" || r.Hermetic && k != "HOME" && !dag.IsNetwork(k) {
			continue
		}
		env[k] = v
	}
	if r.Hermetic {
		env["PATH"] = defaultPath
		if os.Geteuid() == 0 {
			env["HOME"] = "/root"
		}
	}
	return env
}

// inherit says which of them a RUN gets.
func (r *session) inherit() dag.Inherit {
	switch {
	case r.Hermetic:
		return dag.Hermetic
	case r.InheritEnv:
		return dag.InheritAll
	}
	return dag.InheritNamed
}

// inherited returns those of the session's variables that a RUN gets.
func (r *session) inherited(s *dag.Step) map[string]string {
	session, env := r.variables(), make(map[string]string)
	for _, v := range s.Session() {
		if value, ok := session[v.Name]; ok {
			env[v.Name] = value
		}
	}
	return env
}

// referred returns the session's variables, as an ENV can refer to them.
func (r *session) referred() map[string]string {
	session := r.variables()
	if !r.InheritEnv {
		maps.DeleteFunc(session, func(name, _ string) bool { return dag.IsShells(name) })
	}
	return session
}

// setBefore adds to env the ENV of the layers that l is composed after.
func setBefore(env map[string]string, l *dag.Layer, session map[string]string) {
	for _, l := range l.Before() {
		frontend.SetVars(env, l.Scope.Env, session)
	}
}

// environ returns the environment of a RUN, sorted.
func (r *session) environ(s *dag.Step, run *frontend.Run) []string {
	env, session := r.inherited(s), r.referred()
	python, inherited := env[installs.SystemPython]
	delete(env, installs.SystemPython)
	setBefore(env, s.Layer, session)
	if s.Epoch != "" {
		env[dag.EpochVar] = s.Epoch
	}
	frontend.SetVars(env, run.Args, session)
	frontend.SetVars(env, run.Env, session)
	more := installs.Defaults(env, s, run)
	if _, ok := more[installs.SystemPython]; ok && inherited {
		more[installs.SystemPython] = python
	}
	for name, value := range more {
		if _, ok := env[name]; !ok {
			env[name] = value
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
