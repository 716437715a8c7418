// Package trash removes what an undo has moved aside on mounts below a root, from which
// nothing can be renamed into the state directory. The state lists it when the undo is
// committed; until then nothing is removed.
package trash

import (
	"errors"
	"fmt"
	"path"
	"time"

	"golang.org/x/sys/unix"

	"github.com/clayer/clayer/internal/inroot"
	"github.com/clayer/clayer/solver/internal/record"
)

// A Root is a root, and its state.
type Root struct {
	Dir   string
	State record.Dir
	Sys   inroot.Sys
}

// Mark is the name in the state directory of a file that is there until what a transaction
// moved aside is removed.
func Mark(tx int) string { return path.Join("trash", fmt.Sprint("beside-", tx)) }

// Date notes the times of the directories that trash is in, as they are to stay when it is
// removed.
func (r Root) Date(list []record.Trash) error {
	if len(list) == 0 {
		return nil
	}
	fs, err := r.Sys.OpenDirs(r.Dir)
	if err != nil {
		return err
	}
	defer fs.Close()
	for i := range list {
		// Not found: it is below other trash, and goes with that.
		f, err := fs.GetReal(path.Dir(string(list[i].Path)))
		if err == nil {
			list[i].Time = time.Unix(f.St.Mtim.Unix()).UTC()
		} else if inroot.UnlessMissing(err) != nil {
			return err
		}
	}
	return nil
}

// Empty removes the trash of a state. The directories keep their times, also where this was
// cut off before.
func (r Root) Empty(s *record.State) error {
	if len(s.Trash) == 0 {
		return nil
	}
	if is, err := r.State.Exists(Mark(s.Tx)); err != nil || !is {
		return err // it was done: what became of the directories since is the user's
	}
	fs, err := r.Sys.OpenDirs(r.Dir)
	if err != nil {
		return err
	}
	defer fs.Close()
	var errs []error
	for _, tr := range s.Trash {
		f, err := fs.GetReal(path.Dir(string(tr.Path)))
		if err != nil {
			errs = append(errs, inroot.UnlessMissing(err))
			continue
		}
		name := path.Base(string(tr.Path))
		err = r.Sys.Unlinkat(f.FD, name, 0)
		if errors.Is(err, unix.EISDIR) {
			err = r.Sys.RemoveAllAt(f.FD, name)
		}
		if err == nil || errors.Is(err, unix.ENOENT) {
			err = r.Sys.Utimensat(f.FD, ".", f.St.Atim, inroot.Timespec(tr.Time))
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}
