package transfer

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

// A reach says from where an address can be reached. A server may lead a client
// to addresses of its own reach, and of a wider one, and to no others: else a
// page on the internet could have a machine ask what only that machine may.
type reach uint8

const (
	onMachine reach = iota // loopback, link-local (where clouds keep credentials), unspecified
	onNetwork              // private (RFC 1918, unique local), shared (RFC 6598)
	onInternet
)

func (r reach) String() string {
	return [...]string{"a loopback or link-local", "a private", "a public"}[r]
}

var (
	sharedRange = netip.MustParsePrefix("100.64.0.0/10")
	thisNetwork = netip.MustParsePrefix("0.0.0.0/8")
	siteLocal   = netip.MustParsePrefix("fec0::/10")
	nat64       = netip.MustParsePrefix("64:ff9b::/96")
	sixToFour   = netip.MustParsePrefix("2002::/16")
)

func reachOf(ip netip.Addr) reach {
	ip = ip.Unmap().WithZone("")
	// An IPv4 address may hide in one of IPv6.
	if b := ip.As16(); nat64.Contains(ip) {
		ip = netip.AddrFrom4([4]byte(b[12:16]))
	} else if sixToFour.Contains(ip) {
		ip = netip.AddrFrom4([4]byte(b[2:6]))
	}
	switch {
	case ip.IsLoopback(), ip.IsLinkLocalUnicast(), ip.IsMulticast(), ip.IsUnspecified(), thisNetwork.Contains(ip):
		return onMachine
	case ip.IsPrivate(), sharedRange.Contains(ip), siteLocal.Contains(ip):
		return onNetwork
	}
	return onInternet
}

// reachByName returns what a host's name says by itself: of an address, and of
// localhost. Every other name may be public.
func reachByName(host string) reach {
	if IsLoopback(host) {
		return onMachine
	}
	if ip, err := netip.ParseAddr(host); err == nil {
		return reachOf(ip)
	}
	return onInternet
}

// A Transport sends requests, and looks at the addresses that it connects to:
// where a server leads to another, by a redirect or in a header, that one is
// reached only at an address of the first one's reach or a wider one. The
// address is the one that is connected to, whatever a name resolved to before.
// Through a proxy, which looks names up itself, only a name can be checked.
type Transport struct {
	*http.Transport

	// AllowPrivate holds the hosts, without a port, that any server may lead to
	// at a private address: those of a registry's storage inside a cloud. This
	// machine's own addresses are never among them.
	AllowPrivate []string

	// led holds a transport, with connections of its own, for each reach that
	// may not be left for a narrower one.
	led [onInternet + 1]func() *http.Transport

	mu     sync.Mutex
	widest map[string]reach // of the addresses that were connected to, by host:port
}

// NewTransport returns the transport of a Client that is given none. The proxy
// is taken from the environment; certificates from the system, or from
// SSL_CERT_FILE and SSL_CERT_DIR (crypto/x509 reads those).
func NewTransport() *Transport { return newTransport(nil) }

func newTransport(names *net.Resolver) *Transport {
	t := &Transport{widest: make(map[string]reach)}
	dialer := &net.Dialer{
		Timeout:        8 * time.Second, // less than the stall limit: no route, not a stall
		KeepAlive:      15 * time.Second,
		Resolver:       names,
		ControlContext: checkAddress,
	}
	t.Transport = &http.Transport{
		Proxy: http.ProxyFromEnvironment,
		DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			conn, err := dialer.DialContext(ctx, network, addr)
			if err == nil {
				t.note(addr, conn)
			}
			return conn, err
		},
		ForceAttemptHTTP2:   true,
		TLSHandshakeTimeout: 10 * time.Second,
		MaxIdleConnsPerHost: 16,
		IdleConnTimeout:     30 * time.Second,
		DisableCompression:  true,
		// A request that is cancelled for its silence gives up an HTTP/2
		// stream, not the connection. Without pings the next attempt would
		// be sent into the same dead connection.
		HTTP2: &http.HTTP2Config{
			SendPingTimeout: 5 * time.Second,
			PingTimeout:     5 * time.Second,
		},
		OnProxyConnectResponse: func(_ context.Context, _ *url.URL, req *http.Request, resp *http.Response) error {
			if resp.StatusCode != http.StatusOK {
				return &ProxyError{Host: req.Host, Code: resp.StatusCode}
			}
			return nil
		},
	}
	for r := range t.led {
		t.led[r] = sync.OnceValue(func() *http.Transport {
			led := t.Transport.Clone()
			dial := led.DialContext
			led.DialContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
				conn, err := dial(context.WithValue(ctx, narrowestKey{}, reach(r)), network, addr)
				if err != nil {
					return nil, err
				}
				// Where DialContext is not the one above.
				if tcp, ok := conn.RemoteAddr().(*net.TCPAddr); ok && reachOf(tcp.AddrPort().Addr()) < reach(r) {
					conn.Close()
					return nil, &addressError{tcp.AddrPort().Addr()}
				}
				return conn, nil
			}
			return led
		})
	}
	return t
}

type narrowestKey struct{}

// An addressError says that a connection would have led too near.
type addressError struct{ ip netip.Addr }

func (e *addressError) Error() string { return fmt.Sprintf("it leads to %s", e.ip) }

// checkAddress is asked before each connect, with the address that a name has
// right now.
func checkAddress(ctx context.Context, _, address string, _ syscall.RawConn) error {
	narrowest, ok := ctx.Value(narrowestKey{}).(reach)
	if !ok {
		return nil
	}
	at, err := netip.ParseAddrPort(address)
	if err != nil {
		return err
	}
	if reachOf(at.Addr()) < narrowest {
		return &addressError{at.Addr()}
	}
	return nil
}

// note remembers the widest reach that a host was connected to at: a name that is
// public now and the machine's own a moment later stays public.
func (t *Transport) note(addr string, conn net.Conn) {
	tcp, ok := conn.RemoteAddr().(*net.TCPAddr)
	if !ok {
		return
	}
	r := reachOf(tcp.AddrPort().Addr())
	t.mu.Lock()
	defer t.mu.Unlock()
	if old, ok := t.widest[addr]; !ok || r > old {
		t.widest[addr] = r
	}
}

// reachOfHost returns the reach of a host that led somewhere.
func (t *Transport) reachOfHost(u *url.URL) reach {
	port := u.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443"}[u.Scheme]
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if r, ok := t.widest[net.JoinHostPort(u.Hostname(), port)]; ok {
		return r
	}
	return reachByName(u.Hostname())
}

type ledByKey struct{}

// LedBy returns a context for requests whose address a server gave, in an answer
// that is no redirect: they go nowhere that a redirect of that server may not.
func LedBy(ctx context.Context, server *url.URL) context.Context {
	return context.WithValue(ctx, ledByKey{}, server)
}

// RoundTrip sends a request.
func (t *Transport) RoundTrip(req *http.Request) (*http.Response, error) {
	narrowest, led := onMachine, false
	widen := func(by *url.URL) { narrowest, led = max(narrowest, t.reachOfHost(by)), true }
	if by, ok := req.Context().Value(ledByKey{}).(*url.URL); ok {
		widen(by)
	}
	for r := req; r.Response != nil && r.Response.Request != nil; r = r.Response.Request {
		widen(r.Response.Request.URL)
	}
	allowed := slices.ContainsFunc(t.AllowPrivate, func(host string) bool { return strings.EqualFold(host, req.URL.Hostname()) })
	by := narrowest
	if allowed {
		narrowest = min(narrowest, onNetwork)
	}
	if !led || narrowest == onMachine {
		return t.Transport.RoundTrip(req)
	}
	refuse := func(r reach, is string) (*http.Response, error) {
		if req.Body != nil {
			req.Body.Close()
		}
		e := &RedirectError{To: Redact(req.URL.String()), Reason: fmt.Sprintf("refused, since it leads from %s host to %s address%s", by, r, is)}
		if r == onNetwork {
			e.Private = req.URL.Hostname()
		}
		return nil, e
	}
	if r := reachByName(req.URL.Hostname()); r < narrowest {
		return refuse(r, "")
	}
	if t.Proxy != nil {
		if proxy, err := t.Proxy(req); err != nil || proxy != nil {
			return t.Transport.RoundTrip(req)
		}
	}
	resp, err := t.led[narrowest]().RoundTrip(req)
	var near *addressError
	if errors.As(err, &near) {
		return refuse(reachOf(near.ip), fmt.Sprintf(" (%s)", near.ip))
	}
	return resp, err
}

// CloseIdleConnections closes those that no request uses.
func (t *Transport) CloseIdleConnections() {
	t.Transport.CloseIdleConnections()
	for _, led := range t.led {
		led().CloseIdleConnections()
	}
}

const maxRedirects = 10

func checkRedirect(req *http.Request, via []*http.Request) error {
	to := req.URL
	switch {
	case len(via) > maxRedirects:
		return &RedirectError{To: Redact(to.String()), Reason: "more than 10 redirects"}
	case to.Scheme != "http" && to.Scheme != "https":
		return &RedirectError{To: Redact(to.String()), Reason: "not an http or https URL"}
	case to.Scheme == "http" && via[len(via)-1].URL.Scheme == "https":
		return &RedirectError{To: Redact(to.String()), Reason: "it leaves https"}
	}
	// net/http sends the query of the page before to the next host.
	req.Header.Del("Referer")
	return nil
}

// locations refuses redirects to what is no URL. net/http does so too, with the
// whole of it in the error's text.
type locations struct{ http.RoundTripper }

func (l locations) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := l.RoundTripper.RoundTrip(req)
	if err != nil || resp.StatusCode/100 != 3 {
		return resp, err
	}
	if to := resp.Header.Get("Location"); to != "" {
		if _, err := req.URL.Parse(to); err != nil {
			resp.Body.Close()
			return nil, &RedirectError{To: Redact(to), Reason: "malformed URL"}
		}
	}
	return resp, nil
}
