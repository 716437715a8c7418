package s3

import (
	"context"
	"encoding/xml"
	"fmt"
	"net/http"
	"net/url"
)

// Probe begins an upload in parts and aborts it, which takes the right to put an object and
// leaves none.
func (s *Store) Probe(ctx context.Context) error {
	const name = blobsDir + "probe"
	ans, err := s.send(ctx, writing, request{method: http.MethodPost, name: name, query: url.Values{"uploads": {""}}})
	if err != nil {
		return fmt.Errorf("write: %w", err)
	}
	var begun struct{ UploadId string }
	if err := xml.Unmarshal(ans.Body, &begun); err != nil || begun.UploadId == "" {
		return fmt.Errorf("write: the service gives no id for an upload in parts")
	}
	if err := s.abort(ctx, name, begun.UploadId); err != nil {
		return fmt.Errorf("abort an upload, which takes up no space: %w", err)
	}
	return nil
}
