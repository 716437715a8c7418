// Package capture finds what was installed on this machine by hand, by asking
// its package managers, and proposes the lines of a Containerfile that repeat it.
package capture

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/clayer/clayer/frontend/edit"
	"github.com/clayer/clayer/solver/rootfs/drift"
)

// Options say what to look for.
type Options struct {
	Since time.Time // report what was installed later; what is older is the base, or was applied
	Pin   bool      // with versions

	// ByHand reports whether a package was installed by hand, whenever that was; nil:
	// nobody knows of one.
	ByHand func(manager, name string) bool

	Root    string            // the directory that Changed is relative to
	Changed []drift.FileState // the root's changes since, for what no manager owns
	Skip    []string          // directories, absolute, that are not part of an environment
}

// byHand reports whether a package of a manager, as snapshot.Need names those, is to be
// reported although it is older than Since.
func (o *Options) byHand(manager, name string) bool {
	return o.ByHand != nil && o.ByHand(manager, name)
}

// A Package is what was installed.
type Package struct {
	argv    []string // the command line that repeats it, without its name
	pinned  []string // in its place, where a version is no part of the name
	name    string
	version string
	between string   // between name and version: "=="
	note    string   // why it can't be repeated; "" if it can
	owns    []string // files, and directories with a slash at the end, absolute
}

// command is the line that installs it.
func (p *Package) command(pin bool) []string {
	name := p.name
	if pin && p.pinned != nil {
		return append(slices.Clone(p.pinned), name)
	}
	if pin && p.version != "" {
		name += p.between + p.version
	}
	return append(slices.Clone(p.argv), name)
}

// A Found is what is on the machine.
type Found struct {
	Packages []Package
	Rest     []Tree
	Problems []string // managers that could not be queried
	pin      bool
}

// A Tree is a file or directory that no manager owns.
type Tree struct {
	Path  string // absolute
	Size  int64
	Files int
}

// Look asks the package managers that are on PATH. One that fails is listed in
// the Problems; the error is of a context that is done.
func Look(ctx context.Context, o Options) (*Found, error) {
	found := &Found{pin: o.Pin}
	var aside []string // owned by packages that were installed as dependencies
	for _, ask := range []struct {
		name string
		from func(context.Context, Options) ([]Package, []string, error)
	}{{"dpkg", dpkg}, {"python", python}, {"npm", npm}, {"cargo", cargo}, {"gem", gem}} {
		packages, owned, err := ask.from(ctx, o)
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		if err != nil && !errors.Is(err, exec.ErrNotFound) {
			found.Problems = append(found.Problems, fmt.Sprintf("%s could not be queried: %v", ask.name, err))
		}
		found.Packages = append(found.Packages, packages...)
		aside = append(aside, owned...)
	}
	found.Rest = rest(o, owned(found.Packages, aside))
	return found, nil
}

// Propose adds what was found to the text of a Containerfile: RUNs, one for each
// manager, for packages that none of its RUNs installs, and SNAPSHOTs for the rest.
func (f *Found) Propose(src []byte) ([]byte, error) {
	var last *edit.Record
	var err error
	for _, p := range f.Packages {
		if p.note != "" {
			if src, err = edit.Comment(src, "# not captured: "+p.name+": "+p.note); err != nil {
				return nil, err
			}
			continue
		}
		r := edit.Read(p.command(f.pin), edit.Place{})
		if r.Verdict != edit.Captured {
			continue
		}
		if edit.Installs(src, r.Install) || p.pinned != nil && installs(src, p.command(!f.pin)) {
			continue
		}
		if src, last, err = edit.Capture(src, r.Install, last); err != nil {
			return nil, err
		}
	}
	for _, t := range f.Rest {
		if src, err = edit.Snapshot(src, t.Path, fmt.Sprintf("# %s", t)); err != nil {
			return nil, err
		}
	}
	return src, nil
}

// installs reports whether the Containerfile installs what a command line does.
func installs(src []byte, argv []string) bool {
	r := edit.Read(argv, edit.Place{})
	return r.Verdict == edit.Captured && edit.Installs(src, r.Install)
}

// endDelay is how long a program that was killed may keep its output open, by
// children that it left.
const endDelay = time.Second

// output runs a program and returns what it prints.
func output(ctx context.Context, name string, args ...string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.WaitDelay = endDelay
	cmd.Env = append(cmd.Environ(), "LC_ALL=C", "CLAYER_SHIM=off")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		if text := strings.TrimSpace(stderr.String()); text != "" {
			line, _, _ := strings.Cut(text, "\n")
			err = fmt.Errorf("%w: %s", err, line)
		}
		return nil, err
	}
	return out, nil
}

// owned returns a function that reports whether a path belongs to a package.
func owned(packages []Package, aside []string) func(p string) bool {
	files := make(map[string]bool)
	dirs := make(map[string]bool)
	add := func(paths []string) {
		for _, p := range paths {
			if dir, ok := strings.CutSuffix(p, "/"); ok {
				dirs[dir] = true
				p = dir
			}
			files[p] = true
			// By its real name too: /bin/x is /usr/bin/x.
			if real, err := filepath.EvalSymlinks(filepath.Dir(p)); err == nil {
				files[filepath.Join(real, filepath.Base(p))] = true
			}
		}
	}
	for _, p := range packages {
		add(p.owns)
	}
	add(aside)
	return func(p string) bool {
		if files[p] {
			return true
		}
		for dir := path.Dir(p); dir != "/" && dir != "."; dir = path.Dir(dir) {
			if dirs[dir] {
				return true
			}
		}
		return false
	}
}
