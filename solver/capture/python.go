package capture

import (
	"context"
	"encoding/json"
	"fmt"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/clayer/clayer/cache/snapshot"
)

// listDistributions is what an interpreter is asked: pip list knows neither what
// was asked for, nor when, nor by which installer. PEP 376 has REQUESTED, RECORD
// and INSTALLER, PEP 610 direct_url.json.
const listDistributions = `
import importlib.metadata as m, json, os, sys
out = []
for d in m.distributions():
    at = getattr(d, "_path", None)
    who = (d.read_text("INSTALLER") or "").strip()
    if at is None or who not in ("pip", "uv"): continue
    at = str(at)
    url = json.loads(d.read_text("direct_url.json") or "{}")
    out.append({"name": d.metadata["Name"], "version": d.version, "installer": who, "requested": d.read_text("REQUESTED") is not None,
        "at": os.stat(at).st_ctime, "path": at, "url": url, "requires": [r for r in d.requires or []],
        "files": [os.path.normpath(str(d.locate_file(f))) for f in d.files or []]})
json.dump(out, sys.stdout)
`

type distribution struct {
	Name, Version, Installer, Path string
	Requested                      bool
	At                             float64
	Requires, Files                []string
	URL                            struct {
		URL     string    `json:"url"`
		DirInfo *struct{} `json:"dir_info"`
		VCSInfo *struct {
			VCS      string `json:"vcs"`
			CommitID string `json:"commit_id"`
			Revision string `json:"requested_revision"`
		} `json:"vcs_info"`
	} `json:"url"`
}

// separators are the same in names of distributions.
var separators = strings.NewReplacer("_", "-", ".", "-")

// python asks each interpreter that is on PATH.
func python(ctx context.Context, o Options) (packages []Package, aside []string, err error) {
	var seen []string
	paths := make(map[string]bool)
	for _, name := range []string{"python3", "python", "/usr/bin/python3", "/usr/local/bin/python3"} {
		exe, lookErr := exec.LookPath(name)
		if lookErr != nil {
			continue
		}
		real, evalErr := filepath.EvalSymlinks(exe)
		if evalErr != nil || slices.Contains(seen, real) {
			continue
		}
		seen = append(seen, real)
		out, askErr := output(ctx, exe, "-I", "-c", listDistributions)
		if askErr != nil {
			err = fmt.Errorf("%s: %w", exe, askErr)
			continue
		}
		var list []distribution
		if jsonErr := json.Unmarshal(out, &list); jsonErr != nil {
			err = fmt.Errorf("%s: %w", exe, jsonErr)
			continue
		}
		list = slices.DeleteFunc(list, func(d distribution) bool {
			// Two names of an interpreter, such as pyenv's, list the same.
			old := int64(d.At) < o.Since.Unix() && !o.byHand(snapshot.ManagerPython, separators.Replace(strings.ToLower(d.Name))) || paths[d.Path]
			paths[d.Path] = true
			return old
		})
		for _, d := range list {
			dir := d.Path + "/"
			owns := append(slices.Clone(d.Files), dir)
			if !asked(d, list) {
				aside = append(aside, owns...)
				continue
			}
			packages = append(packages, d.asPackage(name, owns))
		}
	}
	// uv itself may be one of those that pip installed.
	byUV := func(p Package) bool { return p.argv[0] == "uv" }
	packages = append(slices.DeleteFunc(slices.Clone(packages), byUV), slices.DeleteFunc(packages, func(p Package) bool { return !byUV(p) })...)
	return packages, aside, err
}

func (d *distribution) asPackage(interpreter string, owns []string) Package {
	p := Package{name: d.Name, version: d.Version, between: "==", owns: owns}
	switch {
	case d.Installer == "uv" && interpreter == "python3":
		p.argv = []string{"uv", "pip", "install", "--system"}
	case d.Installer == "uv":
		p.argv = []string{"uv", "pip", "install", "--system", "--python", interpreter}
	case interpreter == "python3":
		p.argv = []string{"python3", "-m", "pip", "install"}
	default:
		p.argv = []string{interpreter, "-m", "pip", "install"}
	}
	u := d.URL
	switch {
	case u.DirInfo != nil || strings.HasPrefix(u.URL, "file:"):
		p.note = "it was installed from " + u.URL + ", which is of this machine"
	case u.VCSInfo != nil:
		at := u.VCSInfo.Revision
		p.name, p.version = d.Name+" @ "+u.VCSInfo.VCS+"+"+u.URL, u.VCSInfo.CommitID
		p.between = "@"
		if at != "" {
			p.name, p.version = p.name+"@"+at, ""
		}
	case u.URL != "":
		p.name, p.version = d.Name+" @ "+u.URL, ""
	}
	return p
}

// asked reports whether somebody asked for a distribution: as REQUESTED says, or,
// of installers that don't write it, if no other needs it.
func asked(d distribution, list []distribution) bool {
	if d.Requested {
		return true
	}
	if slices.ContainsFunc(list, func(o distribution) bool { return o.Requested && o.Installer == d.Installer }) {
		return false
	}
	return !slices.ContainsFunc(list, func(o distribution) bool {
		return o.Name != d.Name && slices.ContainsFunc(o.Requires, func(r string) bool {
			name := r
			if i := strings.IndexAny(r, " ;<>=!~[("); i > 0 {
				name = r[:i]
			}
			return strings.EqualFold(separators.Replace(name), separators.Replace(d.Name))
		})
	})
}
