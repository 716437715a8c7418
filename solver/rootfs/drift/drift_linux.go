package drift

import (
	"bytes"
	"context"
	"errors"
	"hash/crc32"
	"io"
	"maps"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/clayer/clayer/internal/ctxio"
	"github.com/clayer/clayer/internal/inroot"
	"github.com/clayer/clayer/solver/internal/record"
)

// Of says in words what of a file differs from what was applied; nothing if
// it is as it was. Content and attributes are looked at if the file's ctime is
// later than done, which any change of them makes it.
func Of(ctx context.Context, f *inroot.Dir, name string, st *unix.Stat_t, c *record.Change, done time.Time, buf []byte) ([]string, error) {
	kind, want := record.TypeOf(st), c.Kind
	if want == record.KindLink && c.Now != nil {
		want = c.Now.Type
	}
	if kind != want {
		return []string{"now a " + string(kind)}, nil
	}
	if c.Now == nil {
		return nil, nil
	}
	what := statDrift(st, c.Now)
	if kind == record.KindSymlink && c.Now.Target != nil {
		target, err := f.Sys.Readlinkat(f.FD, name)
		if err != nil {
			return nil, err
		}
		if target != string(c.Now.Target) {
			what = append(what, "target")
		}
	}
	if kind != record.KindFile || !changedSince(st, done) || len(what) > 0 && what[len(what)-1] == "size" {
		return what, nil
	}
	fd, err := f.Sys.OpenAt(f.FD, name)
	if errors.Is(err, unix.EACCES) || errors.Is(err, unix.EPERM) {
		return what, nil // permission denied
	}
	if err != nil {
		return nil, err
	}
	file := os.NewFile(uintptr(fd), name)
	defer file.Close()
	if c.Kind == record.KindFile {
		xattrs, err := f.Sys.ListXattrs(fd)
		if err != nil {
			return nil, err
		}
		if !maps.EqualFunc(xattrs, c.Now.Xattrs, bytes.Equal) {
			what = append(what, "attributes")
		}
	}
	if c.Now.Sum != nil {
		h := crc32.New(record.Castagnoli)
		if _, err := io.CopyBuffer(struct{ io.Writer }{h}, ctxio.Reader(ctx, file), buf); err != nil {
			return nil, err
		}
		if h.Sum32() != *c.Now.Sum {
			what = append(what, "content")
		}
	}
	return what, nil
}

// statDrift compares what stat returns.
func statDrift(st *unix.Stat_t, now *record.Meta) []string {
	var what []string
	kind := record.TypeOf(st)
	if kind != record.KindSymlink && st.Mode&0o7777 != now.Mode {
		what = append(what, "mode")
	}
	if int(st.Uid) != now.UID || int(st.Gid) != now.GID {
		what = append(what, "owner")
	}
	if kind != record.KindDir && st.Mtim != inroot.Timespec(now.ModTime) {
		what = append(what, "time")
	}
	if kind == record.KindDevice && uint64(st.Rdev) != now.Rdev {
		what = append(what, "device")
	}
	if kind == record.KindFile && st.Size != now.Size {
		what = append(what, "size")
	}
	return what
}

// OfFolder compares a directory, but for its time, which changes with what is in it.
func OfDir(st *unix.Stat_t, now *record.Meta, xattrs map[string][]byte) []string {
	what := statDrift(st, now)
	if inroot.Privileged() && !maps.EqualFunc(xattrs, now.Xattrs, bytes.Equal) {
		what = append(what, "attributes")
	}
	return what
}
