// Command pack builds clayer for all platforms, and writes every package of a release.
// The same commit and Go version give the same bytes.
package main

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/clayer/clayer/cmd/pack/internal/archive"
	"github.com/clayer/clayer/cmd/pack/internal/npm"
	"github.com/clayer/clayer/cmd/pack/internal/recipe"
	"github.com/clayer/clayer/cmd/pack/internal/release"
	"github.com/clayer/clayer/cmd/pack/internal/system"
	"github.com/clayer/clayer/cmd/pack/internal/wheel"
)

func main() {
	version := flag.String("version", "", "the version of the release, such as 1.2.3")
	out := flag.String("out", "", "the directory to write to, which must be empty or new")
	platforms := flag.String("platforms", "", "the platforms, such as linux/amd64,linux/arm64 (default all)")
	flag.Parse()
	if err := pack(*version, *platforms, *out); err != nil {
		fmt.Fprintf(os.Stderr, "pack: %v\n", err)
		os.Exit(1)
	}
}

func pack(version, platforms, out string) error {
	r, err := release.New(version)
	if err != nil {
		return err
	}
	if out == "" {
		return errors.New("-out is missing")
	}
	if out, err = filepath.Abs(out); err != nil {
		return err
	}
	if err := os.MkdirAll(out, 0o755); err != nil {
		return err
	}
	if old, err := os.ReadDir(out); err != nil || len(old) > 0 {
		return errors.Join(err, fmt.Errorf("%s is not empty", out))
	}
	module, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}").Output()
	if err != nil {
		return fmt.Errorf("go list -m: %w", err)
	}
	top := string(bytes.TrimSpace(module))
	programs, err := os.MkdirTemp("", "clayer-pack-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(programs)
	if err := r.Build(top, programs, platforms); err != nil {
		return err
	}
	return write(r, top, out)
}

// write writes the packages of a release, whose source is in top, into the directory out.
func write(r *release.Release, top, out string) error {
	license, err := os.ReadFile(filepath.Join(top, "LICENSE"))
	if err != nil {
		return err
	}
	readme, err := os.ReadFile(filepath.Join(top, "README.md"))
	if err != nil {
		return err
	}
	installer, err := os.ReadFile(filepath.Join(top, "install.sh"))
	if err != nil {
		return err
	}
	if err := wheel.Write(r, out, installer); err != nil {
		return err
	}
	if err := npm.Write(r, out, license); err != nil {
		return err
	}
	if err := system.Write(r, top, out); err != nil {
		return err
	}
	for _, p := range r.Programs {
		err := archive.WriteGzip(filepath.Join(out, p.FileName()+".tar.gz"), archive.File{Name: "clayer", Data: p.Data, Mode: 0o755},
			archive.File{Name: "LICENSE", Data: license, Mode: 0o644}, archive.File{Name: "README.md", Data: readme, Mode: 0o644})
		if err != nil {
			return err
		}
	}
	if err := os.WriteFile(filepath.Join(out, "pins.txt"), r.Pins(), 0o644); err != nil {
		return err
	}
	if err := recipe.Write(r, top, out); err != nil {
		return err
	}
	return writeChecksums(out)
}

// writeChecksums lists the files in dir with their digests.
func writeChecksums(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	var sums bytes.Buffer
	for _, e := range entries {
		if e.IsDir() {
			continue
		}
		data, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			return err
		}
		fmt.Fprintf(&sums, "%x  %s\n", sha256.Sum256(data), e.Name())
	}
	return os.WriteFile(filepath.Join(dir, "checksums.txt"), sums.Bytes(), 0o644)
}
