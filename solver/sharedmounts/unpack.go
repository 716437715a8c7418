package sharedmounts

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"

	"github.com/clayer/clayer/cache"
	"github.com/clayer/clayer/cache/snapshot"
	"github.com/clayer/clayer/internal/ctxio"
	"github.com/clayer/clayer/internal/safefile"
)

// staged is where a mount is unpacked, beside its place, before anything of it is seen.
const staged = ".new"

// An unpacker unpacks a mount into a new directory, which nobody else knows. All names in it
// are ones that it has made itself, so that no link leads anywhere.
type unpacker struct {
	ctx   context.Context
	root  *os.Root
	euid  int
	most  int64 // bytes of files
	bytes int64

	made  map[string]snapshot.Kind
	dirs  []*snapshot.Entry // in order; they get their times in the end
	files int
}

// unpack unpacks a verified blob into the directory name of dir, which it makes. What is
// there of one that was cut off is removed.
func unpack(ctx context.Context, dir *os.Root, name string, b *cache.Blob, d cache.Descriptor, most int64) error {
	if err := removeAll(dir, name); err != nil {
		return err
	}
	if err := dir.Mkdir(name, 0o700); err != nil {
		return err
	}
	root, err := safefile.OpenDirIn(dir, name)
	if err != nil {
		return err
	}
	defer root.Close()
	u := unpacker{ctx: ctx, root: root, euid: os.Geteuid(), most: most, made: make(map[string]snapshot.Kind)}
	for e, err := range snapshot.Read(ctxio.Reader(ctx, io.NewSectionReader(b, 0, d.Size))) {
		if err == nil {
			err = u.entry(e)
		}
		if err != nil {
			return err
		}
	}
	for i := len(u.dirs) - 1; i >= 0; i-- {
		if err := u.adorn(u.dirs[i], u.dirs[i].Path); err != nil {
			return err
		}
	}
	return nil
}

func (u *unpacker) entry(e *snapshot.Entry) error {
	bad := func(reason string) error { return &snapshot.UnsafeError{Path: e.Path, Reason: reason} }
	if err := context.Cause(u.ctx); err != nil {
		return err
	}
	if u.files++; u.files > maxEntries+1 {
		return &TooLargeError{Entries: u.files}
	}
	name, below := strings.CutPrefix(e.Path, top+"/")
	switch {
	case e.Path == top && e.Kind == snapshot.Dir && !e.Implied:
		name = "."
	case !below:
		return bad("it is not in the mount")
	case path.Dir(name) != "." && u.made[path.Dir(name)] != snapshot.Dir:
		return bad("its directory is not in the mount")
	case u.made[name] != 0:
		return bad("it is there twice")
	}
	c := *e
	c.Path = name
	u.made[name] = e.Kind
	switch e.Kind {
	case snapshot.Dir:
		if e.Implied {
			return bad("no cache mount has such an entry")
		}
		u.dirs = append(u.dirs, &c)
		if name == "." {
			return nil
		}
		return u.root.Mkdir(name, 0o700)
	case snapshot.File:
		if u.bytes += e.Size; u.bytes > u.most {
			return &TooLargeError{Bytes: u.bytes, Most: u.most}
		}
		return u.file(&c)
	case snapshot.Symlink:
		if !staysInside(name, e.Target) {
			return bad("a link that leads out of the mount")
		}
		if err := u.root.Symlink(e.Target, name); err != nil {
			return err
		}
		return u.chown(&c)
	case snapshot.Link:
		target, below := strings.CutPrefix(e.Target, top+"/")
		if !below || u.made[target] != snapshot.File {
			return bad("a link to what is no file of the mount")
		}
		return u.root.Link(target, name)
	}
	return bad("no cache mount has such an entry")
}

func (u *unpacker) file(e *snapshot.Entry) (err error) {
	f, err := u.root.OpenFile(e.Path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	if e.Size > 0 {
		r, oerr := e.Open()
		if err = oerr; err == nil {
			var n int64
			if n, err = io.Copy(f, r); err == nil && n != e.Size {
				err = fmt.Errorf("%s: %d of %d bytes", e.Path, n, e.Size)
			}
			err = errors.Join(err, r.Close())
		}
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	return u.adorn(e, e.Path)
}

// adorn gives a file or directory its owner, mode and time.
func (u *unpacker) adorn(e *snapshot.Entry, name string) error {
	if err := u.chown(e); err != nil {
		return err
	}
	mode := e.Mode & 0o777
	if e.Kind == snapshot.Dir {
		mode = dirMode(e.Mode)
	}
	if err := u.root.Chmod(name, fs.FileMode(mode)); err != nil {
		return err
	}
	return u.root.Chtimes(name, e.ModTime, e.ModTime)
}

// chown gives a file its owner, where that is another than this user and may be one.
func (u *unpacker) chown(e *snapshot.Entry) error {
	if u.euid != 0 || e.UID == 0 && e.GID == 0 {
		return nil
	}
	return u.root.Lchown(e.Path, e.UID, e.GID)
}

// move puts what was unpacked into its place. Where nothing is, or an empty directory, all
// of it comes at once. Else directories that are missing come whole, and nothing that is
// there changes.
func move(dir *os.Root, from, to string) error {
	info, err := dir.Lstat(to)
	if errors.Is(err, fs.ErrNotExist) {
		return dir.Rename(from, to)
	}
	if err != nil {
		return err
	}
	there, err := safefile.OpenDirIn(dir, to)
	if err != nil {
		return err // it is no directory
	}
	defer there.Close()
	if empty, err := isEmpty(there); err != nil {
		return err
	} else if empty {
		uid, gid := ownerOf(info) // as the RUN that made it asked for
		if err := dir.Chmod(from, info.Mode().Perm()); err != nil {
			return err
		}
		if os.Geteuid() == 0 {
			if err := dir.Lchown(from, uid, gid); err != nil {
				return err
			}
		}
		return dir.Rename(from, to) // rename(2) replaces an empty directory
	}
	came, err := safefile.OpenDirIn(dir, from)
	if err != nil {
		return err
	}
	defer came.Close()
	if err := merge(dir, came, there, from, to); err != nil {
		return err
	}
	return removeAll(dir, from)
}

// merge moves what there lacks of came: the directories from and to of dir.
func merge(dir, came, there *os.Root, from, to string) error {
	names, err := fs.ReadDir(came.FS(), ".")
	if err != nil {
		return err
	}
	for _, e := range names {
		name := e.Name()
		info, err := there.Lstat(name)
		if errors.Is(err, fs.ErrNotExist) {
			err = dir.Rename(path.Join(from, name), path.Join(to, name))
		} else if err == nil && info.IsDir() && e.IsDir() {
			err = mergeDir(dir, came, there, from, to, name)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func mergeDir(dir, came, there *os.Root, from, to, name string) error {
	c, err := safefile.OpenDirIn(came, name)
	if err != nil {
		return err
	}
	defer c.Close()
	t, err := safefile.OpenDirIn(there, name)
	if err != nil {
		return err
	}
	defer t.Close()
	return merge(dir, c, t, path.Join(from, name), path.Join(to, name))
}

// removeAll removes a directory, also one in which there are directories that its owner
// may not write to.
func removeAll(dir *os.Root, name string) error {
	err := dir.RemoveAll(name)
	if err == nil || !errors.Is(err, fs.ErrPermission) {
		return err
	}
	in, err := safefile.OpenDirIn(dir, name)
	if err != nil {
		return err
	}
	defer in.Close()
	err = fs.WalkDir(in.FS(), ".", func(p string, e fs.DirEntry, err error) error {
		if e != nil && e.IsDir() {
			return in.Chmod(p, 0o700) // before its names are read
		}
		return err
	})
	return errors.Join(err, dir.RemoveAll(name))
}

// isEmpty reports whether a directory has nothing in it.
func isEmpty(dir *os.Root) (bool, error) {
	d, err := dir.Open(".")
	if err != nil {
		return false, err
	}
	defer d.Close()
	names, err := d.Readdirnames(1)
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return len(names) == 0, err
}
