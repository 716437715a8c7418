// Package scratch bounds the temporary files that a snapshot may hold, and has those of a
// layer in a root while steps run in place.
//
// The scratch of the steps before them has to be where they look for it: in the scratch
// directories of the root itself, where other programs have files too. It is there
// until Remove, and in no transaction. A file in the state directory says by the names in
// those directories what is to be removed, before it is there: the next command does it
// for one that was killed.
package scratch

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/clayer/clayer/cache/snapshot"
	"github.com/clayer/clayer/solver/internal/names"
	"github.com/clayer/clayer/solver/internal/record"
	"github.com/clayer/clayer/solver/internal/unpack"
)

const fileName = "scratch.json"

// A Scratch is what a root has of it.
type Scratch struct {
	root  string
	state record.Dir // open
	noted noted
}

// noted is scratch.json.
type noted struct {
	Names []string          `json:"names"`           // "tmp/x": with all that is in it
	Moved map[string]string `json:"moved,omitempty"` // what was there: where it is until then
	Made  []string          `json:"made,omitempty"`  // scratch directories that were missing
}

// Open returns the scratch of a root, as the file in its state directory has it.
func Open(root string, state record.Dir) (*Scratch, error) {
	s := &Scratch{root: root, state: state}
	data, err := state.ReadFile(fileName)
	if errors.Is(err, fs.ErrNotExist) {
		return s, nil
	}
	if err != nil {
		return nil, err
	}
	if json.Unmarshal(data, &s.noted) != nil {
		s.noted = noted{} // power was lost: it is not worth a root that can't be changed
	}
	return s, nil
}

// Names returns the names in the scratch directories that Remove removes.
func (s *Scratch) Names() []string { return slices.Clone(s.noted.Names) }

// Hold has Remove remove these names too.
func (s *Scratch) Hold(names []string) error {
	n := len(s.noted.Names)
	for _, name := range names {
		if !slices.Contains(s.noted.Names, name) {
			s.noted.Names = append(s.noted.Names, name)
		}
	}
	if len(s.noted.Names) == n {
		return nil
	}
	return s.save()
}

// Put puts the scratch of a snapshot into the root. What other programs have under its
// names is moved aside until Remove.
func (s *Scratch) Put(ctx context.Context, read func() snapshot.Changes) error {
	for _, dir := range snapshot.ScratchDirs() {
		in, err := anyIn(dir, read())
		if err != nil {
			return err
		}
		if !in {
			continue
		}
		real := s.leadsToScratch(dir)
		top, err := s.open(real, true)
		if err != nil {
			return err
		}
		if top == nil {
			continue // a link: what is there is in the root
		}
		// Names are resolved inside the directory alone, whatever links are in it.
		res, err := unpack.Unpack(ctx, filepath.Join(s.root, real), s.placing(top, dir, real, read()), unpack.Options{})
		top.Close()
		if err == nil && len(res.Problems) > 0 {
			err = fmt.Errorf("%q: %w", dir+"/"+res.Problems[0].Path, res.Problems[0].Err)
		}
		if err != nil {
			return fmt.Errorf("temporary files of a step: %w", err)
		}
	}
	return nil
}

// anyIn reports whether something is in the directory after the changes.
func anyIn(dir string, changes snapshot.Changes) (bool, error) {
	for e, err := range changes {
		if err != nil {
			return false, err
		}
		if strings.HasPrefix(e.Path, dir+"/") {
			return true, nil
		}
	}
	return false, nil
}

// leadsToScratch returns a scratch directory, or the other one, if it is a link to that:
// /var/tmp is one to /tmp in some distributions.
func (s *Scratch) leadsToScratch(dir string) string {
	to, err := os.Readlink(filepath.Join(s.root, dir))
	if err != nil {
		return dir
	}
	if !path.IsAbs(to) {
		to = path.Join("/", path.Dir(dir), to)
	}
	if to = path.Clean(to)[1:]; slices.Contains(snapshot.ScratchDirs(), to) {
		return to
	}
	return dir
}

// placing hands on the entries in one scratch directory, as paths in it, and has their
// names free and noted before: as in real, which it is, or is a link to.
func (s *Scratch) placing(top *os.Root, dir, real string, changes snapshot.Changes) snapshot.Changes {
	return func(yield func(*snapshot.Entry, error) bool) {
		for e, err := range changes {
			if err == nil {
				var in bool
				if e, in, err = s.placed(top, dir, real, e); err == nil && !in {
					continue
				}
			}
			if !yield(e, err) || err != nil {
				return
			}
		}
	}
}

func (s *Scratch) placed(top *os.Root, dir, real string, e *snapshot.Entry) (_ *snapshot.Entry, in bool, err error) {
	below, in := strings.CutPrefix(e.Path, dir+"/")
	if !in {
		return nil, false, nil
	}
	if !fs.ValidPath(below) {
		return nil, false, &snapshot.UnsafeError{Path: e.Path, Reason: "not a clean path"}
	}
	inner := *e
	inner.Path = below
	if e.Kind == snapshot.Link {
		if inner.Target, in = strings.CutPrefix(e.Target, dir+"/"); !in {
			return nil, false, &snapshot.UnsafeError{Path: e.Path, Reason: fmt.Sprintf("a hard link to %q, outside of %s", e.Target, dir)}
		}
	}
	at, err := leadsTo(top, below)
	if err != nil {
		return nil, false, &snapshot.UnsafeError{Path: e.Path, Reason: err.Error()}
	}
	name, _, _ := strings.Cut(at, "/")
	if slices.Contains(s.noted.Names, real+"/"+name) {
		return &inner, true, nil
	}
	if at != below {
		return nil, false, &snapshot.UnsafeError{Path: e.Path, Reason: "a link on the way leads to a file of another program, " + real + "/" + name}
	}
	if e.Kind == snapshot.Delete {
		return nil, false, nil // another program's
	}
	return &inner, true, s.free(top, real, name)
}

// leadsTo follows the links on the way to a path in a directory, but not at its end.
func leadsTo(top *os.Root, p string) (string, error) {
	at, rest := "", strings.Split(p, "/")
	for links := 0; len(rest) > 1; {
		next := path.Join(at, rest[0])
		rest = rest[1:]
		st, err := top.Lstat(next)
		if err != nil || st.Mode()&fs.ModeSymlink == 0 {
			at = next
			continue
		}
		to, err := top.Readlink(next)
		if err != nil {
			return "", err
		}
		if links++; links > 40 || path.IsAbs(to) || !fs.ValidPath(path.Join(at, to)) {
			return "", fmt.Errorf("a link on the way leads to %q", to)
		}
		at, rest = "", append(strings.Split(path.Join(at, to), "/"), rest...)
	}
	return path.Join(at, rest[0]), nil
}

// free notes a name, and moves aside what is there.
func (s *Scratch) free(top *os.Root, dir, name string) error {
	at := dir + "/" + name
	aside := ""
	if _, err := top.Lstat(name); err == nil {
		for n := 1; aside == ""; n++ {
			other := fmt.Sprintf(".clayer-aside-%d-%d", os.Getpid(), n)
			if _, err := top.Lstat(other); errors.Is(err, fs.ErrNotExist) {
				aside = other
			}
		}
		if s.noted.Moved == nil {
			s.noted.Moved = make(map[string]string)
		}
		s.noted.Moved[at] = aside
	}
	s.noted.Names = append(s.noted.Names, at)
	if err := s.save(); err != nil {
		return err
	}
	if aside == "" {
		return nil
	}
	return top.Rename(name, aside)
}

// open opens a scratch directory; nil for one that is a link, or is missing and
// not to be made.
func (s *Scratch) open(dir string, make bool) (*os.Root, error) {
	root, err := os.OpenRoot(s.root)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	at := ""
	for part := range strings.SplitSeq(dir, "/") {
		at = path.Join(at, part)
		st, err := root.Lstat(at)
		if errors.Is(err, fs.ErrNotExist) && make {
			s.noted.Made = append(s.noted.Made, at)
			if err := errors.Join(s.save(), root.Mkdir(at, 0o755)); err != nil {
				return nil, err
			}
			if at == dir {
				err = root.Chmod(at, 0o777|fs.ModeSticky)
			} else {
				err = nil
			}
			if err != nil {
				return nil, err
			}
			continue
		}
		if errors.Is(err, fs.ErrNotExist) {
			return nil, nil
		}
		if err != nil {
			return nil, err
		}
		if !st.IsDir() {
			return nil, nil
		}
	}
	return root.OpenRoot(dir)
}

// save writes scratch.json. It need not outlive a loss of power: a machine that
// loses it loses its temporary files, or has some left.
func (s *Scratch) save() error {
	data, err := json.Marshal(s.noted)
	if err != nil {
		return err
	}
	return s.state.ReplaceFile(fileName, data)
}

// Remove removes what Put and Hold have noted, and gives back what was moved aside. The
// error says what could not be; nobody tries that again.
func (s *Scratch) Remove() error {
	n := s.noted
	if len(n.Names)+len(n.Made) == 0 {
		return nil
	}
	var errs []error
	for _, dir := range snapshot.ScratchDirs() {
		top, err := s.open(dir, false)
		if err != nil || top == nil {
			errs = append(errs, err)
			continue
		}
		for _, at := range n.Names {
			name, in := strings.CutPrefix(at, dir+"/")
			if !in || strings.Contains(name, "/") {
				continue
			}
			errs = append(errs, restore(top, name, n.Moved[at]))
		}
		top.Close()
	}
	root, err := os.OpenRoot(s.root)
	if err != nil {
		return errors.Join(append(errs, err)...)
	}
	defer root.Close()
	for _, dir := range slices.Backward(n.Made) {
		_ = root.Remove(dir) // unless something is in it
	}
	s.noted = noted{}
	errs = append(errs, s.state.Remove(fileName))
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("remove the temporary files of steps: %w", err)
	}
	return nil
}

// restore removes a name, and has what was moved aside in its place again.
func restore(top *os.Root, name, aside string) error {
	if aside == "" {
		return removeAll(top, name)
	}
	if _, err := top.Lstat(aside); errors.Is(err, fs.ErrNotExist) {
		return nil // it was never moved: the name is still its own
	}
	if err := removeAll(top, name); err != nil {
		return err
	}
	return top.Rename(aside, name)
}

// removeAll also removes directories that their owner may not write to.
func removeAll(top *os.Root, name string) error {
	err := top.RemoveAll(name)
	if !errors.Is(err, fs.ErrPermission) {
		return err
	}
	_ = fs.WalkDir(top.FS(), name, func(p string, d fs.DirEntry, _ error) error {
		if d != nil && d.IsDir() {
			_ = top.Chmod(p, 0o700)
		}
		return nil
	})
	return top.RemoveAll(name)
}

// Hide hides the machine's own temporary files in the names that a step finds: where a COPY
// belongs does not depend on them.
func Hide(view *names.View) error {
	var errs []error
	for _, dir := range snapshot.ScratchDirs() {
		errs = append(errs, view.Empty(dir))
	}
	return errors.Join(errs...)
}
