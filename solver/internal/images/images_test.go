package images

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	specs "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/clayer/clayer/frontend/imageref"
	"github.com/clayer/clayer/solver/internal/downloads"
)

// TestErrorsOfBlobs checks that a blob one repository lacks is had from another, and that the
// error of a caller who was canceled is nobody else's.
func TestErrorsOfBlobs(t *testing.T) {
	const content = "a layer"
	d := specs.Descriptor{Digest: digest.FromString(content), Size: int64(len(content))}
	asked := make(chan struct{}, 1)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case strings.HasPrefix(r.URL.Path, "/v2/slow/"):
			asked <- struct{}{}
			<-r.Context().Done()
		case strings.HasPrefix(r.URL.Path, "/v2/full/"):
			_, _ = w.Write([]byte(content))
		default:
			http.NotFound(w, r)
		}
	}))
	defer srv.Close()
	host := strings.TrimPrefix(srv.URL, "http://")
	s := &Source{Platform: "linux/amd64", Blobs: &downloads.Dir{}}

	canceled, cancel := context.WithCancel(t.Context())
	go func() { <-asked; cancel() }()
	if err := s.download(canceled, imageref.Ref{Host: host, Repository: "slow"}, d); !errors.Is(err, context.Canceled) {
		t.Errorf("a download that is canceled: %v", err)
	}
	again, stop := context.WithCancel(t.Context())
	go func() { <-asked; stop() }()
	_ = s.download(again, imageref.Ref{Host: host, Repository: "slow"}, d)
	if again.Err() == nil {
		t.Error("the error of a caller who was canceled is kept")
		stop()
	}
	if err := s.download(t.Context(), imageref.Ref{Host: host, Repository: "empty"}, d); err == nil {
		t.Error("a blob that is not there is downloaded")
	}
	if err := s.download(t.Context(), imageref.Ref{Host: host, Repository: "full"}, d); err != nil {
		t.Errorf("another repository has it: %v", err)
	}
}
