package s3_test

import (
	"net/http"
	"testing"

	"github.com/clayer/clayer/cache"
	"github.com/clayer/clayer/cache/s3"
	"github.com/clayer/clayer/cache/storetest/faults"
	"github.com/clayer/clayer/cache/transfer"
	"github.com/clayer/clayer/internal/s3test"
)

func refuses(status int, code string) func(http.ResponseWriter) {
	return func(w http.ResponseWriter) { s3test.Refuse(w, status, code) }
}

// faulty returns a service for the suite of faults.
func faulty(t *testing.T, c s3test.Conditions) func(t *testing.T) faults.Service {
	temp := t.TempDir()
	return func(t *testing.T) faults.Service {
		f := s3test.Handler()
		f.Conditions = c
		return faults.Service{
			Handler: f,
			Open: func(t testing.TB, opt transfer.Options) cache.Store {
				return openWith(t, "s3://bucket/env", variables("http://127.0.0.1:1"), s3.Options{Transfer: opt, PartSize: 30_000, Temp: temp})
			},
			Expired: refuses(http.StatusBadRequest, "ExpiredToken"),
			Full:    refuses(http.StatusForbidden, "QuotaExceeded"),
			Evict:   func(d cache.Descriptor) { f.Delete("bucket", "env/blobs/sha256/"+d.Digest.Encoded()) },
		}
	}
}

func TestFaults(t *testing.T) {
	faults.Run(t, faulty(t, s3test.Honoured))
}

func TestFaultsWithoutConditions(t *testing.T) {
	for name, c := range map[string]s3test.Conditions{"ignored": s3test.Ignored, "501": s3test.NotThere} {
		t.Run(name, func(t *testing.T) { faults.RunWriters(t, faulty(t, c)) })
	}
}
