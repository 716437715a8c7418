// Package downloads is a directory of downloaded bytes by digest, for several processes.
package downloads

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"github.com/clayer/clayer/cache"
	"github.com/clayer/clayer/internal/order"
	"github.com/clayer/clayer/internal/safefile"
)

// A Dir is a directory of downloaded bytes by digest. Several processes may
// share it: a file is there whole or not at all, and its name says what it holds.
// What can't be stored there, since the disk is full or can't be written, is in
// files without names while the process lives: no download fails for it.
//
//	sha256/<hex>        the bytes
//	url/<hex>           what a URL gave last, where a ref was, which bytes are a commit's tree;
//	                    named by the SHA-256 of the name, since URLs may hold secrets
//	part-*              a download that is under way
type Dir struct {
	Path string // made when first written to; "": nothing is stored

	// ReadOnly uses what is there, but stores and changes nothing: for plan.
	ReadOnly bool

	mu    sync.Mutex
	files map[digest.Digest]*os.File // hashed, or written, by this process
}

// An Answer is what a URL gave.
type Answer struct {
	ETag         string        `json:"etag,omitempty"`
	LastModified string        `json:"lastModified,omitempty"`
	Digest       digest.Digest `json:"digest"`
	Size         int64         `json:"size"`
	Commit       string        `json:"commit,omitempty"` // of what GitHub gave
}

const (
	partPrefix = "part-"
	bytesName  = "sha256"
	answerName = "url"

	// maxAnswer bounds the note of what a URL gave.
	maxAnswer = 64 << 10
)

func bytesPath(dg digest.Digest) string { return path.Join(bytesName, dg.Encoded()) }

func answerPath(url string) string {
	sum := sha256.Sum256([]byte(url))
	return path.Join(answerName, hex.EncodeToString(sum[:]))
}

// root opens the directory.
func (d *Dir) root() (*os.Root, error) {
	if d.Path == "" {
		return nil, fs.ErrNotExist
	}
	return safefile.OpenDir(d.Path)
}

// makeRoot is root for who writes: the directory is made.
func (d *Dir) makeRoot() (*os.Root, error) {
	if d.Path == "" {
		return nil, fs.ErrNotExist
	}
	return safefile.MakeDir(d.Path, 0o700)
}

// Has reports whether the bytes are there, without reading them.
func (d *Dir) Has(dg digest.Digest) bool {
	if dg.Validate() != nil || dg.Algorithm() != digest.SHA256 {
		return false
	}
	if d.held(dg) != nil {
		return true
	}
	root, err := d.root()
	if err != nil {
		return false
	}
	defer root.Close()
	info, err := root.Lstat(bytesPath(dg))
	return err == nil && info.Mode().IsRegular()
}

// held returns the open file of bytes that this process has verified; nil for
// others.
func (d *Dir) held(dg digest.Digest) *os.File {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.files[dg]
}

// hold leaves a file open: its name may be removed, or it has none. It
// returns the one that is held.
func (d *Dir) hold(dg digest.Digest, f *os.File) *os.File {
	d.mu.Lock()
	defer d.mu.Unlock()
	if first := d.files[dg]; first != nil {
		f.Close()
		return first
	}
	if d.files == nil {
		d.files = make(map[digest.Digest]*os.File)
	}
	d.files[dg] = f
	return f
}

// Noted returns what was noted under a URL, or something of another name.
func (d *Dir) Noted(name string) (a Answer, ok bool) {
	if d == nil {
		return a, false
	}
	root, err := d.root()
	if err != nil {
		return a, false
	}
	defer root.Close()
	b, err := safefile.ReadFile(root, answerPath(name), maxAnswer)
	return a, err == nil && json.Unmarshal(b, &a) == nil
}

// Recall returns what url gave last, if those bytes are still there.
func (d *Dir) Recall(url string) (Answer, bool) {
	a, ok := d.Noted(url)
	if !ok || !d.Has(a.Digest) {
		return Answer{}, false
	}
	return a, true
}

// Note records what a URL, or something of another name, gave. An error is no
// loss but that of a shortcut.
func (d *Dir) Note(name string, a Answer) {
	if d == nil || d.ReadOnly {
		return
	}
	b, err := json.Marshal(a)
	if err != nil {
		return
	}
	root, err := d.makeRoot()
	if err != nil {
		return
	}
	defer root.Close()
	if safefile.MkdirAll(root, answerName, 0o755) == nil {
		_ = safefile.WriteFile(root, answerPath(name), partPrefix, b)
	}
}

// errNotStored says that bytes are not in the directory, or not as they should be.
var errNotStored = errors.New("not stored")

// Open returns bytes that were verified by this process, as a file that stays
// open: only ReadAt is for it. What turns out to be other bytes is removed.
func (d *Dir) Open(dg digest.Digest) (*os.File, error) {
	if f := d.held(dg); f != nil {
		return f, nil
	}
	root, err := d.root()
	if errors.Is(err, fs.ErrNotExist) {
		return nil, errNotStored
	}
	if err != nil {
		return nil, err
	}
	defer root.Close()
	name := bytesPath(dg)
	f, err := safefile.OpenFile(root, name, os.O_RDONLY, 0)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, safefile.ErrNotRegular) {
		return nil, errNotStored
	}
	if err != nil {
		return nil, err
	}
	v := dg.Verifier()
	if _, err := io.Copy(v, f); err != nil {
		f.Close()
		return nil, fmt.Errorf("read a stored download: %w", err)
	}
	if !v.Verified() {
		f.Close()
		if !d.ReadOnly {
			_ = root.Remove(name)
		}
		return nil, errNotStored
	}
	if !d.ReadOnly {
		// Prune takes the longest unused first.
		now := time.Now()
		_ = root.Chtimes(name, now, now)
	}
	return d.hold(dg, f), nil
}

// A Part is a download that is under way. It is a transfer.Rewinder.
type Part struct {
	d    *Dir
	f    *os.File
	size int64
	root *os.Root // where it has a name; nil: it has none
	name string
}

// NewPart begins a download, in the directory of downloads if possible.
func (d *Dir) NewPart() (*Part, error) {
	if root, err := d.makeRoot(); err == nil {
		if f, name, err := safefile.CreateTemp(root, partPrefix); err == nil {
			return &Part{d: d, f: f, root: root, name: name}, nil
		}
		root.Close()
	}
	f, err := cache.TempFile("")
	if err != nil {
		return nil, fmt.Errorf("write a download: %w", err)
	}
	return &Part{d: d, f: f}, nil
}

// Write writes to the file, and elsewhere if that takes no more.
func (p *Part) Write(b []byte) (int, error) {
	n, err := p.f.Write(b)
	p.size += int64(n)
	if err == nil || p.root == nil || p.leave() != nil {
		return n, err
	}
	more, err := p.f.Write(b[n:])
	p.size += int64(more)
	return n + more, err
}

// leave moves what there is of the download out of the directory.
func (p *Part) leave() error {
	f, err := cache.TempFile("")
	if err != nil {
		return err
	}
	if _, err := io.Copy(f, io.NewSectionReader(p.f, 0, p.size)); err != nil {
		f.Close()
		return err
	}
	p.Drop()
	p.f, p.root = f, nil
	return nil
}

// Content returns what was written so far.
func (p *Part) Content() io.Reader { return io.NewSectionReader(p.f, 0, p.size) }

// Rewind forgets what was written.
func (p *Part) Rewind() error {
	if _, err := p.f.Seek(0, io.SeekStart); err != nil {
		return err
	}
	p.size = 0
	return p.f.Truncate(0)
}

// Store gives the part the name under which dg is looked for; where it can't have
// one, this process has it all the same. It is not synced: a reader that opens it after
// a crash hashes it first.
func (p *Part) Store(dg digest.Digest) {
	p.d.hold(dg, p.f)
	if p.root == nil {
		return
	}
	defer p.root.Close()
	err := safefile.MkdirAll(p.root, bytesName, 0o755)
	if err == nil {
		err = p.root.Rename(p.name, bytesPath(dg))
	}
	if err != nil {
		_ = p.root.Remove(p.name)
	}
}

// Drop removes the part.
func (p *Part) Drop() {
	p.f.Close()
	if p.root != nil {
		_ = p.root.Remove(p.name)
		p.root.Close()
	}
}

// inUse is how long a file that was used is safe from Prune: another process
// may be about to open it.
const inUse = time.Hour

// Prune removes the longest unused files until at most limit bytes are left,
// and what killed processes left half done. It returns how many bytes it freed.
func (d *Dir) Prune(limit int64) (int64, error) {
	type stored struct {
		name string // in the directory
		size int64
		used time.Time
	}
	root, err := d.root()
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	defer root.Close()
	list := func(dir string, isOurs func(name string) bool) (all []stored, err error) {
		in, err := safefile.OpenDirIn(root, dir)
		if errors.Is(err, fs.ErrNotExist) {
			return nil, nil
		}
		if err != nil {
			return nil, err
		}
		defer in.Close()
		entries, err := fs.ReadDir(in.FS(), ".")
		for _, e := range entries {
			// One that is gone by now was pruned by another process.
			if info, err := e.Info(); err == nil && info.Mode().IsRegular() && isOurs(e.Name()) {
				all = append(all, stored{path.Join(dir, e.Name()), info.Size(), info.ModTime()})
			}
		}
		return all, err
	}
	var errs []error
	var freed int64
	remove := func(k stored) {
		if err := root.Remove(k.name); err == nil {
			freed += k.size
		} else if !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	freed, err = safefile.Sweep(root, ".", func(name string) bool { return strings.HasPrefix(name, partPrefix) })
	if err != nil {
		return freed, err
	}
	all, err := list(bytesName, func(name string) bool { return digest.NewDigestFromEncoded(digest.SHA256, name).Validate() == nil })
	if err != nil {
		return freed, err
	}
	var total int64
	for _, k := range all {
		total += k.size
	}
	order.Stable(all, func(a, b stored) int { return a.used.Compare(b.used) })
	for _, k := range all {
		if total <= limit || time.Since(k.used) < inUse {
			break
		}
		remove(k)
		total -= k.size
	}
	return freed, errors.Join(errs...)
}
