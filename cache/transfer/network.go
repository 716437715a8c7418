package transfer

import (
	"cmp"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/netip"
	"strings"
	"sync"
	"syscall"
	"time"
)

// NetworkOptions is how a process deals with its network. The zero
// NetworkOptions is the default.
type NetworkOptions struct {
	// Offline refuses every request with ErrOffline: none is sent.
	Offline bool

	// AllowPrivate holds hosts that any server may lead to at a private address;
	// see Transport.
	AllowPrivate []string

	// Patience is how long a network that is not up yet is waited for, once
	// for all hosts together; 0 means 30 seconds, less than 0 not at all.
	Patience time.Duration

	// Waiting is called once if no host answered within 2 seconds, and once for
	// each service that is waited for to start, and says what is waited for. It
	// may be called by several goroutines at a time. nil prints nothing.
	Waiting func(text string)
}

// A Network is what a process knows about its network: whether it is up, and
// which hosts are not worth another request. The clients of a process share
// one, so that what one of them learned costs the others nothing. It is safe
// for concurrent use.
type Network struct {
	opt   NetworkOptions
	route func() bool // whether the machine has a route to anywhere

	mu     sync.Mutex
	up     bool              // a host beyond this machine answered
	asked  time.Time         // when the first was sent of those in a row that reached no host
	since  time.Time         // since when the network is waited for; zero if it is not
	reason string            // of the last one
	said   bool              // that it is waited for
	hosts  map[string]gaveUp // those that are given up
	starts map[string]bool   // those that are said to be waited for
	heard  map[string]bool   // those that answered
	asks   map[string]Host   // what became of the requests to each
}

// gaveUp is why a host is not asked.
type gaveUp struct {
	err   error     // a *fault
	until time.Time // when it is asked again, once; zero for never
}

// pause is for how long a host is not asked that could not be reached.
const pause = time.Minute

// NewNetwork returns a network about which nothing is known.
func NewNetwork(opt NetworkOptions) *Network {
	opt.Patience = cmp.Or(opt.Patience, 30*time.Second)
	return &Network{opt: opt, route: hasRoute, hosts: make(map[string]gaveUp), starts: make(map[string]bool), heard: make(map[string]bool), asks: make(map[string]Host)}
}

// ErrOffline is the error of a request that was not sent.
var ErrOffline = errors.New("not asked: offline")

// ErrNoCertificates is why no certificate is trusted.
var ErrNoCertificates = errors.New("this machine has no CA certificates: install ca-certificates, or set SSL_CERT_FILE")

// noCertificates reports whether the system trusts no certificate.
func noCertificates() bool {
	pool, err := x509.SystemCertPool()
	return err != nil || pool.Equal(x509.NewCertPool())
}

// sayAfter is how long a network is waited for in silence.
const sayAfter = 2 * time.Second

// hasRoute reports whether there is a route to the internet. Connecting a UDP
// socket looks the route up and sends nothing; the addresses are for
// documentation (RFC 5737, RFC 3849).
func hasRoute() bool {
	for _, to := range []string{"192.0.2.1:9", "[2001:db8::1]:9"} {
		if c, err := net.Dial("udp", to); err == nil {
			c.Close()
			return true
		}
	}
	return false
}

// through returns a transport that sends by rt and learns from what becomes of
// each request. Its errors are *fault.
func (n *Network) through(rt http.RoundTripper) http.RoundTripper { return &learning{n, rt} }

type learning struct {
	net *Network
	rt  http.RoundTripper
}

func (l *learning) RoundTrip(req *http.Request) (*http.Response, error) {
	n, host := l.net, req.URL.Host
	if err := n.refusal(host); err != nil {
		if req.Body != nil {
			req.Body.Close()
		}
		return nil, err
	}
	send := req
	if !n.isUp() {
		// A connection is enough: what is slow then is the host.
		send = req.WithContext(httptrace.WithClientTrace(req.Context(), &httptrace.ClientTrace{
			GotConn: func(httptrace.GotConnInfo) { n.reached(host) },
		}))
	}
	began := time.Now()
	quiet := n.announce(host)
	resp, err := l.rt.RoundTrip(send)
	quiet()
	if err != nil {
		err = n.judge(req, err, began)
		if req.Context().Err() == nil {
			n.note(host, nil, err)
		}
		return nil, err
	}
	n.note(host, resp, nil)
	n.reached(host)
	n.mu.Lock()
	n.heard[host] = true
	delete(n.hosts, host)
	n.mu.Unlock()
	return resp, nil
}

// CloseIdleConnections makes http.Client's method of that name work.
func (l *learning) CloseIdleConnections() {
	if c, ok := l.rt.(interface{ CloseIdleConnections() }); ok {
		c.CloseIdleConnections()
	}
}

// refusal returns why a host is not asked.
func (n *Network) refusal(host string) error {
	if n.opt.Offline {
		return &fault{err: ErrOffline, fate: final}
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if g := n.hosts[host]; g.until.IsZero() || time.Now().Before(g.until) {
		return g.err
	}
	return nil
}

// giveUp has all further requests to a host fail at once: for the rest of the
// process if its answer is final and it never gave another one, else for a while.
func (n *Network) giveUp(host string, err error, kind fate) {
	if host == "" {
		return
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	now := time.Now()
	if g, ok := n.hosts[host]; ok && (g.until.IsZero() || now.Before(g.until)) {
		return
	}
	g := gaveUp{err: &fault{err: err, fate: hostFinal, host: host}}
	if kind != hostFinal || n.heard[host] {
		g.until = now.Add(pause)
	}
	n.hosts[host] = g
}

// askedOnce reports whether a host was given up, and is asked once to see
// whether it is back.
func (n *Network) askedOnce(host string) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	_, ok := n.hosts[host]
	return ok
}

// answered reports whether a host ever answered.
func (n *Network) answered(host string) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.heard[host]
}

func (n *Network) isUp() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.up
}

// reached notes that a host answered. This machine's own addresses say nothing
// about the network.
func (n *Network) reached(host string) {
	if IsLoopback(host) {
		return
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if !n.up {
		n.up = true
		clear(n.hosts) // they were given up because there was no network
	}
}

// judge says what an error of a request that began then means, and remembers
// what will not change.
func (n *Network) judge(req *http.Request, err error, began time.Time) error {
	host := req.URL.Host
	if req.Context().Err() != nil {
		return ended(req.Context(), host, err)
	}
	f := &fault{err: err, host: host, fate: broken}
	var (
		known    *fault
		redirect *RedirectError
		proxy    *ProxyError
		dns      *net.DNSError
		op       *net.OpError
		cert     *tls.CertificateVerificationError
		record   tls.RecordHeaderError
		timeout  interface{ Timeout() bool }
	)
	switch {
	case errors.As(err, &known):
		return err
	case errors.As(err, &redirect):
		f.fate = final
	case errors.As(err, &proxy):
		n.reached(host)
		f.fate = hostFinal
		if statusFate(proxy.Code) != final {
			f.fate = busy
		}
	case errors.As(err, &cert), errors.As(err, &record), errors.Is(err, http.ErrSchemeMismatch):
		n.reached(host)
		f.fate = hostFinal
		if unknown := (x509.UnknownAuthorityError{}); errors.As(err, &unknown) && noCertificates() {
			err = fmt.Errorf("%w; %w", err, ErrNoCertificates)
			f.err = err
		}
	case errors.As(err, &dns):
		f.fate = unreached
		if dns.IsNotFound && (n.isUp() || n.route()) {
			f.fate = hostFinal
		}
	case errors.As(err, &op) && op.Op == "proxyconnect":
		// The proxy is the network.
		f.fate = unreached
	case errors.As(err, &op) && op.Op == "dial":
		f.fate = unreached
		if n.answers(host, err) {
			f.fate = refused
			if mayStart(host, op) {
				f.fate = starting
			}
		}
	case errors.As(err, &timeout) && timeout.Timeout():
		f.fate = silent
	case req.Body != nil && req.Body != http.NoBody:
		f.host = "" // it may be the body that it refuses
	}
	if f.fate == hostFinal {
		n.giveUp(host, err, hostFinal)
	}
	if IsLoopback(host) {
		return f // this machine says nothing about the network
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if f.fate != unreached {
		n.asked = time.Time{}
		return f
	}
	n.reason = whyUnreached(host, err)
	if n.since.IsZero() {
		n.since = began
	}
	return f
}

// mayStart reports whether nothing listens at an address of this machine or of its
// network: a service there may be about to start, such as a registry in a
// container beside this one. What is public was there before.
func mayStart(host string, err *net.OpError) bool {
	if !errors.Is(err, syscall.ECONNREFUSED) && !errors.Is(err, syscall.EHOSTUNREACH) {
		return false
	}
	if tcp, ok := err.Addr.(*net.TCPAddr); ok {
		return reachOf(tcp.AddrPort().Addr()) != onInternet
	}
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	return reachByName(strings.Trim(host, "[]")) != onInternet
}

// answers reports whether a failed connect was answered: by the host, or by a
// router or firewall on the way. Without a route the machine itself says so.
func (n *Network) answers(host string, err error) bool {
	switch {
	case errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, syscall.EACCES), errors.Is(err, syscall.EPERM):
		return IsLoopback(host) || n.isUp() || n.route()
	case errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.ENETUNREACH):
		return n.route()
	}
	return false
}

// whyUnreached says what is waited for.
func whyUnreached(host string, err error) string {
	var dns *net.DNSError
	if errors.As(err, &dns) {
		return fmt.Sprintf("cannot resolve %s (%s)", dns.Name, dns.Err)
	}
	var op *net.OpError
	if errors.As(err, &op) {
		err = op.Err
	}
	return fmt.Sprintf("cannot reach %s (%v)", host, err)
}

// wait returns how much longer a network that is not up is waited for. It
// reports false for one that is up, or never waited for.
func (n *Network) wait(now time.Time) (left time.Duration, down bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.up || n.opt.Patience < 0 || n.since.IsZero() {
		return 0, false
	}
	return n.since.Add(n.opt.Patience).Sub(now), true
}

// Left returns how much longer the network is waited for; 0 if it is up, or not waited for.
func (n *Network) Left() time.Duration {
	left, _ := n.wait(time.Now())
	return max(left, 0)
}

// announce says what is waited for when that takes long. The caller calls the
// function that it returns when it waits no longer.
func (n *Network) announce(host string) (quiet func()) {
	if IsLoopback(host) {
		return func() {}
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	now := time.Now()
	if n.asked.IsZero() {
		n.asked = now
	}
	if n.up || n.said || n.opt.Waiting == nil {
		return func() {}
	}
	t := time.AfterFunc(max(n.asked.Add(sayAfter).Sub(now), 0), func() { n.say(host) })
	return func() { t.Stop() }
}

func (n *Network) say(host string) {
	n.mu.Lock()
	if n.up || n.said {
		n.mu.Unlock()
		return
	}
	n.said = true
	text := "the network: " + cmp.Or(n.reason, "no answer from "+host+" yet")
	n.mu.Unlock()
	n.opt.Waiting(text)
}

// announceStart says after a time that a host is waited for to start. The caller
// calls the function that it returns when it waits no longer.
func (n *Network) announceStart(host string, err error, after time.Duration) (quiet func()) {
	if n.opt.Waiting == nil {
		return func() {}
	}
	text := err.Error()
	if errno := syscall.Errno(0); errors.As(err, &errno) {
		text = errno.Error()
	}
	t := time.AfterFunc(max(after, 0), func() {
		n.mu.Lock()
		said := n.starts[host]
		n.starts[host] = true
		n.mu.Unlock()
		if !said {
			n.opt.Waiting(host + ": " + text)
		}
	})
	return func() { t.Stop() }
}

// IsLoopback reports whether a host, with a port or without, is this machine by
// its name or address alone.
func IsLoopback(hostport string) bool {
	host, _, err := net.SplitHostPort(hostport)
	if err != nil {
		host = strings.Trim(hostport, "[]")
	}
	host = strings.TrimSuffix(strings.ToLower(host), ".")
	if host == "localhost" || strings.HasSuffix(host, ".localhost") {
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.Unmap().IsLoopback()
}
