package solver

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/clayer/clayer/cache/transfer"
	"github.com/clayer/clayer/dag"
	"github.com/clayer/clayer/frontend"
	"github.com/clayer/clayer/solver/internal/commands"
	"github.com/clayer/clayer/solver/internal/names"
	"github.com/clayer/clayer/solver/internal/places"
	"github.com/clayer/clayer/solver/report"
	"github.com/clayer/clayer/solver/sandbox"
	"github.com/clayer/clayer/solver/source"
)

// sources returns the resolver of the options' sources: one for plan and
// solve, so that nothing is requested twice.
func (r *session) sources() *source.Resolver {
	r.resolving.Do(func() {
		r.resolver = &source.Resolver{
			Client:    r.transfer(),
			GitHub:    r.GitHub,
			Downloads: &source.Downloads{Path: r.downloadsDir(), ReadOnly: r.readOnly},
			Warn:      func(text string) { r.warnOnce("%s", text) },
			Exclude:   r.own(),
			Replaces:  r.legacy.Fetches,
			Stages:    r.stages,
		}
	})
	return r.resolver
}

// downloadsDir is where downloads are stored; "" for nowhere.
func (r *session) downloadsDir() string {
	if r.Cache == "" {
		return ""
	}
	return filepath.Join(r.Cache, "downloads")
}

// transfer returns what downloads: with GitHub's client, so that one host has
// its connections from one.
func (r *session) transfer() *transfer.Client {
	if r.GitHub != nil {
		return r.GitHub.Transfer()
	}
	return transfer.New(transfer.Options{UserAgent: "clayer"})
}

// commits resolves what --invalidate-on names: "owner/repo@commit", in order.
func (r *session) commits(ctx context.Context) ([]string, error) {
	list := make([]string, len(r.InvalidateOn))
	eg, ctx := errgroup.WithContext(ctx)
	eg.SetLimit(r.jobs())
	for i, text := range r.InvalidateOn {
		eg.Go(func() error {
			ref, err := source.ParseRef(text)
			if err != nil {
				return err
			}
			id, err := r.sources().Commit(ctx, ref)
			if err != nil {
				return fmt.Errorf("the commit of %s: %w", text, err)
			}
			list[i] = ref.Repo.String() + "@" + id
			return nil
		})
	}
	err := eg.Wait()
	return list, err
}

// own lists the directories that a solve writes to.
func (r *session) own() []string {
	var own []string
	if r.Cache != "" {
		own = append(own, r.Cache)
	}
	if t := r.target(); t != "/" {
		own = append(own, t)
	}
	return own
}

// pin resolves what a FETCH or COPY names.
func (r *session) pin(ctx context.Context, s *dag.Step) (dag.Pin, error) {
	var p source.Pin
	var err error
	switch in := s.Instr.(type) {
	case *frontend.Fetch:
		for _, same := range s.Source.Steps {
			r.sources().WarnOf(same.Instr.(*frontend.Fetch))
		}
		metered, m := r.Report.Metered(ctx, report.Event{Kind: report.Fetching, Step: s})
		p, err = r.pinFetch(metered, s, in)
		m.Done(err)
	case *frontend.Copy:
		p, err = r.sources().Copy(ctx, s.ContextDir(), in)
	case *frontend.Run:
		p, err = r.sources().Mounts(ctx, s.Layer.File, in)
	default:
		panic(fmt.Sprintf("solver: %T has no source", in))
	}
	return dag.Pin{Digest: p.Digest.String(), Commit: p.Commit, Stages: p.Stages.String()}, err
}

// pinFetch resolves the source of a FETCH; one that nobody can say now to what it was in
// the newest layer of that name.
func (r *session) pinFetch(ctx context.Context, s *dag.Step, f *frontend.Fetch) (source.Pin, error) {
	pin, err := r.sources().Fetch(ctx, f)
	if err != nil && r.earlier.List != nil {
		return r.earlier.Pin(ctx, s.Source, f, err)
	}
	return pin, err
}

// Changes returns what a FETCH, COPY or WORKDIR does; of a RUN none, but what it mounts is there
// then. It is asked for ahead, and again
// when the step's turn has come: what it takes, a download and a look through an archive,
// is done once.
func (r *session) Changes(ctx context.Context, s *dag.Step) (source.Placer, error) {
	once, _ := r.changes.LoadOrStore(s, sync.OnceValues(func() (source.Placer, error) { return r.readChanges(ctx, s) }))
	return once.(func() (source.Placer, error))()
}

func (r *session) readChanges(ctx context.Context, s *dag.Step) (source.Placer, error) {
	src := r.sources()
	switch in := s.Instr.(type) {
	case *frontend.Fetch:
		metered, m := r.Report.Metered(ctx, report.Event{Kind: report.Fetching, Step: s})
		p, err := r.pinFetch(metered, s, in)
		if err != nil {
			return nil, err
		}
		changes, err := src.FetchChanges(metered, in, p)
		m.Done(err)
		return changes, err
	case *frontend.Copy:
		dir := s.ContextDir()
		p, err := src.Copy(ctx, dir, in)
		if err != nil {
			return nil, err
		}
		return src.CopyChanges(ctx, dir, in, p)
	case *frontend.Workdir:
		return source.WorkdirChanges(in), nil
	case *frontend.Run: // which makes its changes itself, with the stages that it mounts
		return nil, src.BuildStages(ctx, in)
	}
	panic(fmt.Sprintf("solver: %T has no changes of its own", s.Instr))
}

// Destination returns where a FETCH, COPY or WORKDIR puts what it makes.
func (r *session) Destination(ctx context.Context, s *dag.Step) (places.Dest, error) {
	return r.sources().Dest(ctx, s.ContextDir(), s.Instr)
}

// Expected returns what the snapshot of a step is like, which finds the root as it is in
// at, or nearly so; nil if that is not known.
func (r *session) Expected(ctx context.Context, s *dag.Step, at *names.View, exact bool) (source.Expectation, error) {
	switch in := s.Instr.(type) {
	case *frontend.Copy:
		return r.sources().ExpectCopy(ctx, s.ContextDir(), in, at, exact)
	case *frontend.Fetch:
		pin, err := r.pinFetch(ctx, s, in)
		if err != nil {
			return nil, err
		}
		return r.sources().ExpectFetch(in, pin, at, exact)
	case *frontend.Workdir:
		return source.ExpectWorkdir(in, at, exact)
	}
	return nil, nil
}

// Unstored reports whether a layer comes from a legacy release: that is a store
// already, and the layer is not stored in another form.
func (r *session) Unstored(l *dag.Layer) bool { return r.legacy.Made(l.File) }

// errNotStored says that a step which only a store can give is not there, or of no use here.
var errNotStored = errors.New("its snapshot cannot be had, and there is no line that makes it")

// Command returns what a RUN runs, with its environment and mounts.
func (r *session) Command(ctx context.Context, it *dag.Item, run *frontend.Run, inPlace bool) (cmd sandbox.Command, release func(), err error) {
	if run.Stored != nil {
		return cmd, nil, errNotStored
	}
	if r.Allow != nil {
		if err := r.Allow(Starting{Step: it.Step, Estimate: it.Estimate, InPlace: inPlace}); err != nil {
			return cmd, nil, err
		}
	}
	return r.commands().Of(ctx, it.Step, run)
}

// commands returns what makes the commands of RUNs.
func (r *session) commands() *commands.Maker {
	return &commands.Maker{
		Environ: r.environ(), Secrets: r.Secrets, Timeout: r.Timeout, Cache: r.Cache,
		Fill: r.sharing.Fill, Sources: r.sources(), Report: r.Report,
	}
}
