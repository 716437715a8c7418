// Package dag lowers Containerfiles to a graph of keyed steps, and decides, from
// what the network, the stores and the root answered, what a solve would do.
// It is pure: those answers are arguments.
//
// Build makes the Graph of a composition: layers of steps, and the sources that
// FETCH and COPY read. Graph.Keys computes, from the Base and the Pins of the
// sources, the chain key of each step. NewPlan decides, by the Answers for those
// keys, which steps are present, cached or to run, and why.
package dag

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/clayer/clayer/cache/snapshot"
	"github.com/clayer/clayer/frontend"
	"github.com/clayer/clayer/frontend/predefined"
	"github.com/clayer/clayer/internal/lazyregexp"
)

// A Graph is a composition: layers in the order in which they are applied.
type Graph struct {
	Layers  []*Layer
	Sources []*Source
}

// A Layer is one Containerfile as a chain of steps.
type Layer struct {
	Name  string
	File  *frontend.File
	Steps []*Step // in the order in which they run: SNAPSHOT steps are last

	// On is the layer that this one builds on: what its steps see in the root.
	// nil is the bare root.
	On *Layer
	// Ordered says that On is only the layer composed before this one, not one
	// that it names by FROM: the edge is for order alone and enters no key.
	Ordered bool

	Scope    frontend.Scope         // what is in effect at the end of the file
	Settings []frontend.Instruction // what changes no file and no variable, resolved

	index   int // in Graph.Layers
	outside *outside
}

// A Step is a node that changes the root (RUN, FETCH, COPY, WORKDIR, SNAPSHOT)
// or its state (ENV).
type Step struct {
	Layer     *Layer
	Index     int     // in Layer.Steps
	Source    *Source // what FETCH and COPY read, and RUN mounts; nil for the others
	Instr     frontend.Instruction
	CacheBust []string        // the cache-bust comments since the step before
	Filter    snapshot.Filter // of a RUN: what is captured
	Epoch     string          // of a RUN: its SOURCE_DATE_EPOCH; "" where an ENV or ARG sets it

	named   []SessionVar // of a RUN: those that it names
	capture string       // Filter as text
}

// A Source is a node that provides bytes: a download, or a set of files of a COPY, or of what a
// RUN mounts.
// It depends on nothing. Equal sources of several steps are one.
type Source struct {
	ID    string // unique in the graph, the same for equal sources
	Steps []*Step
}

// Options are what else than the files' text decides the graph.
type Options struct {
	Session   map[string]string   // the variables of the live machine
	Inherit   Inherit             // which of them a RUN gets
	BuildArgs map[string]string   // --build-arg
	Ignore    map[string][]string // the patterns of .clayerignore, by File.Dir
	Scope     frontend.Scope      // what the base has, of an image: ENV, WORKDIR, SHELL and USER
}

// EpochVar is the variable by which tools that make files know which time to give them.
// --build-arg sets it for all RUNs, as BuildKit has it, whether or not an ARG names it.
const EpochVar = "SOURCE_DATE_EPOCH"

// defaultEpoch is 1980-01-02 UTC, so that no time zone makes it 1979, before which a
// zip archive has no times.
const defaultEpoch = "315619200"

// epoch returns the SOURCE_DATE_EPOCH of a RUN.
func (opt *Options) epoch(run *frontend.Run) string {
	if indexVar(run.Env, EpochVar) >= 0 || indexVar(run.Args, EpochVar) >= 0 {
		return ""
	}
	return cmp.Or(opt.BuildArgs[EpochVar], defaultEpoch)
}

// Build lowers files, given in the order in which they are composed, to a
// graph. A file that another one names by FROM must be among them; it is moved
// before the one that names it.
//
// The error is frontend.Problems: all that is wrong in all files, cycles and
// layers of one name included. The graph is then what could be lowered, for who
// looks for more that is wrong.
func Build(files []*frontend.File, opt Options) (*Graph, error) {
	g := &Graph{}
	problems := g.compose(files)
	sources := make(map[string]*Source)
	session := newOutside(&opt)
	for _, l := range g.Layers {
		l.outside = session.after(l)
		if err := l.lower(opt, sources); err != nil {
			ps, ok := err.(frontend.Problems)
			if !ok {
				return nil, err
			}
			problems = append(problems, ps...)
		}
	}
	for _, l := range g.Layers {
		for _, s := range l.Steps {
			if s.Source != nil && s.Source.Steps[0] == s {
				g.Sources = append(g.Sources, s.Source)
			}
		}
	}
	return g, problems.Err()
}

// lower resolves the layer's instructions and turns them into steps.
func (l *Layer) lower(opt Options, sources map[string]*Source) error {
	scope := opt.Scope
	if l.On != nil && !l.Ordered {
		// As FROM does in a Dockerfile: ENV, WORKDIR, SHELL and USER are inherited, ARG is not.
		scope = l.On.Scope
		scope.Args = nil
	}
	scope.Session, scope.BuildArgs = opt.Session, opt.BuildArgs
	instrs, scope, err := l.File.Resolve(scope)
	l.Scope = scope

	filter := snapshot.Filter{Ignore: opt.Ignore[l.File.Dir]}
	for _, in := range instrs {
		// Naming a path that is left out by default changes what the RUNs of
		// this layer capture, so it enters their filter and with it their keys.
		if s, ok := in.(*frontend.Snapshot); ok && snapshot.LiftsExclusion(s.Path) {
			filter.Include = append(filter.Include, s.Path)
		}
	}
	slices.Sort(filter.Include)
	filter.Include = slices.Compact(filter.Include)
	capture := filter.String() // once for all RUNs

	var bust []string
	var last []*Step // SNAPSHOT captures what stands at the end of the layer
	for _, in := range instrs {
		bust = append(bust, in.Base().CacheBust...)
		s := &Step{Layer: l, Instr: in, CacheBust: bust}
		switch in := in.(type) {
		case *frontend.Env, *frontend.Workdir:
		case *frontend.Run:
			s.Filter, s.capture, s.Epoch, s.named = filter, capture, opt.epoch(in), l.outside.namedBy(in)
			if id := mountsID(l.File, in); id != "" {
				s.use(sources, id)
			}
		case *frontend.Fetch:
			s.use(sources, fetchID(in))
		case *frontend.Copy:
			s.use(sources, copyID(l.File, in))
		case *frontend.Snapshot:
			last = append(last, s)
			bust = nil
			continue
		default:
			l.Settings = append(l.Settings, in)
			continue // no node; a cache-bust comment is for the next one that is
		}
		bust = nil
		l.Steps = append(l.Steps, s)
	}
	l.Steps = append(l.Steps, last...)
	for i, s := range l.Steps {
		s.Index = i
	}
	return err
}

func (s *Step) use(sources map[string]*Source, id string) {
	src := sources[id]
	if src == nil {
		src = &Source{ID: id}
		sources[id] = src
	}
	src.Steps = append(src.Steps, s)
	s.Source = src
}

// fetchID leaves out where the bytes go: one download may serve several steps.
func fetchID(f *frontend.Fetch) string {
	if f.Submodules || f.LFS || f.Commit != "" {
		return fmt.Sprintf("fetch %s submodules=%t lfs=%t commit=%s", f.Source, f.Submodules, f.LFS, f.Commit)
	}
	if f.Checksum != "" {
		return "fetch " + f.Source + " " + f.Checksum.String()
	}
	return "fetch " + f.Source
}

func copyID(f *frontend.File, c *frontend.Copy) string {
	var b strings.Builder
	fmt.Fprintf(&b, "copy %q %q %q%s", f.ContextOf(c.Origin), c.Sources, c.Dest, ignoredBy(f, c.Origin))
	if c.Parents || c.Unpack || len(c.Exclude) > 0 {
		fmt.Fprintf(&b, " exclude=%q parents=%t unpack=%t", c.Exclude, c.Parents, c.Unpack)
	}
	if c.Stage != nil {
		fmt.Fprintf(&b, " of %q %q", c.Stage.Path, c.Stage.Name)
	}
	if c.Image != nil {
		fmt.Fprintf(&b, " of image %s", c.Image)
	}
	if c.Fetched {
		b.WriteString(" fetched")
	}
	for _, in := range c.Inline {
		fmt.Fprintf(&b, " <<%q %q", in.Name, in.Content)
	}
	return b.String()
}

// ignoredBy says which list of ignored files counts: a list that stands beside a file is for
// its own context alone.
func ignoredBy(f *frontend.File, o frontend.Origin) string {
	if o.Context != "" || o.IsRoot() {
		return ""
	}
	return fmt.Sprintf(" ignored by %q", f.Path)
}

// mountsID is of all that a RUN mounts of files; "" for one that mounts none.
func mountsID(f *frontend.File, run *frontend.Run) string {
	var b strings.Builder
	for _, m := range run.Mounts {
		if !m.HasFiles() {
			continue
		}
		fmt.Fprintf(&b, "mount %q of %q%s", m.Source, f.ContextOf(m.Origin), ignoredBy(f, m.Origin))
		if m.Stage != nil {
			fmt.Fprintf(&b, " stage %q %q", m.Stage.Path, m.Stage.Name)
		}
		if m.Image != nil {
			fmt.Fprintf(&b, " image %s", m.Image)
		}
	}
	return b.String()
}

// ContextDir returns the directory that a COPY reads from, and "" for other steps.
func (s *Step) ContextDir() string {
	if c, ok := s.Instr.(*frontend.Copy); ok {
		return s.Layer.File.ContextOf(c.Origin)
	}
	return ""
}

// Pos returns where the step's instruction stands.
func (s *Step) Pos() frontend.Pos { return s.Instr.Base().Pos }

// Word returns the step's instruction, "RUN".
func (s *Step) Word() string { return s.Instr.Base().Word }

// Text returns the instruction on one line, fit to be stored and shown: of an
// ENV the names alone, of a URL no query, since both may be secret.
func (s *Step) Text() string {
	switch in := s.Instr.(type) {
	case *frontend.Env:
		var b strings.Builder
		b.WriteString("ENV")
		for _, v := range in.Vars {
			b.WriteString(" " + v.Name)
		}
		return b.String()
	case *frontend.Fetch, *frontend.Copy: // an ADD of several sources is steps of both kinds
		return urlQuery().ReplaceAllString(in.Base().Text, "$1?…")
	}
	return s.Instr.Base().Text
}

var urlQuery = lazyregexp.New(`(https?://[^\s?]*)\?\S*`)

// ChangesRoot reports whether the step has a snapshot. ENV has none: it is
// known from the file alone.
func (s *Step) ChangesRoot() bool {
	_, env := s.Instr.(*frontend.Env)
	return !env
}

// LooksAtRoot reports whether the step's snapshot depends on what is in the root, so that
// it has to be made in a view.
func (s *Step) LooksAtRoot() bool {
	switch s.Instr.(type) {
	case *frontend.Run, *frontend.Snapshot:
		return true
	}
	return false
}

// IsPlaced reports whether where the entries of the step's snapshot belong depends on the
// names in the root: of a FETCH, COPY or WORKDIR.
func (s *Step) IsPlaced() bool { return s.ChangesRoot() && !s.LooksAtRoot() }

// Last returns the layer's last step, and nil where it has none.
func (l *Layer) Last() *Step {
	if len(l.Steps) == 0 {
		return nil
	}
	return l.Steps[len(l.Steps)-1]
}

// Steps returns all steps in composition order.
func (g *Graph) Steps() []*Step {
	var all []*Step
	for _, l := range g.Layers {
		all = append(all, l.Steps...)
	}
	return all
}

// UnusedArgs returns the names among args that no layer declares by ARG, in no stage, sorted.
// What is predefined needs no ARG. A stage by itself says nothing of its file.
func (g *Graph) UnusedArgs(args map[string]string) []string {
	unused := maps.Clone(args)
	maps.DeleteFunc(unused, func(name, _ string) bool { return predefined.Is(name) })
	for _, l := range g.Layers {
		if l.File.Stage != "" {
			return nil
		}
		for _, f := range append(slices.Clip(l.File.Stages()), l.File) {
			for _, in := range f.Instructions {
				if a, ok := in.(*frontend.Arg); ok {
					for _, d := range a.Args {
						delete(unused, d.Name)
					}
				}
			}
		}
	}
	return slices.Sorted(maps.Keys(unused))
}

// Label returns how a source is shown: a URL without its query, which may be secret,
// or the names of local files.
func (src *Source) Label() string {
	switch in := src.Steps[0].Instr.(type) {
	case *frontend.Fetch:
		source, _, _ := strings.Cut(in.Source, "?")
		return source
	case *frontend.Copy:
		if in.Fetched {
			return in.From
		}
		names := slices.Clone(in.Sources)
		for _, inl := range in.Inline {
			names = append(names, "<<"+inl.Name)
		}
		return strings.Join(names, " ")
	case *frontend.Run:
		var names []string
		for _, m := range in.Mounts {
			if m.HasFiles() {
				names = append(names, cmp.Or(strings.TrimPrefix(m.Source, "/"), "."))
			}
		}
		return strings.Join(names, " ")
	}
	panic(fmt.Sprintf("dag: source of %T", src.Steps[0].Instr))
}

// StepAt returns the step of an instruction that a line is part of, in the layer of a file;
// "" is the last layer's.
func (g *Graph) StepAt(file string, line int) (*Step, error) {
	var layer *Layer
	for _, l := range g.Layers {
		if l.File.Is(file) {
			layer = l
		}
	}
	if layer == nil {
		return nil, frontend.Problems{{Pos: frontend.Pos{File: file}, Message: "none of the files that are composed"}}
	}
	var lines []int
	for _, s := range layer.Steps {
		pos := s.Pos()
		if pos.Line <= line && line <= pos.End {
			return s, nil
		}
		lines = append(lines, pos.Line)
	}
	slices.Sort(lines)
	return nil, frontend.Problems{{
		Pos: frontend.Pos{File: layer.File.Path, Line: line}, Message: "no step begins here",
		Line: layer.File.Excerpt(line), Hint: "steps begin in lines " + strings.Trim(strings.ReplaceAll(fmt.Sprint(lines), " ", ", "), "[]"),
	}}
}
