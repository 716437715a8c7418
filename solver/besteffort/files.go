package besteffort

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/clayer/clayer/dag"
	"github.com/clayer/clayer/dag/key"
	"github.com/clayer/clayer/frontend"
	"github.com/clayer/clayer/solver"
	"github.com/clayer/clayer/solver/probes"
)

// files returns the files of the options as far as their layers go, or what takes their
// place.
func (r *run) files(ctx context.Context) []*frontend.File {
	var all []*frontend.File
	for _, f := range r.opt.Files {
		if !r.isShort(f) {
			all = append(all, f)
			continue
		}
		if m, ok := r.substitute(ctx, f); ok {
			all = append(all, storedFile(f, m))
			continue
		}
		if on := r.fromOf(f); on != nil && r.isShort(on) {
			continue
		}
		part := *f
		part.Instructions = before(f, r.cuts[f].line)
		if steps(part.Instructions) > 0 {
			all = append(all, &part)
		}
	}
	return all
}

// fromOf returns the file of the layer that a file builds on by FROM; nil for none.
func (r *run) fromOf(f *frontend.File) *frontend.File {
	from := dag.BuildsOn(f)
	if from == nil {
		return nil
	}
	i := slices.IndexFunc(r.opt.Files, func(on *frontend.File) bool { return on.Name == from.Image })
	if i < 0 {
		return nil
	}
	return r.opt.Files[i]
}

// inCycle reports whether the FROMs from a file on come to no end.
func (r *run) inCycle(f *frontend.File) bool {
	for range r.opt.Files {
		if f = r.fromOf(f); f == nil {
			return false
		}
	}
	return true
}

// isShort reports whether a layer has ended, or one that it builds on has.
func (r *run) isShort(f *frontend.File) bool {
	for range r.opt.Files { // not for ever, where FROMs make a cycle
		if f == nil || r.isCut(f) {
			break
		}
		f = r.fromOf(f)
	}
	return f != nil && r.isCut(f)
}

// isCutFor reports whether the layers that an error is about have ended for it.
func (r *run) isCutFor(err error) bool {
	var problems frontend.Problems
	if !errors.As(err, &problems) {
		return false
	}
	return !slices.ContainsFunc(problems, func(p *frontend.Problem) bool {
		return !slices.ContainsFunc(r.opt.Files, func(f *frontend.File) bool { return f.Path == p.Pos.File && r.isCut(f) })
	})
}

func (r *run) isCut(f *frontend.File) bool {
	_, ok := r.cuts[f]
	return ok
}

// before returns the instructions that stand before a line. A SNAPSHOT captures what the
// whole layer has made: there is none in a part, unless it is a SNAPSHOT that is missing.
func before(f *frontend.File, line int) (part []frontend.Instruction) {
	onlyCaptures := !slices.ContainsFunc(f.Instructions, func(in frontend.Instruction) bool {
		return in.Base().Pos.Line >= line && steps([]frontend.Instruction{in}) > 0 && !isSnapshot(in)
	})
	for _, in := range f.Instructions {
		if in.Base().Pos.Line < line && (onlyCaptures || !isSnapshot(in)) {
			part = append(part, in)
		}
	}
	return part
}

func isSnapshot(in frontend.Instruction) bool {
	_, ok := in.(*frontend.Snapshot)
	return ok
}

// steps counts the instructions that change the root.
func steps(list []frontend.Instruction) (n int) {
	for _, in := range list {
		switch in.(type) {
		case *frontend.Run, *frontend.Fetch, *frontend.Copy, *frontend.Workdir, *frontend.Snapshot:
			n++
		}
	}
	return n
}

// hashTime bounds how long the keys of what is missing are computed: they name it, and no
// more.
const hashTime = 2 * time.Second

// shortfall returns what is left out; nil: nothing. res is what was done: nil while nothing
// is, and err then what went wrong besides.
func (r *run) shortfall(ctx context.Context, res *solver.Result, err error) *solver.Shortfall {
	s := &solver.Shortfall{At: time.Now().UTC(), Command: r.Command}
	for _, f := range r.opt.Files {
		s.Late = s.Late || errors.As(r.cuts[f].why, new(*BudgetError))
		if l, ok := r.short(ctx, f, res, err); ok {
			l.Wanted = r.wantedKeys(ctx)[f.Name]
			if m, ok := r.substitute(ctx, f); ok && m.Key == l.Wanted && (res != nil || err == nil) {
				continue // what could not be had as such can be had as an earlier layer
			}
			s.Layers = append(s.Layers, l)
		}
	}
	for _, e := range []error{r.Unread, err} {
		if e != nil && !errors.As(e, new(*probes.Error)) && !r.isCutFor(e) && !slices.ContainsFunc(s.Layers, func(l solver.ShortLayer) bool { return l.Why == firstLine(e) }) {
			s.Problem = firstLine(e)
		}
	}
	if len(s.Layers) == 0 && s.Problem == "" {
		return nil
	}
	return s
}

// short returns what is missing of a layer; false: nothing.
func (r *run) short(ctx context.Context, f *frontend.File, res *solver.Result, err error) (solver.ShortLayer, bool) {
	l := solver.ShortLayer{Name: f.Name, File: f.Path, Of: steps(f.Instructions)}
	from := 0
	switch on, c := r.fromOf(f), r.cuts[f]; {
	case c.why != nil:
		if l.Why, from = firstLine(c.why), c.line; on == nil || !r.isShort(on) {
			l.Steps = steps(before(f, c.line))
		}
	case probes.Of(err, f.Name) != nil:
		failed := probes.Of(err, f.Name)
		l.Steps, l.Why = l.Of, fmt.Sprintf("its probe fails: %s: %v", failed.Command, failed.Err)
	case on != nil && r.isShort(on):
		l.Why = fmt.Sprintf("it builds on %s, which is not whole", on.Name)
	case res == nil && err != nil:
		l.Why = firstLine(err)
	default:
		return l, false
	}
	l.Line, l.Text = first(f, from)
	if m, ok := r.substitute(ctx, f); ok && l.Of > 0 {
		l.As = m.Created
	}
	return l, true
}

// first returns the line, and the text, of the instruction at which a layer ends, whatever
// that is; from 0 is that of the first step.
func first(f *frontend.File, from int) (line int, text string) {
	for _, in := range f.Instructions {
		if m := in.Base(); from > 0 && m.Pos.Line == from || from == 0 && steps([]frontend.Instruction{in}) > 0 {
			return m.Pos.Line, (&dag.Step{Instr: in}).Text() // without what may be secret
		}
	}
	if from > 0 && from <= len(f.Lines) { // it could not be parsed
		return from, "a line that cannot be read" // which may hold a secret
	}
	return max(from, 1), f.Path
}

// wantedKeys returns the keys of the layers as they are wanted, as far as they can be computed.
func (r *run) wantedKeys(ctx context.Context) map[string]key.Key {
	if r.wanted != nil {
		return r.wanted
	}
	r.wanted = make(map[string]key.Key)
	ctx, cancel := context.WithTimeout(ctx, hashTime)
	defer cancel()
	opt := r.opt
	opt.Stores = nil
	if g, keys, err := solver.Hash(ctx, opt); err == nil {
		for _, l := range g.Layers {
			r.wanted[l.Name] = keys.Layer[l]
		}
	}
	return r.wanted
}

// firstLine is what an error says, without what it shows of a file or of a program's output.
func firstLine(err error) string {
	var out *BudgetError
	if errors.As(err, &out) {
		return out.Error()
	}
	var failed *solver.BuildError
	if errors.As(err, &failed) {
		err = failed.Err
	}
	var problem *frontend.Problem
	if errors.As(err, &problem) {
		return problem.Message
	}
	text, more, _ := strings.Cut(err.Error(), "\n")
	if strings.HasSuffix(text, ":") { // a list follows
		more, _, _ = strings.Cut(strings.TrimSpace(more), "\n")
		text += " " + more
	}
	return text
}
