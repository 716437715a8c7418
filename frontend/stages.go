package frontend

import (
	"cmp"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/clayer/clayer/frontend/imageref"
	"github.com/clayer/clayer/frontend/internal/fault"
	"github.com/clayer/clayer/frontend/mount"
)

// A stage is one section of a file, from a FROM to the next.
type stage struct {
	from  *From
	own   []Instruction
	whole *File  // with what it builds on
	on    *stage // that it builds on; nil for none
}

// divide makes the file its last stage: its instructions are those of the stages that this
// one builds on, one after the other, and then its own. COPY --from gets the stage that it
// names. Problems are COPYs that name none.
func (p *fileParser) divide() {
	f := p.file
	var global []Instruction // what is before the first FROM
	var all []*stage
	for _, in := range f.Instructions {
		switch from, ok := in.(*From); {
		case ok:
			all = append(all, &stage{from: from, own: []Instruction{in}})
		case len(all) == 0:
			global = append(global, in)
		default:
			all[len(all)-1].own = append(all[len(all)-1].own, in)
		}
	}
	var args *resolver
	for i, s := range all {
		if args == nil {
			args = f.global(global)
		}
		if err := args.expandFrom(s.from); err != nil {
			p.file.report(&p.problems, &s.from.Meta, err)
		}
		part := *f
		part.Stage, part.Instructions = s.name(i), global
		part.Name = f.Name + "." + part.Stage
		if on := find(all[:i], s.from.Image, false); on != nil {
			s.from.Stage, s.on = true, on
			part.On, part.Instructions = on.whole, on.whole.Instructions
			on.whole.Uses++
			s.own = slices.Insert(s.own, 1, p.triggered(&s.from.Meta, on.own)...)
		}
		part.Instructions = append(slices.Clip(part.Instructions), s.own...)
		s.whole = &part
		for _, in := range s.own {
			p.origins(in, all, i)
		}
	}
	if len(all) == 0 {
		for _, in := range global {
			p.origins(in, nil, 0)
		}
		return
	}
	for _, s := range all[:len(all)-1] {
		f.stages = append(f.stages, s.whole)
	}
	last := all[len(all)-1]
	f.Instructions, f.On, f.last = last.whole.Instructions, last.whole.On, last.from.Alias
	f.aim(strings.ToLower(f.last))
}

// triggered returns the instructions of the ONBUILDs of a stage, at the line of the FROM that
// builds on it.
func (p *fileParser) triggered(from *Meta, own []Instruction) (all []Instruction) {
	for _, in := range own {
		on, ok := in.(*Ignored)
		if !ok || on.Word != "ONBUILD" {
			continue
		}
		text := on.Args[0]
		sub := &fileParser{file: &File{Path: p.file.Path, args: p.file.args, Lines: strings.Split(text, "\n")}}
		for _, n := range sub.nodes([]byte(text)) {
			sub.instruction(n)
		}
		for _, problem := range sub.problems {
			p.file.report(&p.problems, from, fault.Errorf("%s of line %d: %s", on.Text, on.Pos.Line, problem.Message).WithHint("%s", problem.Hint))
		}
		for _, in := range sub.file.Instructions {
			in.Base().Pos = from.Pos
			all = append(all, in)
		}
	}
	return all
}

// Stages returns the stages of a file but for the last one, which the file itself is.
func (f *File) Stages() []*File { return f.stages }

// Own returns the instructions of a stage without those of the stage that it builds on.
func (f *File) Own() []Instruction {
	if f.On == nil {
		return f.Instructions
	}
	return f.Instructions[len(f.On.Instructions):]
}

// Is reports whether a path, as the user names it, is that of the file; "" is any file's.
func (f *File) Is(path string) bool {
	return path == "" || filepath.Clean(f.Path) == filepath.Clean(path)
}

// Target makes a file end with one of its stages, by name or number. It reports false if
// there is none.
func (f *File) Target(name string) bool {
	for i, s := range f.stages {
		if strings.EqualFold(s.Stage, name) || strconv.Itoa(i) == name {
			f.Instructions, f.On = s.Instructions, s.On
			f.aim(name)
			return true
		}
	}
	return f.last != "" && strings.EqualFold(f.last, name) || strconv.Itoa(len(f.stages)) == name
}

// SetBase has a stage, by name or number, and those that build on it, built on the files of an
// image instead of the machine's. It reports false if there is none, and why it cannot be.
func (f *File) SetBase(name string, image *imageref.Ref) (found bool, err error) {
	is := func(s *File) bool {
		number := slices.Index(f.stages, s)
		return strings.EqualFold(s.Stage, name) || strconv.Itoa(number) == name
	}
	for _, s := range f.stages {
		first := s
		for first.On != nil {
			first = first.On
		}
		switch {
		case is(first) && slices.ContainsFunc(first.Own(), func(in Instruction) bool { _, from := in.(*From); return from && slices.Contains(f.Instructions, in) }):
			return true, fault.Errorf("the layer is built on it, and is applied to this machine")
		case is(first):
			s.Image, found = image, true
		case is(s):
			return true, fault.Errorf("it is built on the stage %s: name that one", first.Stage)
		}
	}
	for _, s := range append(slices.Clip(f.stages), f) {
		for _, in := range s.Own() {
			for _, o := range origins(in) {
				if o.named != nil && is(o.named) {
					o.Stage, o.Image = nil, image
				}
			}
		}
	}
	if !found && (strings.EqualFold(f.last, name) && f.last != "" || strconv.Itoa(len(f.stages)) == name) {
		return true, fault.Errorf("it is the layer, which is applied to this machine")
	}
	return found, nil
}

// aim sets the stage that all are built for.
func (f *File) aim(target string) {
	for _, s := range f.stages {
		s.target = target
	}
	f.target = target
}

// StageAt returns the stage that a line is in; nil for the last one.
func (f *File) StageAt(line int) *File {
	for _, s := range f.stages {
		if slices.ContainsFunc(s.Own(), func(in Instruction) bool { return in.Base().Pos.Line <= line && line <= in.Base().Pos.End }) {
			return s
		}
	}
	return nil
}

// LineOf returns the line at which the file uses what is made in a line of a stage: that of
// a COPY or RUN, or the line itself if the file builds on the stage, or does not use it.
func (f *File) LineOf(line int) int {
	for _, in := range f.Instructions {
		if usesLine(in, line) {
			return in.Base().Pos.Line
		}
	}
	return line
}

func usesLine(in Instruction, line int) bool {
	if pos := in.Base().Pos; pos.Line <= line && line <= pos.End {
		return true
	}
	return slices.ContainsFunc(Uses(in), func(s *File) bool {
		return slices.ContainsFunc(s.Instructions, func(in Instruction) bool { return usesLine(in, line) })
	})
}

// Uses returns the stages that an instruction copies from, or mounts.
func Uses(in Instruction) (all []*File) {
	for _, o := range origins(in) {
		if o.Stage != nil {
			all = append(all, o.Stage)
		}
	}
	return all
}

func origins(in Instruction) (all []*Origin) {
	switch in := in.(type) {
	case *Copy:
		all = append(all, &in.Origin)
	case *Run:
		for i := range in.origins {
			all = append(all, &in.origins[i])
		}
	}
	return all
}

// setDir sets the directory and the name of a file, and of its stages.
func (f *File) setDir(dir, name string) {
	for _, s := range f.stages {
		s.Dir, s.Name = dir, name+strings.TrimPrefix(s.Name, f.Name)
	}
	f.Dir, f.Name = dir, name
}

// SetContext sets the context, of a file and its stages.
func (f *File) SetContext(dir string) {
	for _, s := range f.stages {
		s.context = dir
	}
	f.context = dir
}

// ContextOf returns the directory that an instruction of the file reads from.
func (f *File) ContextOf(o Origin) string { return cmp.Or(o.Context, f.context, f.Dir) }

func (s *stage) name(i int) string {
	if s.from.Alias == "" {
		return strconv.Itoa(i)
	}
	return strings.ToLower(s.from.Alias)
}

// find returns the stage of a name, the last one of several; numbered says that it may be
// its number.
func find(all []*stage, name string, numbered bool) *stage {
	for i := len(all) - 1; i >= 0; i-- {
		if all[i].from.Alias != "" && strings.EqualFold(all[i].from.Alias, name) {
			return all[i]
		}
	}
	if i, err := strconv.Atoi(name); numbered && err == nil && i >= 0 && i < len(all) {
		return all[i]
	}
	return nil
}

// Origins visits what --from, or from=, names in the file and its stages.
func (f *File) Origins(visit func(m *Meta, o *Origin)) {
	var all []Instruction
	for _, s := range append(slices.Clip(f.stages), f) {
		all = append(all, s.Instructions...)
	}
	for _, in := range all {
		for _, o := range origins(in) {
			visit(in.Base(), o)
		}
	}
}

// origins sets what an instruction copies from, or mounts, which the stages before it are
// known to.
func (p *fileParser) origins(in Instruction, all []*stage, i int) {
	switch in := in.(type) {
	case *Copy:
		if in.From != "" {
			in.Origin = p.origin(&in.Meta, "--from", in.From, all, i)
		}
	case *Run:
		in.origins = make([]Origin, len(in.Flags))
		for n, value := range in.Flags {
			from, err := mount.From(value)
			if err != nil {
				p.file.report(&p.problems, &in.Meta, err)
			} else if from != "" {
				in.origins[n] = p.origin(&in.Meta, "--mount: from", from, all, i)
			}
		}
	}
}

// origin returns what from names for an instruction of the stage at i: a build context, one of
// the stages before it, or an image. It reports a name that can be none.
func (p *fileParser) origin(m *Meta, flag, from string, all []*stage, i int) Origin {
	o := Origin{From: from}
	for name, c := range p.file.args.Contexts {
		if SameName(name, from) {
			o.Context, o.Image = c.Dir, c.Image
			return o
		}
	}
	if s := find(all[:i], from, m.Word == "COPY"); s != nil { // a mount has no numbers, as in BuildKit
		if ref := p.file.imageOf(s); ref != nil {
			for o.From = s.from.Image; s.on != nil; o.From = s.from.Image {
				s = s.on
			}
			o.Image, o.named = ref, s.whole
			return o
		}
		o.Stage = s.whole
		s.whole.Uses++
		return o
	}
	var names []string
	for i, s := range all[:i] {
		names = append(names, s.name(i))
	}
	o.Like = Nearest(from, names)
	if err := o.notStage(flag, all, i, names); err != nil {
		p.file.report(&p.problems, m, err)
		return o
	}
	ref, err := imageref.Parse(from)
	if err == nil {
		o.Image = &ref
		return o
	}
	f := fault.Errorf("%s=%s names no stage before this line, and no image: %v", flag, from, err)
	if bad := (*imageref.Error)(nil); errors.As(err, &bad) {
		f.Hint = bad.Hint
	}
	if o.Like != "" {
		f.Hint = fmt.Sprintf("did you mean %s?", o.Like)
	}
	p.file.report(&p.problems, m, f)
	return o
}

// imageOf returns the image that a stage is another name of, since it changes no file of it;
// nil if it is none. There is nothing to run on this machine in its place.
func (f *File) imageOf(s *stage) *imageref.Ref {
	if p := s.from.Platform; p != "" && p != f.args.Platform && !slices.Contains([]string{"BUILDPLATFORM", "TARGETPLATFORM"}, strings.Trim(p, "${}")) {
		return nil
	}
	for _, in := range s.own {
		switch in.(type) {
		case *Run, *Fetch, *Copy, *Workdir, *Snapshot:
			return nil
		}
	}
	if s.on != nil {
		return f.imageOf(s.on)
	}
	if ref, err := imageref.Parse(s.from.Image); err == nil && s.from.Image != "scratch" {
		return &ref
	}
	return nil
}

// notStage returns why a name that none of the stages before has can be no image either.
func (o *Origin) notStage(flag string, all []*stage, i int, names []string) error {
	number, err := strconv.Atoi(o.From)
	switch {
	case strings.Contains(o.From, "$"):
		return fault.Errorf("%s=%s: variables are not expanded here", flag, o.From).
			WithHint("they are in FROM: FROM %s AS name begins a stage that can be copied from", o.From)
	case find(all[i:], o.From, false) != nil, err == nil && number >= i && number < len(all):
		return fault.Errorf("%s=%s names a stage that is not whole at this line", flag, o.From).WithHint("copy from a stage that ends before it")
	case err == nil && len(names) == 0:
		return fault.Errorf("%s=%s names no stage before this line", flag, o.From).WithHint("FROM .. AS NAME begins a stage")
	case err == nil:
		return fault.Errorf("%s=%s names no stage before this line", flag, o.From).WithHint("stages before it: %s", strings.Join(names, ", "))
	case o.From == "scratch":
		return fault.Errorf("%s=scratch: there are no files in it", flag)
	}
	return nil
}

// SameName reports whether a build context has the name that --from has, as names of images are
// the same: x is docker.io/library/x:latest.
func SameName(context, from string) bool {
	a, errA := imageref.Parse(context)
	b, errB := imageref.Parse(from)
	return errA == nil && errB == nil && a == b || strings.EqualFold(context, strings.TrimSuffix(from, ":latest"))
}
