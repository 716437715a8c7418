package source

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
)

// Downloads is a folder of downloaded bytes by digest. Several processes may
// share it: a file is there whole or not at all, and its name says what it holds.
//
//	sha256/<hex>        the bytes
//	url/<hex>           what a URL gave last, where a ref was, which bytes are a commit's tree;
//	                    named by the SHA-256 of the name, since URLs may hold secrets
//	part-*              a download that is under way
type Downloads struct {
	Dir string // made when first written to

	// ReadOnly looks up what is there, but keeps and changes nothing: what
	// plan wants.
	ReadOnly bool

	verified sync.Map // digest.Digest → struct{}: hashed, or written, by this process
}

// answer is what a URL gave.
type answer struct {
	ETag         string        `json:"etag,omitempty"`
	LastModified string        `json:"lastModified,omitempty"`
	Digest       digest.Digest `json:"digest"`
	Size         int64         `json:"size"`
	Commit       string        `json:"commit,omitempty"` // of what GitHub gave
}

func (d *Downloads) path(dg digest.Digest) string {
	return filepath.Join(d.Dir, dg.Algorithm().String(), dg.Encoded())
}

func (d *Downloads) answerPath(url string) string {
	sum := sha256.Sum256([]byte(url))
	return filepath.Join(d.Dir, "url", hex.EncodeToString(sum[:]))
}

// has reports whether the bytes are there, without reading them.
func (d *Downloads) has(dg digest.Digest) bool {
	if dg.Validate() != nil {
		return false
	}
	info, err := os.Lstat(d.path(dg))
	return err == nil && info.Mode().IsRegular()
}

// noted returns what was noted under a name that is no URL.
func (d *Downloads) noted(name string) (a answer, ok bool) {
	if d == nil {
		return a, false
	}
	b, err := os.ReadFile(d.answerPath(name))
	return a, err == nil && json.Unmarshal(b, &a) == nil
}

// recall returns what url gave last, if those bytes are still there.
func (d *Downloads) recall(url string) (answer, bool) {
	if d == nil {
		return answer{}, false
	}
	var a answer
	b, err := os.ReadFile(d.answerPath(url))
	if err != nil || json.Unmarshal(b, &a) != nil || !d.has(a.Digest) {
		return answer{}, false
	}
	return a, a.ETag != "" || a.LastModified != ""
}

// remember notes what url gave, if a later request can be conditional by it.
func (d *Downloads) remember(url string, a answer) {
	if a.ETag != "" || a.LastModified != "" {
		d.note(url, a)
	}
}

// note keeps what a URL, or something of another name, gave. An error is no
// loss but that of a shortcut.
func (d *Downloads) note(name string, a answer) {
	if d == nil || d.ReadOnly {
		return
	}
	b, err := json.Marshal(a)
	if err != nil {
		return
	}
	to := d.answerPath(name)
	if os.MkdirAll(filepath.Dir(to), 0o755) != nil {
		return
	}
	f, err := os.CreateTemp(d.Dir, "part-*")
	if err != nil {
		return
	}
	_, err = f.Write(b)
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), to)
	}
	if err != nil {
		os.Remove(f.Name())
	}
}

// errNotKept says that bytes are not in the folder, or not as they should be.
var errNotKept = errors.New("not kept")

// open opens bytes that were verified by this process. What turns out to be
// other bytes is removed.
func (d *Downloads) open(dg digest.Digest) (*os.File, error) {
	f, err := os.Open(d.path(dg))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, errNotKept
	}
	if err != nil {
		return nil, err
	}
	if _, ok := d.verified.Load(dg); ok {
		return f, nil
	}
	v := dg.Verifier()
	if _, err := io.Copy(v, f); err != nil {
		f.Close()
		return nil, fmt.Errorf("read a kept download: %w", err)
	}
	if !v.Verified() {
		f.Close()
		if !d.ReadOnly {
			os.Remove(d.path(dg))
		}
		return nil, errNotKept
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		f.Close()
		return nil, err
	}
	if !d.ReadOnly {
		// Prune takes the longest unused first.
		now := time.Now()
		os.Chtimes(f.Name(), now, now)
	}
	d.verified.Store(dg, struct{}{})
	return f, nil
}

// A part is a download that is under way. It is a transfer.Rewinder.
type part struct {
	d *Downloads
	f *os.File
}

func (d *Downloads) newPart() (*part, error) {
	if err := os.MkdirAll(d.Dir, 0o755); err != nil {
		return nil, fmt.Errorf("keep a download: %w", err)
	}
	f, err := os.CreateTemp(d.Dir, "part-*")
	if err != nil {
		return nil, fmt.Errorf("keep a download: %w", err)
	}
	return &part{d, f}, nil
}

func (p *part) Write(b []byte) (int, error) { return p.f.Write(b) }

// Rewind forgets what was written.
func (p *part) Rewind() error {
	if _, err := p.f.Seek(0, io.SeekStart); err != nil {
		return err
	}
	return p.f.Truncate(0)
}

// keep moves the part to where dg is looked for. It is not synced: whoever opens
// it after a crash hashes it first.
func (p *part) keep(dg digest.Digest) error {
	to := p.d.path(dg)
	err := p.f.Close()
	if err == nil {
		err = os.MkdirAll(filepath.Dir(to), 0o755)
	}
	if err == nil {
		err = os.Rename(p.f.Name(), to)
	}
	if err != nil {
		os.Remove(p.f.Name())
		return fmt.Errorf("keep a download: %w", err)
	}
	p.d.verified.Store(dg, struct{}{})
	return nil
}

// drop removes the part.
func (p *part) drop() {
	p.f.Close()
	os.Remove(p.f.Name())
}

// nothing keeps nothing. It is a transfer.Rewinder.
type nothing struct{}

func (nothing) Write(b []byte) (int, error) { return len(b), nil }
func (nothing) Rewind() error               { return nil }

// inUse is how long a file that was used is safe from Prune: another process
// may be about to open it.
const inUse = time.Hour

// Prune removes the longest unused files until at most limit bytes are left,
// and what killed processes left half done. It returns how many bytes it freed.
func (d *Downloads) Prune(limit int64) (int64, error) {
	type kept struct {
		path string
		size int64
		used time.Time
	}
	var all []kept
	var total, freed int64
	parts, err := os.ReadDir(d.Dir)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	add := func(dir string, list []os.DirEntry, match string, to func(kept)) {
		for _, e := range list {
			// One that is gone by now was pruned by another process.
			if info, err := e.Info(); err == nil && info.Mode().IsRegular() && strings.HasPrefix(e.Name(), match) {
				to(kept{filepath.Join(dir, e.Name()), info.Size(), info.ModTime()})
			}
		}
	}
	var errs []error
	remove := func(k kept) {
		if err := os.Remove(k.path); err == nil {
			freed += k.size
		} else if !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	add(d.Dir, parts, "part-", func(k kept) {
		// A part is written to all the time; a day without is a dead one.
		if time.Since(k.used) > 24*time.Hour {
			remove(k)
		}
	})
	dir := filepath.Join(d.Dir, digest.SHA256.String())
	list, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return freed, err
	}
	add(dir, list, "", func(k kept) { all = append(all, k); total += k.size })
	slices.SortFunc(all, func(a, b kept) int { return a.used.Compare(b.used) })
	for _, k := range all {
		if total <= limit || time.Since(k.used) < inUse {
			break
		}
		remove(k)
		total -= k.size
	}
	return freed, errors.Join(errs...)
}
