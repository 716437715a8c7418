package rootfs

import (
	"os"
	"path"

	"golang.org/x/sys/unix"

	"github.com/clayer/clayer/internal/inroot"
	"github.com/clayer/clayer/solver/internal/record"
	"github.com/clayer/clayer/solver/internal/trash"
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
		mark, err := u.t.r.state.Held().OpenFile(trash.Mark(u.t.id), os.O_CREATE|os.O_WRONLY, 0o600)
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

func (r *Root) trash() trash.Root { return trash.Root{Dir: r.dir, State: r.state, Sys: r.sys} }
