package archive

import (
	"archive/zip"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"strings"

	"github.com/clayer/clayer/cache/snapshot"
	"github.com/clayer/clayer/internal/ctxio"
)

const (
	zipUnix, zipMac = 3, 19 // who made a member, in the upper byte of its version
	encrypted       = 0x1

	unixType    = 0o170000
	unixDir     = 0o040000
	unixFile    = 0o100000
	unixSymlink = 0o120000

	longestPath = 4095 // PATH_MAX without its final zero
)

func zipMembers(ctx context.Context, b Blob) iter.Seq2[member, error] {
	return func(yield func(member, error) bool) {
		z, err := zip.NewReader(b, b.Size)
		if err != nil && !errors.Is(err, zip.ErrInsecurePath) { // names are judged by cleanName
			yield(member{}, err)
			return
		}
		for _, f := range z.File {
			if err := context.Cause(ctx); err != nil {
				yield(member{}, err)
				return
			}
			m, err := zipMember(ctx, f)
			if err != nil {
				yield(member{}, fmt.Errorf("%q: %w", f.Name, err))
				return
			}
			if !yield(m, nil) {
				return
			}
		}
	}
}

func zipMember(ctx context.Context, f *zip.File) (member, error) {
	m := member{name: f.Name, modTime: memberTime(f.Modified), kind: snapshot.File}
	maker := f.CreatorVersion >> 8
	unix := uint32(0)
	if maker == zipUnix || maker == zipMac {
		unix = f.ExternalAttrs >> 16
	} else if !strings.Contains(m.name, "/") {
		// .NET before 4.6.1 separates by backslashes, against the standard.
		m.name = strings.ReplaceAll(m.name, `\`, "/")
	}
	if strings.HasSuffix(m.name, "/") {
		m.kind = snapshot.Dir
	}
	switch unix & unixType {
	case 0, unixFile:
	case unixDir:
		m.kind = snapshot.Dir
	case unixSymlink:
		m.kind = snapshot.Symlink
	default:
		return m, errors.New("is a device or a pipe, which FETCH does not make")
	}
	m.mode = unix & 0o7777
	if unix == 0 && m.kind == snapshot.Dir {
		m.mode = 0o755
	} else if unix == 0 {
		m.mode = 0o644
	}
	if m.kind == snapshot.Dir {
		return m, nil
	}
	if f.Flags&encrypted != 0 {
		return m, errors.New("is encrypted")
	}
	if f.UncompressedSize64 >= 1<<62 {
		return m, errors.New("has an impossible size")
	}
	m.size = int64(f.UncompressedSize64)
	m.open = func() (io.ReadCloser, error) {
		r, err := f.Open()
		if err != nil {
			return nil, err
		}
		return &sized{r: ctxio.Reader(ctx, r), c: r, left: m.size}, nil
	}
	if m.kind != snapshot.Symlink {
		return m, nil
	}
	if m.size > longestPath {
		return m, errors.New("is a symlink that is too long")
	}
	r, err := m.open()
	if err != nil {
		return m, err
	}
	defer r.Close()
	text, err := io.ReadAll(r)
	m.target = string(text)
	return m, err
}

// sized reads exactly the announced number of bytes, and holds the last ones
// back until the end of the stream has been seen: there the checksum is
// compared, and who reads by size never asks for the end.
type sized struct {
	r    io.Reader
	c    io.Closer
	left int64
	done bool
}

func (s *sized) Read(p []byte) (int, error) {
	if s.done || len(p) == 0 {
		if s.done {
			return 0, io.EOF
		}
		return 0, nil
	}
	n := 0
	if s.left > 0 {
		var err error
		if n, err = s.r.Read(p[:min(int64(len(p)), s.left)]); err != nil && err != io.EOF {
			return 0, err
		} else if err == io.EOF && int64(n) < s.left {
			return 0, io.ErrUnexpectedEOF
		}
		s.left -= int64(n)
	}
	if s.left > 0 {
		return n, nil
	}
	var more [1]byte
	switch _, err := io.ReadFull(s.r, more[:]); err {
	case io.EOF:
		s.done = true
		return n, nil
	case nil:
		return 0, errors.New("is longer than the archive says")
	default:
		return 0, err
	}
}

func (s *sized) Close() error { return s.c.Close() }
