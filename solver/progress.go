package solver

import (
	"context"
	"sync"
	"time"

	"github.com/clayer/clayer/cache/transfer"
)

// often is how far apart two events about the same transfer are.
const often = 100 * time.Millisecond

// A meter counts the bytes of a transfer and tells of them from time to time.
type meter struct {
	r     *session
	event Event
	start time.Time

	mu   sync.Mutex // guards what follows
	n    int64
	told time.Time
}

// metered returns a context whose downloads are told as the event, with the
// bytes so far.
func (r *session) metered(ctx context.Context, e Event) (context.Context, *meter) {
	m := &meter{r: r, event: e, start: time.Now()}
	return transfer.WithProgress(ctx, m.add), m
}

func (m *meter) add(n int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.n += n
	if now := time.Now(); now.Sub(m.told) >= often {
		m.told = now
		e := m.event
		e.Bytes = m.n
		m.r.emit(e)
	}
}

// fetched tells, if anything came at all, that it is here.
func (m *meter) fetched(err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.n > 0 && err == nil {
		m.r.emit(Event{Kind: EventFetched, Step: m.event.Step, Bytes: m.n, Took: time.Since(m.start)})
	}
}
