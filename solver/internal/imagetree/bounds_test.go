package imagetree

import (
	"archive/tar"
	"context"
	"fmt"
	"io"
	"strings"
	"testing"
)

// A few kilobytes, compressed, can say more than a machine has memory for.
func TestMemoryIsBounded(t *testing.T) {
	value := strings.Repeat("x", 900<<10)
	for name, tt := range map[string]struct {
		member func(n int) *tar.Header
		count  int
		want   string
	}{
		"attributes": {func(n int) *tar.Header {
			return &tar.Header{Name: fmt.Sprint(n), Typeflag: tar.TypeReg, PAXRecords: map[string]string{xattrRecord + "user.a": value}}
		}, 150, "more than 128 MiB of names, links and extended attributes"},
		"directories": {func(n int) *tar.Header {
			return &tar.Header{Name: fmt.Sprintf("%d/%sx", n, strings.Repeat("d/", 1900)), Typeflag: tar.TypeReg}
		}, 110, "more than 200000 directories that the layers only imply"},
	} {
		t.Run(name, func(t *testing.T) {
			open := func(context.Context) (io.ReadCloser, error) {
				r, w := io.Pipe()
				go func() {
					tw := tar.NewWriter(w)
					for n := range tt.count {
						if tw.WriteHeader(tt.member(n)) != nil {
							return // it is read no further
						}
					}
					w.CloseWithError(tw.Close())
				}()
				return r, nil
			}
			if _, err := Read(t.Context(), []Layer{{"layer 0", open}}); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error = %v, want %q", err, tt.want)
			}
		})
	}
}
