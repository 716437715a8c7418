package inroot

import (
	"io/fs"
	"path"
	"strings"

	"golang.org/x/sys/unix"
)

// OpenFD opens a directory, for the calls that take one.
func (d *OwnDir) OpenFD(name string) (int, error) {
	f, err := d.root.Open(".")
	if err != nil {
		return -1, err
	}
	defer f.Close()
	fd, err := d.sys.OpenDirAt(int(f.Fd()), ".")
	for part := range strings.SplitSeq(path.Clean(name), "/") {
		if err != nil {
			return -1, &fs.PathError{Op: "open", Path: path.Join(d.root.Name(), name), Err: err}
		}
		if part == "." {
			continue
		}
		above := fd
		fd, err = d.sys.OpenDirAt(above, part)
		unix.Close(above)
	}
	if err != nil {
		return -1, &fs.PathError{Op: "open", Path: path.Join(d.root.Name(), name), Err: err}
	}
	return fd, nil
}

// OpenPrivate makes and opens a directory that others must not come at: it holds what
// the root itself hides, and old programs with the setuid bit.
func (d *OwnDir) OpenPrivate(name string) (int, error) {
	if err := d.MkdirAll(name, 0o700); err != nil {
		return -1, err
	}
	return d.OpenFD(name)
}
