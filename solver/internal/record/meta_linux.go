package record

import (
	"errors"
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/clayer/clayer/cache/snapshot"
	"github.com/clayer/clayer/internal/inroot"
	"github.com/clayer/clayer/solver/internal/databases"
)

// kinds are the kinds of changes that entries make.
var kinds = map[snapshot.Kind]Kind{
	snapshot.File: KindFile, snapshot.Dir: KindDir, snapshot.Symlink: KindSymlink, snapshot.Link: KindLink,
	snapshot.Char: KindDevice, snapshot.Block: KindDevice, snapshot.Fifo: KindFifo, snapshot.Delete: KindGone,
}

// KindOf returns the Kind of the change that an entry makes.
func KindOf(k snapshot.Kind) Kind { return kinds[k] }

// MetaOf returns the metadata that an entry gives a file.
func MetaOf(e *snapshot.Entry) *Meta {
	m := &Meta{Mode: e.Mode & 0o7777, UID: e.UID, GID: e.GID, Size: e.Size, ModTime: e.ModTime.UTC(), Target: []byte(e.Target)}
	if e.Kind == snapshot.Char || e.Kind == snapshot.Block {
		m.Rdev = unix.Mkdev(e.Major, e.Minor)
	}
	for k, v := range e.Xattrs {
		if !inroot.Managed(k) {
			continue
		}
		if m.Xattrs == nil {
			m.Xattrs = make(map[string][]byte)
		}
		m.Xattrs[k] = []byte(v)
	}
	return m
}

// MetaOfStat returns the metadata that a file has, but for its attributes and what
// identifies its content.
func MetaOfStat(st *unix.Stat_t) *Meta {
	return &Meta{Mode: st.Mode & 0o7777, UID: int(st.Uid), GID: int(st.Gid), ModTime: time.Unix(st.Mtim.Unix()).UTC()}
}

// changedAt returns the time of the last change of an open file.
func changedAt(f *os.File) (time.Time, error) {
	var st unix.Stat_t
	err := unix.Fstat(int(f.Fd()), &st)
	return time.Unix(st.Ctim.Unix()), err
}

// TypeOf returns the kind of the change that made a file, which is never KindLink.
func TypeOf(st *unix.Stat_t) Kind {
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		return KindFile
	case unix.S_IFDIR:
		return KindDir
	case unix.S_IFLNK:
		return KindSymlink
	case unix.S_IFCHR, unix.S_IFBLK:
		return KindDevice
	case unix.S_IFIFO:
		return KindFifo
	}
	return KindSocket
}

// ReadDatabase reads the database at a name in an open directory, and its metadata. That
// is nil where there is none, or something else, or more than is read as one.
func ReadDatabase(sys inroot.Sys, dir int, name string) ([]byte, *Meta, error) {
	var st unix.Stat_t
	if err := sys.Fstatat(dir, name, &st); err != nil {
		return nil, nil, inroot.UnlessMissing(err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG || st.Size > databases.MaxSize {
		return nil, nil, nil
	}
	fd, err := sys.OpenAt(dir, name)
	if err != nil {
		return nil, nil, inroot.UnlessMissing(err)
	}
	f := os.NewFile(uintptr(fd), name)
	defer f.Close()
	m := MetaOfStat(&st)
	if m.Xattrs, err = sys.ListXattrs(fd); err != nil {
		return nil, nil, err
	}
	data, err := io.ReadAll(io.LimitReader(f, databases.MaxSize))
	if err != nil {
		return nil, nil, err
	}
	m.Size = int64(len(data))
	return data, m, nil
}

// WriteDatabase writes a file that is to take the place of one with the metadata.
func WriteDatabase(sys inroot.Sys, dir int, name string, data []byte, m *Meta) (err error) {
	if err := inroot.UnlessMissing(sys.Unlinkat(dir, name, 0)); err != nil { // of a try that had no space
		return err
	}
	fd, err := sys.Createat(dir, name, 0o600)
	if err != nil {
		return err
	}
	defer func() {
		if cerr := sys.CloseFile(fd); err == nil {
			err = cerr
		}
	}()
	if err := sys.WriteAt(fd, data, 0); err != nil {
		return err
	}
	var st unix.Stat_t
	if err := sys.Fstat(fd, &st); err != nil {
		return err
	}
	if int(st.Uid) != m.UID || int(st.Gid) != m.GID {
		if err := sys.Fchown(fd, m.UID, m.GID); err != nil && (os.Geteuid() == 0 || !errors.Is(err, unix.EPERM)) {
			return err
		}
	}
	have, err := sys.ListXattrs(fd)
	if err == nil {
		err = sys.SetXattrs(fd, have, m.Xattrs)
	}
	if err == nil {
		err = sys.Fchmod(fd, m.Mode)
	}
	if err != nil {
		return err
	}
	return sys.Futimens(fd, inroot.Timespec(m.ModTime))
}
