package source

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"
	"syscall"

	"github.com/clayer/clayer/cache/snapshot"
	"github.com/clayer/clayer/frontend"
	"github.com/clayer/clayer/solver/internal/filelist"
	"github.com/clayer/clayer/solver/internal/names"
	"github.com/clayer/clayer/solver/internal/places"
)

// A Placer returns the entries of a FETCH, COPY or WORKDIR in the root as the step finds
// it: that decides whether dest is a directory, where links lead, and which number a
// user has. The stream may be read several times.
type Placer func(at *names.View) (snapshot.Changes, error)

// Dest returns where a FETCH, COPY or WORKDIR puts what it makes; dir is as for Copy.
func (r *Resolver) Dest(ctx context.Context, dir string, in frontend.Instruction) (places.Dest, error) {
	switch in := in.(type) {
	case *frontend.Fetch:
		single := in.Add && in.Extract == frontend.ExtractFalse && !strings.HasSuffix(in.Dest, "/")
		return places.Dest{Path: in.Dest, OneFile: single, Chown: in.Owner.Chown, By: "--chown"}, nil
	case *frontend.Workdir:
		return places.Dest{Path: in.Path, Chown: in.User, By: "USER"}, nil
	case *frontend.Copy:
		if in.IsRoot() && !r.isRead(in) {
			return places.Dest{}, nil // whether it is a directory is not known
		}
		fs, err := r.files(ctx, dir, in, Pin{})
		if err != nil || fs.Nothing {
			return places.Dest{}, err
		}
		return places.Dest{Path: in.Dest, OneFile: fs.Single, Chown: in.Owner.Chown, By: "--chown"}, nil
	}
	return places.Dest{}, nil
}

// destIn returns the path of a dest without links, and whether a directory is there.
func destIn(at *names.View, dest string) (real string, kind names.Kind, err error) {
	real, kind, err = at.Resolve(dest)
	var pe *fs.PathError
	switch {
	case errors.Is(err, syscall.ENOTDIR) && errors.As(err, &pe):
		return "", kind, &Fault{Message: fmt.Sprintf("%s: %s is a file, and not a directory", dest, pe.Path), Err: err}
	case errors.Is(err, syscall.ELOOP):
		return "", kind, &Fault{Message: dest + ": too many links, or links in a circle", Err: err}
	}
	return real, kind, err
}

// dirIn returns the path of a dest that has to be a directory, if it is there.
func dirIn(at *names.View, dest string) (string, error) {
	real, kind, err := destIn(at, dest)
	if err == nil && kind == names.File {
		return "", &Fault{
			Message: dest + " is a file, and not a directory",
			Hint:    "choose another one, or remove the file in a RUN before",
		}
	}
	return real, err
}

// copyDest returns where a COPY puts its items, and whether that is the path of its only
// file.
func copyDest(at *names.View, fs *filelist.List, to string) (dest string, single bool, err error) {
	if fs.Nothing {
		return "", false, nil // whatever stands there
	}
	if !fs.Single {
		dest, err = dirIn(at, to)
		return dest, false, err
	}
	dest, kind, err := destIn(at, to)
	return dest, kind != names.Dir, err
}

// mayPlace refuses what COPY and FETCH do not do to what stands at a path: no file replaces
// a directory, and no directory anything else. To an archive, a link to a directory is one.
func mayPlace(in *places.Places, p string, dir, fromArchive bool) error {
	kind, err := in.Blocks(p, dir, fromArchive)
	f := &Fault{Hint: elsewhere}
	switch {
	case err != nil:
		return err
	case kind == names.Dir:
		return ReplacesDir(p, nil)
	case kind == names.File:
		f.Message = fmt.Sprintf("/%s is a file, and not a directory", p)
	case kind == names.Link:
		f.Message = fmt.Sprintf("/%s is a link, which a directory would replace", p)
	default:
		return nil
	}
	return f
}

const elsewhere = "choose another dest, or remove it in a RUN before"

// ReplacesDir refuses a file that would replace a directory; err is what found that.
func ReplacesDir(p string, err error) *Fault {
	return &Fault{Message: fmt.Sprintf("/%s is a directory, which a file would replace", p), Hint: elsewhere, Err: err}
}

// missingParents returns the directories above a path that are not there, from the top.
func missingParents(at *names.View, p string) (dirs []string, err error) {
	for up := path.Dir(p); up != "." && up != "/"; up = path.Dir(up) {
		kind, err := at.Lookup(up)
		if err != nil {
			return nil, err
		}
		if kind != names.Missing {
			break
		}
		dirs = append(dirs, up)
	}
	slices.Reverse(dirs)
	return dirs, nil
}

// WorkdirChanges returns the entries of WORKDIR: its directory, if missing. After USER that
// belongs to the user, and so do directories above it that are missing too.
func WorkdirChanges(w *frontend.Workdir) Placer {
	return func(at *names.View) (snapshot.Changes, error) {
		dir, err := dirIn(at, w.Path)
		if err != nil || dir == "" {
			return func(func(*snapshot.Entry, error) bool) {}, err
		}
		dirs := []string{dir}
		by, err := ownerOfWorkdir(at, w)
		if w.User != "" && err == nil {
			var above []string
			above, err = missingParents(at, dir)
			dirs = append(above, dir)
		}
		return func(yield func(*snapshot.Entry, error) bool) {
			for _, dir := range dirs {
				if !yield(impliedDir(dir, by), nil) {
					return
				}
			}
		}, err
	}
}

// ownerOfWorkdir is the style of a WORKDIR.
func ownerOfWorkdir(at *names.View, w *frontend.Workdir) (style, error) {
	by, err := styleIn(at, frontend.Ownership{Chown: w.User})
	if f := (*Fault)(nil); errors.As(err, &f) {
		err = &Fault{Message: fmt.Sprintf("USER %s: %v", w.User, f.Err), Hint: "a RUN before it can add the name", Err: f.Err}
	}
	return by, err
}
