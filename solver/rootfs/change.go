package rootfs

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// A Change is what an apply did to one path, with what undoing it needs. It is
// written before it is done: one whose original is not among the originals was
// not done, be it that it could not be or that clayer was killed.
type Change struct {
	Path     []byte `json:"path"`               // relative to the root; bytes, since names need not be UTF-8
	Kind     string `json:"kind"`               // what stands there now: file, dir, symlink, link, device, fifo; "gone"
	Created  bool   `json:"created,omitempty"`  // nothing stood there before
	Original int    `json:"original,omitempty"` // what stood there, by its number in originals/; 0: nothing was kept
	Was      *Meta  `json:"was,omitempty"`      // of a folder that was kept: its metadata before
	Now      *Meta  `json:"now,omitempty"`      // as applied, for verify
}

// Meta is the metadata of a file.
type Meta struct {
	Mode    uint32            `json:"mode"` // permission bits, setuid, setgid and sticky
	UID     int               `json:"uid"`
	GID     int               `json:"gid"`
	Size    int64             `json:"size,omitempty"`
	ModTime time.Time         `json:"mtime"`
	Xattrs  map[string][]byte `json:"xattrs,omitempty"`
}

func (r *Root) changesPath(seq int) string {
	return filepath.Join(r.state, "changes", fmt.Sprintf("%06d.jsonl", seq))
}

// lastSeq returns the highest number of an apply that has a record, 0 for none.
func (r *Root) lastSeq() (int, error) {
	files, err := os.ReadDir(filepath.Dir(r.changesPath(0)))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return 0, err
	}
	last := 0
	for _, f := range files {
		name, ok := strings.CutSuffix(f.Name(), ".jsonl")
		if n, err := strconv.Atoi(name); ok && err == nil {
			last = max(last, n)
		}
	}
	return last, nil
}

func (r *Root) originalsPath(seq int) string {
	return filepath.Join(r.state, "originals", fmt.Sprintf("%06d", seq))
}

// OriginalPath returns where the original of a Change is.
func (r *Root) OriginalPath(seq, original int) string {
	return filepath.Join(r.originalsPath(seq), strconv.Itoa(original))
}

// Changes yields what the apply of that number changed, in its order. A line
// that a kill cut off is its end.
func (r *Root) Changes(seq int) iter.Seq2[Change, error] {
	return func(yield func(Change, error) bool) {
		f, err := os.Open(r.changesPath(seq))
		if err != nil {
			yield(Change{}, err)
			return
		}
		defer f.Close()
		dec := json.NewDecoder(bufio.NewReaderSize(f, 64<<10))
		for {
			var c Change
			err := dec.Decode(&c)
			if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
				return
			}
			if err != nil {
				err = fmt.Errorf("%s: %w", f.Name(), err)
			}
			if !yield(c, err) || err != nil {
				return
			}
		}
	}
}

// changeLog writes the changes of one apply, each with a write of its own: what
// a buffer held would be lost with the process, and with it the way to what was
// moved away.
type changeLog struct {
	f   *os.File
	enc *json.Encoder
}

func (r *Root) newChangeLog(seq int) (*changeLog, error) {
	path := r.changesPath(seq)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, err
	}
	// EXCL: the record of another apply is never overwritten.
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_EXCL, 0o644)
	if err != nil {
		return nil, err
	}
	return &changeLog{f, json.NewEncoder(f)}, nil
}

func (l *changeLog) add(c *Change) error { return l.enc.Encode(c) }

func (l *changeLog) close() error { return l.f.Close() }
