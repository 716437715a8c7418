package stores

import (
	"net"
	"strings"
	"testing"
	"time"

	"github.com/clayer/clayer/cache"
	"github.com/clayer/clayer/dag/key"
)

// A server that takes connections and says nothing does not keep the rest of the chain
// waiting, whatever the kind of its store.
func TestSilentServers(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			defer c.Close()
		}
	}()
	host := l.Addr().String()
	for _, name := range []string{"http://" + host + "/cache", "oci:" + host + "/me/env", "git:http://" + host + "/env"} {
		t.Run(strings.SplitN(name, ":", 2)[0], func(t *testing.T) {
			t.Setenv("HOME", t.TempDir())
			var failed []string
			o := Opener{
				CacheDir: t.TempDir(), CacheSize: "1GB", Stores: []string{name}, FirstAnswer: 100 * time.Millisecond,
				Notices: Notices{StoreFailed: func(store string, err error) { failed = append(failed, store) }, Warn: func(string) {}},
			}
			chain, err := o.Named(nil)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := chain[0].Find(t.Context(), "layer-x", []key.Key{{1}}); err == nil || !strings.Contains(err.Error(), "no answer within 100ms") {
				t.Errorf("%v, want that nothing answers", err)
			}
			if _, err := cache.Tiered(o.Notices.StoreFailed, chain...).Find(t.Context(), "layer-x", []key.Key{{1}}); err != nil || len(failed) != 1 {
				t.Errorf("as one of several: %v, reported %q", err, failed)
			}
		})
	}
}
