package rootfs

import (
	"bytes"
	"errors"
	"os"

	"github.com/clayer/clayer/solver/internal/record"
)

// profileMark begins the file, and distinguishes it from another's.
const profileMark = "# Made by clayer solve --profile; clayer undo removes it.\n"

// ErrProfile says that the profile of a root could not be made, or taken away.
var ErrProfile = errors.New("login shells don't get the environment")

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
