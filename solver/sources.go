package solver

import (
	"cmp"
	"context"
	"errors"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/clayer/clayer/cache/transfer"
	"github.com/clayer/clayer/dag"
	"github.com/clayer/clayer/frontend"
	"github.com/clayer/clayer/internal/fsclock"
	"github.com/clayer/clayer/solver/internal/commands"
	"github.com/clayer/clayer/solver/internal/contextdir"
	"github.com/clayer/clayer/solver/internal/images"
	"github.com/clayer/clayer/solver/sandbox"
	"github.com/clayer/clayer/solver/source"
)

// sources returns the resolver of the options' sources: one for plan and
// solve, so that nothing is requested twice.
func (r *session) sources() *source.Resolver {
	r.resolving.Do(func() {
		stored := &source.Downloads{Path: r.downloadsDir(), ReadOnly: r.readOnly}
		if r.images == nil {
			r.images = &images.Source{Platform: r.imagePlatform(), Blobs: stored, Registry: r.Registry, Warn: func(text string) { r.warnOnce("%s", text) }}
			if r.Cache != "" {
				r.images.Work = filepath.Join(r.Cache, "run")
			}
		}
		if r.contexts == nil {
			r.contexts = contextdir.In(r.Cache, fsclock.Shows)
		}
		r.resolver = &source.Resolver{
			Client:    r.transfer(),
			GitHub:    r.GitHub,
			Downloads: stored,
			Warn:      func(text string) { r.warnOnce("%s", text) },
			Contexts:  r.contexts,
			Exclude:   r.own(),
			Replaces:  r.legacy.Fetches,
			Stages:    r.stages,
			Images:    r.images,
		}
	})
	return r.resolver
}

// imagePlatform is for which machine images are.
func (r *session) imagePlatform() string {
	platform, _, _ := strings.Cut(r.elsewhere, " ")
	return cmp.Or(platform, runtime.GOOS+"/"+runtime.GOARCH)
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
	return r.commands(inPlace).Of(ctx, it.Step, run)
}

// commands returns what makes the commands of RUNs.
func (r *session) commands(inPlace bool) *commands.Maker {
	return &commands.Maker{
		Environ: r.environ(), Secrets: r.Secrets, Agents: r.Agents, OnRoot: inPlace && r.base() == "/", Timeout: r.Timeout, Cache: r.Cache,
		Fill: r.sharing.Fill, Sources: r.sources(), Report: r.Report,
	}
}
