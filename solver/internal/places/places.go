// Package places knows where a root leads the dest of a FETCH, COPY or WORKDIR. What such a
// step makes is of use to roots that lead it to the same place.
package places

import (
	"errors"
	"fmt"
	"path"
	"strings"
	"syscall"

	"github.com/clayer/clayer/cache/snapshot"
	"github.com/clayer/clayer/solver/internal/names"
)

// A Dest is where a step puts what it makes, as it is written. The zero Dest is nowhere.
type Dest struct {
	Path    string
	OneFile bool // the path is that of a file, which goes into a directory that stands there

	Chown string // the value of --chown, or of USER
	By    string // which of the two
}

// A Root is a root as a step finds it, and what of that its key covers.
type Root struct {
	Found *names.View

	// Covered reports whether a step that the key covers wrote a path.
	Covered func(path string) bool
	// Base returns what the root without what these steps wrote lacks of a need.
	Base func(snapshot.Need) (lacks string, err error)
}

// Need returns what another root has to be like for what the step makes here. It returns
// false where nothing is known to be needed: the dest is the root, or one for temporary
// files, or what the steps before have made decides.
func (r Root) Need(d Dest) (n snapshot.Need, ok bool, err error) {
	from := strings.Trim(path.Clean("/"+d.Path), "/")
	real, kind, err := r.Found.Resolve(from)
	if err != nil || from == "" || real == "" || snapshot.IsScratch(real) {
		return n, false, err
	}
	links, err := r.Found.Links(from)
	if err != nil {
		return n, false, err
	}
	decided := snapshot.IsScratch(from)
	for _, link := range links {
		decided = decided || r.Covered(link)
	}
	if decided {
		from = real
	}
	n = snapshot.Need{Kind: snapshot.NeedPlace, Path: from, Target: real, Type: snapshot.PlaceDir}
	switch {
	case r.Covered(real):
		n.Type, decided = "", true
	case d.OneFile && kind == names.Dir:
		n.Type = snapshot.PlaceExistingDir
	case d.OneFile:
		n.Type = snapshot.PlaceFile
	}
	for up := path.Dir(real); up != "." && !decided; up = path.Dir(up) {
		decided = r.Covered(up)
	}
	if !decided {
		return n, true, nil
	}
	for {
		lacks, err := r.Base(n)
		if lacks == "" || err != nil {
			return n, err == nil, err
		}
		if n.Type == "" {
			return n, false, nil
		}
		n.Type = ""
	}
}

// Places are those of a view, for who asks for many. The view stays as it is meanwhile.
type Places struct {
	view *names.View
	dirs map[string]names.Directory // by path, with a final slash
}

// Of returns the places of a view.
func Of(view *names.View) *Places { return &Places{view, make(map[string]names.Directory)} }

// Unmet returns what the view lacks of a need with a target, or with items; "" for nothing.
func (p *Places) Unmet(n snapshot.Need) (string, error) {
	if n.Type == snapshot.PlaceItems {
		return p.unmetItems(n)
	}
	real, kind, err := p.resolve(n.Path)
	return Place{n.Path, real, kind, err}.Unmet(n)
}

// A Place is where a root leads a path.
type Place struct {
	of   string // the path; "" in the zero Place, of which nothing is known
	real string
	kind names.Kind
	err  error
}

// LedOf returns the place of a dest.
func LedOf(view *names.View, d Dest) Place {
	real, kind, err := view.Resolve(d.Path)
	return Place{strings.Trim(path.Clean("/"+d.Path), "/"), real, kind, err}
}

// Lacks is Unmet, where nothing else is known of the root. What is not known is not lacking,
// but for items: with those a step has needs that it may not have.
func (p Place) Lacks(n snapshot.Need) (string, error) {
	switch {
	case n.Type == snapshot.PlaceItems:
		return "nobody knows what was there", nil
	case p.of != "" && p.of == n.Path:
		return p.Unmet(n)
	}
	return "", nil
}

// Unmet returns what a root lacks of a need with a target that leads the path of the need
// here; "" for nothing.
func (p Place) Unmet(n snapshot.Need) (string, error) {
	real, kind, err := p.real, p.kind, p.err
	switch {
	case errors.Is(err, syscall.ENOTDIR), errors.Is(err, syscall.ELOOP):
		return fmt.Sprintf("needs /%s, which leads nowhere here", n.Path), nil
	case err != nil:
		return "", err
	case real != n.Target && n.Path == n.Target:
		return fmt.Sprintf("needs /%s, which leads to /%s here", n.Path, real), nil
	case real != n.Target:
		return fmt.Sprintf("needs /%s to lead to /%s, which leads to /%s here", n.Path, n.Target, real), nil
	case n.Type == snapshot.PlaceDir && kind == names.File:
		return fmt.Sprintf("needs /%s to be a directory, which it is not here", n.Path), nil
	case n.Type == snapshot.PlaceExistingDir && kind != names.Dir:
		return fmt.Sprintf("needs the directory /%s, which this machine lacks", n.Path), nil
	case n.Type == snapshot.PlaceFile && kind == names.Dir:
		return fmt.Sprintf("needs /%s, which is a directory here", n.Path), nil
	case n.Type == snapshot.PlaceMissing && kind != names.Missing:
		return fmt.Sprintf("needs /%s to be missing, which is here", n.Path), nil
	}
	return "", nil
}

// resolve is Resolve of the view, which reads the directories above a path once for all
// that is in them.
func (p *Places) resolve(name string) (string, names.Kind, error) {
	up, base := path.Split(name)
	dir, err := p.dir(up)
	if err != nil {
		return "", names.Missing, err
	}
	if up == "" || path.Clean(up) == dir.Path() {
		if found, err := dir.Look(base); err == nil && (found.Kind == names.Dir || found.Kind == names.File) {
			return name, found.Kind, nil
		} else if err == nil && found.Kind == names.Missing && dir.Path() != "" {
			return name, names.Missing, nil
		}
	}
	return p.view.Resolve(name)
}

func (p *Places) dir(up string) (names.Directory, error) {
	dir, ok := p.dirs[up]
	if !ok {
		var err error
		if dir, err = p.view.Directory(up); err != nil {
			return dir, err
		}
		p.dirs[up] = dir
	}
	return dir, nil
}
