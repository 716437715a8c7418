package web_test

import (
	"net/http"
	"os"
	"path/filepath"
	"testing"

	"github.com/clayer/clayer/cache"
	"github.com/clayer/clayer/cache/dir"
	"github.com/clayer/clayer/cache/storetest/faults"
	"github.com/clayer/clayer/cache/transfer"
	"github.com/clayer/clayer/cache/web"
)

func TestFaults(t *testing.T) {
	temp := t.TempDir()
	faults.Run(t, func(t *testing.T) faults.Service {
		path := filepath.Join(t.TempDir(), "store")
		return faults.Service{
			Handler: http.FileServer(http.Dir(path)),
			Open: func(t testing.TB, opt transfer.Options) cache.Store {
				at, err := web.Parse("http://127.0.0.1:1/")
				if err != nil {
					t.Fatal(err)
				}
				return web.New(at, web.Options{Temp: temp, Transfer: opt})
			},
			Fill: func(t testing.TB) cache.Store {
				d, err := dir.Open(path, dir.Options{})
				if err != nil {
					t.Fatal(err)
				}
				return d
			},
			Expired: func(w http.ResponseWriter) { w.WriteHeader(http.StatusUnauthorized) },
			Evict: func(d cache.Descriptor) {
				if err := os.Remove(filepath.Join(path, "blobs", "sha256", d.Digest.Encoded())); err != nil {
					t.Error(err)
				}
			},
		}
	})
}
