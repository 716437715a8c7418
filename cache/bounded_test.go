package cache_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/clayer/clayer/cache"
	"github.com/clayer/clayer/dag/key"
)

// mute is a store that answers after a time, or never.
type mute struct {
	cache.Store
	after time.Duration // 0: never
	asked int
}

func (m *mute) Name() string { return "mute" }

func (m *mute) Find(ctx context.Context, _ string, _ []key.Key) (map[key.Key]cache.Found, error) {
	m.asked++
	if m.after == 0 {
		<-ctx.Done()
		return nil, context.Cause(ctx)
	}
	time.Sleep(m.after)
	cache.Answered(ctx)
	select { // and takes its time
	case <-time.After(time.Hour):
		return nil, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

func (m *mute) Put(context.Context, cache.Descriptor, *cache.Blob) error { return nil }
func (m *mute) Writable() error                                          { return nil }

// A store that says nothing is given up after a time, once; one that answers has all the
// time that it needs, and so has one that waits for the network.
func TestBounded(t *testing.T) {
	const within = 20 * time.Second
	synctest.Test(t, func(t *testing.T) {
		var named []string
		silent := &mute{}
		chain := cache.Tiered(func(store string, err error) { named = append(named, err.Error()) },
			cache.Bounded(silent, within, nil), cache.Bounded(&mute{after: 19 * time.Second}, within, nil))
		began := time.Now()
		if _, err := chain.Find(t.Context(), "", []key.Key{{1}}); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(began); took != within+19*time.Second+time.Hour {
			t.Errorf("it took %v", took)
		}
		if len(named) != 1 || named[0] != "no answer within 20s: it is not asked again" {
			t.Errorf("warned of %q", named)
		}
		if _, err := chain.Find(t.Context(), "", []key.Key{{1}}); err != nil || silent.asked != 1 {
			t.Errorf("asked %d times, %v", silent.asked, err)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		up := time.Now().Add(50 * time.Second)
		s := cache.Bounded(&mute{}, within, func() time.Duration { return max(time.Until(up), 0) })
		began := time.Now()
		_, err := s.Find(t.Context(), "", nil)
		if took := time.Since(began); err == nil || took != 50*time.Second {
			t.Errorf("%v after %v, want after the wait for the network", err, took)
		}
		if gone := s.Writable(); !errors.Is(err, gone) {
			t.Errorf("what was given up may be written to: %v", gone)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		s := cache.Bounded(&mute{}, within, nil)
		time.AfterFunc(time.Second, cancel)
		if _, err := s.Find(ctx, "", nil); !errors.Is(err, context.Canceled) {
			t.Errorf("interrupted: %v", err)
		}
		if err := s.Writable(); err != nil {
			t.Errorf("an interrupt gives no store up: %v", err)
		}
	})
}
