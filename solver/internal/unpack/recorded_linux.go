package unpack

import (
	"context"
	"errors"
	"path"
	"slices"
	"strconv"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/clayer/clayer/cache/snapshot"
	"github.com/clayer/clayer/internal/inroot"
	"github.com/clayer/clayer/internal/pathname"
	"github.com/clayer/clayer/solver/internal/merge"
	"github.com/clayer/clayer/solver/internal/metadata"
	"github.com/clayer/clayer/solver/internal/record"
)

// Recorded is Unpack in a transaction. Each entry goes through three states:
//
//	staged     created in the stage directory, by a stager, where nothing of the
//	           root is changed
//	announced  a line in the journal, which is synced, says what is about to be done
//	committed  what was there is an original now, and what was staged is in its place
//
// Entries are staged, announced and committed in chunks, so that one sync is for
// many of them, and a chunk is staged while the one before is committed.
//
// ev has the numbers of the apply and of the transaction; it comes back with what the
// record needs.
func Recorded(ctx context.Context, dir string, changes snapshot.Changes, to Recording, ev record.Event) (record.Event, Result, error) {
	tree, err := metadata.Open(to.Dir.Sys(), dir, to.Journal)
	if err != nil {
		return ev, Result{}, err
	}
	r := &recorder{maker: maker{Tree: tree}, to: to, ev: ev, filled: make(filled), originalsFD: -1, will: make(map[string]string)}
	if r.lower, err = openLower(to.Dir.Sys(), to.Lower, to.Hidden); err != nil {
		r.close()
		return ev, Result{}, err
	}
	var below merge.Below
	if r.lower != nil {
		below = r.lower.database
	}
	r.merger = merge.New(to.Placement, to.PreserveRecords, below)
	r.ev.From = to.Journal.End()
	if err := r.openState(dir); err != nil {
		r.close()
		return ev, Result{}, err
	}
	res, err := r.run(ctx, changes)
	r.ev.To = to.Journal.End()
	slices.Sort(r.ev.Not)
	return r.ev, res, err
}

// A recorder is an apply in a transaction.
type recorder struct {
	maker
	to     Recording
	lower  *lower
	merger *merge.Merger
	ev     record.Event
	n      atomic.Int64 // of the last change
	filled filled
	res    Result

	// Clayer's state, if it is below the root: no entry may be there.
	own   string // without links
	ownID inroot.FileID

	originalsFD int               // -1 until the first original
	unexpected  bool              // something was announced by itself
	will        map[string]string // by the path of a directory that the chunk creates: where it will be
}

// openState opens the stage directory, and finds the state directory in the root, into
// which no entry may lead.
func (r *recorder) openState(root string) error {
	var err error
	if r.own, r.ownID, err = inroot.Below(root, r.to.Dir.String()); err != nil {
		return err
	}
	fd, err := r.to.Dir.Held().OpenPrivate(path.Join("stage", strconv.Itoa(r.ev.Seq)))
	if err != nil {
		return err
	}
	if r.stage, err = r.NewDir(fd, "", ""); err != nil {
		return err
	}
	// What is made there must inherit nothing from it.
	if r.stage.St.Mode&unix.S_ISGID != 0 {
		if err := r.Fchmod(fd, 0o700); err != nil {
			return err
		}
	}
	r.stage.ACL = false
	err = r.Fremovexattr(fd, "system.posix_acl_default")
	if errors.Is(err, unix.ENODATA) || errors.Is(err, unix.ENOTSUP) {
		err = nil
	}
	if err != nil {
		return err
	}
	r.born, err = bornIn(fd)
	return err
}

func (r *recorder) close() {
	if r.originalsFD >= 0 {
		unix.Close(r.originalsFD)
	}
	if r.stage != nil {
		unix.Close(r.stage.FD)
	}
	r.lower.close()
	r.Close()
}

func (r *recorder) run(ctx context.Context, changes snapshot.Changes) (res Result, err error) {
	st := newStager(r)
	defer func() {
		err = errors.Join(err, st.end())
		// Also after a failure: what a directory's time was must not depend on how
		// far this came.
		err = errors.Join(err, r.SetTimes())
		r.close()
		res = r.res
		res.Unprivileged, res.Foreign = r.Unprivileged, r.Foreign
	}()
	for e, err := range snapshot.Validate(changes) {
		if err == nil {
			err = context.Cause(ctx)
		}
		var records *record.Records
		if err == nil {
			e, records, err = r.merger.Entry(r.Dirs, e) // before the entry hides what is below
		}
		if err == nil {
			e, err = r.overLower(e)
		}
		if err == nil {
			err = st.stage(ctx, e, records)
		}
		if err != nil {
			return r.res, err
		}
	}
	return r.res, st.finish(ctx)
}

// isVerified reports whether it is known that the stream is what it should be.
func (r *recorder) isVerified() bool {
	if r.to.Verified == nil {
		return true
	}
	select {
	case <-r.to.Verified:
		return true
	default:
		return false
	}
}

// guard refuses a path in clayer's own directory: a snapshot that could write
// there would say what is applied, and what the originals were.
func (r *recorder) guard(p string) error {
	if r.own != "" && pathname.Under(p, r.own) {
		return unsafe(p, "in clayer's own directory")
	}
	return nil
}

// guardBelow is guard for what stands at a name, however one came there: a
// step before, or the machine, may have a link to clayer's directory.
func (r *recorder) guardBelow(parent *inroot.Dir, name, p string) error {
	if r.own == "" || parent.Path == parent.Name {
		return nil
	}
	in, err := r.IsBelow(parent.FD, r.ownID)
	if err == nil && !in {
		var st *unix.Stat_t
		st, err = parent.Stat(name)
		in = err == nil && st != nil && inroot.IDOf(st) == r.ownID
	}
	if err == nil && in {
		return unsafe(p, "in clayer's own directory")
	}
	return err
}
