package rootfs

import (
	"errors"

	"github.com/clayer/clayer/internal/durability"
	"github.com/clayer/clayer/solver/internal/unsynced"
)

// mark notes that what is done from here on is not synced at once, if it is not.
func (l *Lock) mark() error {
	r := l.root
	if l.unsynced != nil || max(r.sys.Durability, r.state.Sys().Durability) == durability.Durable {
		return nil
	}
	return r.spending(rollbackFiles, func() (err error) {
		l.unsynced, err = unsynced.Make(r.state, l.state.Tx)
		return err
	})
}

// settle has all that was done outlive a loss of power, before the lock is given back.
func (l *Lock) settle() error {
	if l.unsynced == nil {
		return nil
	}
	return unsynced.Settle(l.root.sys, l.root.dir, l.root.state)
}

// afterPowerLoss is called when what was cut off is rolled back. What it finds is in Lost.
func (l *Lock) afterPowerLoss() error {
	r := l.root
	saved, err := unsynced.Salvage(r.state, l.state)
	if saved != "" {
		l.lost().Saved = saved
	}
	if err == nil {
		err = r.cleanup(l.state)
	}
	if err != nil {
		return err
	}
	t, err := l.begin()
	if err != nil {
		return err
	}
	differs, err := l.unsynced.Review(r.sys, r.dir, r.state, &t.next, l.lost)
	if err != nil || !differs {
		err = errors.Join(err, l.Rollback())
	} else {
		err = l.commit()
	}
	if err == nil { // what there is now was read from the disk
		l.unsynced, err = nil, r.state.Held().Remove(unsynced.Name)
	}
	if err == nil && differs {
		err = l.mark()
	}
	return err
}

func (l *Lock) lost() *unsynced.Lost {
	if l.Lost == nil {
		l.Lost = new(unsynced.Lost)
	}
	return l.Lost
}
