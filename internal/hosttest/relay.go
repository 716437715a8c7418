package hosttest

import (
	"io"
	"net"
	"net/url"
	"sync/atomic"
	"testing"
)

// A Relay passes connections on to a server over a link, and counts what they carry.
type Relay struct {
	URL      string       // of the server, by way of the relay
	Up, Down atomic.Int64 // bytes to the server, and from it
}

// NewRelay starts a relay to the server of a URL, which ends with the test.
func NewRelay(t testing.TB, to string, link Link) *Relay {
	t.Helper()
	u, err := url.Parse(to)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	r, host := &Relay{}, u.Host
	u.Host = l.Addr().String()
	r.URL = u.String()
	paced := &pacedListener{Listener: l, pace: newPace(link)}
	go func() {
		for {
			c, err := paced.Accept()
			if err != nil {
				return
			}
			go r.serve(c, host)
		}
	}()
	return r
}

func (r *Relay) serve(c net.Conn, host string) {
	defer c.Close()
	s, err := net.Dial("tcp", host)
	if err != nil {
		return
	}
	defer s.Close()
	go func() {
		_, _ = io.Copy(counted{s, &r.Up}, c)
		_ = s.(*net.TCPConn).CloseWrite()
	}()
	_, _ = io.Copy(counted{c, &r.Down}, s)
}

type counted struct {
	io.Writer
	n *atomic.Int64
}

func (c counted) Write(b []byte) (int, error) {
	n, err := c.Writer.Write(b)
	c.n.Add(int64(n))
	return n, err
}
