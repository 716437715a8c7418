package dir

import (
	"context"
	"crypto/rand"
	"io/fs"
	"os"
	"path"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/clayer/clayer/internal/safefile"
)

// Probe creates a file in the directory and removes it. A directory that is not there is not
// made: it is looked whether it can be.
func (d *Dir) Probe(context.Context) error {
	root, err := d.root()
	if missing(err) {
		above := filepath.Dir(d.path)
		for above != filepath.Dir(above) {
			if _, err := os.Lstat(above); err == nil {
				break
			}
			above = filepath.Dir(above)
		}
		if err := unix.Access(above, unix.W_OK); err != nil {
			return &fs.PathError{Op: "mkdir", Path: d.path, Err: err}
		}
		return nil
	}
	if err != nil {
		return err
	}
	defer root.Close()
	name := partPrefix + rand.Text()
	if _, err := root.Lstat(tmpName); err == nil {
		name = path.Join(tmpName, name) // where what a killed process leaves is swept up
	}
	f, err := safefile.OpenFile(root, name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = f.WriteString("probe")
	if e := root.Remove(name); err == nil {
		err = e
	}
	return err
}
