package rootfs

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/clayer/clayer/cache/snapshot"
)

// UnpackOptions are how to unpack. The zero value is the default.
type UnpackOptions struct {
	// WithoutOpenat2 resolves names part by part, as on kernels that don't
	// have openat2(2).
	WithoutOpenat2 bool
}

// Unpack applies a stream to the folder dir, which must be there, and keeps no
// record: what is replaced or deleted is gone. Names are resolved inside dir.
//
// The same stream on equal folders gives equal folders: one that has a Dir
// entry gets its time, any other keeps the time it had.
func Unpack(ctx context.Context, dir string, changes snapshot.Changes, opt UnpackOptions) (Result, error) {
	a, err := newApplier(dir, !opt.WithoutOpenat2 && hasOpenat2())
	if err != nil {
		return Result{}, err
	}
	return a.run(ctx, changes)
}

// applier is one run over a stream.
type applier struct {
	*folders
	privileged bool
	uid        int
	prefix     string // of temporary names
	temps      int
	buf        []byte
	sum        uint32 // CRC-32C of the content that was copied last
	times      map[fileID]*folderTime
	filled     map[string]bool // folders that the stream put something into, and those above
	res        Result

	// Clayer's state, if it is below the root: no entry may be there.
	own   string // without links
	ownID fileID

	// Of an apply in a transaction; t is nil for Unpack.
	t           *transaction
	ev          Event
	n           int     // of the last change
	stageDir    *folder // where what comes is made
	originalsFD int     // -1 until the first original
	chunk       []staged
	inChunk     map[string]int    // by the path of a file of the chunk: its index
	will        map[string]string // by the path of a folder that the chunk makes: where it will be
}

func newApplier(dir string, openat2 bool) (*applier, error) {
	fs, err := newFolders(dir, openat2)
	if err != nil {
		return nil, err
	}
	return &applier{
		folders:    fs,
		privileged: privileged(), uid: os.Geteuid(),
		prefix:      fmt.Sprintf(tempPrefix+"%x-%d-", time.Now().UnixNano(), os.Getpid()),
		buf:         make([]byte, 128<<10),
		times:       make(map[fileID]*folderTime),
		filled:      make(map[string]bool),
		originalsFD: -1,
	}, nil
}

// privileged reports whether this process may set any owner: root, and not of a
// user namespace that maps only some ids.
func privileged() bool {
	if os.Geteuid() != 0 {
		return false
	}
	m, err := os.ReadFile("/proc/self/uid_map")
	if err != nil {
		return true
	}
	f := strings.Fields(string(m))
	return len(f) == 3 && f[0] == "0" && f[2] == strconv.FormatUint(1<<32-1, 10)
}

func (a *applier) close() {
	if a.originalsFD >= 0 {
		unix.Close(a.originalsFD)
	}
	if a.stageDir != nil {
		unix.Close(a.stageDir.fd)
	}
	a.folders.close()
}

func (a *applier) run(ctx context.Context, changes snapshot.Changes) (res Result, err error) {
	defer func() {
		// Also after a failure: what a folder's time was must not depend on how
		// far we came.
		err = errors.Join(err, a.setTimes())
		a.close()
		res = a.res
	}()
	for e, err := range snapshot.Validate(changes) {
		if err == nil {
			err = context.Cause(ctx)
		}
		if err != nil {
			return a.res, err
		}
		if a.t != nil {
			if err := a.stage(ctx, e); err != nil {
				return a.res, fmt.Errorf("%q: %w", e.Path, err)
			}
			if len(a.chunk) < maxChunk {
				continue
			}
			if err := a.flush(ctx); err != nil {
				return a.res, err
			}
			continue
		}
		if err := a.outcome(e, a.entry(ctx, e, nil)); err != nil {
			return a.res, err
		}
	}
	return a.res, a.flush(ctx)
}

// outcome counts an entry that was made, notes one that could not be, and
// returns the error after which none can.
func (a *applier) outcome(e *snapshot.Entry, err error) error {
	switch {
	case err == nil:
		a.res.Entries++
	case isHard(err):
		return fmt.Errorf("%q: %w", e.Path, err)
	default:
		a.res.Problems = append(a.res.Problems, Problem{e.Path, err})
	}
	return nil
}

// hard is an error of the stream or of the record, not of one entry: it never
// counts as a Problem.
type hard struct{ err error }

func (h hard) Error() string { return h.err.Error() }
func (h hard) Unwrap() error { return h.err }

// isHard tells errors after which going on is of no use from those of one entry.
func isHard(err error) bool {
	var h hard
	var errno unix.Errno
	if errors.As(err, &h) || !errors.As(err, &errno) {
		return true
	}
	switch errno {
	case unix.EPERM, unix.EACCES, unix.EROFS, unix.EBUSY, unix.ENOTDIR, unix.EISDIR, unix.ELOOP, unix.EXDEV,
		unix.ENAMETOOLONG, unix.EMLINK, unix.ENOTSUP, unix.ETXTBSY, unix.ENOENT, unix.EINVAL, unix.EEXIST, unix.E2BIG, unix.ENOTEMPTY:
		return false
	}
	return true // ENOSPC, EDQUOT, EIO, EMFILE, ENOMEM, ...
}

// entry makes an entry; s is what was made of it already, nil for Unpack.
func (a *applier) entry(ctx context.Context, e *snapshot.Entry, s *staged) error {
	if err := a.guard(e.Path); err != nil {
		return err
	}
	if e.Kind == snapshot.Opaque {
		return a.opaque(e.Path)
	}
	dir, name := path.Split(e.Path)
	dir = path.Clean(dir)
	parent, err := a.parent(dir, e.Kind == snapshot.Delete)
	if err != nil || parent == nil {
		return err
	}
	if err := a.guardBelow(parent, name, e.Path); err != nil {
		return err
	}
	switch e.Kind {
	case snapshot.Delete:
		return a.remove(parent, name, e, s)
	case snapshot.Dir:
		a.fill(dir)
		return a.folder(parent, name, e, s)
	}
	a.fill(dir)
	return a.place(ctx, parent, name, e, s)
}

// stateBelow tells where in the root the state folder is, without links, and
// which folder it is; "" where it is somewhere else.
func (r *Root) stateBelow() (string, fileID, error) {
	root, err := filepath.EvalSymlinks(r.dir)
	if err != nil {
		return "", fileID{}, err
	}
	state, err := filepath.EvalSymlinks(r.state)
	if err != nil {
		return "", fileID{}, err
	}
	rel, err := filepath.Rel(root, state)
	if err != nil || rel == ".." || strings.HasPrefix(rel, "../") {
		return "", fileID{}, nil
	}
	var st unix.Stat_t
	if err := unix.Stat(state, &st); err != nil {
		return "", fileID{}, fmt.Errorf("stat %s: %w", state, err)
	}
	return rel, idOf(&st), nil
}

// guard refuses a path in clayer's own folder: a snapshot that could write
// there would say what is applied, and what the originals were.
func (a *applier) guard(p string) error {
	if a.own != "" && (p == a.own || strings.HasPrefix(p, a.own+"/")) {
		return unsafe(p, "in clayer's own folder")
	}
	return nil
}

// guardBelow is guard for what stands at a name, however one came there: a
// step before, or the machine, may have a link to clayer's folder.
func (a *applier) guardBelow(parent *folder, name, p string) error {
	if a.own == "" || parent.path == parent.name {
		return nil
	}
	in, err := a.isBelow(parent.fd, a.ownID)
	if err == nil && !in {
		var st *unix.Stat_t
		st, err = stat(parent, name)
		in = err == nil && st != nil && idOf(st) == a.ownID
	}
	if err == nil && in {
		return unsafe(p, "in clayer's own folder")
	}
	return err
}

// stat returns what stands at a name, nil for nothing.
func stat(f *folder, name string) (*unix.Stat_t, error) {
	var st unix.Stat_t
	err := fstatat(f.fd, name, &st)
	if errors.Is(err, unix.ENOENT) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return &st, nil
}

func isDir(st *unix.Stat_t) bool { return st != nil && st.Mode&unix.S_IFMT == unix.S_IFDIR }

func isLink(st *unix.Stat_t) bool { return st != nil && st.Mode&unix.S_IFMT == unix.S_IFLNK }

// remove deletes what is at a name, with all below it; nothing there is no error.
func (a *applier) remove(parent *folder, name string, e *snapshot.Entry, s *staged) error {
	st, err := stat(parent, name)
	if err != nil || st == nil {
		return err
	}
	c := a.change(parent, name, e, s)
	if err := a.begin(c, s); err != nil || c.isKept() {
		return err
	}
	return a.aside(parent, name, c, st)
}
