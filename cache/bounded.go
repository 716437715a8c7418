package cache

import (
	"context"
	"fmt"
	"net/http/httptrace"
	"sync"
	"sync/atomic"
	"time"

	"github.com/clayer/clayer/dag/key"
)

// bounded is a store with a bound on how long its first answer may take.
type bounded struct {
	Store
	within time.Duration
	longer func() time.Duration

	answered atomic.Bool
	mu       sync.Mutex
	gone     error // why it is not asked again
}

// Bounded returns a store that is given up for the rest of the process if nothing answers
// the first call that reads from it within a time: the stores after it in a chain are asked
// instead. Once it has answered, its own limits hold. longer returns how much longer the
// answer may take, since the network is not up; nil for never.
func Bounded(s Store, within time.Duration, longer func() time.Duration) Store {
	return &bounded{Store: s, within: within, longer: longer}
}

type answerKey struct{}

// Answered notes that something answered a call of a Bounded store, whose context this is.
// Clients of HTTP need not call it.
func Answered(ctx context.Context) {
	if hear, ok := ctx.Value(answerKey{}).(func()); ok {
		hear()
	}
}

// given returns why the store was given up.
func (b *bounded) given() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.gone
}

// hearing returns a context that learns whether something answers.
func (b *bounded) hearing(ctx context.Context) context.Context {
	if b.answered.Load() {
		return ctx
	}
	hear := func() { b.answered.Store(true) }
	ctx = context.WithValue(ctx, answerKey{}, hear)
	return httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotFirstResponseByte: hear})
}

// read calls f, which asks the store for something.
func (b *bounded) read(ctx context.Context, f func(context.Context) error) error {
	if err := b.given(); err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(b.hearing(ctx))
	defer cancel(nil)
	if !b.answered.Load() {
		go b.watch(ctx, cancel)
	}
	err := f(ctx)
	if err != nil {
		if gone := b.given(); gone != nil {
			return gone
		}
	}
	return err
}

// watch ends a call that nothing answers in time.
func (b *bounded) watch(ctx context.Context, cancel context.CancelCauseFunc) {
	for wait := b.within; wait > 0; {
		t := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			t.Stop()
			return
		case <-t.C:
		}
		if b.answered.Load() {
			return
		}
		wait = 0
		if b.longer != nil {
			wait = b.longer()
		}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.gone = fmt.Errorf("no answer within %v: it is not asked again", b.within)
	cancel(b.gone)
}

// write calls f, which gives the store something. An answer may come when all is sent.
func (b *bounded) write(ctx context.Context, f func(context.Context) error) error {
	if err := b.given(); err != nil {
		return err
	}
	return f(b.hearing(ctx))
}

func (b *bounded) Writable() error {
	if err := b.given(); err != nil {
		return err
	}
	return b.Store.Writable()
}

func (b *bounded) Find(ctx context.Context, tag string, keys []key.Key) (found map[key.Key]Found, err error) {
	err = b.read(ctx, func(ctx context.Context) (err error) {
		found, err = b.Store.Find(ctx, tag, keys)
		return err
	})
	return found, err
}

func (b *bounded) Variants(ctx context.Context, tag string, keys []key.Key) (found map[key.Key][]Found, err error) {
	err = b.read(ctx, func(ctx context.Context) (err error) {
		found, err = b.Store.Variants(ctx, tag, keys)
		return err
	})
	return found, err
}

func (b *bounded) Fetch(ctx context.Context, d Descriptor, blob *Blob) error {
	return b.read(ctx, func(ctx context.Context) error { return b.Store.Fetch(ctx, d, blob) })
}

func (b *bounded) List(ctx context.Context) (ms []Manifest, err error) {
	err = b.read(ctx, func(ctx context.Context) (err error) {
		ms, err = b.Store.List(ctx)
		return err
	})
	return ms, err
}

func (b *bounded) Interrupted(ctx context.Context) (ms []Manifest, err error) {
	err = b.read(ctx, func(ctx context.Context) (err error) {
		ms, err = b.Store.Interrupted(ctx)
		return err
	})
	return ms, err
}

func (b *bounded) Put(ctx context.Context, d Descriptor, blob *Blob) error {
	return b.write(ctx, func(ctx context.Context) error { return b.Store.Put(ctx, d, blob) })
}

func (b *bounded) Complete(ctx context.Context, m Manifest) error {
	return b.write(ctx, func(ctx context.Context) error { return b.Store.Complete(ctx, m) })
}

func (b *bounded) Remove(ctx context.Context, ms []Manifest) (freed int64, err error) {
	err = b.write(ctx, func(ctx context.Context) (err error) {
		freed, err = b.Store.Remove(ctx, ms)
		return err
	})
	return freed, err
}
