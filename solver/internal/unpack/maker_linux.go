package unpack

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path"

	"golang.org/x/sys/unix"

	"github.com/clayer/clayer/cache/snapshot"
	"github.com/clayer/clayer/internal/inroot"
	"github.com/clayer/clayer/solver/internal/metadata"
	"github.com/clayer/clayer/solver/internal/record"
)

// A maker creates what entries describe, but directories, before it is put where it
// belongs. One goroutine uses it.
type maker struct {
	*metadata.Tree
	buf   []byte
	sum   uint32 // CRC-32C of the content that was copied last
	bytes int64  // of content, written so far

	// Of a recorded apply.
	stage  *inroot.Dir        // the stage directory
	born   *birth             // what is created there has this; nil: not known
	staged map[string]*staged // by path, the files of the chunk, to which links may be
}

// beside returns a maker for the same root and stage directory, with buffers and
// counts of its own.
func (m *maker) beside() *maker {
	return &maker{
		Tree:  m.Beside(),
		stage: m.stage, born: m.born, staged: make(map[string]*staged),
	}
}

// target returns the file of the chunk that a link is to; nil if it is in none.
func (m *maker) target(e *snapshot.Entry) *staged {
	if s := m.staged[e.Target]; s != nil && s.err == nil {
		return s
	}
	return nil
}

// make creates what an entry describes, under a name of clayer's own. It reports
// false for a device that this user may not create.
func (m *maker) make(ctx context.Context, parent *inroot.Dir, temp string, e *snapshot.Entry) (bool, error) {
	switch e.Kind {
	case snapshot.File:
		return true, m.file(ctx, parent, temp, e)
	case snapshot.Link:
		if to := m.target(e); to != nil {
			return true, m.Linkat(parent.FD, to.at, parent.FD, temp)
		}
		dir, name := path.Split(e.Target)
		// Not by get: the target's directory may push the entry's out.
		fd, _, err := m.Resolve(m.Root, path.Clean(dir), m.Openat2)
		if err != nil {
			return false, err
		}
		defer unix.Close(fd)
		return true, m.Linkat(fd, name, parent.FD, temp)
	case snapshot.Symlink:
		if err := m.Symlinkat(e.Target, parent.FD, temp); err != nil {
			return false, err
		}
	case snapshot.Char, snapshot.Block, snapshot.Fifo:
		mode := map[snapshot.Kind]uint32{snapshot.Char: unix.S_IFCHR, snapshot.Block: unix.S_IFBLK, snapshot.Fifo: unix.S_IFIFO}[e.Kind]
		err := m.Mknodat(parent.FD, temp, mode|0o600, int(unix.Mkdev(e.Major, e.Minor)))
		if errors.Is(err, unix.EPERM) && !m.Privileged {
			m.Unprivileged++
			return false, nil
		}
		if err != nil {
			return false, err
		}
	}
	return true, m.AttributesAt(parent, temp, e)
}

func (m *maker) file(ctx context.Context, parent *inroot.Dir, temp string, e *snapshot.Entry) (err error) {
	mode, done := uint32(0o600), false
	if m.born != nil && parent == m.stage {
		mode, done = m.born.mode(e)
	}
	fd, err := m.Createat(parent.FD, temp, mode)
	if err != nil {
		return err
	}
	defer func() {
		if cerr := m.CloseFile(fd); err == nil {
			err = cerr // a quota that is full may be reported only now
		}
	}()
	if err := m.content(ctx, fd, e); err != nil {
		return err
	}
	var old map[string][]byte
	if parent.ACL {
		if old, err = m.ListXattrs(fd); err != nil {
			return err
		}
	}
	if !done {
		if _, err := m.Attributes(fd, e, old); err != nil {
			return err
		}
	}
	return m.Futimens(fd, inroot.Timespec(e.ModTime))
}

// birth is what a file that is made in the stage directory has from the beginning.
type birth struct {
	uid, gid int
	umask    uint32
}

// bornIn returns what files have that are made in a directory that workers down no ACL.
func bornIn(fd int) (*birth, error) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, err
	}
	b := &birth{uid: os.Geteuid(), gid: os.Getegid(), umask: inroot.Umask()}
	if st.Mode&unix.S_ISGID != 0 {
		b.gid = int(st.Gid)
	}
	return b, nil
}

// mode returns the mode to make a file with, and whether it then has all that
// its entry says, but for the content and the time.
func (b *birth) mode(e *snapshot.Entry) (uint32, bool) {
	if e.UID != b.uid || e.GID != b.gid || len(e.Xattrs) > 0 || e.Mode&^0o777 != 0 || e.Mode&b.umask != 0 {
		return 0o600, false
	}
	return e.Mode, true
}

// content writes a file; holes are not written.
func (m *maker) content(ctx context.Context, fd int, e *snapshot.Entry) error {
	m.sum = 0
	if e.Size == 0 {
		return nil
	}
	data := e.Data
	if data == nil {
		data = []snapshot.Extent{{Length: e.Size}}
	}
	if e.Data == nil && inMemory(e) {
		if err := context.Cause(ctx); err != nil {
			return inroot.Hard(err)
		}
		m.sum = crc32.Checksum(e.Content, record.Castagnoli)
		m.bytes += e.Size
		return m.WriteAt(fd, e.Content, 0)
	}
	r, err := e.Open()
	if err != nil {
		return inroot.Hard(err)
	}
	defer r.Close()
	if m.buf == nil {
		m.buf = make([]byte, 128<<10)
	}
	var at int64
	for _, x := range data {
		// In this form no sum of the two can overflow.
		if x.Offset < at || x.Length < 0 || x.Offset > e.Size || x.Length > e.Size-x.Offset {
			return unsafe(e.Path, fmt.Sprintf("data at %d, %d bytes, in a file of %d", x.Offset, x.Length, e.Size))
		}
		if err := m.copy(ctx, -1, 0, r, x.Offset-at); err != nil {
			return err
		}
		if err := m.copy(ctx, fd, x.Offset, r, x.Length); err != nil {
			return err
		}
		at = x.Offset + x.Length
	}
	if err := m.copy(ctx, -1, 0, r, e.Size-at); err != nil {
		return err
	}
	if at < e.Size {
		if err := m.Ftruncate(fd, e.Size); err != nil {
			return err
		}
	}
	m.bytes += e.Size
	return nil
}

// copy copies n bytes to an open file at an offset; -1 drops them.
func (m *maker) copy(ctx context.Context, fd int, off int64, r io.Reader, n int64) error {
	for n > 0 {
		if err := context.Cause(ctx); err != nil {
			return inroot.Hard(err)
		}
		k, err := r.Read(m.buf[:min(int64(len(m.buf)), n)])
		m.sum = crc32.Update(m.sum, record.Castagnoli, m.buf[:k])
		if fd >= 0 {
			if err := m.WriteAt(fd, m.buf[:k], off); err != nil {
				return err
			}
		}
		off, n = off+int64(k), n-int64(k)
		if err == io.EOF && n > 0 {
			return inroot.Hard(io.ErrUnexpectedEOF)
		}
		if err != nil && err != io.EOF {
			return inroot.Hard(err)
		}
	}
	return nil
}
