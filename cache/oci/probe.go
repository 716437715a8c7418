package oci

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"

	"github.com/clayer/clayer/cache"
	"github.com/clayer/clayer/cache/registry"

	"oras.land/oras-go/v2/registry/remote/errcode"
)

// Probe begins an upload and cancels it: the repository has no more than before.
func (s *Store) Probe(ctx context.Context) error {
	ctx = s.toWrite(ctx)
	at := url.URL{Scheme: registry.Scheme(s.ref), Host: s.ref.Host(), Path: "/v2/" + s.ref.Repository + "/blobs/uploads/"}
	var place string
	err := s.try(ctx, registry.Pushing, func(ctx context.Context) error {
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, at.String(), http.NoBody)
		if err != nil {
			return err
		}
		resp, err := s.repo.Client.Do(req)
		if err != nil {
			return err
		}
		if resp.StatusCode != http.StatusAccepted {
			return &errcode.ErrorResponse{Method: req.Method, URL: req.URL, StatusCode: resp.StatusCode}
		}
		place = resp.Header.Get("Location")
		return nil
	})
	var e *registry.Error
	if errors.As(err, &e) && s.client.Login.From == "" && (e.Code == http.StatusUnauthorized || e.Code == http.StatusForbidden) {
		return fmt.Errorf("%w without a login", cache.ErrReadOnly)
	}
	if err != nil {
		return fmt.Errorf("write: %w", err)
	}
	upload, err := at.Parse(place)
	if err != nil || place == "" {
		return nil
	}
	// A registry that does not cancel it forgets it in time: it is no blob.
	if req, err := http.NewRequestWithContext(ctx, http.MethodDelete, upload.String(), http.NoBody); err == nil {
		_, _ = s.repo.Client.Do(req)
	}
	return nil
}
