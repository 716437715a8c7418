package solver

import (
	"context"
	"errors"
	"fmt"

	"github.com/clayer/clayer/cache"
	"github.com/clayer/clayer/cache/image"
	"github.com/clayer/clayer/frontend"
	"github.com/clayer/clayer/internal/errhint"
	"github.com/clayer/clayer/solver/internal/environ"
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
	r.SetState(state)
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
	var config image.Config
	if base != "" {
		if config, err = image.BaseConfig(base, img.Platform); err != nil {
			return img, err
		}
	}
	img.Name = g.Layers[len(g.Layers)-1].Name
	img.Config = imageconfig.Of(g, config, environ.DefaultPath, r.warnOnce)
	return img, nil
}
