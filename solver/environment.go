package solver

import (
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/clayer/clayer/dag"
	"github.com/clayer/clayer/frontend"
	"github.com/clayer/clayer/frontend/edit"
	"github.com/clayer/clayer/internal/lazyregexp"
	"github.com/clayer/clayer/internal/pathname"
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
		setVars(env, l.Scope.Env, session)
	}
}

// setVars sets the variables; what a value refers to is looked up in env as it
// was before, and then in the session.
func setVars(env map[string]string, vars []frontend.Var, session map[string]string) {
	was := maps.Clone(env)
	for _, v := range vars {
		env[v.Name] = frontend.Substitute(v.Value, func(name string) string {
			if value, ok := was[name]; ok {
				return value
			}
			return session[name]
		})
	}
}

// environ returns the environment of a RUN, sorted.
func (r *session) environ(s *dag.Step, run *frontend.Run) []string {
	env, session := r.inherited(s), r.referred()
	python, inherited := env[systemPython]
	delete(env, systemPython)
	setBefore(env, s.Layer, session)
	if s.Epoch != "" {
		env[dag.EpochVar] = s.Epoch
	}
	setVars(env, run.Args, session)
	setVars(env, run.Env, session)
	more := defaults(env, s, run)
	if _, ok := more[systemPython]; ok && inherited {
		more[systemPython] = python
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

const systemPython = "UV_SYSTEM_PYTHON"

// activates finds a command that makes a virtual environment the active one, and
// makesVenv one that makes .venv in its directory, where uv looks for one.
var (
	activates = lazyregexp.New(`\bactivate\b|\bVIRTUAL_ENV\b`)
	makesVenv = lazyregexp.New(`\b(uv|-m)[ \t]+venv([ \t]+-\S+)*[ \t]*($|[;&|)\n]|(\./)?\.venv\b)`)
)

func textOf(run *frontend.Run) string { return run.Command + run.Script + strings.Join(run.Exec, " ") }

// hasVenv reports whether a RUN, or one before it, made a .venv that uv finds: in its
// directory or above.
func hasVenv(s *dag.Step, dir string) bool {
	for l, steps := s.Layer, s.Layer.Steps[:s.Index+1]; ; l, steps = l.On, l.On.Steps {
		for _, before := range steps {
			if run, ok := before.Instr.(*frontend.Run); ok && pathname.Under(dir, run.Dir) && makesVenv().MatchString(textOf(run)) {
				return true
			}
		}
		if l.On == nil || l.Ordered {
			return false
		}
	}
}

// defaults returns the variables that a RUN has unless something else sets them.
// UV_SYSTEM_PYTHON is none of them where a virtual environment is active, or the command
// makes one active: uv would pass it over. Nor is it inherited then.
func defaults(env map[string]string, s *dag.Step, run *frontend.Run) map[string]string {
	all := maps.Clone(edit.PythonDefaults)
	all["DEBIAN_FRONTEND"] = "noninteractive" // nobody is there to answer
	conda := env["CONDA_PREFIX"] != "" && env["CONDA_DEFAULT_ENV"] != "base"
	if env["VIRTUAL_ENV"] != "" || conda || activates().MatchString(textOf(run)) || hasVenv(s, run.Dir) {
		delete(all, systemPython)
	}
	return all
}
