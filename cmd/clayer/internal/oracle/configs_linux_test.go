package oracle

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"
	"golang.org/x/sync/errgroup"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// TestConfigs compares the configs of images: those that BuildKit exports, and those of
// clayer cache export.
func TestConfigs(t *testing.T) {
	p := newPlayer(t)
	data, err := os.ReadFile("testdata/configs.txt")
	if err != nil {
		t.Fatal(err)
	}
	var g errgroup.Group
	g.SetLimit(3)
	for _, f := range txtar.Parse(data).Files {
		g.Go(func() error {
			dir := filepath.Join(p.dir, f.Name)
			if err := os.Mkdir(dir, 0o755); err != nil {
				return err
			}
			if err := os.WriteFile(filepath.Join(dir, containerfile), f.Data, 0o644); err != nil {
				return err
			}
			want, err := p.buildkit.config(t.Context(), dir)
			if err != nil {
				return fmt.Errorf("%s: %w", f.Name, err)
			}
			got, err := p.clayer.config(t.Context(), dir, p.layout)
			if err != nil {
				return fmt.Errorf("%s: %w", f.Name, err)
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("%s (-BuildKit +clayer):\n%s\n%s", f.Name, diff, f.Data)
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		t.Error(err)
	}
}

// config returns the config of the image that BuildKit makes of the file in dir.
func (b *buildkit) config(ctx context.Context, dir string) (any, error) {
	out := filepath.Join(dir, "buildkit")
	if out, err := exec.CommandContext(ctx, b.buildctl, "--addr="+b.address, "build", "--progress=plain",
		"--frontend=dockerfile.v0", "--local=context="+dir, "--local=dockerfile="+dir, "--opt=filename="+containerfile,
		"--oci-layout="+baseName+"="+b.layout, "--opt=context:"+baseName+"=oci-layout://"+baseName+"@"+b.base.String(),
		"--output=type=oci,tar=false,dest="+out).CombinedOutput(); err != nil {
		return nil, fmt.Errorf("buildctl: %w\n%s", err, out)
	}
	return configOf(out)
}

// config returns the config of the image that clayer makes of the file in dir, over the base
// in a layout.
func (c *clayer) config(ctx context.Context, dir, layout string) (any, error) {
	root, out := filepath.Join(dir, "root"), filepath.Join(dir, "clayer")
	if out, err := exec.CommandContext(ctx, "cp", "-a", c.base, root).CombinedOutput(); err != nil {
		return nil, fmt.Errorf("cp: %w\n%s", err, out)
	}
	for _, args := range [][]string{{"solve"}, {"cache", "export", "--oci=" + out, "--base=" + layout}} {
		cmd := exec.CommandContext(ctx, c.program, append(args, "--root="+root, "--cache-dir="+filepath.Join(dir, "cache"), "-f", filepath.Join(dir, containerfile))...)
		cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + dir}
		if out, err := cmd.CombinedOutput(); err != nil {
			return nil, fmt.Errorf("clayer %v: %w\n%s", args, err, out)
		}
	}
	return configOf(out)
}

// configOf returns what the only image of a layout says of its containers, and its author.
func configOf(layout string) (any, error) {
	read := func(name string, v any) error {
		data, err := os.ReadFile(filepath.Join(layout, name))
		if err != nil {
			return err
		}
		return json.Unmarshal(data, v)
	}
	var index ocispec.Index
	var manifest ocispec.Manifest
	var config struct {
		Author string
		Config map[string]any
	}
	if err := read("index.json", &index); err != nil {
		return nil, err
	}
	if err := read("blobs/sha256/"+index.Manifests[0].Digest.Encoded(), &manifest); err != nil {
		return nil, err
	}
	return &config, read("blobs/sha256/"+manifest.Config.Digest.Encoded(), &config)
}
