// Package system writes the packages of Linux distributions, deb, rpm and apk, by nfpm.
package system

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"

	"github.com/clayer/clayer/cmd/pack/internal/release"
)

// Formats are the kinds of packages, as nfpm calls them.
var Formats = []string{"deb", "rpm", "apk"}

// completions are where shells find them.
var completions = map[string]string{
	"bash": "/usr/share/bash-completion/completions/clayer",
	"zsh":  "/usr/share/zsh/site-functions/_clayer",
	"fish": "/usr/share/fish/vendor_completions.d/clayer.fish",
}

// Write writes the packages of the programs for Linux into dir. top is the module, whose
// tools nfpm is one of.
func Write(r *release.Release, top, dir string) error {
	top, err := filepath.Abs(top)
	if err != nil {
		return err
	}
	work, err := os.MkdirTemp("", "clayer-packages-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(work)
	shared, err := documentation(r, work)
	if err != nil {
		return err
	}
	shared += content(filepath.Join(top, "LICENSE"), "/usr/share/doc/clayer/LICENSE", 0o644)
	for _, p := range r.Programs {
		if p.OS != "linux" {
			continue
		}
		text := fmt.Sprintf(`name: clayer
arch: %s
platform: linux
section: utils
priority: optional
maintainer: clayer <%[2]s>
description: %[3]s
homepage: %[2]s
license: %[4]s
mtime: %[5]s
recommends: [ca-certificates]
contents:
%[6]s`, p.Arch, release.Home, release.Description, release.License, release.Time.Format("2006-01-02T15:04:05Z"),
			content(p.Path, "/usr/bin/clayer", 0o755)+shared)
		for _, format := range Formats {
			config, version := filepath.Join(work, p.Arch+"."+format), "version: "+r.Version+"\n"
			if format == "apk" { // as a version of Alpine, which nfpm would make 1.2.3_rc.1, and apk refuse
				version = "version_schema: none\nversion: " + strings.NewReplacer("-alpha.", "_alpha", "-beta.", "_beta", "-rc.", "_rc").Replace(r.Version) + "\n"
			}
			if err := os.WriteFile(config, []byte(version+text), 0o644); err != nil {
				return err
			}
			nfpm := exec.Command("go", "-C", filepath.Join(top, "testdata/tools/nfpm"), "tool", "nfpm", "package", "--config", config, "--packager", format, "--target", dir)
			nfpm.Env = append(os.Environ(), "GOFLAGS=", "CGO_ENABLED=0", "SOURCE_DATE_EPOCH="+strconv.FormatInt(release.Time.Unix(), 10))
			if out, err := nfpm.CombinedOutput(); err != nil {
				return fmt.Errorf("nfpm: %s for %s: %w\n%s", format, p.Arch, err, out)
			}
		}
	}
	return nil
}

// content is a file of a package.
func content(from, to string, mode os.FileMode) string {
	return fmt.Sprintf("- src: %q\n  dst: %q\n  file_info: {mode: %#o, mtime: %s, owner: root, group: root}\n", from, to, mode, release.Time.Format("2006-01-02T15:04:05Z"))
}

// documentation has the program of this machine write its manual pages and completions,
// and returns where they belong.
func documentation(r *release.Release, work string) (string, error) {
	var own *release.Program
	for _, p := range r.Programs {
		if p.OS == runtime.GOOS && p.Arch == runtime.GOARCH {
			own = p
		}
	}
	if own == nil {
		return "", fmt.Errorf("the manual pages require the program for %s/%s", runtime.GOOS, runtime.GOARCH)
	}
	man := filepath.Join(work, "man1")
	if out, err := exec.Command(own.Path, "man", man).CombinedOutput(); err != nil {
		return "", fmt.Errorf("clayer man: %w\n%s", err, out)
	}
	pages, err := os.ReadDir(man)
	if err != nil {
		return "", err
	}
	text := ""
	for _, p := range pages {
		text += content(filepath.Join(man, p.Name()), "/usr/share/man/man1/"+p.Name(), 0o644)
	}
	for _, shell := range []string{"bash", "fish", "zsh"} {
		var script, errs bytes.Buffer
		complete := exec.Command(own.Path, "completion", shell)
		complete.Stdout, complete.Stderr = &script, &errs
		if err := complete.Run(); err != nil {
			return "", fmt.Errorf("clayer completion %s: %w\n%s", shell, err, errs.Bytes())
		}
		path := filepath.Join(work, shell)
		if err := os.WriteFile(path, script.Bytes(), 0o644); err != nil {
			return "", err
		}
		text += content(path, completions[shell], 0o644)
	}
	return text, nil
}
