package transfer

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
)

// names is a resolver that knows the names of a table, and no others.
func names(table map[string]string) *net.Resolver {
	return &net.Resolver{PreferGo: true, Dial: func(context.Context, string, string) (net.Conn, error) {
		ours, theirs := net.Pipe()
		go func() {
			defer theirs.Close()
			for {
				// RFC 1035, 4.2.2: a message over a stream has its length before it.
				head := make([]byte, 2)
				if _, err := io.ReadFull(theirs, head); err != nil {
					return
				}
				query := make([]byte, binary.BigEndian.Uint16(head))
				if _, err := io.ReadFull(theirs, query); err != nil {
					return
				}
				var labels []string
				at := 12
				for query[at] != 0 {
					labels = append(labels, string(query[at+1:at+1+int(query[at])]))
					at += 1 + int(query[at])
				}
				kind := binary.BigEndian.Uint16(query[at+1:])
				ip, known := table[strings.Join(labels, ".")]
				reply := append([]byte{}, query[:at+5]...)
				copy(reply[2:12], []byte{0x81, 0x80, 0, 1, 0, 0, 0, 0, 0, 0})
				switch {
				case !known:
					reply[3] = 0x83 // no such name
				case kind == 1: // A
					reply[7] = 1
					reply = append(reply, 0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4)
					reply = append(reply, netip.MustParseAddr(ip).AsSlice()...)
				}
				theirs.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(reply))), reply...))
			}
		}()
		return ours, nil
	}}
}

// at is a connection that seems to lead to an address.
type at struct {
	net.Conn
	addr net.Addr
}

func (c at) RemoteAddr() net.Addr { return c.addr }

// checkRedirected checks the error of a request whose redirects are followed or refused.
func checkRedirected(t *testing.T, name string, ok bool, err error) {
	t.Helper()
	var refused *RedirectError
	switch {
	case ok && err != nil:
		t.Error(err)
	case !ok && !errors.As(err, &refused):
		t.Errorf("error = %v, want a *RedirectError", err)
	case strings.HasPrefix(name, "public to private") && (refused.Private != "10.0.0.2" || !strings.Contains(err.Error(), "refused, since it leads from a public host to a private address")):
		t.Errorf("error = %v", err)
	case strings.HasPrefix(name, "public to a private name") && !ok && (refused.Private != "private.example" || !strings.Contains(err.Error(), "refused, since it leads from a public host to a private address (10.0.0.1)")):
		t.Errorf("error = %v", err)
	case strings.HasPrefix(name, "public to loopback") && refused.Private != "":
		t.Errorf("error = %v", err)
	case !ok && strings.Contains(err.Error(), "tried"):
		t.Errorf("error = %v: more than one try", err)
	}
}

// TestRedirectsLeadNoNearer has servers at addresses of all kinds lead to each
// other. Those that are not this machine's are played by one that is.
func TestRedirectsLeadNoNearer(t *testing.T) {
	var asked atomic.Int32
	inner := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		io.WriteString(w, "secret")
	}))
	defer inner.Close()
	_, port, _ := net.SplitHostPort(inner.Listener.Addr().String())
	// Where /to=URL leads; elsewhere is what anyone may have.
	outer := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if to := r.URL.Query().Get("to"); to != "" {
			http.Redirect(w, r, strings.ReplaceAll(to, "PORT", port), http.StatusFound)
			return
		}
		io.WriteString(w, "open")
	}))
	defer outer.Close()
	addresses := map[string]string{"public.example:80": "198.51.100.1", "other.example:80": "198.51.100.2", "private.example:80": "10.0.0.1", "10.0.0.2:80": "10.0.0.2", "169.254.1.1:80": "169.254.1.1",
		"vpc.example:80": "10.8.8.8", "VPC.example:80": "10.8.8.8", "10.9.9.9:80": "10.9.9.9"}
	client := func() *Client {
		tr := newTransport(names(map[string]string{"inner.example": "127.0.0.1"}))
		tr.Proxy = nil
		tr.AllowPrivate = []string{"VPC.example", "10.9.9.9", "inner.example", "127.0.0.1"}
		dial := tr.DialContext
		tr.DialContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
			ip, ok := addresses[addr]
			if !ok {
				return dial(ctx, network, addr)
			}
			conn, err := net.Dial(network, outer.Listener.Addr().String())
			if err != nil {
				return nil, err
			}
			conn = at{conn, net.TCPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr(ip), 80))}
			tr.note(addr, conn)
			return conn, nil
		}
		return New(Options{Transport: tr, Network: network(true, NetworkOptions{})})
	}
	via := func(urls ...string) string {
		to := urls[len(urls)-1]
		for i := len(urls) - 2; i >= 0; i-- {
			to = urls[i] + "/?to=" + url.QueryEscape(to)
		}
		return to
	}
	const public, other, private = "http://public.example", "http://other.example", "http://private.example"
	local := outer.URL
	for _, tt := range []struct {
		name string
		url  string
		ok   bool
	}{
		{"public to loopback", via(public, "http://127.0.0.1:PORT/"), false},
		{"public to another loopback address", via(public, "http://127.1.2.3:PORT/"), false},
		{"public to localhost", via(public, "http://localhost:PORT/"), false},
		{"public to a name below localhost", via(public, "http://x.localhost.:PORT/"), false},
		{"public to IPv6 loopback", via(public, "http://[::1]:PORT/"), false},
		{"public to loopback as IPv6", via(public, "http://[::ffff:127.0.0.1]:PORT/"), false},
		{"public to loopback behind NAT64", via(public, "http://[64:ff9b::7f00:1]:PORT/"), false},
		{"public to the unspecified address", via(public, "http://0.0.0.0:PORT/"), false},
		{"public to a cloud's credentials", via(public, "http://169.254.169.254/latest/"), false},
		{"public to link-local", via(public, "http://[fe80::1]/"), false},
		{"public to private", via(public, "http://10.0.0.2/"), false},
		{"public to a private name", via(public, private), false},
		{"public to shared", via(public, "http://100.64.1.1/"), false},
		{"public to unique local", via(public, "http://[fd00::1]/"), false},
		{"public to a name of loopback", via(public, "http://inner.example:PORT/"), false},
		{"public to public to loopback", via(public, other, "http://127.0.0.1:PORT/"), false},
		{"public to public", via(public, other), true},
		{"public to itself", via(public, public), true},
		{"private to loopback", via(private, "http://127.0.0.1:PORT/"), false},
		{"private to link-local", via(private, "http://169.254.1.1/"), false},
		{"private to private", via(private, "http://10.0.0.2/"), true},
		{"private to public", via(private, public), true},
		{"private to public to private", via(private, public, "http://10.0.0.2/"), false},
		{"loopback to loopback", via(local, "http://127.0.0.1:PORT/"), true},
		{"loopback to a name of loopback", via(local, "http://inner.example:PORT/"), true},
		{"loopback to private", via(local, "http://10.0.0.2/"), true},
		{"loopback to public to loopback", via(local, public, "http://127.0.0.1:PORT/"), false},
		{"another scheme", via(local, "file:///etc/passwd"), false},
		{"public to a private name that is allowed", via(public, "http://vpc.example/"), true},
		{"public to a private address that is allowed", via(public, "http://10.9.9.9/"), true},
		{"public to an allowed name in capitals", via(public, "http://VPC.example/"), true},
		{"allowed to a private one that is not", via(public, "http://vpc.example", "http://10.0.0.2/"), false},
		{"public to an allowed name that is this machine", via(public, "http://inner.example:PORT/"), false},
		{"public to an allowed name of loopback", via(public, "http://127.0.0.1:PORT/"), false},
		{"asked for by the user", "http://inner.example:" + port + "/", true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			asked.Store(0)
			c := client()
			// An open connection to where it leads is not used either.
			if !tt.ok {
				if _, err := c.Get(t.Context(), "http://inner.example:"+port+"/", io.Discard, GetOptions{}); err != nil {
					t.Fatal(err)
				}
				asked.Store(0)
			}
			_, err := c.Get(t.Context(), tt.url, io.Discard, GetOptions{})
			c.http.CloseIdleConnections()
			checkRedirected(t, tt.name, tt.ok, err)
			if n := asked.Load(); !tt.ok && n > 0 {
				t.Errorf("the inner server was asked %d times", n)
			}
		})
	}
}

// A name that was the machine's own once does not let a server lead there later.
func TestNamesThatMoveStayPublic(t *testing.T) {
	tr := NewTransport()
	u, _ := url.Parse("http://moves.example/")
	for _, ip := range []string{"127.0.0.1", "198.51.100.1", "127.0.0.1"} {
		tr.note("moves.example:80", at{nil, net.TCPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr(ip), 80))})
	}
	if r := tr.reachOfHost(u); r != onInternet {
		t.Errorf("it is %s address", r)
	}
}

// An address from a server's answer is held to the same.
func TestLedBy(t *testing.T) {
	var asked atomic.Int32
	inner := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { asked.Add(1) }))
	defer inner.Close()
	public, _ := url.Parse("https://registry.example/v2/")
	own, _ := url.Parse(inner.URL)
	c := New(Options{})
	for by, ok := range map[*url.URL]bool{public: false, own: true} {
		asked.Store(0)
		req, _ := http.NewRequest(http.MethodPut, inner.URL, strings.NewReader("snapshot"))
		_, err := c.Send(LedBy(t.Context(), by), req)
		if (err == nil) != ok || asked.Load() > 0 != ok {
			t.Errorf("led by %s: %v, asked %d times", by, err, asked.Load())
		}
	}
}

// Behind a proxy, names are the proxy's to look up; an address is refused all the
// same, and the proxy itself may be anywhere.
func TestRedirectsThroughAProxy(t *testing.T) {
	var hosts []string
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		hosts = append(hosts, r.Host)
		if to := r.URL.Query().Get("to"); to != "" {
			http.Redirect(w, r, to, http.StatusFound)
		}
	}))
	defer proxy.Close()
	tr := NewTransport()
	tr.Proxy = func(*http.Request) (*url.URL, error) { return url.Parse(proxy.URL) }
	c := New(Options{Transport: tr})
	for to, ok := range map[string]bool{
		"http://other.example/": true, "http://127.0.0.1/": false, "http://169.254.169.254/": false, "http://localhost/": false, "http://10.0.0.1/": false,
	} {
		hosts = nil
		_, err := c.Get(t.Context(), "http://public.example/?to="+url.QueryEscape(to), io.Discard, GetOptions{})
		var refused *RedirectError
		if ok && err != nil || !ok && !errors.As(err, &refused) || len(hosts) != map[bool]int{true: 2, false: 1}[ok] {
			t.Errorf("%s: %v; asked for %q", to, err, hosts)
		}
	}
}

func TestReach(t *testing.T) {
	for ip, want := range map[string]reach{
		"127.0.0.1": onMachine, "127.255.0.1": onMachine, "::1": onMachine, "0.0.0.0": onMachine, "::": onMachine, "0.1.2.3": onMachine,
		"169.254.169.254": onMachine, "fe80::1%eth0": onMachine, "224.0.0.1": onMachine, "ff02::1": onMachine,
		"::ffff:127.0.0.1": onMachine, "2002:7f00:1::": onMachine, "64:ff9b::a9fe:a9fe": onMachine,
		"10.1.2.3": onNetwork, "172.16.0.1": onNetwork, "172.31.255.255": onNetwork, "192.168.1.1": onNetwork, "100.64.0.1": onNetwork,
		"100.127.255.255": onNetwork, "fc00::1": onNetwork, "fdff::1": onNetwork, "fec0::1": onNetwork, "64:ff9b::a00:1": onNetwork,
		"172.32.0.1": onInternet, "100.128.0.1": onInternet, "8.8.8.8": onInternet, "2606:4700::1111": onInternet, "192.0.2.1": onInternet,
	} {
		if got := reachOf(netip.MustParseAddr(ip)); got != want {
			t.Errorf("%s is %s address, want %s", ip, got, want)
		}
	}
	for host, want := range map[string]bool{"localhost": true, "localhost:80": true, "LOCALHOST.": true, "a.localhost": true, "127.0.0.1:80": true, "[::1]:80": true, "[::1]": true, "::1": true, "localhost.example": false, "10.0.0.1": false, "": false} {
		if got := IsLoopback(host); got != want {
			t.Errorf("IsLoopback(%q) = %t", host, got)
		}
	}
}
