package gittree

import (
	"archive/tar"
	"bytes"
	"context"
	"io"
	"path"

	"github.com/klauspost/compress/gzip"

	"github.com/clayer/clayer/internal/ctxio"
)

// Substitutes reports whether a file .gitattributes in a tar.gz names export-subst: then
// other makers of archives have other texts in it.
func Substitutes(ctx context.Context, r io.Reader) bool {
	z, err := gzip.NewReader(ctxio.Reader(ctx, r))
	if err != nil {
		return false
	}
	defer z.Close()
	for t := tar.NewReader(z); ; {
		h, err := t.Next()
		if err != nil {
			return false
		}
		if path.Base(h.Name) != ".gitattributes" {
			continue
		}
		text, err := io.ReadAll(io.LimitReader(t, 1<<20))
		if err != nil || bytes.Contains(text, []byte("export-subst")) {
			return err == nil
		}
	}
}
