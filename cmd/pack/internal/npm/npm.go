// Package npm writes the packages of npm: one a platform, which has the program as its
// command and runs without Node, and the main one, which depends on them and starts the
// one that npm installed.
package npm

import (
	_ "embed"
	"encoding/json"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/clayer/clayer/cmd/pack/internal/archive"
	"github.com/clayer/clayer/cmd/pack/internal/release"
)

//go:embed launcher.js
var launcher []byte

// manifest is a package.json.
type manifest struct {
	Name                 string            `json:"name"`
	Version              string            `json:"version"`
	Description          string            `json:"description"`
	Homepage             string            `json:"homepage"`
	Repository           map[string]string `json:"repository"`
	License              string            `json:"license"`
	Bin                  map[string]string `json:"bin"`
	Engines              map[string]string `json:"engines,omitempty"`
	OS                   []string          `json:"os,omitempty"`
	CPU                  []string          `json:"cpu,omitempty"`
	PreferUnplugged      bool              `json:"preferUnplugged,omitempty"` // Yarn: a program cannot run inside a zip
	OptionalDependencies map[string]string `json:"optionalDependencies,omitempty"`
}

// PackageName is that of the package of a program.
func PackageName(p *release.Program) string { return release.NPMScope + "/" + p.OS + "-" + p.CPU }

// FileName is what npm calls the tarball of a package.
func FileName(r *release.Release, name string) string {
	return strings.ReplaceAll(strings.TrimPrefix(name, "@"), "/", "-") + "-" + r.Version + ".tgz"
}

// Write writes the packages into dir.
func Write(r *release.Release, dir string, license []byte) error {
	write := func(m manifest, files ...archive.File) error {
		m.Version, m.Description, m.Homepage, m.License = r.Version, release.Description, release.Home, release.License
		m.Repository = map[string]string{"type": "git", "url": "git+" + release.Home + ".git"}
		text, err := json.MarshalIndent(m, "", "  ")
		if err != nil {
			return err
		}
		return archive.WriteGzip(filepath.Join(dir, FileName(r, m.Name)),
			append([]archive.File{
				{Name: "package/package.json", Data: append(text, '\n'), Mode: 0o644},
				{Name: "package/LICENSE", Data: license, Mode: 0o644},
				{Name: "package/README.md", Data: fmt.Appendf(nil, "# %s\n\n%s. See <%s>.\n", m.Name, release.Description, release.Home), Mode: 0o644},
			}, files...)...)
	}
	all := make(map[string]string)
	for _, p := range r.Programs {
		name := PackageName(p)
		all[name] = r.Version // exactly: the launcher of one version starts that version
		m := manifest{Name: name, Bin: map[string]string{"clayer": "bin/clayer"}, OS: []string{p.OS}, CPU: []string{p.CPU}, PreferUnplugged: true}
		if err := write(m, archive.File{Name: "package/bin/clayer", Data: p.Data, Mode: 0o755}); err != nil {
			return err
		}
	}
	m := manifest{Name: release.Name, Bin: map[string]string{"clayer": "bin/clayer.js"}, Engines: map[string]string{"node": ">=16"}, OptionalDependencies: all}
	return write(m, archive.File{Name: "package/bin/clayer.js", Data: launcher, Mode: 0o755}, archive.File{Name: "package/pins.txt", Data: r.Pins(), Mode: 0o644})
}
