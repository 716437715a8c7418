package image

import (
	"maps"
	"slices"
	"strings"

	specs "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/clayer/clayer/frontend/metadata"
)

// A Config says what a container of an image starts with: what OCI's specification has, and
// what Docker has beyond it.
type Config struct {
	specs.ImageConfig
	Healthcheck *metadata.Health `json:",omitempty"`
	OnBuild     []string         `json:",omitempty"`
	Shell       []string         `json:",omitempty"`

	Author string `json:"-"` // which a config has elsewhere
}

// Clone returns a copy that shares nothing with c.
func (c Config) Clone() Config {
	c.Env, c.Cmd, c.Entrypoint = slices.Clone(c.Env), slices.Clone(c.Cmd), slices.Clone(c.Entrypoint)
	c.OnBuild, c.Shell = slices.Clone(c.OnBuild), slices.Clone(c.Shell)
	c.ExposedPorts, c.Volumes, c.Labels = maps.Clone(c.ExposedPorts), maps.Clone(c.Volumes), maps.Clone(c.Labels)
	return c
}

// SetVar sets a variable.
func (c *Config) SetVar(name, value string) {
	v := name + "=" + value
	for i, old := range c.Env {
		if strings.HasPrefix(old, name+"=") {
			c.Env[i] = v
			return
		}
	}
	c.Env = append(c.Env, v)
}

// A document is the config of an image as a file.
type document struct {
	specs.Image
	Config Config `json:"config,omitempty"`
}

// BaseConfig returns the config of a base.
func BaseConfig(name string, want specs.Platform) (Config, error) {
	b, err := openBase(name, want)
	if err != nil {
		return Config{}, baseError(name, err)
	}
	b.config.Config.Author = b.config.Author
	return b.config.Config, nil
}
