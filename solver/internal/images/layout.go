package images

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"strings"

	"github.com/opencontainers/go-digest"
	specs "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/clayer/clayer/frontend/imageref"
	"github.com/clayer/clayer/internal/ctxio"
	"github.com/clayer/clayer/internal/safefile"
)

// inLayout returns the digest of what a name stands for in its OCI image layout: what the index
// has under that tag, latest where there are several and none is named.
func inLayout(ref imageref.Ref) (digest.Digest, error) {
	if ref.Digest != "" {
		return ref.Digest, nil
	}
	data, err := safefile.Read(filepath.Join(ref.Layout, specs.ImageIndexFile), maxManifest)
	if errors.Is(err, fs.ErrNotExist) {
		return "", &Fault{Message: fmt.Sprintf("%s is no OCI image layout: it has no %s", ref.Layout, specs.ImageIndexFile), Err: err}
	}
	if err != nil {
		return "", err
	}
	var index specs.Index
	if err := json.Unmarshal(data, &index); err != nil {
		return "", fmt.Errorf("%s: %s is no JSON: %w", ref.Layout, specs.ImageIndexFile, err)
	}
	tag := ref.Tag
	if tag == "" && len(index.Manifests) == 1 {
		return index.Manifests[0].Digest, index.Manifests[0].Digest.Validate()
	}
	if tag == "" {
		tag = "latest"
	}
	var has []string
	for _, d := range index.Manifests {
		name := d.Annotations[specs.AnnotationRefName]
		if name == tag || strings.HasSuffix(name, ":"+tag) {
			return d.Digest, d.Digest.Validate()
		}
		if name != "" && len(has) < 20 {
			has = append(has, fmt.Sprintf("%.60s", name))
		}
	}
	return "", &Fault{Message: fmt.Sprintf("%s has no image %s", ref.Layout, tag), Detail: "it has: " + strings.Join(has, ", ")}
}

func blobPath(layout string, dg digest.Digest) string {
	return filepath.Join(layout, specs.ImageBlobsDir, string(dg.Algorithm()), dg.Encoded())
}

// readLayout reads a manifest of an OCI image layout.
func readLayout(layout string, dg digest.Digest) ([]byte, error) {
	if err := dg.Validate(); err != nil {
		return nil, err
	}
	data, err := safefile.Read(blobPath(layout, dg), maxManifest)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, &Fault{Message: fmt.Sprintf("%s lacks %s", layout, dg), Err: err}
	}
	if err == nil && digest.FromBytes(data) != dg {
		err = fmt.Errorf("%s: %s holds other bytes", layout, dg)
	}
	return data, err
}

// openLayout opens a blob of an OCI image layout, verified.
func openLayout(ctx context.Context, layout string, d specs.Descriptor) (io.ReadCloser, error) {
	f, err := safefile.Open(blobPath(layout, d.Digest))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, &Fault{Message: fmt.Sprintf("%s lacks %s", layout, d.Digest), Err: err}
	}
	if err != nil {
		return nil, err
	}
	v := d.Digest.Verifier()
	n, err := io.Copy(v, ctxio.Reader(ctx, f))
	switch {
	case err != nil:
	case !v.Verified():
		err = fmt.Errorf("%s: %s holds other bytes", layout, d.Digest)
	case n != d.Size:
		err = fmt.Errorf("%s: %w", layout, wrongSize(d, n))
	default:
		_, err = f.Seek(0, io.SeekStart)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return struct {
		io.Reader
		io.Closer
	}{io.NewSectionReader(f, 0, d.Size), f}, nil
}
