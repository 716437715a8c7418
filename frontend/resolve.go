package frontend

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/moby/buildkit/frontend/dockerfile/shell"

	"github.com/clayer/clayer/frontend/internal/address"
	"github.com/clayer/clayer/frontend/internal/fault"
	"github.com/clayer/clayer/frontend/internal/lexical"
	"github.com/clayer/clayer/frontend/metadata"
	"github.com/clayer/clayer/frontend/mount"
	"github.com/clayer/clayer/frontend/predefined"
	"github.com/clayer/clayer/frontend/reference"
	"github.com/clayer/clayer/internal/credential"
	"github.com/clayer/clayer/internal/lazyregexp"
	"github.com/clayer/clayer/internal/pathname"
)

// Resolve expands the instructions in order, as they are in effect in a scope,
// and returns them with the scope at the end. The File stays as it is.
//
// ENV comes before ARG, and both before the session's variables; the variables
// of one ENV line don't see each other. In the value of an ENV, and in the default of
// an ARG, a variable of the session stays a reference, see Substitute; anywhere else it
// is expanded, and so is an ARG of which an ENV takes a part.
//
// The error is Problems: all that is wrong. The instructions are then those
// that could be resolved.
func (f *File) Resolve(s Scope) ([]Instruction, Scope, error) {
	r := f.resolver(s)
	resolved := make([]Instruction, 0, len(f.Instructions))
	var problems Problems
	for _, in := range f.Instructions {
		r.err, r.blank = nil, ""
		out, err := r.resolveAll(in)
		if r.err != nil {
			err = r.err
		}
		if err == errEmpty {
			err = fault.Errorf("%s%s", errEmpty.Message, r.reason(r.blank)).WithHint("%s", errEmpty.Hint)
		}
		if err != nil {
			f.report(&problems, in.Base(), err)
			continue
		}
		resolved = append(resolved, out...)
	}
	return resolved, r.scope, problems.Err()
}

type resolver struct {
	file     *File
	scope    Scope
	escape   byte
	lex      *shell.Lex
	env      map[string]string // scope.Env and scope.Args, by name
	args     map[string]string
	global   map[string]string // the ARGs before the first FROM; nil: none was seen
	isGlobal bool              // a FROM follows
	hides    bool              // an ENV has the name of an ARG
	later    map[string]bool   // the ENVs of which an ARG with a value stands later
	word     string            // that is expanded
	blank    string            // the last word of which nothing is left
	err      error             // the first of expanding an instruction

	unset func(name string) // called with a variable that nothing sets; may be nil
}

func (f *File) resolver(s Scope) *resolver {
	if s.Dir == "" {
		s.Dir = "/"
	}
	if s.Shell == nil {
		s.Shell = []string{"/bin/sh", "-c"}
	}
	// Several layers can begin with the scope of one: what each adds is its own.
	s.Env, s.Args = slices.Clip(s.Env), slices.Clip(s.Args)
	r := &resolver{file: f, scope: s, escape: f.escapeByte(), lex: shell.NewLex(rune(f.escapeByte()))}
	r.isGlobal = slices.ContainsFunc(f.Instructions, func(in Instruction) bool { _, ok := in.(*From); return ok })
	r.index()
	return r
}

func (r *resolver) index() {
	r.env, r.args, r.later = make(map[string]string), make(map[string]string), make(map[string]bool)
	for _, v := range r.scope.Env {
		r.env[v.Name] = v.Value
	}
	for _, v := range r.scope.Args {
		r.args[v.Name] = v.Value
	}
}

// variables is what the lexer asks. With refs the session's variables are
// references.
type variables struct {
	r    *resolver
	refs bool
}

func (v variables) Get(name string) (string, bool) {
	session := v.r.scope.Session
	value, ok := v.r.args[name]
	if !ok || v.r.envHides(name) {
		value, ok = v.r.env[name]
	}
	if !ok && v.r.isGlobal {
		value, ok = v.r.predefined(name)
	}
	if ok {
		if !v.refs {
			value = reference.Substitute(value, func(name string) string { return session[name] })
		}
		return value, true
	}
	value, ok = session[name]
	if v.refs && (ok || credential.IsName(name) && !v.r.altered(name)) {
		return reference.To(name), true
	}
	return value, ok
}

// altered reports whether the word that is expanded does more with a variable than to
// stand for its value. A credential that is not set is a reference only where it doesn't:
// the key of an ENV is then the same with and without it.
func (r *resolver) altered(name string) bool {
	return strings.Contains(r.word, "${"+name) && !strings.Contains(r.word, "${"+name+"}")
}

// Keys lists the names for the lexer's error texts, which need none.
func (v variables) Keys() []string { return nil }

// expand expands variables and removes quotes. The first error is returned.
func (r *resolver) expand(word string) string { return r.process(word, false) }

func (r *resolver) process(word string, refs bool) string {
	// The lexer is slow, and most words are plain.
	if !strings.ContainsAny(word, `$'"`) && strings.IndexByte(word, r.escape) < 0 {
		return word
	}
	if r.err != nil {
		return ""
	}
	if refs {
		switch name := r.cutsReference(word); {
		case name == "":
		case r.hasArg(name) && !r.envHides(name):
			refs = false
		default:
			r.err = fault.Errorf("a part of $%s can't be taken in ENV: its value is the session's, and differs between machines", name).
				WithHint("a RUN can take it")
			return ""
		}
	}
	r.word = word
	out, unset, err := r.lex.ProcessWord(word, variables{r, refs})
	r.reportUnset(unset)
	if err == nil && len(out) > maxValue {
		err = fault.Errorf("a value of %d bytes; the most is %d", len(out), maxValue)
	}
	if err != nil {
		r.err = err
		return ""
	}
	if out == "" {
		r.blank = word
	}
	return out
}

// maxValue bounds what expansion makes of a word, in bytes: Linux takes no
// longer variable (MAX_ARG_STRLEN), and lines that double a value grow fast.
const maxValue = 128 << 10

// cutting is the beginning of an expansion that takes a part of a value.
var cutting = lazyregexp.New(`\$\{([A-Za-z_][A-Za-z0-9_]*)[%#/]`)

// named is a variable in an expansion's pattern.
var named = lazyregexp.New(`\$\{?([A-Za-z_][A-Za-z0-9_]*)`)

// cutsReference returns the variable of which a word takes a part, or by which it takes
// a part, if that holds a session's variable: it is not known before the value is used.
func (r *resolver) cutsReference(word string) string {
	for _, at := range cutting().FindAllStringSubmatchIndex(word, -1) {
		if at[0] > 0 && word[at[0]-1] == r.escape {
			continue
		}
		rest, depth := word[at[0]:], 0
		end := strings.IndexFunc(rest, func(c rune) bool {
			switch c {
			case '{':
				depth++
			case '}':
				depth--
			}
			return c == '}' && depth == 0
		})
		if end < 0 {
			end = len(rest)
		}
		for _, m := range named().FindAllStringSubmatch(rest[:end], -1) {
			if v, ok := (variables{r, true}).Get(m[1]); ok && strings.Contains(v, reference.Mark) {
				return m[1]
			}
		}
	}
	return ""
}

// inline expands the text of a heredoc, in which quotes are only characters.
func (r *resolver) inline(text string) string {
	if !strings.ContainsAny(text, `$\<`) {
		return text
	}
	lex := shell.NewLex('\\') // as BuildKit has it, whatever the file's is
	lex.SkipProcessQuotes = true
	out, unset, err := lex.ProcessWord(text, variables{r, false})
	r.reportUnset(unset)
	if err != nil && r.err == nil {
		r.err = err
	}
	return out
}

// resolveAll returns what an instruction stands for: an ADD may be several.
func (r *resolver) resolveAll(in Instruction) ([]Instruction, error) {
	add, ok := in.(*Copy)
	if f, fetch := in.(*Fetch); fetch && f.remote != nil {
		add, ok = f.remote, true
	}
	if ok && add.Remote != nil {
		return r.resolveAdd(add)
	}
	out, err := r.resolve(in)
	return []Instruction{out}, err
}

func (r *resolver) resolve(in Instruction) (Instruction, error) {
	switch in := in.(type) {
	case *Env:
		return r.resolveEnv(in), nil
	case *Arg:
		r.declare(in)
		return in, nil
	case *Run:
		return r.resolveRun(in)
	case *Fetch:
		return r.resolveFetch(in)
	case *Copy:
		return r.resolveCopy(in)
	case *Workdir:
		out := *in
		p := r.expand(in.Path)
		if p == "" {
			return nil, errEmpty
		}
		out.Path, out.User = pathname.Absolute(r.scope.Dir, p), r.scope.User
		r.scope.Dir = out.Path
		return &out, nil
	case *User:
		out := *in
		out.Name = r.expand(in.Name)
		r.scope.User = out.Name
		return &out, nil
	case *Snapshot:
		out := *in
		p := r.expand(in.Path)
		if p == "" {
			return nil, errEmpty
		}
		out.Path = pathname.Absolute(r.scope.Dir, p)
		if out.Capture == CaptureAuto {
			out.Capture = captureOf(out.Path)
		}
		return &out, nil
	case *Shell:
		r.scope.Shell = in.Argv
		return in, nil
	case *Ignored:
		return r.resolveIgnored(in)
	case *From:
		if !in.Stage { // the ARGs of a stage hold in those that build on it
			r.begin()
		}
	}
	return in, nil
}

// resolveIgnored expands what BuildKit expands of an instruction that images get, by the ENVs
// and ARGs of the file alone. A label refers to the session's.
func (r *resolver) resolveIgnored(in *Ignored) (Instruction, error) {
	out := *in
	alone := func(word string) string { return reference.Substitute(word, func(string) string { return "" }) }
	var err error
	out.Args, err = metadata.Expand(in.Word, in.Args, func(word string) string {
		if in.Word == "LABEL" {
			return r.process(word, r.cutsReference(word) == "")
		}
		return alone(r.process(word, true))
	}, func(word string) ([]string, error) {
		words, err := r.lex.ProcessWords(word, variables{r, true})
		for i, w := range words {
			words[i] = alone(w)
		}
		return words, err
	})
	if err != nil && r.err == nil {
		text := lexical.Join(r.file.Lines, in.Pos.Line, r.escape).Text
		return nil, lexical.CommentAfter(known, in.Word, text, r.escape, fault.Errorf("%v", err))
	}
	return &out, nil
}
func (r *resolver) resolveEnv(in *Env) *Env {
	out := *in
	out.Vars = make([]Var, len(in.Vars))
	for i, v := range in.Vars {
		out.Vars[i] = Var{v.Name, r.process(v.Value, true)}
	}
	// Only now: they don't see each other.
	for _, v := range out.Vars {
		r.scope.Env = setVar(r.scope.Env, r.env, v)
		delete(r.later, v.Name)
		r.hides = r.hides || r.hasArg(v.Name)
	}
	return &out
}

// setVar sets a variable in a list and its index. RUNs before this line share
// the list as it was: what they see of it is never written again, and what is
// appended lies after the end of theirs.
func setVar(vars []Var, index map[string]string, v Var) []Var {
	old, ok := index[v.Name]
	index[v.Name] = v.Value
	switch {
	case !ok:
		return append(vars, v)
	case old == v.Value:
		return vars
	}
	vars = slices.Clone(vars)
	vars[slices.IndexFunc(vars, func(x Var) bool { return x.Name == v.Name })] = v
	return vars
}

// begin begins a stage, in which no ARG is set. One that stands before the first FROM is
// the default of an ARG of its name that has none.
func (r *resolver) begin() {
	if r.global == nil {
		r.global = maps.Clone(r.args)
	}
	r.scope.Args, r.isGlobal = nil, false
	clear(r.args)
	clear(r.later)
	r.hides = false
}

func (r *resolver) predefined(name string) (string, bool) {
	value, ok := predefined.Value(name, r.file.args.Platform, r.file.target)
	if set, given := r.scope.BuildArgs[name]; ok && given {
		value = set
	}
	return value, ok
}

// declare gives the ARGs their values: of --build-arg, else the default. One
// without either is as if it weren't there.
func (r *resolver) declare(in *Arg) {
	for _, d := range in.Args {
		value, ok := r.scope.BuildArgs[d.Name]
		if !ok && d.Default == nil {
			if value, ok = r.global[d.Name]; !ok {
				value, ok = r.predefined(d.Name)
			}
		}
		if !ok && d.Default != nil {
			value, ok = r.process(*d.Default, r.cutsReference(*d.Default) == ""), true
		}
		if ok {
			r.scope.Args = setVar(r.scope.Args, r.args, Var{d.Name, value})
			if r.hasEnv(d.Name) {
				r.hides, r.later[d.Name] = true, true
			}
		}
	}
}

func (r *resolver) resolveRun(in *Run) (Instruction, error) {
	out := *in
	out.Dir, out.Shell, out.User = r.scope.Dir, r.scope.Shell, r.scope.User
	out.Env, out.Args = slices.Clip(r.scope.Env), slices.Clip(r.scope.Args)
	if r.hides {
		out.Env = slices.DeleteFunc(slices.Clone(out.Env), func(v Var) bool { return r.later[v.Name] })
		out.Args = slices.DeleteFunc(slices.Clone(out.Args), func(v Var) bool { return r.envHides(v.Name) })
	}
	out.Mounts = nil
	agents := 0
	for i, f := range in.Flags {
		m, err := mount.Parse(f, r.scope.Dir, r.expand)
		if err != nil {
			return nil, err
		}
		if m.Type == mount.SSH {
			if m.Target == "" {
				m.Target = fmt.Sprint(mount.AgentTarget, agents)
			}
			agents++
		}
		all := Mount{Mount: m}
		if i < len(in.origins) { // not of a RUN that is in no file
			all.Origin = in.origins[i]
		}
		if m.Type == mount.Cache && m.Source != "" && all.From == "" {
			return nil, fault.Errorf("--mount=type=cache: source takes from=, which says what it is in")
		}
		out.Mounts = append(out.Mounts, all)
	}
	return &out, nil
}

// envHides reports whether a name is that of an ENV, and of no ARG after it that has a
// value: as BuildKit has it, the later of the two counts.
func (r *resolver) envHides(name string) bool { return r.hasEnv(name) && !r.later[name] }

func (r *resolver) hasArg(name string) bool {
	_, ok := r.args[name]
	return ok
}

func (r *resolver) hasEnv(name string) bool {
	_, ok := r.env[name]
	return ok
}

func (r *resolver) resolveFetch(in *Fetch) (Instruction, error) {
	out := *in
	out.Source, out.Dest = r.expand(in.Source), r.expand(in.Dest)
	for _, f := range in.flags {
		value, err := r.flag(f)
		if err == nil {
			err = setFetchFlag(&out, f.Name, value)
		}
		if err != nil {
			return nil, err
		}
	}
	if address.IsImage(out.Source) {
		return out.ofImage()
	}
	return &out, checkFetch(&out)
}

func (r *resolver) resolveCopy(in *Copy) (Instruction, error) {
	out := *in
	out.Sources = make([]string, len(in.Sources))
	for i, s := range in.Sources {
		expanded, err := r.pathOf(s)
		if err == nil {
			out.Sources[i], err = out.cleanSource(expanded)
		}
		if err != nil {
			return nil, err
		}
	}
	out.Inline = slices.Clone(in.Inline)
	for i := range out.Inline {
		if inl := &out.Inline[i]; inl.Expand {
			inl.Content, inl.Expand = r.inline(inl.Content), false
		}
	}
	var err error
	if out.Dest, err = r.destOf(in.Dest); err != nil {
		return nil, err
	}
	for _, f := range in.flags {
		value, err := r.flag(f)
		if err == nil && value == "" {
			continue
		}
		if err == nil && f.Name == "checksum" {
			err = fault.Errorf("--checksum is for URLs and repositories, and not for local files")
		} else if err == nil {
			err = setOwnership(&out.Owner, f.Name, value)
		}
		if err != nil {
			return nil, err
		}
	}
	return &out, nil
}

// captureOf says how much SNAPSHOT captures of a path: what packages and builds
// change within the system's directories, all of what is elsewhere.
func captureOf(p string) Capture {
	top, _, _ := strings.Cut(strings.TrimPrefix(p, "/"), "/")
	switch {
	case slices.Contains([]string{"", "usr", "bin", "sbin", "lib", "lib32", "lib64", "libx32", "etc", "var", "opt"}, top):
		return CaptureChanged
	}
	return CaptureAll
}
