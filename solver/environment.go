package solver

import (
	"maps"
	"slices"
	"strings"

	"github.com/clayer/clayer/dag"
	"github.com/clayer/clayer/frontend"
	"github.com/clayer/clayer/frontend/edit"
)

// hermeticVars are the variables that --hermetic leaves a RUN: without them no
// program is found and no network is reached.
var hermeticVars = []string{
	"PATH", "HOME", "LANG", "TERM",
	"http_proxy", "https_proxy", "no_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY",
	"SSL_CERT_FILE", "SSL_CERT_DIR", "CURL_CA_BUNDLE", "REQUESTS_CA_BUNDLE", "NODE_EXTRA_CA_CERTS", "PIP_CERT", "GIT_SSL_CAINFO",
}

// variables returns the session's variables, as a RUN inherits them.
func (r *session) variables() map[string]string {
	env := make(map[string]string, len(r.Environ))
	for _, kv := range r.Environ {
		k, v, ok := strings.Cut(kv, "=")
		if !ok || k == "" {
			continue
		}
		if r.Hermetic && !slices.Contains(hermeticVars, k) {
			continue
		}
		env[k] = v
	}
	return env
}

// ambient returns what a step of l finds in the environment beside what its
// own file sets: the session, and the ENV of the layers that it is composed
// after. Like the files that it finds in the root, none of it enters a key.
func (r *session) ambient(l *dag.Layer) map[string]string {
	var before []*dag.Layer
	for l := l; l.On != nil; l = l.On {
		if l.Ordered {
			before = append(before, l.On)
		}
	}
	env := r.variables()
	setDefault := func(name, value string) {
		if _, ok := env[name]; !ok {
			env[name] = value
		}
	}
	for name, value := range edit.PythonDefaults {
		setDefault(name, value)
	}
	setDefault("DEBIAN_FRONTEND", "noninteractive") // nobody is there to answer
	for _, l := range slices.Backward(before) {
		setVars(env, l.Scope.Env)
	}
	env["CLAYER_SHIM"] = "off" // what a RUN installs is in the Containerfile already
	return env
}

// setVars sets the variables; what a value refers to is looked up in env as it
// was before.
func setVars(env map[string]string, vars []frontend.Var) {
	was := maps.Clone(env)
	for _, v := range vars {
		env[v.Name] = frontend.Substitute(v.Value, func(name string) string { return was[name] })
	}
}

// environ returns the environment of a RUN, sorted.
func (r *session) environ(s *dag.Step, run *frontend.Run) []string {
	env := r.ambient(s.Layer)
	env[dag.EpochVar] = s.Epoch
	setVars(env, run.Args)
	setVars(env, run.Env)
	list := make([]string, 0, len(env))
	for k, v := range env {
		list = append(list, k+"="+v)
	}
	slices.Sort(list)
	return list
}
