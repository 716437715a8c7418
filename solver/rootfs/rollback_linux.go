package rootfs

import (
	"bytes"
	"errors"
	"fmt"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Rollback takes back all that was done since Lock, or the last Commit. What it
// can't finish, the next Lock does. It writes next to nothing, so that a disk
// that is full doesn't stop it.
func (l *Lock) Rollback() error {
	t := l.tx
	if t == nil {
		return nil
	}
	l.tx = nil
	// Lines that never reached the file announce nothing that was done.
	_ = t.log.f.Close()
	if err := l.root.rollback(t.id); err != nil {
		return fmt.Errorf("%s is left half-changed; the next command goes on to take it back: %w", l.root.dir, err)
	}
	return l.root.cleanup(l.state)
}

// rollback takes back the changes of a transaction that was not committed, from
// the last to the first. What each line announces was done wholly, in part, or
// not at all, which is seen by where things are; doing it twice does no harm.
func (r *Root) rollback(tx int) error {
	a, err := newApplier(r.dir, hasOpenat2())
	if errors.Is(err, unix.ENOENT) {
		return r.takenBack(tx) // not even the root was made
	}
	if err != nil {
		return err
	}
	defer a.close()
	b := &rollback{applier: a, r: r, again: make(map[[2]int]bool), was: make(map[string]*Meta), xattrs: make(map[string]map[string][]byte)}
	if b.state, err = unix.Open(r.state, openFolder, 0); err != nil {
		return fmt.Errorf("open %s: %w", r.state, err)
	}
	defer unix.Close(b.state)
	var sound int64
	for c, err := range readBackward(r.logPath(tx), 0, -1, &sound) {
		if err == nil {
			err = b.line(&c)
		}
		if err != nil {
			return fmt.Errorf("take back %q: %w", c.Path, err)
		}
	}
	if err := b.folders(); err != nil {
		return err
	}
	if err := syncfs(b.state); err != nil { // before the log, which tells what to do
		return err
	}
	return r.takenBack(tx)
}

// takenBack says that nothing of a transaction is in the root any more: from
// here on its log must not be followed again, since cleanup removes that by which
// it tells what was done.
func (r *Root) takenBack(tx int) error {
	return renamePath(r.logPath(tx), r.rolledBack())
}

type rollback struct {
	*applier
	r     *Root
	state int // the state folder
	again map[[2]int]bool
	was   map[string]*Meta // of folders, before the transaction

	// xattrs are those of the folders that may have got others.
	xattrs map[string]map[string][]byte
}

// place is a name in an open folder.
type place struct {
	fd   int
	name string
}

func (b *rollback) line(c *Change) error {
	p := string(c.Path)
	switch {
	case c.Kind == kindTime:
		b.was[p] = c.Was // the first line of a folder is the last that is met
		return nil
	case c.Kind == kindTemp:
		f, err := b.getReal(path.Dir(p))
		if err == nil {
			err = unlinkat(f.fd, path.Base(p), 0)
		}
		return missingIsFine(err)
	case c.Kind == kindUndo:
		return b.back(p, c.In, c.Out)
	case c.Again:
		b.again[[2]int{c.Seq, c.N}] = true
	case b.again[[2]int{c.Seq, c.N}]:
		return nil
	}
	if c.Kept || c.Lost || c.Left {
		return nil
	}
	if c.Was != nil {
		b.was[p], b.xattrs[p] = c.Was, c.Was.Xattrs
		return nil
	}
	n := strconv.Itoa(c.N)
	out := path.Join("originals", fmt.Sprintf("%06d", c.Seq), n)
	switch {
	case c.Kind == "gone":
		return b.back(p, "", out)
	case c.Kind == "dir":
		return b.back(p, inMade, out)
	case c.Beside:
		return b.back(p, inBeside+tempName(c.Seq, c.N), out)
	}
	return b.back(p, path.Join("stage", strconv.Itoa(c.Seq), n), out)
}

// What Change.In can be beside a path in the state folder.
const (
	inMade   = "mkdir"   // a new folder
	inBeside = "beside:" // a name in the same folder
)

// back takes back one change of a path: what came in goes back to where it was,
// and what went out comes back.
func (b *rollback) back(p, in, out string) error {
	f, err := b.getReal(path.Dir(p))
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) {
		f = nil // then it was not done, or else someone took the folder away
	} else if err != nil {
		return err
	}
	from := place{b.state, out}
	kept, err := b.stat(from, out != "")
	if err != nil {
		return err
	}
	if f == nil {
		if kept != nil {
			return fmt.Errorf("its folder is gone; what stood there is %s", filepath.Join(b.r.state, out))
		}
		return nil
	}
	at := place{f.fd, path.Base(p)}
	here, err := b.stat(at, true)
	if err != nil {
		return err
	}
	if here != nil && kept != nil && idOf(here) == idOf(kept) {
		return unlinkat(from.fd, from.name, 0) // a second link to what stands there: nothing came in yet
	}
	if isDir(here) || isLink(here) {
		b.forgetBut(f)
	}
	switch came, err := b.cameIn(f, in, here); {
	case err != nil:
		return err
	case came:
		if in == inMade {
			err = unlinkat(at.fd, at.name, unix.AT_REMOVEDIR)
		} else {
			err = b.giveBack(at, b.waiting(f, in), kept != nil && !isDir(kept) && !isDir(here))
		}
		if err != nil {
			return err
		}
	}
	if kept == nil {
		return nil
	}
	return renameat(from.fd, from.name, at.fd, at.name, 0)
}

// cameIn reports whether what stands at a path is what a change brought.
func (b *rollback) cameIn(f *folder, in string, here *unix.Stat_t) (bool, error) {
	switch {
	case in == "" || here == nil:
		return false, nil
	case in == inMade:
		return isDir(here), nil
	}
	st, err := b.stat(b.waiting(f, in), true)
	return err == nil && st == nil, err
}

// waiting is where what came in was before.
func (b *rollback) waiting(f *folder, in string) place {
	if name, ok := strings.CutPrefix(in, inBeside); ok {
		return place{f.fd, name}
	}
	return place{b.state, in}
}

// giveBack moves what came in to where it was, also what is needed no more: its
// place tells, should this be cut off too, that it has been taken back. By a
// second link, where something takes its name at once.
func (b *rollback) giveBack(at, to place, replaced bool) error {
	if replaced {
		err := linkat(at.fd, at.name, to.fd, to.name)
		if !errors.Is(err, unix.EPERM) && !errors.Is(err, unix.EMLINK) {
			return err
		}
	}
	return renameat(at.fd, at.name, to.fd, to.name, unix.RENAME_NOREPLACE)
}

func (b *rollback) stat(p place, wanted bool) (*unix.Stat_t, error) {
	if !wanted {
		return nil, nil
	}
	var st unix.Stat_t
	err := fstatat(p.fd, p.name, &st)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return &st, nil
}

func missingIsFine(err error) error {
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) {
		return nil
	}
	return err
}

// folders gives the folders that were there before their metadata: the deepest
// first, since the mode of one may keep this user out of those below.
func (b *rollback) folders() error {
	paths := make([]string, 0, len(b.was))
	for p := range b.was {
		paths = append(paths, p)
	}
	slices.SortFunc(paths, func(x, y string) int { return strings.Compare(y, x) })
	for _, p := range paths {
		if err := b.restore(p, b.was[p]); err != nil {
			return fmt.Errorf("metadata of %q: %w", p, err)
		}
	}
	return nil
}

func (b *rollback) restore(p string, m *Meta) error {
	f, err := b.getReal(p)
	if err != nil {
		return missingIsFine(err)
	}
	var st unix.Stat_t
	if err := unix.Fstat(f.fd, &st); err != nil {
		return err
	}
	if int(st.Uid) != m.UID || int(st.Gid) != m.GID {
		if err := fchown(f.fd, m.UID, m.GID); err != nil {
			return err
		}
	}
	if want, ok := b.xattrs[p]; ok {
		have, err := listXattrs(f.fd)
		if err == nil {
			err = setXattrs(f.fd, have, want)
		}
		if err != nil {
			return err
		}
	}
	ts := timespec(m.ModTime)
	if err := utimensat(f.fd, ".", st.Atim, ts); err != nil {
		return err
	}
	return fchmod(f.fd, m.Mode)
}

// setXattrs gives an open file that has some attributes others in their place.
func setXattrs(fd int, have, want map[string][]byte) error {
	for name := range have {
		if _, ok := want[name]; !ok {
			if err := fremovexattr(fd, name); err != nil {
				return err
			}
		}
	}
	for name, value := range want {
		if v, ok := have[name]; ok && bytes.Equal(v, value) {
			continue
		}
		if err := fsetxattr(fd, name, value); err != nil {
			return err
		}
	}
	return nil
}
