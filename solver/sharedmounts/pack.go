package sharedmounts

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"hash"
	"io"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/clayer/clayer/cache/snapshot"
	"github.com/clayer/clayer/internal/tree"
)

// top is the directory that a packed mount is in: its entry has the mode and owner of the
// mount's own directory.
const top = "mount"

// maxEntries bounds what is in a mount.
const maxEntries = 1_000_000

// A TooLargeError says that a cache mount is larger than what goes into stores.
type TooLargeError struct {
	Bytes, Most int64
	Entries     int // if there are too many of them
}

func (e *TooLargeError) Error() string {
	if e.Entries > maxEntries {
		return fmt.Sprintf("it has %d files, more than %d", e.Entries, maxEntries)
	}
	return fmt.Sprintf("it has %d bytes, more than %d", e.Bytes, e.Most)
}

// A content is what is in a mount's directory, as it is packed.
type content struct {
	dir     string
	reading *tree.Reading
	targets []string // where RUNs have it
	euid    int
}

// read reads the metadata of a mount.
func read(ctx context.Context, dir string, targets []string, most int64) (*content, error) {
	r, err := tree.Read(ctx, dir, tree.Options{})
	if err != nil {
		return nil, err
	}
	if _, bytes := r.Files(); bytes > most || r.Len() > maxEntries {
		return nil, &TooLargeError{Bytes: bytes, Most: most, Entries: r.Len()}
	}
	return &content{dir, r, append([]string{dir}, targets...), os.Geteuid()}, nil
}

// entries returns what is packed: files, directories and links, below top. Logins are left
// out, and so are attributes, devices, and the bits that let a program be another user.
func (c *content) entries() snapshot.Changes {
	return func(yield func(*snapshot.Entry, error) bool) {
		info, err := os.Lstat(c.dir)
		if err != nil {
			yield(nil, err)
			return
		}
		e := &snapshot.Entry{Path: top, Kind: snapshot.Dir, Mode: dirMode(uint32(info.Mode().Perm())), ModTime: info.ModTime()}
		e.UID, e.GID = c.owner(ownerOf(info))
		if !yield(e, nil) {
			return
		}
		leftOut := make(map[string]bool) // files, which other names may be links to
		whole := tree.Whole{Reading: c.reading, Dir: c.dir}
		for e, err := range whole.Changes() {
			if err != nil {
				yield(nil, err)
				return
			}
			if !c.packs(e, leftOut) {
				leftOut[e.Path] = true
				continue
			}
			p := *e
			p.Path, p.Xattrs = path.Join(top, e.Path), nil
			p.UID, p.GID = c.owner(e.UID, e.GID)
			switch p.Kind {
			case snapshot.Dir:
				p.Mode = dirMode(e.Mode)
			case snapshot.Link:
				p.Target = path.Join(top, e.Target)
				p.Mode &= 0o777
			case snapshot.Symlink:
				p.Target = c.within(e.Path, e.Target)
			default:
				p.Mode &= 0o777
			}
			if !yield(&p, nil) {
				return
			}
		}
	}
}

// packs reports whether an entry is packed.
func (c *content) packs(e *snapshot.Entry, leftOut map[string]bool) bool {
	if isLogin(e.Path, c.targets) || strings.HasPrefix(path.Base(e.Path), ".wh.") || leftOut[path.Dir(e.Path)] {
		return false
	}
	switch e.Kind {
	case snapshot.File, snapshot.Dir:
		return true
	case snapshot.Link:
		return !leftOut[e.Target]
	case snapshot.Symlink:
		return c.within(e.Path, e.Target) != ""
	}
	return false
}

// within returns the target of a symbolic link as one that is relative, and stays in the
// mount wherever that is; "" for a link that leads out of it.
func (c *content) within(at, target string) string {
	if filepath.IsAbs(target) {
		for _, t := range c.targets {
			if rest, ok := strings.CutPrefix(target, t+"/"); ok && t != "" {
				rel, err := filepath.Rel("/"+path.Dir(at), "/"+rest)
				if err != nil {
					return ""
				}
				target = rel
				break
			}
		}
	}
	if !staysInside(at, target) {
		return ""
	}
	return target
}

// staysInside reports whether a symbolic link leads to a place in the same mount. Its target
// may begin with "..", which its own directory decides about. After a name, which may be
// another link, ".." could lead anywhere.
func staysInside(at, target string) bool {
	if target == "" || path.IsAbs(target) {
		return false
	}
	depth, named := strings.Count(at, "/"), false
	for name := range strings.SplitSeq(target, "/") {
		switch name {
		case "", ".":
		case "..":
			if depth--; named || depth < 0 {
				return false
			}
		default:
			named = true
		}
	}
	return true
}

// dirMode returns the mode of a directory, which its owner can write to: it is filled, and
// removed, by who owns it.
func dirMode(mode uint32) uint32 { return mode&0o777 | 0o700 }

// owner returns how an owner is packed: who packs is 0, as root is, and the user there.
func (c *content) owner(uid, gid int) (int, int) {
	if uid == c.euid {
		return 0, 0
	}
	return uid, gid
}

// stamp returns what differs when anything in the mount has changed. No file is read.
func (c *content) stamp() (string, error) {
	h := sha256.New()
	for e, err := range c.entries() {
		if err != nil {
			return "", err
		}
		describe(h, e)
		writeNumber(h, e.ModTime.UnixNano())
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// hashed returns the entries, and a function that returns, after all of them and their
// content were read, a digest of both. Times and owners are not in it: a package manager
// that uses a file again changes its time, and nothing else.
func hashed(entries snapshot.Changes) (snapshot.Changes, func() string) {
	h := sha256.New()
	return func(yield func(*snapshot.Entry, error) bool) {
			for e, err := range entries {
				if err == nil {
					describe(h, e)
					if open := e.Open; open != nil {
						e.Open = func() (io.ReadCloser, error) {
							r, err := open()
							return &tee{r, h}, err
						}
					}
				}
				if !yield(e, err) {
					return
				}
			}
		}, func() string {
			return "sha256:" + hex.EncodeToString(h.Sum(nil))
		}
}

type tee struct {
	io.ReadCloser
	h hash.Hash
}

func (t *tee) Read(p []byte) (int, error) {
	n, err := t.ReadCloser.Read(p)
	t.h.Write(p[:n])
	return n, err
}

// describe hashes what an entry is, but for its times and its owner.
func describe(h hash.Hash, e *snapshot.Entry) {
	for _, s := range []string{e.Path, e.Target} {
		writeNumber(h, int64(len(s)))
		io.WriteString(h, s)
	}
	size := e.Size
	if e.Kind != snapshot.File {
		size = 0
	}
	for _, n := range []int64{int64(e.Kind), int64(e.Mode), size} {
		writeNumber(h, n)
	}
}

func writeNumber(h hash.Hash, n int64) {
	var b [8]byte
	binary.BigEndian.PutUint64(b[:], uint64(n))
	h.Write(b[:])
}
