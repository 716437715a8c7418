package report

import (
	"context"
	"sync"
	"time"

	"github.com/clayer/clayer/cache/transfer"
)

// often is how far apart two events about the same transfer are.
const often = 100 * time.Millisecond

// A Meter counts the bytes of a transfer and reports them from time to time.
type Meter struct {
	p     *Reporter
	event Event
	start time.Time

	mu   sync.Mutex // guards what follows
	n    int64
	last time.Time
}

// Metered returns a context whose downloads are reported as the event, with the
// bytes so far.
func (p *Reporter) Metered(ctx context.Context, e Event) (context.Context, *Meter) {
	m := &Meter{p: p, event: e, start: time.Now()}
	return transfer.WithProgress(ctx, m.add), m
}

func (m *Meter) add(n int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.n += n
	if now := time.Now(); now.Sub(m.last) >= often {
		m.last = now
		e := m.event
		e.Bytes = m.n
		m.p.Emit(e)
	}
}

// Took returns how long it is since the transfer began.
func (m *Meter) Took() time.Duration { return time.Since(m.start) }

// Moved returns how many bytes arrived, if that is less than all of size and not nothing: the
// others were near. Else it returns 0.
func (m *Meter) Moved(size int64) int64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.n >= size {
		return 0
	}
	return m.n
}

// Done reports the end of a transfer in which any bytes arrived.
func (m *Meter) Done(err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.n > 0 && err == nil {
		m.p.Emit(Event{Kind: Fetched, Step: m.event.Step, Bytes: m.n, Took: time.Since(m.start)})
	}
}
