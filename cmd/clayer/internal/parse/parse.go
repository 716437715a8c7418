// Package parse reads the values of flags.
package parse

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/clayer/clayer/cmd/clayer/internal/usage"
	"github.com/clayer/clayer/dag"
	"github.com/clayer/clayer/frontend"
	"github.com/clayer/clayer/frontend/imageref"
	"github.com/clayer/clayer/internal/errhint"
)

// LayerNames reads --name: NAME for a single file, NAME:PATH for one of several.
func LayerNames(flags, paths []string) (map[string]string, error) {
	names := make(map[string]string)
	for _, v := range flags {
		name, path, ok := strings.Cut(v, ":")
		if !ok {
			if len(paths) != 1 || len(flags) != 1 {
				return nil, usage.Errorf("--name %s: of several files, say which: --name %s:PATH", v, v)
			}
			path = paths[0]
		}
		if name == "" || strings.Trim(name, "abcdefghijklmnopqrstuvwxyz0123456789_-") != "" {
			return nil, usage.Errorf("--name %s: a layer's name is made of a-z, 0-9, _ and -", v)
		}
		found := false
		for _, p := range paths {
			if filepath.Clean(p) == filepath.Clean(path) {
				names[p], found = name, true
			}
		}
		if !found {
			return nil, usage.Errorf("--name %s: %s is none of the files given", v, path)
		}
	}
	return names, nil
}

// BuildArgs reads --build-arg. NAME alone takes the value of the variable; without one
// it sets nothing.
func BuildArgs(flags []string) (map[string]string, error) {
	args := make(map[string]string)
	for _, v := range flags {
		name, value, ok := strings.Cut(v, "=")
		if name == "" {
			return nil, usage.Errorf("--build-arg %s: want NAME=value", v)
		}
		if !ok {
			if value, ok = os.LookupEnv(name); !ok {
				continue
			}
		}
		if _, err := strconv.ParseUint(value, 10, 40); name == dag.EpochVar && err != nil {
			return nil, usage.Errorf("--build-arg %s=%s: want a number of seconds since 1970", name, value)
		}
		args[name] = value
	}
	return args, nil
}

// Contexts reads --build-context, and checks the directory of --context.
func Contexts(context string, flags []string) (map[string]frontend.Context, error) {
	isDir := func(flag, dir string) error {
		if info, err := os.Stat(dir); err != nil || !info.IsDir() {
			return usage.Errorf("--%s: no such directory", flag)
		}
		return nil
	}
	if context != "" {
		if err := isDir("context "+context, context); err != nil {
			return nil, err
		}
	}
	contexts := make(map[string]frontend.Context)
	for _, v := range flags {
		name, value, _ := strings.Cut(v, "=")
		if name == "" || value == "" {
			return nil, usage.Errorf("--build-context %s: want NAME=DIR", v)
		}
		c, err := contextOf(value)
		if err != nil {
			err = usage.Errorf("--build-context %s=..: %w", name, err)
		} else if c.Image == nil {
			err = isDir("build-context "+v, value)
		}
		if err != nil {
			return nil, errhint.With(err, "a build context is a directory, docker-image://IMAGE, or oci-layout:DIR[:TAG|@DIGEST]")
		}
		contexts[name] = c
	}
	return contexts, nil
}

// contextOf reads what a build context is.
func contextOf(value string) (frontend.Context, error) {
	var ref imageref.Ref
	var err error
	if image, ok := strings.CutPrefix(value, "docker-image://"); ok {
		ref, err = imageref.Parse(image)
	} else if layout, ok := strings.CutPrefix(value, "oci-layout:"); ok {
		ref, err = imageref.ParseLayout(layout)
	} else {
		return frontend.Context{Dir: value}, nil
	}
	return frontend.Context{Image: &ref}, err
}

// StageBases reads --stage-base, and has the stages of files built on the images. Where the
// files are all there are, one of them has to have the stage.
func StageBases(flags []string, files []*frontend.File, all bool) error {
	for _, v := range flags {
		name, image, _ := strings.Cut(v, "=")
		if name == "" || image == "" {
			return usage.Errorf("--stage-base %s: want STAGE=IMAGE", v)
		}
		if !strings.HasPrefix(image, "oci-layout:") && !strings.HasPrefix(image, "docker-image:") {
			image = "docker-image://" + image
		}
		c, err := contextOf(image)
		if err != nil {
			return usage.Errorf("--stage-base %s=..: %w", name, err)
		}
		if c.Image == nil {
			return usage.Errorf("--stage-base %s: want STAGE=IMAGE, STAGE=docker-image://IMAGE or STAGE=oci-layout:DIR", v)
		}
		found := false
		for _, f := range files {
			has, err := f.SetBase(name, c.Image)
			if err != nil {
				return usage.Errorf("--stage-base %s: %w", name, err)
			}
			found = found || has
		}
		if !found && all {
			return usage.Errorf("--stage-base %s: no file has a stage of that name", name)
		}
	}
	return nil
}

// Probes reads --probe: commands by the name of a layer.
func Probes(flags []string) (map[string]string, error) {
	probes := make(map[string]string)
	for _, v := range flags {
		name, command, _ := strings.Cut(v, "=")
		if strings.TrimSpace(name) == "" || strings.TrimSpace(command) == "" || strings.Contains(command, "\x00") {
			return nil, usage.Errorf("--probe %s: want LAYER=COMMAND", v)
		}
		probes[name] = command
	}
	return probes, nil
}

// Age reads --older-than, a duration that may be in days: "30d".
func Age(s string) (time.Duration, error) {
	if s == "" {
		return 0, nil
	}
	if days, ok := strings.CutSuffix(s, "d"); ok {
		n, err := strconv.ParseFloat(days, 64)
		if err != nil || n < 0 || n > 100_000 {
			return 0, fmt.Errorf("%q is no number of days", s)
		}
		return time.Duration(n * 24 * float64(time.Hour)), nil
	}
	d, err := time.ParseDuration(s)
	if err == nil && d < 0 {
		return 0, fmt.Errorf("%q is negative", s)
	}
	return d, err
}

// Since reads --since, a time, or how long ago it was.
func Since(s string, now time.Time) (time.Time, error) {
	if s == "" {
		return time.Time{}, nil
	}
	if d, err := time.ParseDuration(s); err == nil && d >= 0 {
		return now.Add(-d), nil
	}
	t, err := time.Parse(time.RFC3339, s)
	if err != nil {
		return t, usage.Errorf("--since %s: want 2h, or 2006-01-02T15:04:05Z", s)
	}
	return t, nil
}
