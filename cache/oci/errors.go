package oci

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"

	"oras.land/oras-go/v2/errdef"
	"oras.land/oras-go/v2/registry/remote/errcode"

	"github.com/clayer/clayer/cache"
	"github.com/clayer/clayer/cache/registry"
	"github.com/clayer/clayer/cache/transfer"
)

// refusesReads reports whether all other reads would get the same answer, and
// refusesWrites whether all other writes would.
func refusesReads(e *registry.Error) bool {
	return e.Act == registry.Reading && (e.Code == http.StatusUnauthorized || e.Code == http.StatusForbidden)
}

func refusesWrites(e *registry.Error) bool {
	return slices.Contains([]int{http.StatusUnauthorized, http.StatusForbidden, http.StatusNotFound, http.StatusMethodNotAllowed}, e.Code)
}

// try sends requests until they succeed, or trying again is no use, and says
// in words what went wrong. An answer that makes no sense is not asked for again:
// only what sends says that something may be better the next time.
func (s *Store) try(ctx context.Context, a registry.Act, attempt func(context.Context) error) error {
	err := s.tr.Retry(ctx, 0, func() error {
		err := attempt(ctx)
		var resp *errcode.ErrorResponse
		// A place for an upload may be gone with the registry that gave it. And
		// while another session pushes the same blob, distribution's registry
		// does not see it for a moment, after it has answered that it is there.
		if a == registry.Pushing && errors.As(err, &resp) && registry.Says(resp, errcode.ErrorCodeBlobUploadUnknown, errcode.ErrorCodeManifestBlobUnknown) {
			return transfer.Transient(err)
		}
		return err
	})
	return s.explain(ctx, a, err)
}

// explain returns an error as it may be shown: without addresses of uploads, which
// are as good as a login, and without a login. What all further requests would
// get too is remembered.
func (s *Store) explain(ctx context.Context, a registry.Act, err error) error {
	if err == nil || ctx.Err() != nil {
		return err
	}
	pause := transfer.Pause(err)
	away := pause > 0 || registry.IsLogin(err) && !transfer.Retryable(err)
	var resp *errcode.ErrorResponse
	var status *transfer.StatusError
	errors.As(err, &status)
	switch {
	case errors.As(err, &resp) && registry.Says(resp, errcode.ErrorCodeManifestBlobUnknown):
		err = fmt.Errorf("%w: %s", cache.ErrNotCached, registry.Said(resp.Errors))
	case resp == nil && status == nil && errors.Is(err, errdef.ErrNotFound):
		err = fmt.Errorf("%w: %s", cache.ErrNotCached, s.client.Clean(err.Error()))
	default:
		err = s.client.Explain(a, err)
	}
	var ours *registry.Error
	errors.As(err, &ours)
	// Where the storage that a registry leads to is refused, nothing can be read.
	storage := status != nil && status.Host != "" && !status.Limited && (status.Code == http.StatusUnauthorized || status.Code == http.StatusForbidden)
	if away || storage || ours != nil && refusesReads(ours) {
		s.refused.Read(err, pause)
	}
	return err
}
