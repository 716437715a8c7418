package doctor

import (
	"bytes"
	"errors"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/clayer/clayer/cache/transfer"
)

// What became of the requests to each host is said with its cause: a proxy that does not
// connect, or that answers in the place of the host.
func TestHosts(t *testing.T) {
	refusing := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.Host, "open.example") {
			return
		}
		w.WriteHeader(http.StatusForbidden)
	}))
	defer refusing.Close()
	proxy, err := url.Parse(refusing.URL)
	if err != nil {
		t.Fatal(err)
	}
	network := transfer.NewNetwork(transfer.NetworkOptions{})
	tr := transfer.NewTransport()
	tr.Proxy = http.ProxyURL(proxy)
	client := transfer.New(transfer.Options{Network: network, Transport: tr, Retries: -1})
	for _, u := range []string{"https://blobs.example/x", "http://page.example/x", "http://open.example/x"} {
		_, _ = client.Get(t.Context(), u, new(bytes.Buffer), transfer.GetOptions{})
	}
	got := make(map[string]Finding)
	for _, f := range Stores(t.Context(), Target{Network: network}) {
		got[f.Name] = f
	}
	for name, want := range map[string]string{
		"blobs.example": "refused by the proxy: 403 Forbidden",
		"page.example":  "answers 403 Forbidden",
		"open.example":  "answers",
	} {
		f := got[name]
		if f.Text != want || f.OK != (want == "answers") || !f.OK && f.Remedy == "" || f.Area != "hosts" {
			t.Errorf("%s: %+v, want %q", name, f, want)
		}
	}
	if f := (&Target{}).host(transfer.Host{Name: "x", Err: errors.New("x: broken")}); f.OK || f.Text != "broken" {
		t.Errorf("%+v", f)
	}
}
