package frontend

import (
	"net/url"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/moby/buildkit/frontend/dockerfile/shell"
	"github.com/opencontainers/go-digest"
)

func isRemote(src string) bool {
	for _, p := range []string{"http://", "https://", "github:", "git@", "git://"} {
		if strings.HasPrefix(src, p) {
			return true
		}
	}
	return false
}

type env struct {
	s       *Scope
	session bool // references stay
}

func (e env) Get(name string) (string, bool) {
	for _, v := range e.s.Env {
		if v.Name == name {
			if !e.session {
				return Substitute(v.Value, func(n string) string { return e.s.Session[n] }), true
			}
			return v.Value, true
		}
	}
	for _, v := range e.s.Args {
		if v.Name == name {
			return v.Value, true
		}
	}
	v, ok := e.s.Session[name]
	if ok && e.session {
		return Ref(name), true
	}
	return v, ok
}

func (e env) Keys() []string { return nil }

type resolver struct {
	s   *Scope
	lex *shell.Lex
}

func (r *resolver) word(w string, session bool) (string, error) {
	if !strings.ContainsAny(w, "$'\"\\`") {
		return w, nil
	}
	out, _, err := r.lex.ProcessWord(w, env{r.s, session})
	return out, err
}

func set(vars []Var, v Var) []Var {
	vars = slices.Clone(vars)
	for i := range vars {
		if vars[i].Name == v.Name {
			vars[i] = v
			return vars
		}
	}
	return append(vars, v)
}

// Resolve expands.
func (f *File) Resolve(s Scope) ([]Instruction, Scope, error) {
	if s.Dir == "" {
		s.Dir = "/"
	}
	if s.Shell == nil {
		s.Shell = []string{"/bin/sh", "-c"}
	}
	r := &resolver{s: &s, lex: shell.NewLex('\\')}
	var out []Instruction
	var ps Problems
	for _, in := range f.Instructions {
		got, err := r.resolve(in)
		if err != nil {
			f.report(&ps, in.Base(), err)
			continue
		}
		out = append(out, got)
	}
	return out, s, ps.Err()
}

func (r *resolver) resolve(in Instruction) (Instruction, error) {
	var err error
	get := func(w string) string {
		v, e := r.word(w, false)
		if e != nil && err == nil {
			err = e
		}
		return v
	}
	switch in := in.(type) {
	case *Env:
		c := *in
		c.Vars = nil
		for _, v := range in.Vars {
			val, e := r.word(v.Value, true)
			if e != nil {
				return nil, e
			}
			c.Vars = append(c.Vars, Var{v.Name, val})
		}
		for _, v := range c.Vars {
			r.s.Env = set(r.s.Env, v)
		}
		return &c, nil
	case *Arg:
		for _, d := range in.Args {
			if v, ok := r.s.BuildArgs[d.Name]; ok {
				r.s.Args = set(r.s.Args, Var{d.Name, v})
			} else if d.Default != nil {
				r.s.Args = set(r.s.Args, Var{d.Name, get(*d.Default)})
			}
		}
		return in, err
	case *Run:
		c := *in
		c.Env, c.Args, c.Dir, c.Shell = r.s.Env, r.s.Args, r.s.Dir, r.s.Shell
		c.Mounts = nil
		for _, m := range in.rawMounts {
			mount, err := parseMount(get(m), r.s.Dir)
			if err != nil {
				return nil, err
			}
			c.Mounts = append(c.Mounts, mount)
		}
		return &c, err
	case *Fetch:
		c := *in
		c.Source, c.Dest = get(in.Source), get(in.Dest)
		for _, f := range in.raw {
			v := get(f.value)
			switch f.name {
			case "--checksum":
				c.Checksum = digest.Digest(v)
				if c.Checksum.Validate() != nil || c.Checksum.Algorithm() != digest.SHA256 {
					return nil, faultf("--checksum=%s is no sha256:<64 hex digits>", v)
				}
			case "--strip":
				n, e := strconv.Atoi(v)
				if e != nil || n < 0 {
					return nil, faultf("--strip=%s is no number", v)
				}
				c.Strip = n
			case "--extract":
				c.Extract = Extract(v)
				if v != "auto" && v != "true" && v != "false" {
					return nil, faultf("--extract=%s: want auto, true or false", v)
				}
			default:
				if e := ownerFlag(&c.Owner, f.name, v); e != nil {
					return nil, e
				}
			}
		}
		if err != nil {
			return nil, err
		}
		if !path.IsAbs(c.Dest) {
			return nil, faultf("dest %q is not absolute", c.Dest).withHint("write /%s", c.Dest)
		}
		c.Dest = path.Clean(c.Dest)
		if !strings.HasPrefix(c.Source, "github:") {
			u, e := url.Parse(c.Source)
			if e != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
				return nil, faultf("source is no http or https URL")
			}
		}
		return &c, nil
	case *Copy:
		c := *in
		c.Sources = nil
		for _, s := range in.Sources {
			v := get(s)
			if p := path.Clean(strings.TrimLeft(v, "/")); p == ".." || strings.HasPrefix(p, "../") {
				return nil, faultf("source %q leaves the Containerfile's folder", v)
			}
			c.Sources = append(c.Sources, v)
		}
		d := get(in.Dest)
		c.Dest = absolute(r.s.Dir, d)
		if strings.HasSuffix(d, "/") && c.Dest != "/" {
			c.Dest += "/"
		}
		for _, f := range in.raw {
			if e := ownerFlag(&c.Owner, f.name, get(f.value)); e != nil {
				return nil, e
			}
		}
		return &c, err
	case *Workdir:
		c := *in
		c.Path = absolute(r.s.Dir, get(in.Path))
		r.s.Dir = c.Path
		return &c, err
	case *Snapshot:
		c := *in
		c.Path = absolute(r.s.Dir, get(in.Path))
		if c.Capture == CaptureAuto {
			c.Capture = CaptureAll
			top, _, _ := strings.Cut(strings.TrimPrefix(c.Path, "/"), "/")
			if slices.Contains([]string{"usr", "bin", "sbin", "etc", "var", "opt"}, top) || strings.HasPrefix(top, "lib") {
				c.Capture = CaptureChanged
			}
		}
		return &c, err
	case *Shell:
		r.s.Shell = in.Argv
		return in, nil
	}
	return in, nil
}

func ownerFlag(o *Ownership, name, v string) error {
	if name == "--chown" {
		o.Chown = v
		return nil
	}
	m, err := strconv.ParseUint(v, 8, 12)
	if err != nil {
		return faultf("--chmod=%s is no octal mode", v)
	}
	mode := uint32(m)
	o.Chmod = &mode
	return nil
}
