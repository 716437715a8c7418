package capture

import (
	"context"
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/clayer/clayer/cache/snapshot"
	"github.com/clayer/clayer/internal/lazyregexp"
	"github.com/clayer/clayer/internal/safefile"
)

// changedSince reports whether a file was made or changed since: by its ctime,
// since installers keep the times of archives.
func changedSince(path string, since time.Time) bool {
	info, err := os.Lstat(path)
	return err == nil && !ctime(info).Before(since)
}

// npm asks for the packages that are installed for all projects; each was asked
// for by name.
func npm(ctx context.Context, o Options) (packages []Package, aside []string, err error) {
	out, err := output(ctx, "npm", "root", "-g")
	if err != nil {
		return nil, nil, err
	}
	root := strings.TrimSpace(string(out))
	out, err = output(ctx, "npm", "ls", "-g", "--json", "--depth=0")
	if err != nil {
		return nil, nil, err
	}
	var list struct {
		Dependencies map[string]struct {
			Version  string
			Resolved string
		}
	}
	if err := json.Unmarshal(out, &list); err != nil {
		return nil, nil, err
	}
	bin := filepath.Join(filepath.Dir(filepath.Dir(root)), "bin")
	links, _ := os.ReadDir(bin) // where there is none, there are no links
	for _, name := range slices.Sorted(maps.Keys(list.Dependencies)) {
		d := list.Dependencies[name]
		dir := filepath.Join(root, name)
		if !changedSince(dir, o.Since) && !o.byHand(snapshot.ManagerNPM, name) {
			continue
		}
		p := Package{argv: []string{"npm", "install", "-g"}, name: name, version: d.Version, between: "@", owns: []string{dir + "/"}}
		if strings.HasPrefix(d.Resolved, "file:") {
			p.note = "it was installed from " + d.Resolved + ", which is of this machine"
		}
		for _, l := range links {
			link := filepath.Join(bin, l.Name())
			if to, err := os.Readlink(link); err == nil && strings.HasPrefix(filepath.Join(bin, to), dir+"/") {
				p.owns = append(p.owns, link)
			}
		}
		packages = append(packages, p)
	}
	return packages, nil, nil
}

// crate is a line of cargo install --list: "ripgrep v14.1.0:", "x v1.0 (https://..):".
var crate = lazyregexp.New(`^(\S+) v(\S+?)(?: \((.*)\))?:$`)

// cargo asks for the crates whose programs were installed since.
func cargo(ctx context.Context, o Options) (packages []Package, aside []string, err error) {
	out, err := output(ctx, "cargo", "install", "--list")
	if err != nil {
		return nil, nil, err
	}
	home := os.Getenv("CARGO_INSTALL_ROOT")
	if home == "" {
		home = os.Getenv("CARGO_HOME")
	}
	if home == "" {
		user, err := os.UserHomeDir()
		if err != nil {
			return nil, nil, err
		}
		home = filepath.Join(user, ".cargo")
	}
	aside = []string{filepath.Join(home, ".crates.toml"), filepath.Join(home, ".crates2.json"), filepath.Join(home, "registry") + "/", filepath.Join(home, ".package-cache")}
	var now *Package
	fresh := false
	flush := func() {
		if now != nil && fresh {
			packages = append(packages, *now)
		}
		now, fresh = nil, false
	}
	for line := range strings.Lines(string(out)) {
		line = strings.TrimRight(line, "\n")
		if m := crate().FindStringSubmatch(line); m != nil {
			flush()
			now = &Package{argv: []string{"cargo", "install"}, name: m[1], version: m[2], between: "@"}
			switch {
			case strings.HasPrefix(m[3], "/"):
				now.note = "it was installed from " + m[3] + ", which is of this machine"
			case m[3] != "":
				now.fromGit(m[3])
			}
		} else if now != nil {
			file := filepath.Join(home, "bin", strings.TrimSpace(line))
			now.owns = append(now.owns, file)
			fresh = fresh || changedSince(file, o.Since)
		}
	}
	flush()
	return packages, aside, nil
}

// fromGit makes a crate one of a Git repository: "https://..?branch=main#12ab34".
func (p *Package) fromGit(source string) {
	source, commit, _ := strings.Cut(source, "#")
	from, query, _ := strings.Cut(source, "?")
	p.argv, p.version = append(p.argv, "--git", from), ""
	p.pinned = append(slices.Clone(p.argv), "--rev", commit)
	if what, ref, ok := strings.Cut(query, "="); ok && (what == "branch" || what == "tag" || what == "rev") {
		p.argv = append(p.argv, "--"+what, ref)
	}
}

var (
	gemFile     = lazyregexp.New(`^(.+)-(\d[^-]*)(?:-[a-z].*)?\.gemspec$`)
	gemRequires = lazyregexp.New(`add_(?:runtime_)?dependency\(%q<([^>]+)>`)
)

// gem asks where gems are, and takes those that no other new one needs: gem does
// not record what was requested.
func gem(ctx context.Context, o Options) (packages []Package, aside []string, err error) {
	out, err := output(ctx, "gem", "environment", "gemdir")
	if err != nil {
		return nil, nil, err
	}
	dir := strings.TrimSpace(string(out))
	entries, err := os.ReadDir(filepath.Join(dir, "specifications"))
	if err != nil {
		return nil, nil, nil // no gem was ever installed
	}
	needed := make(map[string]bool)
	for _, e := range entries {
		file := filepath.Join(dir, "specifications", e.Name())
		m := gemFile().FindStringSubmatch(e.Name())
		if m == nil || !changedSince(file, o.Since) {
			continue
		}
		text, err := safefile.Read(file, 4<<20)
		if err != nil {
			return nil, nil, err
		}
		for _, r := range gemRequires().FindAllStringSubmatch(string(text), -1) {
			needed[r[1]] = true
		}
		full := strings.TrimSuffix(e.Name(), ".gemspec")
		packages = append(packages, Package{argv: []string{"gem", "install"}, name: m[1], version: m[2], between: ":", owns: []string{
			file, filepath.Join(dir, "gems", full) + "/", filepath.Join(dir, "doc", full) + "/", filepath.Join(dir, "extensions") + "/",
		}})
	}
	packages = slices.DeleteFunc(packages, func(p Package) bool {
		if needed[p.name] {
			aside = append(aside, p.owns...)
		}
		return needed[p.name]
	})
	return packages, aside, nil
}
