package stages

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"github.com/opencontainers/go-digest"

	"github.com/clayer/clayer/frontend"
	"github.com/clayer/clayer/solver/internal/images"
)

// A Base is the image that a stage is built on.
type Base struct {
	Platform string         // what the first key has instead of the machine's
	Scope    frontend.Scope // ENV, WORKDIR, SHELL and USER of the image

	image *frontend.File
	pin   digest.Digest
	from  *images.Source
}

// OnImage returns the base of a stage that is built on an image, of which the manifest and the
// config are read.
func OnImage(ctx context.Context, from *images.Source, stage *frontend.File) (*Base, error) {
	pin, err := from.Pin(ctx, *stage.Image)
	var cfg images.Config
	if err == nil {
		cfg, err = from.Config(ctx, *stage.Image, pin)
	}
	if err != nil {
		return nil, ofStage(stage, err)
	}
	b := &Base{Platform: "image " + pin.String() + " " + stage.Args().Platform, image: stage, pin: pin, from: from}
	for _, kv := range cfg.Env {
		if name, value, ok := strings.Cut(kv, "="); ok && name != "" && !strings.ContainsRune(kv, 0) {
			b.Scope.Env = append(b.Scope.Env, frontend.Var{Name: name, Value: value})
		}
	}
	b.Scope.Dir, b.Scope.User = cfg.WorkingDir, cfg.User
	if len(cfg.Shell) > 0 {
		b.Scope.Shell = cfg.Shell
	}
	if n := len(cfg.OnBuild); n > 0 && from.Warn != nil {
		from.Warn(fmt.Sprintf("stage %s: %s: its ONBUILD triggers are not run: %.300q", stage.Stage, *stage.Image, cfg.OnBuild[:min(n, 8)]))
	}
	return b, nil
}

// ofStage says that the image of a stage cannot be had.
func ofStage(stage *frontend.File, err error) error {
	if f := (*images.Fault)(nil); errors.As(err, &f) {
		named := *f
		named.Message = fmt.Sprintf("stage %s: %s", stage.Stage, f.Message)
		return &named
	}
	return fmt.Errorf("stage %s: %w", stage.Stage, err)
}

// Root unpacks the image, and returns its directory. Views of it find there where to mount what
// all of them have.
func (b *Base) Root(ctx context.Context) (string, error) {
	t, err := b.from.Whole(ctx, *b.image.Image, b.pin)
	if err != nil {
		return "", ofStage(b.image, err)
	}
	root, err := os.OpenRoot(t.Dir)
	if err != nil {
		return "", err
	}
	defer root.Close()
	for _, dir := range []string{"dev", "etc", "proc", "sys", "run", "tmp"} {
		mode := fs.FileMode(0o755)
		if dir == "tmp" {
			mode = 0o777 | fs.ModeSticky
		}
		if err := root.Mkdir(dir, 0o755); errors.Is(err, fs.ErrExist) {
			continue
		} else if err != nil {
			return "", err
		}
		if err := root.Chmod(dir, mode); err != nil {
			return "", err
		}
	}
	return t.Dir, nil
}
