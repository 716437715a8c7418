// Package installs knows the variables that let RUNs install packages.
package installs

import (
	"maps"
	"strings"

	"github.com/clayer/clayer/dag"
	"github.com/clayer/clayer/frontend"
	"github.com/clayer/clayer/frontend/edit"
	"github.com/clayer/clayer/internal/lazyregexp"
	"github.com/clayer/clayer/internal/pathname"
)

// SystemPython has uv install into the system's Python.
const SystemPython = "UV_SYSTEM_PYTHON"

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

// Defaults returns the variables that a RUN has unless something else sets them.
// UV_SYSTEM_PYTHON is none of them where a virtual environment is active, or the command
// makes one active: uv would pass it over. Nor is it inherited then.
func Defaults(env map[string]string, s *dag.Step, run *frontend.Run) map[string]string {
	all := maps.Clone(edit.PythonDefaults)
	all["DEBIAN_FRONTEND"] = "noninteractive" // nobody is there to answer
	conda := env["CONDA_PREFIX"] != "" && env["CONDA_DEFAULT_ENV"] != "base"
	if env["VIRTUAL_ENV"] != "" || conda || activates().MatchString(textOf(run)) || hasVenv(s, run.Dir) {
		delete(all, SystemPython)
	}
	return all
}
