package filelist

import (
	"context"
	"fmt"
	"os"
	"path"
	"slices"
	"strings"

	"github.com/moby/patternmatcher"
	"golang.org/x/sys/unix"

	"github.com/clayer/clayer/cache/snapshot"
	"github.com/clayer/clayer/frontend"
	"github.com/clayer/clayer/solver/internal/contextdir"
	"github.com/clayer/clayer/solver/internal/names"
)

// A Stage is one that is built, or an image that is unpacked.
type Stage struct {
	Name      string                               // in words: "stage build"
	Dir       string                               // its root, links in which lead out of it
	Made      func() (*names.Made, error)          // what its steps have made; nil for an image, which is all of it
	Private   func(path string) bool               // what of the base is somebody's own; nil: nothing
	Warn      func(format string, args ...any)     // nil: nobody is told
	Bare      bool                                 // it shows nothing else: FROM scratch
	Ownerless bool                                 // the owners of files are of no account: all is root's
	Says      func(path string) (Attributes, bool) // what files of an image have; nil: what they have in Dir
	Mount     func(path string) (*os.File, error)  // see sandbox.Tree; nil: it is copied
}

// Attributes are what an image says of a file, which Dir may lack where a plain user made it.
type Attributes struct {
	Mode     uint32
	UID, GID int
	Xattrs   map[string]string
}

// say gives an item the attributes that its file has in the image.
func (st Stage) say(it *Item) {
	a, ok := st.Says(it.From)
	if !ok || it.Inline != nil {
		return
	}
	it.UID, it.GID = a.UID, a.GID
	if it.Kind != snapshot.Symlink {
		it.Mode = a.Mode
	}
	if it.Kind != snapshot.File && it.Kind != snapshot.Link {
		return
	}
	it.Xattrs = nil
	for name, value := range a.Xattrs {
		if !isCopied(name) {
			continue
		}
		if it.Xattrs == nil {
			it.Xattrs = make(map[string]string)
		}
		it.Xattrs[name] = value
	}
}

// staged is a stage that a scan reads.
type staged struct {
	Stage
	own  *names.Made // nil: all of it is read
	left []string    // what is left out, as Private
}

// ReadStage finds the files of a COPY in its stage.
func ReadStage(ctx context.Context, st Stage, c *frontend.Copy) (*List, error) {
	ignore, err := patternmatcher.New(nil)
	if err != nil {
		return nil, err
	}
	s := &scan{ignore: ignore, stage: &staged{Stage: st}, found: (*contextdir.Contexts)(nil).Of(st.Dir)}
	if err := s.open(st.Dir); err != nil {
		return nil, err
	}
	defer s.close()
	// What is at its own path in the base stays there as it is. All of the base is this
	// machine, with what it has of secrets, and nobody's image.
	if st.Made != nil && (st.Bare || slices.ContainsFunc(c.Sources, func(src string) bool { return ofAll(c, src) })) {
		if s.stage.own, err = st.Made(); err != nil {
			return nil, err
		}
	}
	fs, err := s.files(ctx, st.Dir, c, nil)
	if err != nil {
		return nil, err
	}
	fs.Stage, fs.Fetched = true, c.Fetched
	for i := range fs.Items {
		it := &fs.Items[i]
		it.Above = it.Above || c.Fetched && it.Kind == snapshot.Dir
		if st.Says != nil {
			st.say(it)
		}
	}
	if st.Says != nil {
		st.say(&fs.Top)
	}
	if left := s.stage.left; len(left) > 0 && st.Warn != nil {
		st.Warn("%s: %s: left out of %s: %s. No step of the stage made it: it is this machine's own, in a home directory or a place of credentials, and in no image",
			c.Pos, c.Word, st.Name, some(left))
	}
	return fs, nil
}

// ofAll reports whether a source takes all of a stage, or what it finds at its own path.
func ofAll(c *frontend.Copy, src string) bool {
	dest := path.Clean(c.Dest)
	if !c.Parents {
		return src == "." || len(c.Sources) == 1 && path.Join("/", src) == dest
	}
	above, below, _ := pivot(src)
	return len(plainParts(below)) == 0 || path.Join("/", above) == dest
}

// place is where the sources are, in words.
func (s *scan) place() string {
	if s.stage != nil {
		return s.stage.Name
	}
	return s.where
}

// leaveOutHint says how to leave a file out.
func (s *scan) leaveOutHint() string {
	if s.stage != nil {
		return "copy the other files by name"
	}
	return "a line in " + s.by + " leaves it out"
}

// mode returns the mode that an item gets: in a stage it is the file's own, else it lacks the
// right of group and others to write.
func (s *scan) mode(at *contextdir.Node) uint32 {
	if s.stage != nil {
		return at.Mode()
	}
	return at.Mode() &^ 0o022
}

// owned gives an item the time of its file, and in a stage the owner that this has.
func (s *scan) owned(it Item, at *contextdir.Node) Item {
	it.found = at
	if s.stage != nil && !s.stage.Ownerless {
		it.UID, it.GID = at.UID, at.GID
	}
	return it
}

// device makes an item the device that its file is; false if it is none that can be copied.
func device(it *Item, at *contextdir.Node) bool {
	if !at.IsDevice() || at.Rdev == 0 {
		return false
	}
	it.Kind = snapshot.Block
	if at.IsChar() {
		it.Kind = snapshot.Char
	}
	it.Major, it.Minor = unix.Major(at.Rdev), unix.Minor(at.Rdev)
	return true
}

// isLeftOut reports whether a file in a directory of a stage is not copied with it: a socket,
// which is nothing without who listens, and what overlayfs takes for the mark of a deletion.
func isLeftOut(at *contextdir.Node) bool {
	return at.IsSocket() || at.IsDevice() && at.Rdev == 0
}

// notMade reports whether a path is in a stage of which its steps have not made it, where
// that counts.
func (s *scan) notMade(name string) bool {
	return s.stage != nil && s.stage.own != nil && name != "." && !s.stage.own.Has(name)
}

// isInBase reports whether a directory among what steps have made is in the base too: it is
// theirs only as far as something in it is.
func (s *scan) isInBase(name string) (bool, error) {
	if s.stage == nil || s.stage.own == nil {
		return false, nil
	}
	return s.stage.own.BaseDir(name)
}

// leavesOut reports whether a path is in a stage as somebody's own, and its steps have not
// made it. An image would not have it.
func (s *scan) leavesOut(name string) (bool, error) {
	if s.stage == nil || s.stage.own != nil || s.stage.Made == nil || s.stage.Private == nil || name == "." || !s.stage.Private(name) {
		return false, nil
	}
	made, err := s.stage.Made()
	if err != nil || made.Has(name) {
		return false, err
	}
	if !slices.Contains(s.stage.left, name) {
		s.stage.left = append(s.stage.left, name)
	}
	return true, nil
}

// some names the first of many paths.
func some(paths []string) string {
	const most = 3
	text := "/" + strings.Join(paths[:min(most, len(paths))], ", /")
	if more := len(paths) - most; more > 0 {
		text += fmt.Sprintf(" and %d more", more)
	}
	return text
}
