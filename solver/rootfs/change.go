package rootfs

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"path/filepath"
	"strconv"
	"time"
)

// A Change is what an apply did to one path, with what undoing it needs.
type Change struct {
	Path     []byte `json:"path"`               // relative to the root; bytes, since names need not be UTF-8
	Kind     string `json:"kind"`               // what stands there now: file, dir, symlink, link, device, fifo; "gone"
	Created  bool   `json:"created,omitempty"`  // nothing stood there before
	Original int    `json:"original,omitempty"` // what stood there, by its number in originals/; 0: nothing was moved
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

func (r *Root) originalsPath(seq int) string {
	return filepath.Join(r.state, "originals", fmt.Sprintf("%06d", seq))
}

// OriginalPath returns where the original of a Change is.
func (r *Root) OriginalPath(seq, original int) string {
	return filepath.Join(r.originalsPath(seq), strconv.Itoa(original))
}

// Changes yields what the apply of that number changed, in its order.
func (r *Root) Changes(seq int) iter.Seq2[Change, error] { return r.changesOf(seq) }

func (r *Root) changesOf(seq int) iter.Seq2[Change, error] {
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
			if errors.Is(err, io.EOF) {
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

// changeLog writes the changes of one apply.
type changeLog struct {
	f *os.File
	w *bufio.Writer
}

func (r *Root) newChangeLog(seq int) (*changeLog, error) {
	path := r.changesPath(seq)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o644)
	if err != nil {
		return nil, err
	}
	return &changeLog{f, bufio.NewWriterSize(f, 64<<10)}, nil
}

func (l *changeLog) add(c *Change) error {
	data, err := json.Marshal(c)
	if err != nil {
		return err
	}
	if _, err := l.w.Write(data); err != nil {
		return err
	}
	return l.w.WriteByte('\n')
}

func (l *changeLog) close() error {
	return errors.Join(l.w.Flush(), l.f.Close())
}
