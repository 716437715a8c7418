// Package skill holds the skill container-layer: SKILL.md, which agents load, and scripts
// with the interface of the Python tool of that name, over clayer.
package skill

import (
	"bytes"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
)

//go:embed SKILL.md scripts/*.py scripts/uv_shim.sh
var source embed.FS

// Options are what the scripts know of clayer and its stores.
type Options struct {
	Version   string            // of the release that is installed, "v1.2.3"; "" for none
	Pins      []string          // the SHA-256 of its programs
	Installer []byte            // the text of install.sh, which the scripts need to install the release
	Program   string            // without a Version: where clayer is if it is not on PATH, absolute or relative to the skill
	Defaults  map[string]string // variables of clayer that a session has, if it sets no others
}

// Files returns the files of the skill by their names, with slashes.
func Files(o Options) (map[string][]byte, error) {
	defaults, err := json.Marshal(o.Defaults)
	if err != nil {
		return nil, err
	}
	if len(o.Defaults) == 0 {
		defaults = []byte("{}")
	}
	fill := strings.NewReplacer(
		`VERSION, PINS, PROGRAM = "", "", ""`, fmt.Sprintf("VERSION, PINS, PROGRAM = %q, %q, %q", strings.TrimPrefix(o.Version, "v"), strings.Join(o.Pins, " "), o.Program),
		"DEFAULTS: Dict[str, str] = {}", "DEFAULTS: Dict[str, str] = "+string(defaults),
	)
	files := make(map[string][]byte)
	err = fs.WalkDir(source, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		text, err := source.ReadFile(name)
		if name == "scripts/layer_cache.py" {
			text = []byte(fill.Replace(string(text)))
		}
		files[name] = text
		return err
	})
	if o.Version != "" && o.Installer != nil {
		_, install, found := bytes.Cut(o.Installer, []byte("# BEGIN install\n"))
		install, _, ends := bytes.Cut(install, []byte("# END install\n"))
		if !found || !ends {
			return nil, errors.New("the installer has no part between BEGIN and END install")
		}
		files["scripts/install.sh"] = slices.Concat([]byte(installHead), install, []byte("clayer_install \"$1\" \"$2\" \"$3\"\n"))
	}
	return files, err
}

// installHead begins the script that takes a version, its pins and a directory. It looks for
// that version on this machine first.
const installHead = "#!/bin/sh\n# install.sh VERSION PINS DIR installs clayer. Written by clayer init skill.\n"
