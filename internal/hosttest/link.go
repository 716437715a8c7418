package hosttest

import (
	"net"
	"sync"
	"time"
)

// A Link is what is between a machine and the internet. The zero Link has no bounds.
type Link struct {
	Rate    int64         // bytes a second, of all connections together, each way; 0 means no bound
	Latency time.Duration // of a round trip
}

// lag is how far what is sent may lag and catch up: a sleep that is too long takes nothing
// from a network.
const lag = 10 * time.Millisecond

// A pace is a link at work.
type pace struct {
	link     Link
	down, up bucket
}

func newPace(l Link) *pace { return &pace{link: l} }

// A bucket says when bytes are through.
type bucket struct {
	mu   sync.Mutex
	sent time.Time
}

func (b *bucket) wait(n int, rate int64) {
	if rate <= 0 {
		return
	}
	b.mu.Lock()
	now := time.Now()
	if most := now.Add(-lag); b.sent.Before(most) {
		b.sent = most
	}
	b.sent = b.sent.Add(time.Duration(n) * time.Second / time.Duration(rate))
	wait := b.sent.Sub(now)
	b.mu.Unlock()
	time.Sleep(wait)
}

type pacedListener struct {
	net.Listener
	pace *pace
}

func (l *pacedListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil || l.pace.link == (Link{}) {
		return c, err
	}
	return &pacedConn{Conn: c, pace: l.pace}, nil
}

// A pacedConn is a connection over a link. What comes after the machine spoke comes a round
// trip later: the first byte of it, as on a long line.
type pacedConn struct {
	net.Conn
	pace *pace

	mu     sync.Mutex
	spoken bool // the machine, since it was answered
}

func (c *pacedConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b[:min(len(b), 64<<10)])
	c.pace.up.wait(n, c.pace.link.Rate)
	c.mu.Lock()
	c.spoken = true
	c.mu.Unlock()
	return n, err
}

func (c *pacedConn) Write(b []byte) (n int, err error) {
	c.mu.Lock()
	spoken := c.spoken
	c.spoken = false
	c.mu.Unlock()
	if spoken {
		time.Sleep(c.pace.link.Latency)
	}
	for len(b) > 0 && err == nil {
		part := b[:min(len(b), 64<<10)]
		c.pace.down.wait(len(part), c.pace.link.Rate)
		var k int
		k, err = c.Conn.Write(part)
		n, b = n+k, b[len(part):]
	}
	return n, err
}
