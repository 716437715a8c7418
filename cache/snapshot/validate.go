package snapshot

import (
	"fmt"
	"hash/maphash"
	"io/fs"
	"path"
	"strings"
)

// Bounds of what a stream may hold: beyond what Linux takes, so that they stop
// only what was made to hurt.
const (
	maxPath   = 16 << 10  // bytes of a path; deeper than PATH_MAX is possible, directory by directory
	maxXattrs = 1 << 20   // bytes of all extended attributes of an entry
	maxID     = 1<<32 - 2 // of a user or group; one more is -1 to chown, which changes no owner
)

// An UnsafeError says that an entry reaches for something outside the root, or
// contradicts the entries before it.
type UnsafeError struct {
	Path   string
	Reason string
}

func (e *UnsafeError) Error() string { return fmt.Sprintf("unsafe entry %q: %s", e.Path, e.Reason) }

// Validate hands the entries on and ends with an error, an *UnsafeError where
// an entry is to blame, as soon as one breaks the rules that stand with Entry.
//
// It remembers 64 bits of each path, hashed with a seed of its own: two paths
// are taken for the same with a chance of 1 to 10^7 in a stream of a million.
func Validate(changes Changes) Changes {
	return func(yield func(*Entry, error) bool) {
		v := validator{seed: maphash.MakeSeed(), seen: make(map[uint64]Kind)}
		for e, err := range changes {
			if err == nil {
				err = v.check(e)
			}
			if err != nil {
				yield(nil, err)
				return
			}
			if !yield(e, nil) {
				return
			}
		}
	}
}

// What a validator remembers of a directory besides the Kind of its entry.
const (
	parent     Kind = 100 + iota // entries below it, and none of its own yet
	filledDir                    // a Dir, and entries below it
	opaqueOnly                   // an Opaque before its Dir, as foreign layers may have it
)

type validator struct {
	seed maphash.Seed
	seen map[uint64]Kind

	dir     string // the directory that was checked last: most entries share it
	dirSafe bool
}

func (v *validator) check(e *Entry) error {
	bad := func(format string, args ...any) error {
		return &UnsafeError{Path: e.Path, Reason: fmt.Sprintf(format, args...)}
	}
	if err := checkPath(e.Path); err != nil {
		return err
	}
	if e.Size < 0 {
		return bad("a size of %d", e.Size)
	}
	if e.UID < 0 || e.UID > maxID || e.GID < 0 || e.GID > maxID {
		return bad("the owner %d:%d", e.UID, e.GID)
	}
	if !inOrder(e.Data, e.Size) {
		return bad("extents of data that overlap or reach beyond its %d bytes", e.Size)
	}
	n := 0
	for k, x := range e.Xattrs {
		n += len(k) + len(x)
		if k == "" || strings.ContainsAny(k, "\x00=") {
			return bad("an extended attribute named %q", k)
		}
	}
	if n > maxXattrs {
		return bad("%d bytes of extended attributes", n)
	}
	if strings.IndexByte(e.Target, 0) >= 0 {
		return bad("a NUL in the target of a link")
	}
	if err := v.parents(e.Path); err != nil {
		return err
	}
	id := maphash.String(v.seed, e.Path)
	before, twice := v.seen[id]
	switch e.Kind {
	case Opaque:
		switch {
		case !twice:
			v.seen[id] = opaqueOnly
		case before == Dir:
			v.seen[id] = Opaque
		case before == filledDir || before == parent:
			// It would delete what this very stream made there.
			return bad("an opaque directory after what it holds")
		default:
			return bad("opaque, but not a directory")
		}
		return nil
	case Link:
		if err := checkPath(e.Target); err != nil {
			return bad("a hard link to %q", e.Target)
		}
		if k := v.seen[maphash.String(v.seed, e.Target)]; k != File && k != Link {
			return bad("a hard link to %q, which is no file before it", e.Target)
		}
	case Symlink:
		if e.Target == "" {
			return bad("a symlink to nothing")
		}
	case File, Dir, Char, Block, Fifo, Delete:
	default:
		return bad("unknown kind %d", e.Kind)
	}
	// A foreign layer may name an opaque directory, or what a directory holds, before
	// the directory itself. Anything else there would move the entries below it.
	switch {
	case !twice:
		v.seen[id] = e.Kind
	case e.Kind == Dir && before == parent:
		v.seen[id] = filledDir
	case e.Kind == Dir && before == opaqueOnly:
		v.seen[id] = Opaque
	case before == parent:
		return bad("not a directory, after entries below it")
	default:
		return bad("two entries of one name")
	}
	return nil
}

// parents refuses an entry below one that is not a directory: a link, and then a file
// through it.
func (v *validator) parents(p string) error {
	dir := path.Dir(p)
	if v.dirSafe && dir == v.dir {
		return nil
	}
	for d := dir; d != "."; d = path.Dir(d) {
		if v.dirSafe && (d == v.dir || strings.HasPrefix(v.dir, d+"/")) {
			break // looked at for the entry before
		}
		id := maphash.String(v.seed, d)
		switch k, ok := v.seen[id]; {
		case !ok:
			v.seen[id] = parent
		case k == Dir:
			v.seen[id] = filledDir
		case k >= parent || k == Opaque:
		default:
			return &UnsafeError{Path: p, Reason: fmt.Sprintf("%q before it is not a directory", d)}
		}
	}
	v.dir, v.dirSafe = dir, true
	return nil
}

// inOrder reports whether extents are as Entry.Data demands.
func inOrder(data []Extent, size int64) bool {
	end := int64(0)
	for _, x := range data {
		if x.Offset < end || x.Length < 0 || x.Length > size || x.Offset > size-x.Length {
			return false
		}
		end = x.Offset + x.Length
	}
	return true
}

func checkPath(p string) error {
	if len(p) <= maxPath && p != "." && fs.ValidPath(p) && strings.IndexByte(p, 0) < 0 {
		return nil
	}
	bad := func(reason string) error { return &UnsafeError{Path: p, Reason: reason} }
	switch {
	case p == "" || p == ".":
		return bad("names the root")
	case len(p) > maxPath:
		return &UnsafeError{Path: p[:80] + "…", Reason: fmt.Sprintf("a path of %d bytes", len(p))}
	case strings.IndexByte(p, 0) >= 0:
		return bad("a NUL in a name")
	case path.IsAbs(p):
		return bad("an absolute name")
	case p == ".." || strings.HasPrefix(p, "../") || strings.HasSuffix(p, "/..") || strings.Contains(p, "/../"):
		return bad(`".." in a name`)
	case path.Clean(p) != p:
		return bad("not a clean path")
	}
	return nil
}
