package cache

import (
	"context"
	"errors"
)

// A Prober is a store that can find out whether it may be written to, and removes what it
// wrote for that.
type Prober interface {
	Probe(ctx context.Context) error
}

// ErrNotTried says that writing was not tried: what is written could not be removed again.
var ErrNotTried = errors.New("not tried: what is written there stays")

// Probe finds out whether a store can be written to: nil if a trial worked, ErrReadOnly for a
// store that never is, and ErrNotTried where what a trial writes could not be removed.
func Probe(ctx context.Context, s Store) error {
	if err := s.Writable(); err != nil {
		return err
	}
	for {
		if p, ok := s.(Prober); ok {
			return p.Probe(ctx)
		}
		around, ok := s.(interface{ unwrap() Store })
		if !ok {
			return ErrNotTried
		}
		s = around.unwrap()
	}
}

func (g *guard) unwrap() Store   { return g.Store }
func (b *bounded) unwrap() Store { return b.Store }
