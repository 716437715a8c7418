package solver

import (
	"context"
	"errors"
	"fmt"
	"strings"

	specs "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/clayer/clayer/cache"
	"github.com/clayer/clayer/cache/image"
	"github.com/clayer/clayer/dag"
	"github.com/clayer/clayer/frontend"
	"github.com/clayer/clayer/internal/errhint"
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
	root, err := r.open()
	if err != nil {
		return img, err
	}
	state, err := root.State()
	if err != nil {
		return img, fmt.Errorf("%w: %w", ErrRoot, err)
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
	img.Config = r.imageConfig(g, env)
	return img, nil
}

// imageConfig returns what the files say of a container's beginning: ENV and
// WORKDIR, and the Dockerfile's words that have no effect on a live root. Of
// several layers the later ones win.
func (r *session) imageConfig(g *dag.Graph, base []string) specs.ImageConfig {
	c := specs.ImageConfig{}
	session := map[string]string{"PATH": defaultPath, "HOME": "/root"}
	for _, v := range base {
		name, value, _ := strings.Cut(v, "=")
		session[name] = value
	}
	for _, v := range g.Env(len(g.Layers)) {
		value := frontend.Substitute(v.Value, func(name string) string {
			value, ok := session[name]
			if !ok {
				r.warnOnce("ENV %s: $%s is of the session, and the image has no such variable: it is empty there", v.Name, name)
			}
			return value
		})
		c.Env = append(c.Env, v.Name+"="+value)
	}
	for _, l := range g.Layers {
		if l.Scope.Dir != "" {
			c.WorkingDir = l.Scope.Dir
		}
		for _, in := range l.File.Instructions {
			if in, ok := in.(*frontend.Ignored); ok {
				r.configure(&c, in, l.Scope.Shell)
			}
		}
	}
	return c
}

// configure adds what an instruction says to a config. One that has variables
// in it, which is expanded nowhere else, is left out with a warning.
func (r *session) configure(c *specs.ImageConfig, in *frontend.Ignored, shell []string) {
	word := in.Base().Word
	text := strings.Join(in.Args, " ")
	if text == "" {
		return
	}
	command := in.Args
	if !in.JSON {
		if shell == nil {
			shell = []string{"/bin/sh", "-c"}
		}
		command = append(append([]string(nil), shell...), text)
	}
	switch word {
	case "CMD":
		c.Cmd = command
		return
	case "ENTRYPOINT":
		c.Entrypoint = command
		return
	case "USER", "STOPSIGNAL", "LABEL", "EXPOSE", "VOLUME":
		if strings.Contains(text, "$") {
			r.warnOnce("%s: %s: the image does not get it: variables in it are not expanded", in.Base().Pos, in.Base().Text)
			return
		}
	default:
		r.warnOnce("%s: %s: the image does not get it", in.Base().Pos, word)
		return
	}
	set := func(m *map[string]struct{}, names []string) {
		if *m == nil {
			*m = make(map[string]struct{})
		}
		for _, name := range names {
			(*m)[name] = struct{}{}
		}
	}
	switch word {
	case "USER":
		c.User = text
	case "STOPSIGNAL":
		c.StopSignal = text
	case "VOLUME":
		set(&c.Volumes, in.Args)
	case "EXPOSE":
		var ports []string
		for _, p := range in.Args {
			if !strings.Contains(p, "/") {
				p += "/tcp"
			}
			ports = append(ports, p)
		}
		set(&c.ExposedPorts, ports)
	case "LABEL":
		if c.Labels == nil {
			c.Labels = make(map[string]string)
		}
		for i := 0; i+1 < len(in.Args); i += 2 {
			c.Labels[in.Args[i]] = in.Args[i+1]
		}
	}
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
