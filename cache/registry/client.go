// Package registry is how an OCI registry is reached: over HTTP as package transfer has it,
// with the login that docker login or podman saved, and nothing of that sent elsewhere.
package registry

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"time"

	"oras.land/oras-go/v2/registry"
	"oras.land/oras-go/v2/registry/remote"
	"oras.land/oras-go/v2/registry/remote/auth"
	"oras.land/oras-go/v2/registry/remote/errcode"

	"github.com/clayer/clayer/cache/transfer"
)

// A Repository is one of a registry.
type Repository = registry.Reference

// A Client speaks with a repository. It is safe for concurrent use.
type Client struct {
	*remote.Repository
	Login    Login
	Transfer *transfer.Client // what sends; with the login
}

// NewClient returns the client of a repository. opt says how requests are sent: its Transport
// is asked for what the registry's, and others', hosts have; credentials are added before.
func NewClient(ref Repository, login Login, opt transfer.Options) *Client {
	opt.Wrap = func(base http.RoundTripper) http.RoundTripper { return newTransport(ref, login, base) }
	tr := transfer.New(opt)
	return &Client{&remote.Repository{
		Reference: ref,
		Client:    sender{tr},
		PlainHTTP: Scheme(ref) == "http",
		// Referrers are an index of subjects, which nothing here has.
		SkipReferrersGC: true,
	}, login, tr}
}

// Scheme returns how a registry is spoken with.
func Scheme(ref Repository) string {
	if transfer.IsLoopback(ref.Host()) {
		return "http"
	}
	return "https"
}

// BlobURL returns the address of a blob, or of what else the repository has by digest.
func (c *Client) BlobURL(digest string) string {
	return fmt.Sprintf("%s://%s/v2/%s/blobs/%s", Scheme(c.Reference), c.Reference.Host(), c.Reference.Repository, digest)
}

// authorized adds credentials to what goes to the registry, and to nothing
// else: the storage that a registry redirects to signs its own addresses.
type authorized struct {
	host string // the registry's, with port
	auth *auth.Client
	base http.RoundTripper
}

func newTransport(ref Repository, login Login, base http.RoundTripper) *authorized {
	base = confined{base, &url.URL{Scheme: Scheme(ref), Host: ref.Host()}}
	return &authorized{
		host: ref.Host(),
		base: base,
		auth: &auth.Client{
			Client: &http.Client{
				Transport:     base,
				CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
			},
			Header:   http.Header{"User-Agent": {"clayer"}},
			ClientID: "clayer",
			// Looked at when it is connected to, in confined: a look-up before would
			// prove nothing, and with a proxy there may be no name server.
			BlockedRealmPrefixes: []netip.Prefix{},
			Cache:                auth.NewCache(),
			Credential: func(_ context.Context, host string) (auth.Credential, error) {
				if host != ref.Host() {
					return auth.EmptyCredential, nil
				}
				return login.credential, nil
			},
		},
	}
}

func (t *authorized) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.URL.Host != t.host {
		return t.base.RoundTrip(req)
	}
	resp, err := t.auth.Do(req)
	// There is no login, or there are no credentials: the answer is the
	// registry's 401, whose reason the caller reports.
	if errors.Is(err, auth.ErrBasicCredentialNotFound) {
		return &http.Response{
			Status: "401 Unauthorized", StatusCode: http.StatusUnauthorized, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
			Header: http.Header{}, Body: http.NoBody, Request: req,
		}, nil
	}
	if err != nil {
		return nil, plain(err, t.host)
	}
	return resp, nil
}

// A loginError says that the registry could not be asked, since the place that it
// names for tokens gave none.
type loginError struct{ err error }

func (e *loginError) Error() string { return e.err.Error() }
func (e *loginError) Unwrap() error { return e.err }

// plain takes off what net/http puts around an error, which quotes the address
// with its query. Where another host was asked, the one that gives out tokens,
// it is named. What may be better the next time is marked so.
func plain(err error, host string) error {
	var ue *url.Error
	var resp *errcode.ErrorResponse
	switch {
	case errors.As(err, &ue):
		if u, perr := url.Parse(ue.URL); perr == nil && u.Host != host {
			return &loginError{fmt.Errorf("%s: %w", u.Host, ue.Err)}
		}
		return ue.Err
	case errors.As(err, &resp):
		if transfer.Busy(resp.StatusCode) {
			err = transfer.Transient(err)
		}
		return &loginError{err}
	}
	// It quotes addresses, that of an upload too.
	return &loginError{errors.New(transfer.RedactText(err.Error()))}
}

// confined restricts what a registry leads to (by a redirect, or with the address of an
// upload or of the place that gives out tokens) where it may lead: encrypted, but
// on this machine itself, and no nearer than the registry is.
type confined struct {
	http.RoundTripper
	registry *url.URL
}

func (c confined) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.URL.Scheme != "https" && !transfer.IsLoopback(req.URL.Host) {
		return nil, transfer.Fatal(fmt.Errorf("the registry leads to %s without encryption, which is used on this machine's own addresses alone", req.URL.Host))
	}
	if req.URL.Host != c.registry.Host {
		req = req.WithContext(transfer.LedBy(req.Context(), c.registry))
	}
	return c.RoundTripper.RoundTrip(req)
}

// sender is what the repository sends requests by: each once, and broken off
// when nothing moves. What may be better the next time is an error, which
// Retry understands.
type sender struct{ tr *transfer.Client }

func (c sender) Do(req *http.Request) (*http.Response, error) {
	a, err := c.tr.Send(req.Context(), req)
	if err != nil {
		return nil, err
	}
	if transfer.Busy(a.Code) || a.Code >= 500 {
		return nil, &transfer.StatusError{URL: transfer.Redact(a.URL), Code: a.Code, RetryAfter: transfer.RetryAfter(a.Header, time.Now())}
	}
	resp := &http.Response{
		Status: fmt.Sprintf("%d %s", a.Code, http.StatusText(a.Code)), StatusCode: a.Code,
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: a.Header, Body: io.NopCloser(bytes.NewReader(a.Body)), ContentLength: int64(len(a.Body)),
		Request: req,
	}
	if req.Method == http.MethodHead {
		resp.ContentLength = -1
		if n, err := strconv.ParseInt(a.Header.Get("Content-Length"), 10, 64); err == nil {
			resp.ContentLength = n
		}
	}
	return resp, nil
}
