package revert

import (
	"bytes"
	"fmt"
	"io"
	"path"
	"path/filepath"
	"slices"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/clayer/clayer/cache/snapshot"
	"github.com/clayer/clayer/internal/inroot"
	"github.com/clayer/clayer/solver/internal/databases"
	"github.com/clayer/clayer/solver/internal/record"
)

// A databaseChange is a change of a path at which a database is.
type databaseChange struct {
	records  *record.Records // nil: all of the file was replaced
	original []byte          // nil: nothing was there
}

// database notes the change of a database, and those after it of the same path.
func (v *reverting) database(r *Root, seq int, c *record.Change, preserved bool) error {
	p := string(c.Path)
	if c.Records == nil && v.databases[p] == nil || c.Preserved || c.Lost {
		return nil
	}
	d := databaseChange{records: c.Records}
	if preserved && c.MayHaveOriginal() {
		dir, err := r.Sys.OpenDir(r.State.Path(record.OriginalsName(seq)))
		if err != nil {
			return err
		}
		defer unix.Close(dir)
		if d.original, _, err = record.ReadDatabase(r.Sys, dir, strconv.Itoa(c.N)); err != nil {
			return err
		}
	}
	if v.databases == nil {
		v.databases = make(map[string][]databaseChange)
	}
	v.databases[p] = append(v.databases[p], d)
	return nil
}

// revertDatabases finds what databases were whose records have changed since they were
// applied: as they are now, without what the events made of them.
func (v *reverting) revertDatabases(r *Root) error {
	for p, changes := range v.databases {
		was := v.was[p]
		if was == nil || was.Kind != snapshot.File && was.Kind != snapshot.Delete || was.Kind == snapshot.Delete && r.Lower != "" {
			continue
		}
		file, meta, err := r.readDatabase(p)
		if err != nil {
			return err
		}
		if meta == nil {
			continue
		}
		for _, c := range slices.Backward(changes) {
			if c.records == nil {
				file = c.original
				continue
			}
			db, _ := databases.Known(c.records.Database)
			if file, err = db.Force(file, c.original, c.records.Undo); err != nil {
				return fmt.Errorf("revert records of %q: %w", p, err)
			}
		}
		if bytes.Equal(file, changes[0].original) {
			continue
		}
		e := *was
		if e.Kind == snapshot.Delete {
			e = snapshot.Entry{Path: p, Kind: snapshot.File, Mode: meta.Mode, UID: meta.UID, GID: meta.GID, ModTime: meta.ModTime}
		}
		e.Size, e.Content = int64(len(file)), file
		e.Open = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(file)), nil }
		v.was[p] = &e
		delete(v.ids, p)
	}
	return nil
}

// readDatabase reads the database that is at a path now.
func (r *Root) readDatabase(p string) ([]byte, *record.Meta, error) {
	dir, err := r.Sys.OpenDir(filepath.Join(r.Dir, path.Dir(p)))
	if err != nil {
		return nil, nil, inroot.UnlessMissing(err)
	}
	defer unix.Close(dir)
	return record.ReadDatabase(r.Sys, dir, path.Base(p))
}
