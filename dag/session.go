package dag

import (
	"crypto/sha256"
	"encoding/hex"
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/clayer/clayer/frontend"
	"github.com/clayer/clayer/frontend/mount"
	"github.com/clayer/clayer/frontend/reference"
	"github.com/clayer/clayer/frontend/shellvars"
	"github.com/clayer/clayer/internal/lazyregexp"
	"github.com/clayer/clayer/internal/order"
)

// Inherit says which of the session's variables RUNs get. Its text is what enters
// their keys.
type Inherit string

// The values of Options.Inherit.
const (
	InheritNamed Inherit = ""            // those that are listed, and those that a RUN names
	InheritAll   Inherit = "inherit-env" // all
	Hermetic     Inherit = "hermetic"    // those that reach the network; Options.Session has no others
)

// A SessionVar is a variable of the session that a RUN gets.
type SessionVar struct {
	Name  string `json:"name"`
	Named bool   `json:"named,omitempty"` // by the RUN, its mounts, or an ENV or ARG in effect
	InKey InKey  `json:"inKey,omitempty"`

	digest string
}

// InKey says how a variable enters the key of a RUN.
type InKey string

// The ways into a key.
const (
	NotInKey InKey = ""
	ByName   InKey = "name"   // it marks a credential: its name stands in the instruction, or in an ENV
	ByDigest InKey = "digest" // of its value
	IfSet    InKey = "unset"  // it is not set, and enters the key where it is
)

// setForRun are variables that each RUN has from clayer.
var setForRun = []string{EpochVar, "CLAYER_SHIM"}

// outside is what the RUNs of a layer may get from outside of its file: the session's
// variables, and the ENV of the layers that it is composed after.
type outside struct {
	session  map[string]string
	inherit  Inherit
	before   map[string]string // ENV of the layers before; references to what enters no key are left
	nameable map[string]InKey  // got by a RUN that names them, beside those that every RUN gets
	digests  map[string]string
}

func newOutside(opt *Options) *outside {
	o := &outside{session: opt.Session, inherit: opt.Inherit, nameable: make(map[string]InKey), digests: make(map[string]string)}
	if o.inherit != Hermetic {
		for name, value := range o.session {
			o.name(name, value)
		}
	}
	return o
}

// name makes a variable one that a RUN can name.
func (o *outside) name(name, value string) {
	switch {
	case isPassed(name, value), IsShells(name), slices.Contains(setForRun, name):
	case isCredential(name, value):
		o.nameable[name] = ByName
	default:
		o.nameable[name] = ByDigest
		sum := sha256.Sum256([]byte(value))
		o.digests[name] = "sha256:" + hex.EncodeToString(sum[:])
	}
}

// after returns what a layer has from outside: what the layer has that it is FROM, or
// composed after, and then the ENV of that one too. o is what a first layer has.
func (o *outside) after(l *Layer) *outside {
	if l.On == nil {
		return o
	}
	o = l.On.outside
	if !l.Ordered || len(l.On.Scope.Env) == 0 {
		return o
	}
	more := *o
	more.before, more.nameable, more.digests = maps.Clone(o.before), maps.Clone(o.nameable), maps.Clone(o.digests)
	if more.before == nil {
		more.before = make(map[string]string)
	}
	for _, v := range l.On.Scope.Env {
		value := reference.Substitute(v.Value, func(name string) string {
			if value, ok := o.before[name]; ok {
				return value
			}
			if o.nameable[name] == ByDigest {
				return o.session[name]
			}
			return reference.To(name) // it differs between machines, and no key says so
		})
		more.before[v.Name] = value
		delete(more.nameable, v.Name)
		more.name(v.Name, value)
	}
	return &more
}

// Before returns the layers whose ENV a layer's RUNs get though it is not its own, the
// first composed first: those that it is composed after, and not FROM.
func (l *Layer) Before() []*Layer {
	var before []*Layer
	for ; l.On != nil; l = l.On {
		if l.Ordered {
			before = append(before, l.On)
		}
	}
	slices.Reverse(before)
	return before
}

// namedBy returns the variables that a RUN gets because it names them, sorted.
func (o *outside) namedBy(run *frontend.Run) (named []SessionVar) {
	if len(o.nameable) == 0 {
		return nil
	}
	names := o.inText(run)
	for _, flag := range run.Flags {
		names = append(names, shellvars.Expanded(flag, o.candidates(shellvars.Words, flag, run))...)
	}
	for _, vars := range [][]frontend.Var{run.Env, run.Args} {
		for _, v := range vars {
			for _, name := range reference.Names(v.Value) {
				if _, ok := o.nameable[name]; ok {
					names = append(names, name)
				}
			}
		}
	}
	slices.Sort(names)
	for _, name := range slices.Compact(names) {
		named = append(named, SessionVar{Name: name, Named: true, InKey: o.nameable[name], digest: o.digests[name]})
	}
	return named
}

// commandOf returns the text of a RUN's command, and the program that reads it.
func commandOf(run *frontend.Run) (text, program string) {
	text = run.Command
	switch {
	case run.Exec != nil:
		text = strings.Join(run.Exec, "\x00")
	case run.Script != "":
		text, program = run.Script, interpreter(run.Script)
	case len(run.Shell) > 0:
		program = run.Shell[0]
	}
	return text, program
}

// inText returns the names that the command has: as $NAME where it is a shell's, as a
// word elsewhere.
func (o *outside) inText(run *frontend.Run) []string {
	text, program := commandOf(run)
	if shellvars.IsShell(program) {
		if names := o.candidates(shellvars.Mentions, text, run); len(names) > 0 {
			return shellvars.Free(text, names)
		}
		return nil
	}
	return slices.Collect(maps.Keys(o.candidates(shellvars.Words, text, run)))
}

// candidates returns those of the words of a text that a RUN can name: variables that
// it does not have from its file or from a secret.
func (o *outside) candidates(words func(string, func(string)), text string, run *frontend.Run) map[string]bool {
	var names map[string]bool
	words(text, func(w string) {
		if _, ok := o.nameable[w]; ok && !sets(run, w) {
			if names == nil {
				names = make(map[string]bool)
			}
			names[w] = true
		}
	})
	return names
}

// sets reports whether a RUN has a variable from its file or from a secret.
func sets(run *frontend.Run, name string) bool {
	return indexVar(run.Env, name) >= 0 || indexVar(run.Args, name) >= 0 ||
		slices.ContainsFunc(run.Mounts, func(m frontend.Mount) bool {
			return m.EnvName == name || m.Type == mount.SSH && name == mount.AgentVar
		})
}

// interpreter returns the program of a "#!" line, after env the one that it looks for.
func interpreter(script string) string {
	line, _, _ := strings.Cut(strings.TrimPrefix(script, "#!"), "\n")
	words := strings.Fields(line)
	if len(words) > 1 && path.Base(words[0]) == "env" {
		words = words[1:]
	}
	if len(words) == 0 {
		return ""
	}
	return words[0]
}

// Session returns the variables of the session that a RUN gets, and those that it names
// of the ENV of layers before it, sorted. A variable of its own ENV or ARG is not the
// session's.
func (s *Step) Session() []SessionVar {
	run, ok := s.Instr.(*frontend.Run)
	if !ok {
		return nil
	}
	o := s.Layer.outside
	vars := slices.Clone(s.named)
	for name, value := range o.session {
		isNamed := slices.ContainsFunc(s.named, func(v SessionVar) bool { return v.Name == name })
		if !isNamed && !sets(run, name) && !o.isBefore(name) && o.passes(name, value) {
			vars = append(vars, SessionVar{Name: name})
		}
	}
	order.Stable(vars, func(a, b SessionVar) int { return strings.Compare(a.Name, b.Name) })
	return vars
}

// An Assumption is a variable of the session by which keys may be others in another session.
type Assumption struct {
	SessionVar
	Pos frontend.Pos // of the instruction that refers to it
}

// Assumed returns the variables of the session that decide about the keys of a layer's own
// steps, set here or not, in the order of the lines. buildArgs are those of Options.
func (l *Layer) Assumed(buildArgs map[string]string) (all []Assumption) {
	scope := frontend.Scope{}
	if l.On != nil && !l.Ordered {
		scope = l.On.Scope
		scope.Args = nil
	}
	scope.BuildArgs = buildArgs
	for _, use := range l.File.OfSession(scope) {
		inKey := l.outside.inKey(use.Name)
		switch use.Instr.Word {
		case "ENV", "ARG": // a reference stays one
		default: // it is expanded, whatever it is
			if inKey = IfSet; l.outside.session[use.Name] != "" {
				inKey = ByDigest
			}
		}
		if inKey != NotInKey {
			all = append(all, Assumption{SessionVar{Name: use.Name, Named: true, InKey: inKey}, use.Instr.Pos})
		}
	}
	for _, s := range l.Steps {
		for _, name := range s.refersTo() {
			if inKey := l.outside.inKey(name); inKey != NotInKey {
				all = append(all, Assumption{SessionVar{Name: name, Named: true, InKey: inKey}, s.Pos()})
			}
		}
	}
	slices.SortStableFunc(all, func(a, b Assumption) int { return a.Pos.Line - b.Pos.Line })
	return slices.CompactFunc(all, func(a, b Assumption) bool { return a.Name == b.Name && a.Pos == b.Pos })
}

// inKey says how a variable of the session enters the keys of RUNs that name it.
func (o *outside) inKey(name string) InKey {
	value, ok := o.session[name]
	switch {
	case o.inherit == Hermetic, isPassed(name, value), IsShells(name), slices.Contains(setForRun, name), !isVariable().MatchString(name):
		return NotInKey
	case !ok:
		return IfSet
	case isCredential(name, value):
		return ByName
	}
	return ByDigest
}

// refersTo returns the variables that the command of a RUN refers to, set or not, which are
// the session's, or made of it, sorted.
func (s *Step) refersTo() (names []string) {
	run, ok := s.Instr.(*frontend.Run)
	if !ok || run.Stored != nil {
		return nil
	}
	o := s.Layer.outside
	ofBefore := func(name string) { // its value may be made of the session
		for _, l := range s.Layer.Before() {
			if i := indexVar(l.Scope.Env, name); i >= 0 {
				names = append(names, reference.Names(l.Scope.Env[i].Value)...)
			}
		}
	}
	for _, v := range s.named {
		if o.isBefore(v.Name) {
			ofBefore(v.Name)
		} else {
			names = append(names, v.Name)
		}
	}
	if text, program := commandOf(run); shellvars.IsShell(program) {
		unset := make(map[string]bool)
		shellvars.Mentions(text, func(name string) {
			if _, ok := o.session[name]; !ok && !o.isBefore(name) && !sets(run, name) {
				unset[name] = true
			}
		})
		names = append(names, shellvars.Free(text, unset)...)
	}
	for _, list := range [][]frontend.Var{run.Env, run.Args} {
		for _, v := range list {
			names = append(names, reference.Names(v.Value)...)
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

func (o *outside) isBefore(name string) bool {
	_, ok := o.before[name]
	return ok
}

// passes reports whether every RUN gets a variable of the session.
func (o *outside) passes(name, value string) bool {
	return !slices.Contains(setForRun, name) && (o.inherit != InheritNamed || isPassed(name, value))
}

var isVariable = lazyregexp.New(`^[A-Za-z_][A-Za-z0-9_]*$`)

// Withheld returns the names of the session's variables that a RUN does not get, sorted:
// those that it could name, and that are not empty.
func (s *Step) Withheld() []string {
	run, ok := s.Instr.(*frontend.Run)
	if !ok {
		return nil
	}
	has := make(map[string]bool)
	for _, v := range s.Session() {
		has[v.Name] = true
	}
	o := s.Layer.outside
	var names []string
	for name, value := range o.session {
		fixed := IsShells(name) || slices.Contains(setForRun, name) || strings.HasPrefix(name, "CLAYER_") // settings of this program
		if value != "" && !has[name] && !fixed && !sets(run, name) && !o.isBefore(name) && isVariable().MatchString(name) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}
