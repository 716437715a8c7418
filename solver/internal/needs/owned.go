package needs

import (
	"bufio"
	"encoding/csv"
	"errors"
	"io"
	"io/fs"
	"path"
	"strings"

	"github.com/clayer/clayer/cache/snapshot"
	"github.com/clayer/clayer/solver/internal/names"
)

// A list is what a package manager notes of the files of a package. What of them the
// step replaced, its result does not depend on.
type list struct {
	path string
	open func() (io.ReadCloser, error)
	read func(path string, r io.Reader, each func(string)) error
}

const dpkgInfo = "var/lib/dpkg/info/"

// noteList notes the list of a package that the step installs, or replaces.
func (r *Recorder) noteList(e *snapshot.Entry, dir, base string) {
	read, gone := readRecord, e.Path
	switch {
	case e.Kind == snapshot.Delete && strings.HasSuffix(base, ".dist-info"):
		gone = path.Join(e.Path, "RECORD")
	case dir == dpkgInfo && strings.HasSuffix(base, ".list"):
		read = readDpkgList
	case base != "RECORD" || !strings.HasSuffix(dir, ".dist-info/"):
		return
	}
	if e.Kind == snapshot.File {
		r.lists = append(r.lists, list{e.Path, e.Open, read})
	}
	if r.Before != nil || r.made[dir] {
		return
	}
	if was, err := r.View.Find(gone); err == nil && was.Kind == names.File {
		r.lists = append(r.lists, list{gone, was.Open, read})
	}
}

// dropOwned forgets what belongs to the packages that the step installs.
func (r *Recorder) dropOwned() error {
	drop := func(p string) {
		delete(r.old, p)
		delete(r.places, p)
	}
	for _, l := range r.lists {
		if len(r.old)+len(r.places) == 0 {
			return nil
		}
		f, err := l.open()
		if errors.Is(err, fs.ErrPermission) || errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		err = l.read(l.path, f, func(p string) {
			drop(p)
			if top, rest, ok := strings.Cut(p, "/"); ok && r.isLink(top) {
				drop("usr/" + top + "/" + rest) // as where /bin is /usr/bin
			}
		})
		if err = errors.Join(err, f.Close()); err != nil {
			return err
		}
	}
	return nil
}

// isLink reports whether a name at the top of the root is a link into /usr.
func (r *Recorder) isLink(top string) bool {
	known, ok := r.usr[top]
	if !ok {
		f, err := r.View.Find(top)
		known = err == nil && f.Kind == names.Link && strings.TrimPrefix(f.Target, "/") == "usr/"+top
		r.usr[top] = known
	}
	return known
}

func readDpkgList(_ string, r io.Reader, each func(string)) error {
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		each(strings.TrimPrefix(lines.Text(), "/"))
	}
	return lines.Err()
}

// readRecord reads the list of a Python distribution, whose paths are relative to the
// directory that has the distribution.
func readRecord(name string, r io.Reader, each func(string)) error {
	site := path.Dir(path.Dir(name))
	rows := csv.NewReader(r)
	rows.FieldsPerRecord, rows.LazyQuotes = -1, true
	for {
		row, err := rows.Read()
		if err == io.EOF {
			return nil
		}
		var syntax *csv.ParseError
		if errors.As(err, &syntax) {
			return nil // what cannot be read is as if it were not listed
		}
		if err != nil {
			return err
		}
		p := path.Join(site, row[0])
		if path.IsAbs(row[0]) {
			p = strings.TrimPrefix(path.Clean(row[0]), "/")
		}
		each(p)
		if top := strings.TrimSuffix(p, path.Base(p)); top != site+"/" {
			each(strings.TrimSuffix(top, "/")) // the directory of a package is listed by its files
		}
	}
}
