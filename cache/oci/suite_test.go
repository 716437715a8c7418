package oci_test

import (
	"fmt"
	"net/http"
	"net/http/httputil"
	"net/url"
	"sync/atomic"
	"testing"

	"github.com/clayer/clayer/cache"
	"github.com/clayer/clayer/cache/oci"
	"github.com/clayer/clayer/cache/storetest/faults"
	"github.com/clayer/clayer/cache/transfer"
	"github.com/clayer/clayer/internal/ocitest"
)

func TestFaults(t *testing.T) {
	r := ocitest.New(t, ocitest.Options{})
	temp := t.TempDir()
	proxy := &httputil.ReverseProxy{
		Rewrite: func(p *httputil.ProxyRequest) {
			p.SetURL(&url.URL{Scheme: "http", Host: r.Host})
			p.Out.Host = p.In.Host // uploads are led to it
		},
		Transport:    &http.Transport{DisableKeepAlives: true, DisableCompression: true},
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, _ error) { w.WriteHeader(http.StatusBadGateway) },
	}
	var n atomic.Int32
	faults.Run(t, func(t *testing.T) faults.Service {
		name := fmt.Sprintf("me/env%d", n.Add(1))
		ref := parse(t, "127.0.0.1:1/"+name)
		return faults.Service{
			Handler: proxy,
			Open: func(t testing.TB, opt transfer.Options) cache.Store {
				return oci.New(ref, oci.Options{Temp: temp, Transfer: opt})
			},
			Expired: func(w http.ResponseWriter) { w.WriteHeader(http.StatusUnauthorized) },
			Full:    func(w http.ResponseWriter) { w.WriteHeader(http.StatusForbidden) },
			Evict: func(d cache.Descriptor) {
				req, err := http.NewRequest(http.MethodDelete, fmt.Sprintf("http://%s/v2/%s/blobs/%s", r.Host, name, d.Digest), nil)
				if err != nil {
					t.Fatal(err)
				}
				resp, err := proxy.Transport.RoundTrip(req)
				if err != nil {
					t.Fatal(err)
				}
				resp.Body.Close()
			},
			Most:  24,
			Every: 4,
		}
	})
}
