// Package recipe writes what installs a release from elsewhere: install.sh and install.py,
// a formula of Homebrew, and a Feature of dev containers. All have the pins.
package recipe

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/clayer/clayer/cmd/pack/internal/release"
)

// Write writes them into dir, which has the archives of the release already.
func Write(r *release.Release, top, dir string) error {
	installSh, err := os.ReadFile(filepath.Join(top, "install.sh"))
	if err != nil {
		return err
	}
	installPy, err := os.ReadFile(filepath.Join(top, "install.py"))
	if err != nil {
		return err
	}
	pins := make([]string, 0, len(r.Programs))
	for _, p := range r.Programs {
		pins = append(pins, p.SHA256)
	}
	sh, err := fill(installSh, "release='' release_pins=''", fmt.Sprintf("release='%s' release_pins='%s'", r.Version, strings.Join(pins, " ")))
	if err != nil {
		return fmt.Errorf("install.sh: %w", err)
	}
	py, err := fill(installPy, `RELEASE, RELEASE_PINS = "", ""`, fmt.Sprintf("RELEASE, RELEASE_PINS = %q, %q", r.Version, strings.Join(pins, " ")))
	if err != nil {
		return fmt.Errorf("install.py: %w", err)
	}
	formula, err := formula(r, dir)
	if err != nil {
		return err
	}
	feature, err := json.MarshalIndent(map[string]any{
		"id": "clayer", "version": r.Version, "name": "clayer", "description": release.Description,
		"documentationURL": release.Home, "licenseURL": release.Home + "/blob/main/LICENSE",
		"installsAfter": []string{"ghcr.io/devcontainers/features/common-utils"},
	}, "", "  ")
	if err != nil {
		return err
	}
	// A Feature's install.sh runs as root, while the image is built.
	const featureInstall = "#!/bin/sh\nset -e\ncd \"$(dirname \"$0\")\"\nCLAYER_INSTALL_DIR=/usr/local/bin sh ./clayer-install.sh\n"
	for _, f := range []struct {
		name string
		text []byte
		mode os.FileMode
	}{
		{"install.sh", sh, 0o755}, {"install.py", py, 0o755}, {"clayer.rb", formula, 0o644},
		{"features/clayer/devcontainer-feature.json", append(feature, '\n'), 0o644},
		{"features/clayer/install.sh", []byte(featureInstall), 0o755}, {"features/clayer/clayer-install.sh", sh, 0o755},
	} {
		path := filepath.Join(dir, f.name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, f.text, f.mode)); err != nil {
			return err
		}
	}
	return nil
}

// fill replaces a line that a script has once.
func fill(script []byte, line, with string) ([]byte, error) {
	if bytes.Count(script, []byte(line+"\n")) != 1 {
		return nil, fmt.Errorf("the line %q is not in it once", line)
	}
	return bytes.Replace(script, []byte(line), []byte(with), 1), nil
}

// formula returns the formula of Homebrew, which verifies the archive, and the program in it.
func formula(r *release.Release, dir string) ([]byte, error) {
	var b strings.Builder
	fmt.Fprintf(&b, "class Clayer < Formula\n  desc %q\n  homepage %q\n  version %q\n  license %q\n", release.Description, release.Home, r.Version, release.License)
	systems, processors := map[string]string{"darwin": "macos", "linux": "linux"}, map[string]string{"amd64": "intel", "arm64": "arm"}
	for _, goos := range []string{"darwin", "linux"} {
		fmt.Fprintf(&b, "\n  on_%s do\n", systems[goos])
		for _, p := range r.Programs {
			if p.OS != goos {
				continue
			}
			archive, err := os.ReadFile(filepath.Join(dir, p.FileName()+".tar.gz"))
			if err != nil {
				return nil, err
			}
			fmt.Fprintf(&b, "    on_%s do\n      url \"%s/releases/download/v%s/%s.tar.gz\"\n      sha256 \"%x\"\n    end\n", processors[p.Arch], release.Home, r.Version, p.FileName(), sha256.Sum256(archive))
		}
		b.WriteString("  end\n")
	}
	b.WriteString("\n  PINS = %w[\n")
	for _, p := range r.Programs {
		fmt.Fprintf(&b, "    %s\n", p.SHA256)
	}
	b.WriteString(`  ].freeze

  def install
    odie "clayer has none of the pins of this release" unless PINS.include?((buildpath/"clayer").sha256)
    bin.install "clayer"
    system bin/"clayer", "man", man1
    generate_completions_from_executable(bin/"clayer", "completion")
  end

  test do
    assert_match "clayer v#{version} ", shell_output("#{bin}/clayer version")
  end
end
`)
	return []byte(b.String()), nil
}
