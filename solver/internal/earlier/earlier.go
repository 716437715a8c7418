// Package earlier finds what earlier solves pinned the source of a FETCH, or an image, to, by the layers
// that stores list, where nobody says what it is now.
package earlier

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"

	"github.com/opencontainers/go-digest"

	"github.com/clayer/clayer/cache"
	"github.com/clayer/clayer/cache/github"
	"github.com/clayer/clayer/cache/transfer"
	"github.com/clayer/clayer/dag"
	"github.com/clayer/clayer/dag/key"
	"github.com/clayer/clayer/frontend"
	"github.com/clayer/clayer/frontend/imageref"
	"github.com/clayer/clayer/solver/internal/images"
	"github.com/clayer/clayer/solver/source"
)

// Pins has the pins of earlier solves. Its methods are safe for concurrent use, once its
// fields are set.
type Pins struct {
	List func(context.Context) ([]cache.Manifest, error) // asked once, and only where a source has no pin
	Warn func(text string)

	once   sync.Once
	layers []cache.Manifest // newest first
}

// Pin returns the pin that the source of a FETCH, or the image of a COPY, had in the newest layer
// of the same name, with a warning, if err says no more than that its pin cannot be learned now;
// else err.
func (p *Pins) Pin(ctx context.Context, src *dag.Source, in frontend.Instruction, err error) (source.Pin, error) {
	return p.newest(ctx, src, shown(in), err, func(rec key.Record) (dag.Pin, bool) { return dag.EarlierPin(rec, in) })
}

// Image is Pin for one image that a RUN mounts.
func (p *Pins) Image(ctx context.Context, src *dag.Source, ref imageref.Ref, err error) (source.Pin, error) {
	return p.newest(ctx, src, ref.String(), err, func(rec key.Record) (dag.Pin, bool) { return dag.EarlierImage(rec, ref) })
}

func (p *Pins) newest(ctx context.Context, src *dag.Source, what string, err error, find func(key.Record) (dag.Pin, bool)) (source.Pin, error) {
	if p.List == nil || ctx.Err() != nil || isAnswer(err) {
		return source.Pin{}, err
	}
	p.once.Do(func() { p.layers, _ = p.List(ctx) }) // a store that fails reports that
	for _, m := range p.layers {
		for _, s := range src.Steps {
			if s.Layer.Name != m.Name {
				continue
			}
			for _, d := range m.Steps {
				if pin, ok := find(d.Record); ok {
					p.Warn(fmt.Sprintf("%s: what %s is now cannot be learned, so what it was on %s is used (%s): %v",
						s.Pos(), what, m.Created.Format("2006-01-02"), short(pin), err))
					return source.Pin{Digest: digest.Digest(pin.Digest), Commit: pin.Commit}, nil
				}
			}
		}
	}
	return source.Pin{}, err
}

// isAnswer reports whether an error says what the source is: not there, or not to be had
// for what the user has to mend.
func isAnswer(err error) bool {
	var fault *source.Fault
	var status *transfer.StatusError
	var api *github.Error
	switch {
	case errors.As(err, &fault), images.IsAnswer(err), github.Is(err, github.BadToken):
		return true
	case errors.As(err, &api):
		return false // a repository that is hidden from who has no token is not there, too
	}
	return errors.As(err, &status) && (status.Code == 404 || status.Code == 410)
}

// shown is a source as it may be printed. One of a repository holds no password.
func shown(in frontend.Instruction) string {
	if c, ok := in.(*frontend.Copy); ok {
		return c.Image.String()
	}
	source := in.(*frontend.Fetch).Source
	if scheme, _, _ := strings.Cut(source, ":"); strings.EqualFold(scheme, "http") || strings.EqualFold(scheme, "https") {
		return transfer.Redact(source)
	}
	return source
}

func short(p dag.Pin) string {
	if p.Commit != "" {
		return "commit " + p.Commit[:12]
	}
	return p.Digest[:len("sha256:")+12]
}
