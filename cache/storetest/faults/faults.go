// Package faults is the suite that every store on a network passes beside that of
// storetest: whatever becomes of a request, nothing is lost, nothing is taken that was not
// verified, and no store asks without bound.
//
// A fault strikes one request of a session after another, or all from one on. Requests do
// not leave the process, and time is that of testing/synctest: what waits for minutes takes
// none, and two sessions meet in any order that a seed says.
package faults

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"strconv"
	"sync"
	"time"
)

// A fault is what becomes of a request. serve is what the server answers.
type fault struct {
	name   string
	passes bool // another try gets an answer
	strike func(req *http.Request, serve func() *http.Response) (*http.Response, error)
}

var errCut = errors.New("the connection was cut")

// faults is what a network, and what stands in it, does to requests.
var faults = []fault{
	{"cut before it arrives", true, func(*http.Request, func() *http.Response) (*http.Response, error) { return nil, errCut }},
	{"cut before the answer", true, func(_ *http.Request, serve func() *http.Response) (*http.Response, error) {
		serve().Body.Close()
		return nil, errCut
	}},
	{"cut in the answer", true, func(_ *http.Request, serve func() *http.Response) (*http.Response, error) {
		return half(serve(), func() error { return io.ErrUnexpectedEOF }), nil
	}},
	{"stalled before the answer", true, func(req *http.Request, _ func() *http.Response) (*http.Response, error) {
		<-req.Context().Done()
		return nil, context.Cause(req.Context())
	}},
	{"stalled in the answer", true, func(req *http.Request, serve func() *http.Response) (*http.Response, error) {
		return half(serve(), func() error {
			<-req.Context().Done()
			return context.Cause(req.Context())
		}), nil
	}},
	{"slow", true, func(req *http.Request, serve func() *http.Response) (*http.Response, error) {
		resp := serve()
		resp.Body = &slowBody{req.Context(), resp.Body, 5 * time.Second}
		return resp, nil
	}},
	{"twice", true, func(_ *http.Request, serve func() *http.Response) (*http.Response, error) {
		serve().Body.Close()
		return serve(), nil
	}},
	{"damaged", false, func(_ *http.Request, serve func() *http.Response) (*http.Response, error) {
		resp := serve()
		data, _ := io.ReadAll(resp.Body) // of a recorder
		if len(data) > 0 {
			data[len(data)*2/3] ^= 0x41
		}
		resp.Body = io.NopCloser(bytes.NewReader(data))
		return resp, nil
	}},
	answers("503", true, http.StatusServiceUnavailable, http.Header{"Retry-After": {"1"}}),
	answers("429", true, http.StatusTooManyRequests, http.Header{"Retry-After": {"2"}}),
	answers("404", false, http.StatusNotFound, nil),
	answers("403", false, http.StatusForbidden, nil),
	answers("a page", false, http.StatusOK, http.Header{"Content-Type": {"text/html"}}),
}

// answers returns the fault of something on the way that answers itself.
func answers(name string, passes bool, code int, header http.Header) fault {
	return fault{name, passes, func(req *http.Request, _ func() *http.Response) (*http.Response, error) {
		rec := httptest.NewRecorder()
		for name, values := range header {
			rec.Header()[name] = values
		}
		rec.WriteHeader(code)
		_, _ = rec.WriteString("<!DOCTYPE html><title>log in</title>")
		return finish(rec, req), nil
	}}
}

func finish(rec *httptest.ResponseRecorder, req *http.Request) *http.Response {
	resp := rec.Result()
	resp.Request = req
	return resp
}

// half returns an answer whose body ends with an error in its midst.
func half(resp *http.Response, end func() error) *http.Response {
	data, _ := io.ReadAll(resp.Body) // of a recorder
	resp.ContentLength = int64(len(data))
	if len(data) == 0 {
		resp.ContentLength = 10 // or there would be no midst
	}
	resp.Body = io.NopCloser(io.MultiReader(bytes.NewReader(data[:len(data)/2]), endReader(end)))
	return resp
}

type endReader func() error

func (r endReader) Read([]byte) (int, error) { return 0, r() }

// slowBody gives a few bytes at a time, and no time in which nothing arrives.
type slowBody struct {
	ctx context.Context
	io.ReadCloser
	pause time.Duration
}

func (b *slowBody) Read(p []byte) (int, error) {
	select {
	case <-b.ctx.Done():
		return 0, context.Cause(b.ctx)
	case <-time.After(b.pause):
	}
	return b.ReadCloser.Read(p[:min(len(p), 4000)])
}

// A network is how sessions reach a server.
type network struct {
	server  http.Handler
	longest time.Duration // that a request takes in an order

	mu     sync.Mutex
	n      int                                                                                       // requests that were sent
	strike func(n int, req *http.Request, serve func() *http.Response) (*http.Response, error, bool) // nil: none
	order  *rand.Rand                                                                                // how long requests take; nil: no time
}

// RoundTrip serves a request in this process.
func (w *network) RoundTrip(req *http.Request) (*http.Response, error) {
	var body []byte
	if req.Body != nil {
		var err error
		body, err = io.ReadAll(req.Body)
		req.Body.Close()
		if err != nil {
			return nil, err
		}
	}
	serve := func() *http.Response {
		w.take()
		at := req.Clone(req.Context())
		at.Body, at.RequestURI, at.RemoteAddr = io.NopCloser(bytes.NewReader(body)), req.URL.RequestURI(), "127.0.0.1:1"
		at.ContentLength = int64(len(body))
		if at.Host == "" {
			at.Host = req.URL.Host
		}
		rec := httptest.NewRecorder()
		w.server.ServeHTTP(rec, at)
		resp := finish(rec, req)
		if req.Method == http.MethodHead {
			resp.Body = http.NoBody
		}
		w.take()
		return resp
	}
	w.mu.Lock()
	n, strike := w.n, w.strike
	w.n++
	w.mu.Unlock()
	if err := req.Context().Err(); err != nil {
		return nil, context.Cause(req.Context())
	}
	if strike != nil {
		if resp, err, struck := strike(n, req, serve); struck {
			return resp, err
		}
	}
	return serve(), nil
}

// take lets time pass.
func (w *network) take() {
	w.mu.Lock()
	if w.order == nil {
		w.mu.Unlock()
		return
	}
	d := time.Duration(w.order.Int64N(int64(w.longest)))
	w.mu.Unlock()
	time.Sleep(d)
}

// set changes what becomes of requests, and counts them again from 0.
func (w *network) set(strike func(n int, req *http.Request, serve func() *http.Response) (*http.Response, error, bool)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.n, w.strike = 0, strike
}

func (w *network) requests() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.n
}

// ServeHTTP is RoundTrip for requests of other programs.
func (w *network) ServeHTTP(rw http.ResponseWriter, req *http.Request) {
	resp, err := w.RoundTrip(req)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	defer resp.Body.Close()
	if slow, ok := resp.Body.(*slowBody); ok {
		slow.pause = w.longest
	}
	for name, values := range resp.Header {
		rw.Header()[name] = values
	}
	if resp.ContentLength >= 0 {
		rw.Header().Set("Content-Length", strconv.FormatInt(resp.ContentLength, 10))
	}
	rw.WriteHeader(resp.StatusCode)
	_ = http.NewResponseController(rw).Flush()
	if _, err := io.Copy(rw, resp.Body); err != nil {
		panic(http.ErrAbortHandler)
	}
}
