package contextdir

import (
	"errors"
	"io/fs"
	"time"

	"golang.org/x/sys/unix"
)

// A Stat is what the file system says of a file, beside its content.
type Stat struct {
	Unix         uint32 // type and permissions
	UID, GID     int
	Nlink        uint64
	Dev, Ino     uint64
	Rdev         uint64
	Size         int64
	MTime, CTime Time
}

// A Time is one of a file.
type Time struct {
	Sec  int64
	Nsec uint32
}

// Time returns it as the time package has it.
func (t Time) Time() time.Time { return time.Unix(t.Sec, int64(t.Nsec)) }

// before reports whether a time is before another one by at least a duration.
func (t Time) before(u Time, by time.Duration) bool { return !t.Time().Add(by).After(u.Time()) }

// version is what changes when the content of a file does.
type version struct {
	dev, ino     uint64
	size         int64
	mtime, ctime Time
}

func (s *Stat) version() version { return version{s.Dev, s.Ino, s.Size, s.MTime, s.CTime} }

func (s *Stat) kind() uint32      { return s.Unix & unix.S_IFMT }
func (s *Stat) IsDir() bool       { return s.kind() == unix.S_IFDIR }
func (s *Stat) IsRegular() bool   { return s.kind() == unix.S_IFREG }
func (s *Stat) IsSymlink() bool   { return s.kind() == unix.S_IFLNK }
func (s *Stat) IsFifo() bool      { return s.kind() == unix.S_IFIFO }
func (s *Stat) IsSocket() bool    { return s.kind() == unix.S_IFSOCK }
func (s *Stat) IsChar() bool      { return s.kind() == unix.S_IFCHR }
func (s *Stat) IsDevice() bool    { return s.IsChar() || s.kind() == unix.S_IFBLK }
func (s *Stat) Mode() uint32      { return s.Unix & 0o7777 }
func (s *Stat) Perm() fs.FileMode { return fs.FileMode(s.Unix & 0o777) }

// at looks at a name in an open directory.
func (s *Stat) at(dir int, name string) error {
	var st unix.Stat_t
	for {
		err := unix.Fstatat(dir, name, &st, unix.AT_SYMLINK_NOFOLLOW)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		s.set(&st)
		return err
	}
}

// ofOpen looks at an open file.
func (s *Stat) ofOpen(fd int) error {
	var st unix.Stat_t
	err := unix.Fstat(fd, &st)
	s.set(&st)
	return err
}

func (s *Stat) set(st *unix.Stat_t) {
	*s = Stat{
		Unix: uint32(st.Mode), UID: int(st.Uid), GID: int(st.Gid), Nlink: uint64(st.Nlink),
		Dev: uint64(st.Dev), Ino: st.Ino, Rdev: uint64(st.Rdev), Size: st.Size,
		MTime: timeOf(st.Mtim), CTime: timeOf(st.Ctim),
	}
}

func timeOf(t unix.Timespec) Time { return Time{int64(t.Sec), uint32(t.Nsec)} }
