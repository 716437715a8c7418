package tree

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/clayer/clayer/cache/snapshot"
	"github.com/clayer/clayer/internal/beneath"
)

// Read reads the tree at dir, by several goroutines. Links are never followed,
// and every name is looked up in its open directory, so that paths may be of any
// length and a tree that changes underway cannot lead the walk outside. What
// vanishes underway is left out. The error wraps fs.ErrNotExist if dir or
// opt.Below is missing.
func Read(ctx context.Context, dir string, opt Options) (*Reading, error) {
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "read tree", Path: dir, Err: err}
	}
	defer unix.Close(fd)
	w := walker{
		ctx: ctx, opt: opt, reading: &Reading{rare: make(map[int32]rare)},
		others: make(chan struct{}, runtime.GOMAXPROCS(0)-1),
	}
	if opt.Below != "" {
		w.below = strings.Split(opt.Below, "/")
	}
	if opt.Sums != SumNone {
		w.reading.sums = make(map[int32]sum)
		w.byInode = make(map[uint64]sum)
	}
	root, top, err := w.stat(fd, "", nil, -1, mounted{}, true)
	if err != nil {
		return nil, &os.PathError{Op: "stat", Path: dir, Err: err}
	}
	w.reading.add([]node{root.node})
	previous := int32(-1)
	if opt.Previous != nil {
		previous = 0
	}
	w.directory(fd, "", 0, 0, previous, top)
	w.running.Wait()
	if w.err != nil {
		return nil, fmt.Errorf("read tree %s: %w", dir, w.err)
	}
	return w.reading, nil
}

// walker is one Read. A goroutine that comes to a directory hands it to another
// one if fewer than GOMAXPROCS are at work, and else enters it itself: so at
// most one directory for each level of each goroutine is open.
type walker struct {
	ctx      context.Context
	opt      Options
	below    []string
	others   chan struct{}
	running  sync.WaitGroup
	mu       sync.Mutex // guards what follows
	reading  *Reading
	byInode  map[uint64]sum // contents that were read, of files with several names
	err      error          // the first
	finished bool
}

func (w *walker) fail(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err == nil {
		w.err = err
	}
	w.finished = true
}

func (w *walker) stopped() bool {
	if err := w.ctx.Err(); err != nil {
		w.fail(err)
		return true
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.finished
}

// mounted says in which mount something is.
type mounted struct {
	id  uint64 // 0 where the kernel has none
	dev uint64
}

// directory reads what the open directory holds: it is node i, and was node previous
// of the earlier reading (-1: it was not there).
func (w *walker) directory(fd int, at string, depth int, i, previous int32, in mounted) {
	if w.stopped() {
		return
	}
	var names []string
	if depth < len(w.below) {
		names = w.below[depth : depth+1]
	} else {
		var err error
		onlyDirs := w.opt.DirectoriesOnly != nil && w.opt.DirectoriesOnly(at)
		if names, err = list(fd, onlyDirs); errors.Is(err, unix.ENOENT) && depth > 0 {
			return // it was removed since it was opened
		}
		if err != nil {
			w.fail(&os.PathError{Op: "read directory", Path: at, Err: err})
			return
		}
	}
	b := batch{nodes: make([]node, 0, len(names))}
	scratch := w.opt.Foreign != nil && snapshot.IsScratch(at)
	var across map[string]mounted // scratch directories, which may be mounts of their own
	for _, name := range names {
		if scratch && w.opt.Foreign[join(at, name)] {
			continue
		}
		old := w.opt.Previous.child(previous, name)
		enter := w.opt.Foreign != nil && !scratch && len(at) <= len("var") && snapshot.IsScratch(join(at, name))
		s, m, err := w.stat(fd, name, &b, old, in, enter)
		if enter {
			across = map[string]mounted{name: m}
		}
		if beneath.Vanished(err) && depth >= len(w.below) {
			continue
		}
		if err != nil {
			w.fail(&os.PathError{Op: "stat", Path: join(at, name), Err: err})
			return
		}
		if w.opt.Own[ID(s.Ino)] {
			continue
		}
		if s.isDir() {
			if w.opt.Prune != nil && w.opt.Prune(join(at, name)) {
				continue
			}
		} else if depth+1 < len(w.below) {
			w.fail(&os.PathError{Op: "read directory", Path: join(at, name), Err: unix.ENOTDIR})
			return
		}
		b.add(s)
	}
	first := w.store(i, &b)
	for k := range b.nodes {
		n := &b.nodes[k]
		if n.isDir() && !n.is(mount) {
			below := in
			if m, ok := across[n.Name]; ok {
				below = m
			}
			w.descend(fd, n.Name, join(at, n.Name), depth, first+int32(k), w.opt.Previous.child(previous, n.Name), below)
		}
	}
}

// batch is what is found in one directory.
type batch struct {
	nodes []node
	rare  map[int]rare
	sums  map[int]sum
	sum   *sum // of the name that is looked at
	stx   unix.Statx_t
}

func (b *batch) add(s seen) {
	k := len(b.nodes)
	if s.Target != "" || s.Xattrs != nil {
		s.Flags |= hasRare
		if b.rare == nil {
			b.rare = make(map[int]rare)
		}
		b.rare[k] = s.rare
	}
	if b.sum != nil {
		if b.sums == nil {
			b.sums = make(map[int]sum)
		}
		b.sums[k] = *b.sum
	}
	b.nodes = append(b.nodes, s.node)
}

// store puts a directory's nodes into the reading and returns the index of the first.
func (w *walker) store(directory int32, b *batch) int32 {
	w.mu.Lock()
	defer w.mu.Unlock()
	first := w.reading.add(b.nodes)
	n := w.reading.at(directory)
	n.Kids, n.Count = first, int32(len(b.nodes))
	for k, x := range b.rare {
		w.reading.rare[first+int32(k)] = x
	}
	for k, x := range b.sums {
		w.reading.sums[first+int32(k)] = x
	}
	return first
}

func (w *walker) descend(fd int, name, p string, depth int, i, previous int32, in mounted) {
	child, err := unix.Openat(fd, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	switch {
	case errors.Is(err, unix.ENOENT), w.opt.Live && (errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) || errors.Is(err, unix.ESTALE)):
		return // gone, or another thing by now
	case errors.Is(err, unix.EACCES) && w.opt.Live:
		w.mu.Lock()
		w.reading.at(i).Flags |= closed
		w.mu.Unlock()
		return
	case err != nil:
		w.fail(&os.PathError{Op: "open directory", Path: p, Err: err})
		return
	}
	enter := func() {
		defer unix.Close(child)
		w.directory(child, p, depth+1, i, previous, in)
	}
	select {
	case w.others <- struct{}{}:
		w.running.Go(func() {
			enter()
			<-w.others
		})
	default:
		enter()
	}
}

// list returns the names in the open directory in byte order: all, or those that may be
// directories.
func list(fd int, onlyDirs bool) ([]string, error) {
	// A directory's offset belongs to the open file: a duplicate shares it, and
	// os.File would close fd, so the raw calls are used.
	var names []string
	buf := make([]byte, 16<<10)
	for {
		n, err := unix.ReadDirent(fd, buf)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if n <= 0 {
			slices.Sort(names)
			return names, nil
		}
		if !onlyDirs {
			_, _, names = unix.ParseDirent(buf[:n], -1, names)
			continue
		}
		// An entry is two numbers of 8 bytes, its length in 2, its type in 1, and its name.
		for rest := buf[:n]; len(rest) > 0; {
			entry := rest[:binary.NativeEndian.Uint16(rest[16:])]
			rest = rest[len(entry):]
			if t := entry[18]; t == unix.DT_DIR || t == unix.DT_UNKNOWN {
				_, _, names = unix.ParseDirent(entry, -1, names)
			}
		}
	}
}

// stat reads one name of the open directory, or with "" the directory itself. old is
// its node in the earlier reading. What is in another mount than in is marked as that,
// unless it is to be entered all the same; then it says in which.
func (w *walker) stat(fd int, name string, b *batch, old int32, in mounted, enter bool) (seen, mounted, error) {
	var stx *unix.Statx_t
	if b != nil {
		stx = &b.stx
	} else {
		stx = new(unix.Statx_t)
	}
	s, err := statx(fd, name, w.opt.Ownerless, stx)
	m := mounted{dev: unix.Mkdev(stx.Dev_major, stx.Dev_minor)}
	if stx.Mask&unix.STATX_MNT_ID != 0 {
		m.id = stx.Mnt_id
	}
	if err != nil || name == "" {
		return s, m, err
	}
	if w.opt.Live && !enter && (in.id != 0 && m.id != 0 && m.id != in.id ||
		// The files of an overlay may be of other devices than its directories.
		in.id == 0 && s.isDir() && m.dev != in.dev) {
		s.Flags |= mount
		return s, m, nil
	}
	return s, m, w.finish(fd, &s, b, old)
}

// finish reads what stat does not return of a name, or takes it from the earlier reading.
func (w *walker) finish(fd int, s *seen, b *batch, old int32) (err error) {
	b.sum = nil
	if old >= 0 {
		if o := w.opt.Previous.at(old); o.same(&s.node) {
			s.Flags |= o.Flags & (whiteout | opaque | copiedUp)
			if o.is(hasRare) {
				s.rare = w.opt.Previous.rare[old]
			}
			if w.opt.RereadXattrs {
				s.Xattrs = nil
				if err := s.readXattrs(fd); err != nil {
					return err
				}
			}
			if x, ok := w.opt.Previous.sumOf(old); ok {
				b.sum = &x
			} else {
				err = w.sum(fd, &s.node, b, false)
			}
			return err
		}
	}
	if err := s.complete(fd); err != nil {
		return err
	}
	_, had := w.opt.Previous.sumOf(old)
	return w.sum(fd, &s.node, b, had)
}

// statAt reads one name of the open directory.
func statAt(fd int, name string) (seen, error) {
	s, err := statx(fd, name, false, new(unix.Statx_t))
	if err == nil {
		err = s.complete(fd)
	}
	return s, err
}

// statx leaves in st what the node has no place for.
func statx(fd int, name string, ownerless bool, st *unix.Statx_t) (seen, error) {
	how := unix.AT_SYMLINK_NOFOLLOW | unix.AT_NO_AUTOMOUNT
	if name == "" {
		how |= unix.AT_EMPTY_PATH
	}
	if err := unix.Statx(fd, name, how, unix.STATX_BASIC_STATS|unix.STATX_MNT_ID, st); err != nil {
		return seen{}, err
	}
	s := seen{node: node{
		Name: name, Mode: st.Mode, UID: st.Uid, GID: st.Gid, Nlink: st.Nlink,
		Ino: fileID(st.Ino, unix.Mkdev(st.Dev_major, st.Dev_minor)), Size: int64(st.Size),
		MSec: st.Mtime.Sec, MNsec: int32(st.Mtime.Nsec),
		CSec: st.Ctime.Sec, CNsec: int32(st.Ctime.Nsec),
	}}
	switch s.kind() {
	case unix.S_IFREG:
		if int64(st.Blocks)*512 < s.Size {
			s.Flags |= sparse
		}
	case unix.S_IFCHR, unix.S_IFBLK:
		s.Size = int64(unix.Mkdev(st.Rdev_major, st.Rdev_minor))
	}
	if ownerless {
		s.UID, s.GID = 0, 0
	}
	return s, nil
}

// fileID is one number for what distinguishes a file from all others. One mount may have
// files of several devices, whose inodes have the same numbers: an overlay of
// layers on different file systems, btrfs with subvolumes.
func fileID(ino, dev uint64) uint64 { return ino ^ dev*0x9e3779b97f4a7c15 }

// IDOf returns the ID of what stands at a path of the machine, following no link; false
// if nothing does.
func IDOf(path string) (ID, bool) {
	s, err := statx(unix.AT_FDCWD, path, false, new(unix.Statx_t))
	return ID(s.Ino), err == nil
}

// complete reads what stat does not return.
func (s *seen) complete(fd int) error {
	if s.kind() == unix.S_IFCHR && s.Size == 0 {
		s.Flags |= whiteout
		return nil
	}
	if s.kind() == unix.S_IFLNK {
		var err error
		if s.Target, err = readlink(fd, s.Name, s.Size); err != nil {
			return err
		}
	}
	return s.readXattrs(fd)
}

// readlink does not trust the size that lstat gave: it is 0 in some file systems.
func readlink(fd int, name string, size int64) (string, error) {
	for length := max(int(size)+1, 128); ; length *= 2 {
		b := make([]byte, length)
		n, err := unix.Readlinkat(fd, name, b)
		if err != nil {
			return "", err
		}
		if n < length {
			return string(b[:n]), nil
		}
	}
}
