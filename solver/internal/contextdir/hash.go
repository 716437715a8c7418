package contextdir

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"runtime"
	"sync"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// A Sum is the SHA-256 of a file's content.
type Sum = [sha256.Size]byte

// A File is one to hash: a regular file of a reading.
type File struct {
	Path string
	Node *Node

	Sum  Sum
	Size int64 // of what was hashed
}

// What is known of fewer files, with fewer bytes, is not worth a file of its own: they are
// hashed in less than a millisecond.
const (
	manyFiles = 64
	manyBytes = 1 << 20
)

// Hash fills in the digests of files. Each content is read once, on all cores, and not at all
// if it is known from earlier.
func (r *Reading) Hash(ctx context.Context, top *os.File, files []File) error {
	r.hashing.Lock()
	defer r.hashing.Unlock()
	var todo []*File
	var bytes int64
	for i := range files {
		if n := files[i].Node; !n.hashed && !n.queued {
			n.queued = true // a file may be of several sources
			todo = append(todo, &files[i])
			bytes += n.Size
		}
	}
	defer func(queued []*File) {
		for _, f := range queued {
			f.Node.queued = false
		}
	}(todo)
	remembers := r.store != "" && (len(todo) >= manyFiles || bytes >= manyBytes)
	if remembers {
		if r.known == nil {
			r.known = r.load(top)
		}
		todo = r.known.recall(todo)
	}
	if err := r.read(ctx, top, todo, remembers); err != nil {
		return err
	}
	for i := range files {
		f := &files[i]
		f.Sum, f.Size = f.Node.sum, f.Node.size
	}
	return ctxErr(ctx)
}

// chunk is how many files a core takes at a time.
const chunk = 32

// read reads files, and notes which digests can be known later.
func (r *Reading) read(ctx context.Context, top *os.File, todo []*File, remembers bool) error {
	if len(todo) == 0 {
		return nil
	}
	w := &worker{top: int(top.Fd()), reading: r}
	if remembers {
		if store, err := openStore(r.store, true); err == nil { // else nothing can be stored
			defer store.Close()
			w.clocks = &clocks{store: store, shows: r.shows, local: make(map[uint64]bool)}
		}
	}
	if len(todo) == 1 {
		return w.all(ctx, todo)
	}
	g, each := errgroup.WithContext(ctx)
	g.SetLimit(runtime.GOMAXPROCS(0))
	for len(todo) > 0 && each.Err() == nil {
		// A large file is a chunk of its own: the others need not wait for it.
		n, size := 0, int64(0)
		for n < len(todo) && n < chunk && size < manyBytes {
			size += todo[n].Node.Size
			n++
		}
		part := todo[:n]
		todo = todo[n:]
		g.Go(func() error { return w.all(each, part) })
	}
	return g.Wait()
}

// A worker hashes files.
type worker struct {
	top     int
	reading *Reading
	clocks  *clocks // nil: nothing is to be known later

	mu sync.Mutex // of what is noted
}

// all hashes files that are near each other.
func (w *worker) all(ctx context.Context, files []*File) error {
	buf := buffers.Get().(*[]byte)
	defer buffers.Put(buf)
	dir, fd := "", -1
	defer func() {
		if fd >= 0 {
			unix.Close(fd)
		}
	}()
	for _, f := range files {
		if err := ctxErr(ctx); err != nil {
			return err
		}
		in, name := path.Split(f.Path)
		if in != dir || fd < 0 {
			if fd >= 0 {
				unix.Close(fd)
			}
			var err error
			if fd, err = openDir(w.top, path.Clean(in)); err != nil {
				return &fs.PathError{Op: "open", Path: f.Path, Err: err}
			}
			dir = in
		}
		if err := w.hash(ctx, f, fd, name, *buf); err != nil {
			return err
		}
	}
	return nil
}

// buffers are what files are hashed through: one each would be the most of what
// a directory of small files takes.
var buffers = sync.Pool{New: func() any { b := make([]byte, 128<<10); return &b }}

// attempts is how often a file is read that changes meanwhile.
const attempts = 3

// hash reads one file. What it was while it was read is what is noted, if it stood still.
func (w *worker) hash(ctx context.Context, f *File, dir int, name string, buf []byte) error {
	fd, err := openat(dir, name, unix.O_RDONLY)
	if err != nil {
		return &fs.PathError{Op: "open", Path: f.Path, Err: err}
	}
	defer unix.Close(fd)
	for try := 1; ; try++ {
		var was, is Stat
		if err := was.ofOpen(fd); err != nil {
			return &fs.PathError{Op: "stat", Path: f.Path, Err: err}
		}
		if !was.IsRegular() {
			return fmt.Errorf("%q is not a regular file", f.Path)
		}
		now, ok := w.clocks.now(was.Dev, fd)
		sum, size, err := sumOf(ctx, fd, buf)
		if err == nil {
			err = is.ofOpen(fd)
		}
		if err != nil {
			return &fs.PathError{Op: "read", Path: f.Path, Err: err}
		}
		if same := was.version() == is.version(); !same && try < attempts {
			if _, err := unix.Seek(fd, 0, 0); err != nil {
				return &fs.PathError{Op: "seek", Path: f.Path, Err: err}
			}
			continue
		} else if ok = ok && same && size == was.Size && isSettled(&was, now); ok {
			w.mu.Lock()
			w.reading.note(f.Path, record{[]byte(name), was.version(), sum})
			w.mu.Unlock()
		}
		f.Node.sum, f.Node.size, f.Node.hashed = sum, size, true
		return nil
	}
}

// sumOf hashes what is left to read of a file.
func sumOf(ctx context.Context, fd int, buf []byte) (sum Sum, size int64, err error) {
	h := sha256.New()
	for {
		n, err := unix.Read(fd, buf)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return sum, size, err
		case n == 0:
			h.Sum(sum[:0])
			return sum, size, nil
		}
		h.Write(buf[:n])
		size += int64(n)
		if err := ctxErr(ctx); err != nil {
			return sum, size, err
		}
	}
}

func ctxErr(ctx context.Context) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return nil
}
