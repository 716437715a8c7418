package record

import (
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/clayer/clayer/cache/snapshot"
	"github.com/clayer/clayer/solver/rootfs/inroot"
)

// kindNames are the kinds of changes that entries make.
var kindNames = map[snapshot.Kind]string{
	snapshot.File: "file", snapshot.Dir: "dir", snapshot.Symlink: "symlink", snapshot.Link: "link",
	snapshot.Char: "device", snapshot.Block: "device", snapshot.Fifo: "fifo", snapshot.Delete: "gone",
}

// KindOf returns the Kind of the change that an entry makes.
func KindOf(k snapshot.Kind) string { return kindNames[k] }

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
// tells its content.
func MetaOfStat(st *unix.Stat_t) *Meta {
	return &Meta{Mode: st.Mode & 0o7777, UID: int(st.Uid), GID: int(st.Gid), ModTime: time.Unix(st.Mtim.Unix()).UTC()}
}

// changedAt returns the time of the last change of an open file.
func changedAt(f *os.File) (time.Time, error) {
	var st unix.Stat_t
	err := unix.Fstat(int(f.Fd()), &st)
	return time.Unix(st.Ctim.Unix()), err
}

// TypeOf tells which kind of a Change a file may be of.
func TypeOf(st *unix.Stat_t) string {
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		return "file"
	case unix.S_IFDIR:
		return "dir"
	case unix.S_IFLNK:
		return "symlink"
	case unix.S_IFCHR, unix.S_IFBLK:
		return "device"
	case unix.S_IFIFO:
		return "fifo"
	}
	return "socket"
}
