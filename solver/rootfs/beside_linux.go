package rootfs

import (
	"errors"
	"fmt"
	"os"
	"path"
	"time"

	"golang.org/x/sys/unix"

	"github.com/clayer/clayer/internal/inroot"
	"github.com/clayer/clayer/solver/internal/record"
)

// moveBeside takes away what an apply made on another mount below the root, from
// which nothing can be renamed into the state directory: to a name of its own in the
// same directory, which is removed after the commit.
func (u *undoing) moveBeside(f *inroot.Dir, name string, n int) error {
	p := path.Join(f.Path, name)
	to := record.TrashName(u.t.id, u.was.Seq, n)
	line := &record.Change{Kind: record.KindUndo, Path: []byte(p), Out: record.InBeside + to}
	if err := u.t.journal.Add(line); err != nil {
		return err
	}
	if err := u.t.journal.Sync(); err != nil {
		return err
	}
	err := u.t.spending(func() error {
		mark, err := u.t.r.state.Held().OpenFile(besideMark(u.t.id), os.O_CREATE|os.O_WRONLY, 0o600)
		if err != nil {
			return err
		}
		return mark.Close()
	})
	if err != nil {
		return inroot.Hard(err)
	}
	if err := u.Renameat(f.FD, name, f.FD, to, unix.RENAME_NOREPLACE); err != nil {
		return err
	}
	u.t.next.Trash = append(u.t.next.Trash, record.Trash{Path: []byte(path.Join(f.Path, to))})
	return nil
}

// besideMark is a file that is there until what a transaction took away beside its
// place is removed.
func besideMark(tx int) string { return path.Join("trash", fmt.Sprint("beside-", tx)) }

// datesOfTrash notes the times of the directories that trash is in, as they are to stay
// when it is removed.
func (t *transaction) datesOfTrash() error {
	if len(t.next.Trash) == 0 {
		return nil
	}
	fs, err := t.r.sys.OpenDirs(t.r.dir)
	if err != nil {
		return err
	}
	defer fs.Close()
	for i := range t.next.Trash {
		tr := &t.next.Trash[i]
		// Not found: it is below other trash, and goes with that.
		f, err := fs.GetReal(path.Dir(string(tr.Path)))
		if err == nil {
			tr.Time = time.Unix(f.St.Mtim.Unix()).UTC()
		} else if inroot.UnlessMissing(err) != nil {
			return err
		}
	}
	return nil
}

// emptyTrash removes what an undo took away on other mounts. The directories keep their
// times, also where this was cut off before.
func (r *Root) emptyTrash(s *record.State) error {
	if len(s.Trash) == 0 {
		return nil
	}
	if is, err := r.state.Exists(besideMark(s.Tx)); err != nil || !is {
		return err // it was done: what became of the directories since is the user's
	}
	fs, err := r.sys.OpenDirs(r.dir)
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
		err = r.sys.Unlinkat(f.FD, name, 0)
		if errors.Is(err, unix.EISDIR) {
			err = r.sys.RemoveAllAt(f.FD, name)
		}
		if err == nil || errors.Is(err, unix.ENOENT) {
			err = r.sys.Utimensat(f.FD, ".", f.St.Atim, inroot.Timespec(tr.Time))
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}
