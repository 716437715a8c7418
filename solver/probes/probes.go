// Package probes solves, and then asks each layer by a command of its own whether it works:
// the probe. What was restored and fails is not used on this root again, and built once.
//
// A probe runs as clayer run runs commands: after all layers, with their variables, in an
// overlay of the root that is dropped, or, where there is none, on the root itself. It gets
// no variable of the session that holds a credential.
package probes

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/clayer/clayer/internal/credential"
	"github.com/clayer/clayer/solver"
	"github.com/clayer/clayer/solver/report"
	"github.com/clayer/clayer/solver/sandbox"
)

// Time is how long a probe may take.
const Time = time.Minute

// A Failure says of a layer in the root that its probe fails.
type Failure struct {
	Layer, Command string
	Err            error  // a *sandbox.ExitError, if it ran
	Output         string // the last lines that it printed, as plain text
}

// An Error says which layers are in the root, but don't work there.
type Error struct{ Failed []Failure }

// Error returns a paragraph for each layer.
func (e *Error) Error() string {
	var all []string
	for _, f := range e.Failed {
		text := fmt.Sprintf("layer %s is in the root, but its probe fails: %s: %v", f.Layer, f.Command, f.Err)
		for line := range strings.Lines(f.Output) {
			text += "\n    " + strings.TrimRight(line, "\n")
		}
		all = append(all, text)
	}
	return strings.Join(all, "\n")
}

// Of returns what an error says of a layer; nil for nothing.
func Of(err error, layer string) *Failure {
	var all *Error
	if errors.As(err, &all) {
		if i := slices.IndexFunc(all.Failed, func(f Failure) bool { return f.Layer == layer }); i >= 0 {
			return &all.Failed[i]
		}
	}
	return nil
}

// Solve is solver.Solve with the probes of Options.Probes, each of which may take limit. The
// error is an *Error if layers fail that were built here, and else that of solver.Solve;
// the Result is that of the last solve then.
func Solve(ctx context.Context, opt solver.Options, limit time.Duration) (*solver.Result, error) {
	res, err := solver.Solve(ctx, opt)
	if len(opt.Probes) == 0 {
		return res, err
	}
	rejected := make(map[string]bool)
	for err == nil {
		p := prober{opt: opt, limit: limit, done: res, rejected: rejected}
		if err = p.run(ctx); err != nil {
			return res, err
		}
		took := res.Took
		switch {
		case len(p.reject) > 0:
			opt.Rebuild = false // what was built by then is as good
			if res, err = solver.Solve(ctx, opt); res != nil {
				res.Took += took
			}
			continue
		case p.lists:
			var listed *solver.Result
			if listed, err = solver.Solve(ctx, opt); listed != nil {
				res.Pushed += listed.Pushed
			}
		}
		if err == nil && len(p.failed) > 0 {
			err = &Error{p.failed}
		}
		return res, err
	}
	return res, err
}

// A prober runs the probes that are due on a root, once.
type prober struct {
	opt      solver.Options
	limit    time.Duration
	done     *solver.Result
	rejected map[string]bool // layers that were built again for their probe; run adds to it

	failed []Failure
	reject []solver.ProbeResult // layers that are to be built
	lists  bool                 // a solve has to list layers in stores
}

// wasBuilt reports whether all of a layer was made now.
func (p *prober) wasBuilt(name string) bool {
	return p.rejected[name] || slices.ContainsFunc(p.done.Layers, func(l solver.LayerResult) bool { return l.Name == name && l.Built })
}

func (p *prober) run(ctx context.Context) error {
	due, err := solver.Unproven(p.opt)
	if err != nil || len(due) == 0 {
		return err
	}
	var passed, failed []solver.ProbeResult
	for _, r := range due {
		p.opt.Report.Emit(report.Event{Kind: report.Probing, Text: r.Layer})
		f, err := p.probe(ctx, r)
		switch {
		case errors.Is(err, sandbox.ErrUnavailable):
			p.opt.Report.WarnOnce("layer %s: its probe cannot run here, so it is not known whether it works: %v", r.Layer, err)
			passed = append(passed, r)
			continue
		case err != nil:
			return err
		}
		known := r.Why != "" // it failed before, and nothing was done since
		r.At, r.Why = time.Now().UTC(), ""
		if f == nil {
			passed = append(passed, r)
			continue
		}
		r.Why = f.Err.Error()
		if late := (*sandbox.ExitError)(nil); !known && !p.wasBuilt(r.Layer) && errors.As(f.Err, &late) && late.Reason == "" {
			p.rejected[r.Layer] = true
			p.reject = append(p.reject, r)
			p.opt.Report.Warnf("layer %s was restored, and its probe fails here (%v), so it is built: %s", r.Layer, f.Err, f.Command)
			continue
		}
		failed = append(failed, r)
		p.failed = append(p.failed, *f)
	}
	p.lists = len(passed) > 0 && p.opt.Push && len(p.opt.AllStores()) > 0
	err = solver.RecordProbes(ctx, p.opt, func(log *solver.ProbeLog) {
		for _, r := range slices.Concat(passed, failed) {
			log.Add(r)
		}
		for _, r := range p.reject {
			log.Reject(r)
		}
	})
	if err != nil && ctx.Err() == nil {
		p.opt.Report.Warnf("what probes said is not recorded, so they run again: %v", err)
		p.reject, p.lists, err = nil, false, nil
	}
	return err
}

// maxOutput is how much of what a probe prints is reported, in bytes and lines.
const maxOutput, maxLines = 16 << 10, 20

// probe runs the probe of a layer; nil if it passes. An error is none of the layer.
func (p *prober) probe(ctx context.Context, r solver.ProbeResult) (*Failure, error) {
	null, err := os.Open(os.DevNull)
	if err != nil {
		return nil, err
	}
	defer null.Close()
	out, err := os.CreateTemp("", "clayer-probe-")
	if err != nil {
		return nil, err
	}
	defer out.Close()
	if err := os.Remove(out.Name()); err != nil {
		return nil, err
	}
	opt := p.opt
	opt.Timeout = p.limit
	err = solver.Run(ctx, opt, solver.RunOptions{
		Argv: []string{"/bin/sh", "-c", r.Command}, Stdin: null, Stdout: out, Stderr: out,
		Withhold: isCredential, InPlace: true,
	})
	var exit *sandbox.ExitError
	if err == nil || !errors.As(err, &exit) {
		return nil, err
	}
	return &Failure{Layer: r.Layer, Command: r.Command, Err: exit, Output: lastLines(out)}, nil
}

// lastLines returns the last lines of a file as plain text.
func lastLines(f *os.File) string {
	size, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return ""
	}
	data, err := io.ReadAll(io.NewSectionReader(f, max(0, size-maxOutput), maxOutput))
	if err != nil {
		return ""
	}
	lines := report.PlainLines(data)
	return strings.Join(lines[max(0, len(lines)-maxLines):], "\n")
}

// isCredential reports whether a variable of the session holds one. Proxies often do, and
// a program that reaches the network needs them.
func isCredential(name, value string) bool {
	return credential.IsName(name) || credential.IsValue(value) && !strings.HasSuffix(strings.ToUpper(name), "_PROXY")
}
