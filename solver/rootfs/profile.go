package rootfs

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"

	"github.com/clayer/clayer/solver/rootfs/record"
)

// profileMark begins the file, and tells it from another's.
const profileMark = "# Made by clayer solve --profile; clayer undo removes it.\n"

// Profile returns the commands of the root's profile; nil where there is none of
// clayer's.
func (r *Root) Profile() []byte {
	root, err := os.OpenRoot(r.dir)
	if err != nil {
		return nil
	}
	defer root.Close()
	data, err := root.ReadFile(record.ProfilePath)
	commands, ok := bytes.CutPrefix(data, []byte(profileMark))
	if err != nil || !ok {
		return nil
	}
	return append([]byte{}, commands...)
}

// WriteProfile makes the commands of a shell what login shells of the root begin
// with; none removes the file. A file of that name that is another's stays, and
// is an error. What is the same is not written.
func (r *Root) WriteProfile(commands []byte) error {
	root, err := os.OpenRoot(r.dir)
	if err != nil {
		return err
	}
	defer root.Close()
	old, err := root.ReadFile(record.ProfilePath)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if len(commands) == 0 {
			return nil
		}
	case err != nil:
		return err
	case !bytes.HasPrefix(old, []byte(profileMark)):
		return fmt.Errorf("/%s is not clayer's", record.ProfilePath)
	case len(commands) == 0:
		return root.Remove(record.ProfilePath)
	}
	text := append([]byte(profileMark), commands...)
	if bytes.Equal(old, text) {
		return nil
	}
	if err := root.MkdirAll(path.Dir(record.ProfilePath), 0o755); err != nil {
		return err
	}
	// Renamed into place: a shell that starts just now reads all of it or none.
	temp := path.Join(path.Dir(record.ProfilePath), record.TempPrefix+"profile")
	err = root.WriteFile(temp, text, 0o644)
	if err == nil {
		err = root.Rename(temp, record.ProfilePath)
	}
	if err != nil {
		_ = root.Remove(temp)
	}
	return err
}
