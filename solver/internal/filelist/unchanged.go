package filelist

import (
	"crypto/sha256"
	"hash"
	"io"
)

// Unchanged returns what reads a file whose sum and size are known, and compares. The last
// bytes are held back until the sum is known to be right: who reads by size never asks for
// the end. wrong says that it is another file.
func Unchanged(f io.ReadCloser, sum [sha256.Size]byte, size int64, wrong func() error) io.ReadCloser {
	return &unchanged{f: f, sum: sum, wrong: wrong, h: sha256.New(), left: size}
}

// unchanged is what Unchanged returns.
type unchanged struct {
	f     io.ReadCloser
	sum   [sha256.Size]byte
	wrong func() error // what says that it is another file
	h     hash.Hash
	left  int64
	err   error // wrong's
}

func (u *unchanged) Read(p []byte) (int, error) {
	if u.err != nil {
		return 0, u.err
	}
	if u.left == 0 {
		return 0, io.EOF
	}
	if len(p) == 0 {
		return 0, nil
	}
	n, err := u.f.Read(p[:min(int64(len(p)), u.left)])
	if err == io.EOF || err == nil && n == 0 {
		u.err = u.wrong()
		return 0, u.err
	}
	if err != nil {
		return 0, err
	}
	u.h.Write(p[:n])
	if u.left -= int64(n); u.left == 0 && [sha256.Size]byte(u.h.Sum(nil)) != u.sum {
		u.err = u.wrong()
		return 0, u.err
	}
	return n, nil
}

func (u *unchanged) Close() error { return u.f.Close() }
