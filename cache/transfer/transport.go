package transfer

import (
	"context"
	"net"
	"net/http"
	"net/url"
	"time"
)

// NewTransport returns the transport of a Client that is given none. The proxy
// is taken from the environment; certificates from the system, or from
// SSL_CERT_FILE and SSL_CERT_DIR (crypto/x509 reads those).
func NewTransport() *http.Transport {
	return &http.Transport{
		Proxy: http.ProxyFromEnvironment,
		DialContext: (&net.Dialer{
			Timeout:   8 * time.Second, // less than the stall limit: no route, not a stall
			KeepAlive: 15 * time.Second,
		}).DialContext,
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
