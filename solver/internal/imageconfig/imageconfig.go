// Package imageconfig makes the config of an image from what Containerfiles say of it.
package imageconfig

import (
	"strings"

	specs "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/clayer/clayer/dag"
	"github.com/clayer/clayer/frontend"
)

// Of returns what the files of a graph say of a container's beginning: ENV,
// WORKDIR and USER, and the Dockerfile's words that have no effect on a live root. Of
// several layers the later ones win.
func Of(g *dag.Graph, base []string, path string, warn func(format string, args ...any)) specs.ImageConfig {
	c := specs.ImageConfig{}
	session := map[string]string{"PATH": path, "HOME": "/root"}
	for _, v := range base {
		name, value, _ := strings.Cut(v, "=")
		session[name] = value
	}
	for _, v := range g.Env(len(g.Layers)) {
		value := frontend.Substitute(v.Value, func(name string) string {
			value, ok := session[name]
			if !ok {
				warn("ENV %s: $%s is of the session, and the image has no such variable: it is empty there", v.Name, name)
			}
			return value
		})
		c.Env = append(c.Env, v.Name+"="+value)
	}
	for _, l := range g.Layers {
		if l.Scope.Dir != "" {
			c.WorkingDir = l.Scope.Dir
		}
		if l.Scope.User != "" {
			c.User = l.Scope.User
		}
		for _, in := range l.File.Instructions {
			if in, ok := in.(*frontend.Ignored); ok {
				configure(&c, in, l.Scope.Shell, warn)
			}
		}
	}
	return c
}

// configure adds what an instruction says to a config. One that has variables
// in it, which is expanded nowhere else, is left out with a warning.
func configure(c *specs.ImageConfig, in *frontend.Ignored, shell []string, warn func(string, ...any)) {
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
	case "STOPSIGNAL", "LABEL", "EXPOSE", "VOLUME":
		if strings.Contains(text, "$") {
			warn("%s: %s: the image does not get it: variables in it are not expanded", in.Base().Pos, in.Base().Text)
			return
		}
	default:
		warn("%s: %s: the image does not get it", in.Base().Pos, word)
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
