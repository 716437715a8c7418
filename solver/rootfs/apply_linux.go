package rootfs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
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

// apply applies a stream to the root and keeps what it replaces.
func (l *Lock) apply(ctx context.Context, seq int, changes snapshot.Changes) (res Result, err error) {
	if err := os.MkdirAll(l.root.dir, 0o755); err != nil {
		return res, err
	}
	a, err := newApplier(l.root.dir, hasOpenat2())
	if err != nil {
		return res, err
	}
	a.own = l.root.stateBelow()
	a.touched = l.touched
	if a.log, err = l.root.newChangeLog(seq); err != nil {
		return res, errors.Join(err, a.close())
	}
	a.originals = l.root.originalsPath(seq)
	a.originalsFD = -1
	res, err = a.run(ctx, changes)
	return res, errors.Join(err, a.log.close())
}

// applier is one run over a stream.
type applier struct {
	*folders
	dir        string
	privileged bool
	uid, gid   int
	own        string // clayer's state below the root: no entry may be there
	prefix     string // of temporary names
	temps      int
	buf        []byte
	times      map[string]*folderTime
	res        Result

	// Of an apply that keeps a record; log is nil for Unpack.
	log         *changeLog
	touched     map[string]bool
	originals   string
	originalsFD int // -1 until the first one
	kept        int
}

// folderTime is the time that a folder gets at the end.
type folderTime struct {
	ino  uint64
	time unix.Timespec
}

// epoch is the time of folders that an entry needs and nobody describes:
// 1980-01-01, since zip files, and tools that make them, know none before.
var epoch = time.Unix(315532800, 0)

func newApplier(dir string, openat2 bool) (*applier, error) {
	fs, err := newFolders(dir, openat2)
	if err != nil {
		return nil, err
	}
	return &applier{
		folders: fs, dir: dir,
		privileged: privileged(), uid: os.Geteuid(), gid: os.Getegid(),
		prefix: fmt.Sprintf(".clayer-%x-%d-", time.Now().UnixNano(), os.Getpid()),
		buf:    make([]byte, 128<<10),
		times:  make(map[string]*folderTime),
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

func (a *applier) close() error {
	if a.log != nil && a.originalsFD >= 0 {
		unix.Close(a.originalsFD)
	}
	a.folders.close()
	return nil
}

func (a *applier) run(ctx context.Context, changes snapshot.Changes) (res Result, err error) {
	defer func() {
		// Also after a failure: what a folder's time was must not depend on how
		// far we came.
		err = errors.Join(err, a.setTimes(), a.close())
	}()
	for e, err := range snapshot.Validate(changes) {
		if err == nil {
			err = context.Cause(ctx)
		}
		if err != nil {
			return a.res, err
		}
		if a.own != "" && (e.Path == a.own || strings.HasPrefix(e.Path, a.own+"/")) {
			return a.res, unsafe(e.Path, "in clayer's own folder")
		}
		switch err := a.entry(ctx, e); {
		case err == nil:
			a.res.Entries++
		case isHard(err):
			return a.res, fmt.Errorf("%q: %w", e.Path, err)
		default:
			a.res.Problems = append(a.res.Problems, Problem{e.Path, err})
		}
	}
	return a.res, nil
}

// isHard tells errors after which going on is of no use from those of one entry.
func isHard(err error) bool {
	var errno unix.Errno
	if !errors.As(err, &errno) {
		return true
	}
	switch errno {
	case unix.EPERM, unix.EACCES, unix.EROFS, unix.EBUSY, unix.ENOTDIR, unix.EISDIR, unix.ELOOP, unix.EXDEV,
		unix.ENAMETOOLONG, unix.EMLINK, unix.ENOTSUP, unix.ETXTBSY, unix.ENOENT, unix.EINVAL, unix.EEXIST, unix.E2BIG, unix.ENOTEMPTY:
		return false
	}
	return true // ENOSPC, EDQUOT, EIO, EMFILE, ENOMEM, ...
}

func (a *applier) entry(ctx context.Context, e *snapshot.Entry) error {
	dir, name := path.Split(e.Path)
	dir = path.Clean(dir)
	if e.Kind == snapshot.Opaque {
		return a.opaque(e.Path)
	}
	parent, err := a.parent(dir, e.Kind == snapshot.Delete)
	if err != nil || parent == nil {
		return err
	}
	if e.Kind == snapshot.Delete {
		return a.remove(parent, name, e.Path)
	}
	if e.Kind == snapshot.Dir {
		return a.folder(parent, name, e)
	}
	return a.place(ctx, parent, name, e)
}

// parent opens the folder of an entry, making it and those above if missing.
// For a deletion a missing one is nil: there is nothing to delete.
func (a *applier) parent(dir string, deletion bool) (*folder, error) {
	f, err := a.get(dir)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) && deletion {
		if deletion {
			return nil, nil
		}
		above, err := a.parent(path.Dir(dir), false)
		if err != nil {
			return nil, err
		}
		missing := &snapshot.Entry{Path: dir, Kind: snapshot.Dir, Mode: 0o755, ModTime: epoch}
		if err := a.makeFolder(above, path.Base(dir), missing, nil); err != nil {
			return nil, err
		}
		f, err = a.get(dir)
		if err != nil {
			return nil, err
		}
	} else if err != nil {
		return nil, err
	}
	if a.times[dir] == nil {
		var st unix.Stat_t
		if err := unix.Fstat(f.fd, &st); err != nil {
			return nil, err
		}
		a.times[dir] = &folderTime{st.Ino, st.Mtim}
	}
	return f, nil
}

// stat returns what stands at a name, nil for nothing.
func stat(f *folder, name string) (*unix.Stat_t, error) {
	var st unix.Stat_t
	err := unix.Fstatat(f.fd, name, &st, unix.AT_SYMLINK_NOFOLLOW)
	if errors.Is(err, unix.ENOENT) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return &st, nil
}

func isDir(st *unix.Stat_t) bool { return st != nil && st.Mode&unix.S_IFMT == unix.S_IFDIR }

// folder makes a folder, or gives the one that is there its metadata.
func (a *applier) folder(parent *folder, name string, e *snapshot.Entry) error {
	st, err := stat(parent, name)
	if err != nil {
		return err
	}
	if e.Implied {
		if isDir(st) {
			return nil
		}
		// Through a symlink to a folder it is there too, such as /lib.
		if fd, err := openInRoot(a.root, e.Path, a.openat2); err == nil {
			unix.Close(fd)
			return nil
		}
	}
	if isDir(st) {
		return a.describe(parent, name, e, st)
	}
	return a.makeFolder(parent, name, e, st)
}

func (a *applier) makeFolder(parent *folder, name string, e *snapshot.Entry, st *unix.Stat_t) error {
	c := a.change(e, st)
	if st != nil {
		a.forgetBut(parent)
		if err := a.aside(parent, name, c, st); err != nil {
			return err
		}
	}
	if err := unix.Mkdirat(parent.fd, name, 0o700); err != nil {
		return err
	}
	fd, err := unix.Openat(parent.fd, name, openFolder|unix.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := a.attributes(fd, e, nil); err != nil {
		return err
	}
	if err := a.later(fd, e); err != nil {
		return err
	}
	return a.record(e, c)
}

// later notes the time that a folder gets when all is in it.
func (a *applier) later(fd int, e *snapshot.Entry) error {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	a.times[e.Path] = &folderTime{st.Ino, timespec(e.ModTime)}
	return nil
}

// forgetBut closes all folders but parent, which is in use: one of them, or a
// link on the way to one, may be something else now.
func (a *applier) forgetBut(parent *folder) {
	for _, f := range a.open {
		if f != parent {
			a.drop(f)
		}
	}
}

// describe gives a folder that is there the entry's metadata.
func (a *applier) describe(parent *folder, name string, e *snapshot.Entry, st *unix.Stat_t) error {
	fd, err := unix.Openat(parent.fd, name, openFolder|unix.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	old, err := listXattrs(fd)
	if err != nil {
		return err
	}
	c := a.change(e, st)
	if c != nil {
		mtime := st.Mtim
		if t := a.times[e.Path]; t != nil && t.ino == st.Ino {
			mtime = t.time // entries below were made before: by then it had changed
		}
		c.Was = &Meta{Mode: st.Mode & 0o7777, UID: int(st.Uid), GID: int(st.Gid), ModTime: time.Unix(mtime.Unix()).UTC(), Xattrs: old}
	}
	if err := a.attributes(fd, e, old); err != nil {
		return err
	}
	if err := a.later(fd, e); err != nil {
		return err
	}
	return a.record(e, c)
}

// place makes anything but a folder: aside first, then over what is there, so
// that there is no instant without the name, and what has the old file open or
// mapped keeps it.
func (a *applier) place(ctx context.Context, parent *folder, name string, e *snapshot.Entry) error {
	a.temps++
	temp := a.prefix + strconv.Itoa(a.temps)
	made, err := a.make(ctx, parent, temp, e)
	if err != nil {
		_ = unix.Unlinkat(parent.fd, temp, 0)
		return err
	}
	if !made {
		return nil // without the privilege
	}
	if err := a.install(parent, temp, name, e); err != nil {
		_ = unix.Unlinkat(parent.fd, temp, 0)
		return err
	}
	return nil
}

func (a *applier) install(parent *folder, temp, name string, e *snapshot.Entry) error {
	st, err := stat(parent, name)
	if err != nil {
		return err
	}
	c := a.change(e, st)
	if st != nil {
		switch {
		case isDir(st) || st.Mode&unix.S_IFMT == unix.S_IFLNK:
			a.forgetBut(parent) // it may have been the way to others
		}
		if err := a.save(parent, name, c, st); err != nil {
			return err
		}
	}
	if err := a.record(e, c); err != nil {
		return err
	}
	if err := unix.Renameat(parent.fd, temp, parent.fd, name); err != nil {
		return err
	}
	// rename(2) of two names of one file does nothing.
	if e.Kind == snapshot.Link && st != nil {
		if left, err := stat(parent, temp); err == nil && left != nil {
			return unix.Unlinkat(parent.fd, temp, 0)
		}
	}
	return nil
}

// make makes the entry's object under a temporary name. It reports false for
// one that this user may not make.
func (a *applier) make(ctx context.Context, parent *folder, temp string, e *snapshot.Entry) (bool, error) {
	switch e.Kind {
	case snapshot.File:
		return true, a.file(ctx, parent, temp, e)
	case snapshot.Link:
		dir, name := path.Split(e.Target)
		// The target's folder may push the entry's out of those kept open.
		fd, err := openInRoot(a.root, path.Clean(dir), a.openat2)
		if err != nil {
			return false, err
		}
		defer unix.Close(fd)
		return true, unix.Linkat(fd, name, parent.fd, temp, 0)
	case snapshot.Symlink:
		if err := unix.Symlinkat(e.Target, parent.fd, temp); err != nil {
			return false, err
		}
	case snapshot.Char, snapshot.Block, snapshot.Fifo:
		mode := map[snapshot.Kind]uint32{snapshot.Char: unix.S_IFCHR, snapshot.Block: unix.S_IFBLK, snapshot.Fifo: unix.S_IFIFO}[e.Kind]
		err := unix.Mknodat(parent.fd, temp, mode|0o600, int(unix.Mkdev(e.Major, e.Minor)))
		if errors.Is(err, unix.EPERM) && !a.privileged {
			a.res.Unprivileged++
			return false, nil
		}
		if err != nil {
			return false, err
		}
	}
	return true, a.attributesAt(parent, temp, e)
}

func (a *applier) file(ctx context.Context, parent *folder, temp string, e *snapshot.Entry) (err error) {
	fd, err := unix.Openat(parent.fd, temp, unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return err
	}
	f := os.NewFile(uintptr(fd), temp)
	defer func() {
		if cerr := f.Close(); err == nil {
			err = cerr
		}
	}()
	if err := a.content(ctx, f, e); err != nil {
		return err
	}
	if err := a.attributes(fd, e, nil); err != nil {
		return err
	}
	ts := []unix.Timespec{timespec(e.ModTime), timespec(e.ModTime)}
	return unix.UtimesNanoAt(parent.fd, temp, ts, unix.AT_SYMLINK_NOFOLLOW)
}

// content writes a file; holes are not written.
func (a *applier) content(ctx context.Context, f *os.File, e *snapshot.Entry) error {
	if e.Size == 0 {
		return nil
	}
	r, err := e.Open()
	if err != nil {
		return hard{err}
	}
	defer r.Close()
	data := e.Data
	if data == nil {
		data = []snapshot.Extent{{Length: e.Size}}
	}
	var at int64
	for _, x := range data {
		if err := a.copy(ctx, nil, 0, r, x.Offset-at); err != nil {
			return err
		}
		if err := a.copy(ctx, f, x.Offset, r, x.Length); err != nil {
			return err
		}
		at = x.Offset + x.Length
	}
	if err := a.copy(ctx, nil, 0, r, e.Size-at); err != nil {
		return err
	}
	if at < e.Size {
		if err := f.Truncate(e.Size); err != nil {
			return err
		}
	}
	a.res.Bytes += e.Size
	return nil
}

// copy copies n bytes to f at an offset; nil drops them.
func (a *applier) copy(ctx context.Context, f *os.File, off int64, r io.Reader, n int64) error {
	for n > 0 {
		if err := context.Cause(ctx); err != nil {
			return err
		}
		k, err := r.Read(a.buf[:min(int64(len(a.buf)), n)])
		if k > 0 && f != nil {
			if _, err := f.WriteAt(a.buf[:k], off); err != nil {
				return err
			}
		}
		off, n = off+int64(k), n-int64(k)
		if err == io.EOF && n > 0 {
			return hard{io.ErrUnexpectedEOF}
		}
		if err != nil && err != io.EOF {
			return hard{err}
		}
	}
	return nil
}

// hard is an error of the stream, not of the root: it never counts as a Problem.
type hard struct{ err error }

func (h hard) Error() string { return h.err.Error() }

// remove deletes what is at a name, with all below it; nothing there is no error.
func (a *applier) remove(parent *folder, name, p string) error {
	st, err := stat(parent, name)
	if err != nil || st == nil {
		return err
	}
	a.forgetBut(parent)
	c := a.change(&snapshot.Entry{Path: p, Kind: snapshot.Delete}, st)
	if err := a.aside(parent, name, c, st); err != nil {
		return err
	}
	return a.record(&snapshot.Entry{Path: p, Kind: snapshot.Delete}, c)
}

// opaque deletes all that a folder held. It stands before all that the stream
// itself puts there.
func (a *applier) opaque(p string) error {
	if t := a.times[p]; t == nil {
		if _, err := a.parent(p, true); err != nil {
			return err
		}
	}
	f, err := a.get(p)
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	if err != nil {
		return err
	}
	names, err := list(f.fd)
	if err != nil {
		return err
	}
	for _, name := range names {
		if f, err = a.get(p); err != nil {
			return err
		}
		if err := a.remove(f, name, p+"/"+name); err != nil {
			return err
		}
	}
	return nil
}

func list(fd int) ([]string, error) {
	dup, err := unix.Openat(fd, ".", openFolder, 0)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(dup), ".")
	defer f.Close()
	return f.Readdirnames(-1)
}

// setTimes gives the folders their times.
func (a *applier) setTimes() error {
	var errs []error
	for p, t := range a.times {
		fd, err := openInRoot(a.root, p, a.openat2)
		if err != nil {
			continue // deleted, or replaced, by a later entry
		}
		var st unix.Stat_t
		err = unix.Fstat(fd, &st)
		if err == nil && st.Ino == t.ino && st.Mtim != t.time {
			// By the folder itself: /proc need not be mounted here.
			err = unix.UtimesNanoAt(fd, ".", []unix.Timespec{st.Atim, t.time}, 0)
		}
		unix.Close(fd)
		if err != nil && isHard(err) {
			errs = append(errs, fmt.Errorf("time of %q: %w", p, err))
		}
	}
	return errors.Join(errs...)
}

func timespec(t time.Time) unix.Timespec {
	// Not UnixNano, which knows no time before 1677 or after 2262.
	return unix.Timespec{Sec: t.Unix(), Nsec: int64(t.Nanosecond())}
}
