// Package imageconfig makes the config of an image from what Containerfiles say of it.
package imageconfig

import (
	"maps"
	"slices"
	"strings"

	"github.com/clayer/clayer/cache/image"
	"github.com/clayer/clayer/dag"
	"github.com/clayer/clayer/frontend"
	"github.com/clayer/clayer/frontend/metadata"
	"github.com/clayer/clayer/frontend/reference"
)

// Of returns the config of an image on a base, whose config is the zero Config without one: what
// the files of a graph change of that, as in Docker. path is where programs are found if the base
// does not say it.
func Of(g *dag.Graph, base image.Config, path string, warn func(format string, args ...any)) *image.Config {
	c := base.Clone()
	session := map[string]string{"PATH": path}
	for _, v := range base.Env {
		name, value, _ := strings.Cut(v, "=")
		session[name] = value
	}
	container := maps.Clone(session)
	if _, ok := container["HOME"]; !ok {
		container["HOME"] = "/root"
	}
	value := func(of, text string, vars map[string]string) string {
		return reference.Substitute(text, func(name string) string {
			value, ok := vars[name]
			if !ok {
				warn("%s: $%s is of the session, and the image has no such variable: it is empty there", of, name)
			}
			return value
		})
	}
	for _, v := range g.Env(len(g.Layers)) {
		c.SetVar(v.Name, value("ENV "+v.Name, v.Value, container))
	}
	if len(c.OnBuild) > 0 {
		warn("the base has triggers of ONBUILD, which are not run: %s", strings.Join(c.OnBuild, "; "))
		c.OnBuild = nil
	}
	for _, l := range g.Layers {
		if slices.ContainsFunc(l.File.Instructions, func(in frontend.Instruction) bool { _, ok := in.(*frontend.Workdir); return ok }) {
			c.WorkingDir = l.Scope.Dir
		}
		if l.Scope.User != "" {
			c.User = l.Scope.User
		}
		s := settings{config: &c}
		for _, in := range l.Settings {
			s.add(in, func(text string) string { return value(in.Base().Text, text, session) })
		}
	}
	return &c
}

// A settings is the config of an image while the instructions of a layer are added.
type settings struct {
	config *image.Config
	cmd    bool // the stage has a CMD
}

func (s *settings) add(in frontend.Instruction, value func(string) string) {
	c := s.config
	switch in := in.(type) {
	case *frontend.Shell:
		c.Shell = in.Argv
	case *frontend.From:
		if s.cmd = false; in.Stage {
			c.OnBuild = nil // they have run
		}
	case *frontend.Ignored:
		s.ignored(in, value)
	}
}

func (s *settings) ignored(in *frontend.Ignored, value func(string) string) {
	c := s.config
	text := strings.Join(in.Args, " ")
	command := in.Args
	if !in.JSON {
		shell := c.Shell
		if len(shell) == 0 {
			shell = []string{"/bin/sh", "-c"}
		}
		command = append(slices.Clone(shell), text)
	}
	switch in.Word {
	case "CMD":
		//lint:ignore SA1019 BuildKit sets it
		c.Cmd, c.ArgsEscaped, s.cmd = command, true, true
	case "ENTRYPOINT":
		// The CMD of what it builds on was for that one's ENTRYPOINT.
		if c.Entrypoint = command; !s.cmd {
			c.Cmd = nil
		}
	case "STOPSIGNAL":
		c.StopSignal = text
	case "MAINTAINER":
		c.Author = text
	case "HEALTHCHECK":
		c.Healthcheck = in.Health
	case "ONBUILD":
		c.OnBuild = append(c.OnBuild, in.Args...)
	case "VOLUME":
		add(&c.Volumes, in.Args)
	case "EXPOSE":
		ports, _ := metadata.Ports(in.Args) // Resolve reports what is wrong with them
		add(&c.ExposedPorts, ports)
	case "LABEL":
		if c.Labels == nil {
			c.Labels = make(map[string]string)
		}
		for i := 0; i+1 < len(in.Args); i += 3 {
			c.Labels[value(in.Args[i])] = value(in.Args[i+1])
		}
	}
}

func add(set *map[string]struct{}, names []string) {
	if *set == nil {
		*set = make(map[string]struct{})
	}
	for _, name := range names {
		(*set)[name] = struct{}{}
	}
}
