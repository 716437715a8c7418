package frontend

import (
	"path"
	"slices"
	"strings"

	"github.com/moby/buildkit/frontend/dockerfile/shell"
)

// Resolve expands the instructions in order, as they are in effect in a scope,
// and returns them with the scope at the end. The File stays as it is.
//
// ENV comes before ARG, and both before the session's variables; the variables
// of one ENV line don't see each other. In the value of an ENV a variable of
// the session stays a reference, see Substitute; anywhere else it is expanded.
//
// The error is Problems: all that is wrong. The instructions are then those
// that could be resolved.
func (f *File) Resolve(s Scope) ([]Instruction, Scope, error) {
	if s.Dir == "" {
		s.Dir = "/"
	}
	if s.Shell == nil {
		s.Shell = []string{"/bin/sh", "-c"}
	}
	r := &resolver{scope: s, escape: f.escapeByte(), lex: shell.NewLex(rune(f.escapeByte()))}
	r.index()
	resolved := make([]Instruction, 0, len(f.Instructions))
	var problems Problems
	for _, in := range f.Instructions {
		r.err = nil
		out, err := r.resolve(in)
		if r.err != nil {
			err = r.err
		}
		if err != nil {
			f.report(&problems, in.Base(), err)
			continue
		}
		resolved = append(resolved, out)
	}
	return resolved, r.scope, problems.Err()
}

type resolver struct {
	scope  Scope
	escape byte
	lex    *shell.Lex
	env    map[string]string // scope.Env and scope.Args, by name
	args   map[string]string
	err    error // the first of expanding an instruction
}

func (r *resolver) index() {
	r.env, r.args = make(map[string]string), make(map[string]string)
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
	if value, ok := v.r.env[name]; ok {
		if !v.refs {
			value = Substitute(value, func(name string) string { return session[name] })
		}
		return value, true
	}
	if value, ok := v.r.args[name]; ok {
		return value, true
	}
	value, ok := session[name]
	if ok && v.refs {
		value = Ref(name)
	}
	return value, ok
}

// Keys lists the names for the lexer's error texts, which need none.
func (v variables) Keys() []string { return nil }

// expand expands variables and removes quotes. The first error is kept.
func (r *resolver) expand(word string) string { return r.process(word, false) }

func (r *resolver) process(word string, refs bool) string {
	// The lexer is slow, and most words are plain.
	if !strings.ContainsAny(word, `$'"`) && strings.IndexByte(word, r.escape) < 0 {
		return word
	}
	out, _, err := r.lex.ProcessWord(word, variables{r, refs})
	if err != nil && r.err == nil {
		r.err = err
	}
	return out
}

// inline expands the text of a heredoc, in which quotes are only characters.
func (r *resolver) inline(text string) string {
	if !strings.Contains(text, "$") {
		return text
	}
	lex := shell.NewLex(rune(r.escape))
	lex.RawQuotes, lex.RawEscapes = true, true
	out, _, err := lex.ProcessWord(text, variables{r, false})
	if err != nil && r.err == nil {
		r.err = err
	}
	return out
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
		out.Path = absolute(r.scope.Dir, r.expand(in.Path))
		r.scope.Dir = out.Path
		return &out, nil
	case *Snapshot:
		out := *in
		out.Path = absolute(r.scope.Dir, r.expand(in.Path))
		if out.Capture == CaptureAuto {
			out.Capture = captureOf(out.Path)
		}
		return &out, nil
	case *Shell:
		r.scope.Shell = in.Argv
		return in, nil
	}
	return in, nil // FROM, and what has no effect
}

func (r *resolver) resolveEnv(in *Env) *Env {
	out := *in
	out.Vars = make([]Var, len(in.Vars))
	for i, v := range in.Vars {
		out.Vars[i] = Var{v.Name, r.process(v.Value, true)}
	}
	// Before any is set: they don't see each other. Copied: Runs before this
	// line share the slice as it was.
	env := slices.Clone(r.scope.Env)
	for _, v := range out.Vars {
		env = setVar(env, v)
		r.env[v.Name] = v.Value
	}
	r.scope.Env = env
	return &out
}

func setVar(vars []Var, v Var) []Var {
	if i := slices.IndexFunc(vars, func(x Var) bool { return x.Name == v.Name }); i >= 0 {
		vars[i] = v
		return vars
	}
	return append(vars, v)
}

// declare gives the ARGs their values: of --build-arg, else the default. One
// without either is as if it weren't there.
func (r *resolver) declare(in *Arg) {
	args := slices.Clone(r.scope.Args)
	for _, d := range in.Args {
		value, ok := r.scope.BuildArgs[d.Name]
		if !ok && d.Default != nil {
			value, ok = r.expand(*d.Default), true
		}
		if ok {
			args = setVar(args, Var{d.Name, value})
			r.args[d.Name] = value
		}
	}
	r.scope.Args = args
}

func (r *resolver) resolveRun(in *Run) (Instruction, error) {
	out := *in
	out.Env, out.Dir, out.Shell = r.scope.Env, r.scope.Dir, r.scope.Shell
	out.Args = r.scope.Args
	if slices.ContainsFunc(out.Args, func(v Var) bool { return r.hasEnv(v.Name) }) {
		out.Args = slices.DeleteFunc(slices.Clone(out.Args), func(v Var) bool { return r.hasEnv(v.Name) })
	}
	out.Mounts = nil
	for _, f := range in.Flags {
		m, err := parseMount(r.expand(f), r.scope.Dir)
		if err != nil {
			return nil, err
		}
		out.Mounts = append(out.Mounts, m)
	}
	return &out, nil
}

func (r *resolver) hasEnv(name string) bool {
	_, ok := r.env[name]
	return ok
}

func (r *resolver) resolveFetch(in *Fetch) (Instruction, error) {
	out := *in
	out.Source, out.Dest = r.expand(in.Source), r.expand(in.Dest)
	for _, f := range in.flags {
		if err := setFetchFlag(&out, f.name, r.expand(f.value)); err != nil {
			return nil, err
		}
	}
	return &out, checkFetch(&out)
}

func (r *resolver) resolveCopy(in *Copy) (Instruction, error) {
	if in.Remote != nil && isRemote(r.expand(in.Sources[0])) {
		return r.resolveFetch(in.Remote)
	}
	out := *in
	out.Remote = nil
	out.Sources = make([]string, len(in.Sources))
	for i, s := range in.Sources {
		out.Sources[i] = r.expand(s)
		if err := checkCopySource(out.Sources[i]); err != nil {
			return nil, err
		}
	}
	out.Inline = slices.Clone(in.Inline)
	for i := range out.Inline {
		if inl := &out.Inline[i]; inl.Expand {
			inl.Content, inl.Expand = r.inline(inl.Content), false
		}
	}
	dest := r.expand(in.Dest)
	out.Dest = absolute(r.scope.Dir, dest)
	if (strings.HasSuffix(dest, "/") || strings.HasSuffix(dest, "/.") || dest == ".") && out.Dest != "/" {
		out.Dest += "/"
	}
	for _, f := range in.flags {
		if err := setOwner(&out.Owner, f.name, r.expand(f.value)); err != nil {
			return nil, err
		}
	}
	return &out, nil
}

// absolute returns a clean path; a relative one is below dir.
func absolute(dir, p string) string {
	if path.IsAbs(p) {
		return path.Clean(p)
	}
	return path.Join("/", dir, p)
}

// captureOf says how much SNAPSHOT captures of a path: what packages and builds
// change within the system's folders, all of what is elsewhere.
func captureOf(p string) Capture {
	top, _, _ := strings.Cut(strings.TrimPrefix(p, "/"), "/")
	switch {
	case slices.Contains([]string{"usr", "bin", "sbin", "etc", "var", "opt"}, top), strings.HasPrefix(top, "lib"):
		return CaptureChanged
	}
	return CaptureAll
}
