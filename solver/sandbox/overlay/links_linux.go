package overlay

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/clayer/clayer/cache/snapshot"
	"github.com/clayer/clayer/internal/tree"
	"github.com/clayer/clayer/solver/sandbox/helper"
	"github.com/clayer/clayer/solver/sandbox/internal/treecopy"
)

// Hard links and overlays: a lower file of several names that is written to, or
// loses a name, is copied up by the one name that it was reached by. With an
// index, the kernel goes on showing the other names as the same file, but the
// upper directory holds only the one: completeGroups adds the others. There is no
// index in a user namespace, or over a root that is an overlay itself, and the
// others would go on showing the old file: there seedGroups puts all of such
// files into the upper directory beforehand.

// A group is a lower file of several names.
type group struct {
	layer  string // the lower directory that it is in
	names  []string
	handle string // of the file, in hex
}

// groups returns those of the lower directories, the highest first. They are looked for once.
func (s *Overlay) groups(ctx context.Context) ([]group, error) {
	s.grouping.Lock()
	defer s.grouping.Unlock()
	if s.grouped {
		return s.lowerGroups, nil
	}
	// What is linked in directories that are not captured by default, or hidden, is of no
	// step.
	filter, err := snapshot.Filter{}.Compile()
	if err != nil {
		return nil, err
	}
	hidden := tree.Hide(s.Hide)
	var groups []group
	layers := s.lowers()
	if s.copied {
		layers = append(layers, s.Over) // for what is closed in it
	}
	for _, layer := range layers {
		var mu sync.Mutex // a reading asks from several goroutines
		var closed []string
		opt := tree.Options{Live: true, Prune: func(p string) bool {
			if filter.Prune(p) || hidden != nil && hidden(p) || filepath.Join(layer, p) == s.Over ||
				layer == s.Root && strings.Count(p, "/") >= foreignDepth-1 && s.isForeign(p) {
				return true
			}
			if layer != s.Over || !s.hasClosed(p) {
				return false
			}
			mu.Lock()
			defer mu.Unlock()
			closed = append(closed, p)
			return true
		}}
		if layer == s.Root {
			opt.DirectoriesOnly = s.isForeign
		}
		r, err := tree.Read(ctx, layer, opt)
		if err != nil {
			return nil, fmt.Errorf("look for hard links: %w", err)
		}
		if layer == s.Over {
			s.closed = append(closed, r.Closed(r.Len())...)
		}
		if layer != s.Root && s.copied {
			continue
		}
		for _, names := range r.Linked() {
			if len(names) < 2 {
				continue // the others are elsewhere
			}
			g := group{layer: layer, names: names}
			if h, _, err := unix.NameToHandleAt(unix.AT_FDCWD, filepath.Join(layer, names[0]), 0); err == nil {
				g.handle = hex.EncodeToString(h.Bytes())
			}
			groups = append(groups, g)
		}
	}
	s.grouped, s.lowerGroups = true, groups
	return groups, nil
}

// foreignDepth is how deep a plain user's hard links are looked for in directories that are
// another's: as deep as /var/lib/NAME is, which may be his own.
const foreignDepth = 3

// isForeign reports whether no hard links are looked for in a directory of the root. A
// plain user cannot write to files of others, and to read all of a machine's
// directories takes longer than most steps.
func (s *Overlay) isForeign(dir string) bool {
	return !s.rooted && os.Geteuid() != 0 && unix.Access(filepath.Join(s.Root, dir), unix.W_OK) != nil
}

// hasClosed reports whether a directory of Over lies over one of the root that is closed.
func (s *Overlay) hasClosed(dir string) bool {
	if s.rooted || !isClosed(filepath.Join(s.Root, dir)) {
		return false
	}
	top, _, _ := strings.Cut(dir, "/")
	return s.whole || !isClosed(filepath.Join(s.Root, top)) // else it lies over nothing
}

// completeGroups copies up the other names of lower files that a command copied
// up by one of theirs.
func (v *View) completeGroups(ctx context.Context) error {
	if !v.s.index {
		return nil
	}
	// The index names each file by the handle of the lower one.
	index, err := os.ReadDir(filepath.Join(v.dir, helper.WorkDir, "index"))
	if errors.Is(err, os.ErrNotExist) || err == nil && len(index) == 0 {
		return nil
	}
	if err != nil {
		return err
	}
	var groups []group
	var names []string
	for _, e := range index {
		if v.indexed[e.Name()] || !e.Type().IsRegular() {
			continue
		}
		if groups == nil {
			if groups, err = v.s.groups(ctx); err != nil {
				return err
			}
		}
		// In that of an overlay is that of its lower file, and may be followed by zeros.
		i := slices.IndexFunc(groups, func(g group) bool { return g.handle != "" && strings.Contains(e.Name(), g.handle) })
		if i >= 0 {
			names = append(names, groups[i].names...)
		}
		if v.indexed == nil {
			v.indexed = make(map[string]bool)
		}
		v.indexed[e.Name()] = true
	}
	if len(names) == 0 {
		return nil
	}
	if err := v.do(ctx, helper.Job{Task: helper.TaskCopyUp, Names: names}, helper.Process{}); err != nil {
		return fmt.Errorf("follow hard links: %w", err)
	}
	return nil
}

// The files of several names of the root that a view without an index begins with a
// copy of: each up to a size, and all together up to another. A larger one
// breaks up when it is written to. Of Over they are copied whatever their size.
const (
	seedLinkLimit  = 8 << 20
	seedLinksLimit = 32 << 20
)

// seedGroups copies lower files of several names into the upper directory, as one
// file each. In both readings they are then the upper directory's own.
func (v *View) seedGroups(ctx context.Context) error {
	groups, err := v.s.groups(ctx)
	if err != nil {
		return err
	}
	var total int64
	for _, g := range groups {
		var st unix.Stat_t
		if unix.Lstat(filepath.Join(g.layer, g.names[0]), &st) != nil {
			continue
		}
		if !v.s.rooted && !v.s.ids.Knows(st.Uid, st.Gid) {
			continue // no overlay in the user namespace copies it up
		}
		if g.layer == v.s.Root {
			if st.Size > seedLinkLimit || total+st.Size > seedLinksLimit {
				continue
			}
			total += st.Size
		}
		// What may not be read can't be written to either; and a capability
		// can't be copied.
		if err := v.seedGroup(g); err != nil && !errors.Is(err, os.ErrPermission) {
			return fmt.Errorf("hard link %q: %w", g.names[0], err)
		}
	}
	return nil
}

func (v *View) seedGroup(g group) error {
	first := ""
	var same os.FileInfo
	for _, name := range g.names {
		src, dst := filepath.Join(g.layer, name), filepath.Join(v.upper(), name)
		if top, _, below := strings.Cut(name, "/"); below && g.layer == v.s.Root && !v.merges(top) {
			continue
		}
		if !v.s.shows(g.layer, name) {
			continue // the changes over the root have their own
		}
		if _, err := os.Lstat(dst); err == nil {
			continue
		}
		if err := v.seedParents(path.Dir(name)); err != nil {
			return err
		}
		st, err := os.Lstat(src)
		if err != nil {
			return err
		}
		if first == "" {
			same = st
			if err := v.seedLinked(src, dst); err != nil {
				return errors.Join(err, os.RemoveAll(dst))
			}
			first = dst
		} else if !os.SameFile(same, st) {
			continue
		} else if err := os.Link(first, dst); err != nil {
			return err
		}
		if err := likeLower(v.s.lower(path.Dir(name)), filepath.Dir(dst)); err != nil {
			return err
		}
	}
	return nil
}

// shows reports whether what a lower directory has at a path is seen there.
func (s *Overlay) shows(layer, p string) bool {
	if layer == s.over() || s.over() == "" {
		return true
	}
	for i, c := range p + "/" {
		if c != '/' {
			continue
		}
		st, err := os.Lstat(filepath.Join(s.over(), p[:i]))
		if err != nil {
			return errors.Is(err, os.ErrNotExist)
		}
		if !st.IsDir() {
			return false
		}
	}
	return false
}

// seedLinked copies a file in all that can be seen of it.
func (v *View) seedLinked(src, dst string) error {
	var st unix.Stat_t
	err := unix.Lstat(src, &st)
	if err == nil {
		err = seedFile(src, dst)
	}
	if err == nil && v.s.rooted {
		// chown takes setuid bits away.
		err = errors.Join(os.Lchown(dst, int(st.Uid), int(st.Gid)), unix.Chmod(dst, st.Mode&0o7777))
	}
	if err == nil {
		err = treecopy.Xattrs(src, dst)
	}
	if err == nil {
		err = unix.UtimesNanoAt(unix.AT_FDCWD, dst, []unix.Timespec{st.Atim, st.Mtim}, 0)
	}
	return err
}

// seedParents makes the directories above a name as the lower ones are.
func (v *View) seedParents(dir string) error {
	if dir == "." {
		return nil
	}
	at := filepath.Join(v.upper(), dir)
	if _, err := os.Lstat(at); err == nil {
		return nil
	}
	if err := v.seedParents(path.Dir(dir)); err != nil {
		return err
	}
	return v.seedDir(dir, false)
}
