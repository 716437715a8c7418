package source

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"

	"github.com/clayer/clayer/cache/snapshot"
	"github.com/clayer/clayer/frontend"
	"github.com/clayer/clayer/internal/pathname"
	"github.com/clayer/clayer/solver/internal/filelist"
	"github.com/clayer/clayer/solver/internal/names"
	"github.com/clayer/clayer/solver/internal/places"
)

// The snapshot of a COPY, FETCH or WORKDIR that a store has is a function of what
// its key covers. Whatever else is in one, as a file under another name, with
// another mode or other content, contradicts the key: the store says that it is
// this step's, and it is another's.

// An Expectation hands on the entries of a snapshot, and ends with an error where
// they are not those of its step. Times and owners do not count: --chown by name
// has the numbers of the machine where the snapshot was made.
type Expectation func(snapshot.Changes) snapshot.Changes

// expect makes an Expectation of what is asked of each entry, and in the end.
func expect(entry func(e *snapshot.Entry) error, end func() error) Expectation {
	return func(changes snapshot.Changes) snapshot.Changes {
		return func(yield func(*snapshot.Entry, error) bool) {
			for e, err := range changes {
				if err == nil {
					err = contradicting(entry(e))
				}
				if !yield(e, err) || err != nil {
					return
				}
			}
			if err := end(); err != nil {
				yield(nil, contradicting(err))
			}
		}
	}
}

// An UnexpectedError says how a snapshot contradicts its step, in the root that it is for.
type UnexpectedError struct{ Err error }

func (e *UnexpectedError) Error() string { return e.Err.Error() }

func (e *UnexpectedError) Unwrap() error { return e.Err }

func contradicting(err error) error {
	if err != nil {
		err = &UnexpectedError{err}
	}
	return err
}

// unexpected says what contradicts a step.
func unexpected(e *snapshot.Entry, format string, args ...any) error {
	return fmt.Errorf("/%s: %s", e.Path, fmt.Sprintf(format, args...))
}

// A target is where the entries of a step belong: in the root as the step finds it, or,
// where that is not known yet, below whatever directory they begin with. A store that
// places them elsewhere than this machine would is found out before they are applied.
type target struct {
	dest   string
	single bool // dest is the path of the only file
	known  bool
	above  bool   // directories above dest may come before it
	mode   uint32 // of dest, where it is a directory that the step creates
	packed bool   // or 0755, for what is unpacked
	open   bool   // dest is the last of those that came so far

	// oneOf, if not nil, is where dest may be that is not known: the root shows more, or
	// less, than the step finds. Scratch is never in the root, and may be anywhere there.
	oneOf []string
}

// allowed reports whether dest, as it is known now, may be where it is.
func (t *target) allowed() bool {
	return t.oneOf == nil || slices.Contains(t.oneOf, t.dest) || snapshot.IsScratch(t.dest)
}

// targetIn returns the target of a dest whose place is found by find. exact says that at
// is what the step finds.
func targetIn(at *names.View, exact bool, dest string, find func() (string, bool, error)) (t target, err error) {
	t.mode = 0o755
	if at == nil {
		return t, nil
	}
	real, single, err := find()
	if exact {
		t.dest, t.single, t.known = real, single, true
		return t, err
	}
	t.oneOf = []string{entryPath(dest)}
	if err == nil {
		t.oneOf = append(t.oneOf, real)
	}
	return t, nil
}

// placesIn returns the places of the names that a step finds; nil where at is not these.
func placesIn(at *names.View, exact bool) *places.Places {
	if at == nil || !exact {
		return nil
	}
	return places.Of(at)
}

// is reports whether an entry is the directory that a step puts things into.
func (t *target) is(e *snapshot.Entry) bool {
	if e.Kind != snapshot.Dir || !e.Implied {
		return false
	}
	switch {
	case !t.known, t.open && path.Dir(e.Path) == t.dest: // the first entries
		t.dest, t.single, t.known, t.open = e.Path, false, true, t.above
		return t.allows(e.Mode)
	case e.Path == t.dest:
		return !t.single && t.allows(e.Mode)
	}
	return t.above && pathname.Under(t.dest, e.Path) && t.allows(e.Mode)
}

// allows reports whether a directory that the step creates may have a mode.
func (t *target) allows(mode uint32) bool { return mode == t.mode || t.packed && mode == 0o755 }

// rel returns the path of an entry below the target; "" for the target itself.
func (t *target) rel(e *snapshot.Entry, mayBeSingle bool) (string, bool) {
	if t.open && mayBeSingle && path.Dir(e.Path) == t.dest {
		t.dest, t.single = e.Path, true // those before were above it; or the file is in dest
	}
	t.open = false
	if !t.known {
		t.known, t.single = true, mayBeSingle
		if mayBeSingle {
			t.dest = e.Path
		}
	}
	if !t.allowed() {
		return "", false
	}
	if t.single {
		return "", e.Path == t.dest
	}
	if t.dest == "" {
		return e.Path, true
	}
	return strings.CutPrefix(e.Path, t.dest+"/")
}

// ExpectWorkdir returns what the snapshot of a WORKDIR is; at and exact are as for
// ExpectCopy.
func ExpectWorkdir(w *frontend.Workdir, at *names.View, exact bool) (Expectation, error) {
	t, err := targetIn(at, exact, w.Path, func() (string, bool, error) {
		dest, err := dirIn(at, w.Path)
		return dest, false, err
	})
	if err != nil {
		return nil, err
	}
	t.above = w.User != ""
	by, err := styleOf(at, exact, frontend.Ownership{Chown: w.User})
	if err != nil {
		return nil, err
	}
	return expect(func(e *snapshot.Entry) error {
		if !t.is(e) || !t.allowed() || !plain(e, by) {
			return unexpected(e, "WORKDIR %s makes no such entry", w.Path)
		}
		return nil
	}, func() error { return nil }), nil
}

// plain reports whether an entry has the owner, and no attributes, as COPY, FETCH and
// WORKDIR give it. The owner is not compared where by is not known.
func plain(e *snapshot.Entry, by style) bool {
	return len(e.Xattrs) == 0 && (by.uid < 0 || e.Kind == snapshot.Link || e.UID == by.uid && e.GID == by.gid)
}

// styleOf is the style that a snapshot has to have: its owner is -1 where names are not
// known.
func styleOf(at *names.View, exact bool, o frontend.Ownership) (style, error) {
	if at != nil && exact {
		return styleIn(at, o)
	}
	by, err := styleIn(names.New("", ""), o) // numbers need no names
	if err != nil {
		by, err = styleOfMode(o.Chmod)
		by.uid = -1
	}
	return by, err
}

// ExpectCopy returns what the snapshot of a COPY is, whose files are there, and which
// finds the root as it is in at; nil is for a root that is not known yet. Where exact is
// false, at has more, or less, than the step finds.
func (r *Resolver) ExpectCopy(ctx context.Context, dir string, c *frontend.Copy, at *names.View, exact bool) (Expectation, error) {
	if c.IsRoot() {
		return nil, nil
	}
	fs, err := r.files(ctx, dir, c, Pin{})
	if err != nil {
		return nil, err
	}
	return expectList(fs, "COPY", c.Dest, c.Owner, at, exact)
}

// expectAdd returns what the snapshot of an ADD of a URL or a repository is; at is as for
// ExpectCopy.
func expectAdd(f *frontend.Fetch, p Pin, at *names.View, exact bool) (Expectation, error) {
	fs := &filelist.List{Archives: make([]filelist.Item, 1)}
	if f.Extract == frontend.ExtractFalse {
		fs = addedFile(f, -1)
		if _, err := hex.Decode(fs.Items[0].Sum[:], []byte(p.Digest.Encoded())); err != nil {
			return nil, err
		}
	} else if p.Commit == "" && !strings.HasSuffix(f.Dest, "/") {
		return nil, nil // it may be a file, of any name
	}
	return expectList(fs, "ADD", f.Dest, f.Owner, at, exact)
}

// expectList returns what the snapshot of a COPY or ADD is; of what an archive has, where it
// may be.
func expectList(fs *filelist.List, word, to string, owner frontend.Ownership, at *names.View, exact bool) (Expectation, error) {
	t, err := targetIn(at, exact, to, func() (string, bool, error) { return copyDest(at, fs, to) })
	if err != nil {
		return nil, err
	}
	by, err := styleOf(at, exact, owner)
	if err != nil {
		return nil, err
	}
	t.mode = by.destMode()
	t.above = owner.Chown != "" || t.mode != 0o755
	in := placesIn(at, exact)
	items := make(map[string]filelist.Item)
	for _, it := range fs.Items {
		items[it.Rel] = it
	}
	packed := len(fs.Archives) > 0
	t.packed = packed
	seen := make(map[string]bool)
	return expect(func(e *snapshot.Entry) error {
		if !plain(e, by) && (!packed || by.chown && by.uid >= 0 && (e.UID != by.uid || e.GID != by.gid)) {
			return unexpected(e, "another owner than %s gives it, or attributes", word)
		}
		if t.is(e) {
			return nil
		}
		rel, ok := t.rel(e, fs.Single)
		it, known := items[rel]
		if t.single {
			it, known = fs.Items[0], true
		}
		if !ok || !known && !packed {
			return unexpected(e, "%s %s copies no such file", word, to)
		}
		if in != nil && !t.single && mayPlace(in, e.Path, e.Kind == snapshot.Dir, packed) != nil {
			return unexpected(e, "something else is there, which %s does not replace", word)
		}
		seen[it.Rel] = true
		if packed {
			return nil // what is in the archive is not known
		}
		want := entryOf(fs, it, t.dest, by)
		switch {
		case e.Kind != want.Kind || e.Target != want.Target || e.Implied != want.Implied || e.Major != want.Major || e.Minor != want.Minor:
			return unexpected(e, "another kind of file than %s copies", word)
		case e.Mode != want.Mode && e.Kind != snapshot.Symlink && e.Kind != snapshot.Link:
			return unexpected(e, "mode %04o, where %s gives it %04o", e.Mode, word, want.Mode)
		case e.Kind == snapshot.File && e.Size != it.Size && it.Size >= 0:
			return unexpected(e, "%d bytes, where %s copies %d", e.Size, word, it.Size)
		}
		return expectContent(e, it.Sum)
	}, func() error {
		for _, it := range fs.Items {
			if !seen[it.Rel] {
				return fmt.Errorf("it lacks %q, which %s copies", it.Rel, word)
			}
		}
		if t.known && !t.allowed() {
			return fmt.Errorf("/%s: %s %s does not go there", t.dest, word, to)
		}
		return nil
	}), nil
}

// ExpectFetch returns what can be said of the snapshot of a FETCH without its
// download: where it puts files, the modes that --chmod gives them, and the
// content of a file that is stored as it was downloaded. at is as for ExpectCopy.
func (r *Resolver) ExpectFetch(f *frontend.Fetch, p Pin, at *names.View, exact bool) (Expectation, error) {
	if f.Add {
		return expectAdd(f, p, at, exact)
	}
	t, err := targetIn(at, exact, f.Dest, func() (string, bool, error) {
		dest, err := dirIn(at, f.Dest)
		return dest, false, err
	})
	if err != nil {
		return nil, err
	}
	t.known = t.known || entryPath(f.Dest) == ""
	by, err := styleOf(at, exact, f.Owner)
	if err != nil {
		return nil, err
	}
	name := "" // of a file that is stored as it was downloaded; "" where none can be
	if from, err := originOf(f.Source); err == nil && from == fromURL && f.Extract != frontend.ExtractTrue {
		name, _ = fileName(f.Source)
	}
	in := placesIn(at, exact && !r.replaces(f))
	var asItCame *snapshot.Entry // the only file, of the URL's name
	sum := sha256.New()
	others := 0
	return expect(func(e *snapshot.Entry) error {
		if !plain(e, by) {
			return unexpected(e, "another owner than FETCH gives it, or attributes")
		}
		if t.is(e) {
			return nil
		}
		rel, below := t.rel(e, false)
		if !below {
			return unexpected(e, "FETCH writes only below %s", f.Dest)
		}
		switch e.Kind {
		case snapshot.File, snapshot.Dir, snapshot.Symlink, snapshot.Link:
		default:
			return unexpected(e, "FETCH writes no such kind of file")
		}
		if in != nil && mayPlace(in, e.Path, e.Kind == snapshot.Dir, true) != nil {
			return unexpected(e, "something else is there, which FETCH does not replace")
		}
		want := *e
		by.applyEnterable(&want)
		if _, octal := by.chmod.Octal(); octal && e.Mode != want.Mode && !e.Implied {
			return unexpected(e, "mode %04o, where --chmod gives it %04o", e.Mode, want.Mode)
		}
		if others++; others == 1 && name != "" && e.Kind == snapshot.File && rel == name {
			seen := *e
			asItCame = &seen
			if e.Content != nil {
				sum.Write(e.Content)
			} else {
				open := e.Open
				e.Open = func() (io.ReadCloser, error) {
					sum.Reset()
					content, err := open()
					return struct {
						io.Reader
						io.Closer
					}{io.TeeReader(content, sum), content}, err
				}
			}
		}
		return nil
	}, func() error {
		switch {
		case t.known && !t.allowed():
			return fmt.Errorf("/%s: FETCH to %s does not go there", t.dest, f.Dest)
		case asItCame == nil || others > 1:
			if f.Extract == frontend.ExtractFalse {
				return fmt.Errorf("it is not the file %q alone, which FETCH writes", name)
			}
			return nil
		case asItCame.Mode != modeOfDownload(by):
			return unexpected(asItCame, "mode %04o, where FETCH gives it %04o", asItCame.Mode, modeOfDownload(by))
		case hex.EncodeToString(sum.Sum(nil)) != p.Digest.Encoded():
			return unexpected(asItCame, "other content than was downloaded")
		}
		return nil
	}), nil
}

// modeOfDownload is the mode of a file that is stored as it was downloaded.
func modeOfDownload(by style) uint32 {
	e := snapshot.Entry{Kind: snapshot.File, Mode: 0o644}
	by.apply(&e)
	return e.Mode
}

// expectContent has the content of a file compared with its sum: now where it is
// in memory, else while it is read.
func expectContent(e *snapshot.Entry, sum [sha256.Size]byte) error {
	if e.Kind != snapshot.File {
		return nil
	}
	wrong := unexpected(e, "other content than the step has")
	if e.Content != nil || e.Size == 0 {
		if sha256.Sum256(e.Content) != sum {
			return wrong
		}
		return nil
	}
	open, size := e.Open, e.Size
	e.Open = func() (io.ReadCloser, error) {
		f, err := open()
		if err != nil {
			return nil, err
		}
		return filelist.Unchanged(f, sum, size, func() error { return wrong }), nil
	}
	return nil
}
