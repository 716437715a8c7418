package solver

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/clayer/clayer/cache"
	"github.com/clayer/clayer/cache/image"
	"github.com/clayer/clayer/frontend"
	"github.com/clayer/clayer/internal/errhint"
	"github.com/clayer/clayer/solver/internal/imageconfig"
)

// Image returns the composition of the options' files as an image: what the
// stores have of its steps, and the config that the files make. A step that no
// store has is an error: an image is made of what was solved.
//
// base is the layout of the image that it is put on, as image.Options has
// it; a value that refers to a variable of the session refers to one of that.
func Image(ctx context.Context, opt Options, base string) (image.Image, error) {
	var img image.Image
	r := newReadOnly(opt)
	_, state, err := r.openState()
	if err != nil {
		return img, err
	}
	g, err := r.graph()
	if err != nil {
		return img, err
	}
	platform := r.platform(ctx, state)
	keys, err := r.keys(ctx, g, platform)
	if err != nil {
		return img, err
	}
	found, err := r.Find(ctx, g, keys, nil)
	if err != nil {
		return img, err
	}
	img.Platform = cache.OCIPlatform(platform)
	var missing []error
	for _, s := range g.Steps() {
		step := image.Step{Text: s.Text()}
		if s.ChangesRoot() {
			d, ok := found[keys.Step[s]]
			if !ok {
				missing = append(missing, fmt.Errorf("%s: %s", s.Pos(), s.Text()))
			}
			step.Descriptor = d.Descriptor
			_, step.AllForRoot = s.Instr.(*frontend.Snapshot)
		}
		img.Steps = append(img.Steps, step)
	}
	if len(missing) > 0 {
		return img, errhint.With(fmt.Errorf("%w: no store has\n%w", cache.ErrNotCached, errors.Join(missing...)), "clayer solve builds it, and stores it, unless what it installs is on this machine already")
	}
	var env []string
	if base != "" {
		if env, err = image.BaseEnv(base, img.Platform); err != nil {
			return img, err
		}
	}
	img.Name = g.Layers[len(g.Layers)-1].Name
	img.Config = imageconfig.Of(g, env, defaultPath, r.warnOnce)
	return img, nil
}

// ImageOf returns layers that stores have, in the order in which they are
// given, as an image. Its config says nothing: the stores have no values of
// variables.
func ImageOf(ms []cache.Manifest) (image.Image, error) {
	var img image.Image
	for i, m := range ms {
		p := cache.OCIPlatform(m.Platform)
		if i > 0 && (p.OS != img.Platform.OS || p.Architecture != img.Platform.Architecture) {
			return img, fmt.Errorf("%s is for %s/%s, and %s for %s/%s", m.Tag(), p.OS, p.Architecture, ms[0].Tag(), img.Platform.OS, img.Platform.Architecture)
		}
		if len(m.LeftOut) > 0 {
			return img, fmt.Errorf("%s: %s is in no store, since it installed nothing where it ran: solve the layer on a machine that lacks what it installs, then export it", m.Tag(), m.LeftOut[0].Text)
		}
		img.Platform, img.Name = p, m.Tag()
		for _, d := range m.Steps {
			word, _, _ := strings.Cut(d.Text, " ")
			img.Steps = append(img.Steps, image.Step{Descriptor: d, Text: d.Text, AllForRoot: strings.EqualFold(word, "SNAPSHOT")})
		}
	}
	return img, nil
}
