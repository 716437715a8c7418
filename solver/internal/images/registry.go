package images

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/opencontainers/go-digest"
	specs "github.com/opencontainers/image-spec/specs-go/v1"
	"oras.land/oras-go/v2/content"
	"oras.land/oras-go/v2/errdef"
	"oras.land/oras-go/v2/registry/remote/auth"

	"github.com/clayer/clayer/cache/registry"
	"github.com/clayer/clayer/cache/transfer"
	"github.com/clayer/clayer/frontend/imageref"
	"github.com/clayer/clayer/solver/internal/downloads"
)

// client returns the client of the repository of an image.
func (s *Source) client(ref imageref.Ref) (*registry.Client, error) {
	repo := registry.Repository{Registry: ref.Host, Repository: ref.Repository}
	return once(context.Background(), &s.mu, &s.clients, repo.String(), func() (*registry.Client, error) {
		if s.Registry == nil {
			return registry.NewClient(repo, registry.Login{}, transfer.Options{}), nil
		}
		return s.Registry(repo)
	})
}

func pullScope(ctx context.Context, c *registry.Client) context.Context {
	return auth.AppendRepositoryScope(ctx, c.Reference, auth.ActionPull)
}

// explained returns an error of a registry as it may be shown.
func explained(c *registry.Client, ref imageref.Ref, err error) error {
	return fmt.Errorf("%s: %w", ref, c.Explain(registry.Reading, err))
}

// IsAnswer reports whether an error says that there is no such image, rather than that it could
// not be asked for.
func IsAnswer(err error) bool {
	var reg *registry.Error
	var fault *Fault
	return errors.As(err, &fault) || errors.As(err, &reg) && reg.Code == http.StatusNotFound
}

// noteOf is under which name the downloads note what a tag was last.
func (s *Source) noteOf(ref imageref.Ref) string { return "image " + ref.String() + " " + s.Platform }

// patience is how long a registry that is not reached is tried where it is known what a tag was.
const patience = 3 * time.Second

// ask asks a registry what a tag stands for.
func (s *Source) ask(ctx context.Context, ref imageref.Ref) (digest.Digest, error) {
	last, known := s.Blobs.Noted(s.noteOf(ref))
	c, err := s.client(ref)
	if err != nil {
		return "", err
	}
	var wait time.Duration
	if known {
		wait = patience
	}
	var dg digest.Digest
	var mediaType string
	err = c.Transfer.Retry(ctx, wait, func() error {
		desc, err := c.Manifests().Resolve(pullScope(ctx, c), ref.Tag)
		dg, mediaType = desc.Digest, desc.MediaType
		return err
	})
	if err != nil && !transfer.Unreachable(err) && ctx.Err() == nil && !errors.Is(err, transfer.ErrOffline) {
		// A proxy may know no HEAD, and a registry of few words no digest in its answer: then the
		// answer to GET says what is wrong, if anything is.
		dg, mediaType, err = s.get(ctx, c, ref, ref.Tag)
	} else if err != nil {
		err = explained(c, ref, err)
	}
	if err == nil {
		if dg, err = s.choose(ctx, ref, dg, mediaType); err == nil {
			s.Blobs.Note(s.noteOf(ref), downloads.Answer{Digest: dg})
			return dg, nil
		}
	}
	if known && last.Digest.Validate() == nil && ctx.Err() == nil && isAway(err) {
		s.warn("%s is taken as it was last, %.19s: %v", ref, last.Digest, err)
		return last.Digest, nil
	}
	return "", err
}

// isAway reports whether an error says that a registry has no time, or is not reached.
func isAway(err error) bool {
	var reg *registry.Error
	if errors.As(err, &reg) {
		return transfer.Busy(reg.Code)
	}
	return transfer.Retryable(err) || transfer.Unreachable(err) || errors.Is(err, transfer.ErrOffline)
}

// get reads a manifest by tag or digest, and stores it.
func (s *Source) get(ctx context.Context, c *registry.Client, ref imageref.Ref, reference string) (dg digest.Digest, mediaType string, err error) {
	var data []byte
	err = c.Transfer.Retry(ctx, 0, func() error {
		desc, rc, err := c.Manifests().FetchReference(pullScope(ctx, c), reference)
		if err != nil {
			return err
		}
		defer rc.Close()
		if desc.Size > maxManifest {
			return transfer.Fatal(fmt.Errorf("a manifest of %d bytes", desc.Size))
		}
		dg, mediaType = desc.Digest, desc.MediaType
		data, err = content.ReadAll(rc, desc)
		return err
	})
	switch {
	case errors.Is(err, errdef.ErrNotFound):
		return "", "", &Fault{Message: fmt.Sprintf("%s: there is no such image", ref), Err: err}
	case err != nil:
		return "", "", explained(c, ref, err)
	}
	s.store(dg, data)
	return dg, mediaType, nil
}

// store stores a manifest, verified, with the downloads.
func (s *Source) store(dg digest.Digest, data []byte) {
	s.mu.Lock()
	if s.texts == nil {
		s.texts = make(map[digest.Digest][]byte)
	}
	s.texts[dg] = data
	s.mu.Unlock()
	if s.Blobs.ReadOnly {
		return
	}
	p, err := s.Blobs.NewPart()
	if err != nil {
		return // it is in memory
	}
	if _, err := p.Write(data); err != nil {
		p.Drop()
		return
	}
	p.Store(dg)
}

// text returns a manifest or an index, by its digest. The media type is "" where only the text
// can say it.
func (s *Source) text(ctx context.Context, ref imageref.Ref, dg digest.Digest) (data []byte, mediaType string, err error) {
	if ref.Layout != "" {
		data, err = readLayout(ref.Layout, dg)
		return data, "", err
	}
	if data := s.stored(dg); data != nil {
		return data, "", nil
	}
	c, err := s.client(ref)
	if err != nil {
		return nil, "", err
	}
	if _, mediaType, err = s.get(ctx, c, ref, dg.String()); err != nil {
		return nil, "", err
	}
	return s.stored(dg), mediaType, nil
}

// stored returns a manifest or a config that is in memory, or with the downloads; nil where it is
// not.
func (s *Source) stored(dg digest.Digest) []byte {
	s.mu.Lock()
	data := s.texts[dg]
	s.mu.Unlock()
	if data != nil {
		return data
	}
	f, err := s.Blobs.Open(dg)
	if err != nil {
		return nil
	}
	info, err := f.Stat()
	if err != nil || info.Size() > maxManifest {
		return nil
	}
	if data, err = io.ReadAll(io.NewSectionReader(f, 0, info.Size())); err != nil {
		return nil
	}
	return data
}

// small returns a blob that fits in memory.
func (s *Source) small(ctx context.Context, ref imageref.Ref, d specs.Descriptor) ([]byte, error) {
	if ref.Layout != "" {
		return readLayout(ref.Layout, d.Digest)
	}
	if data := s.stored(d.Digest); data != nil {
		return data, nil
	}
	c, err := s.client(ref)
	if err != nil {
		return nil, err
	}
	b := transfer.Buffer{Max: maxManifest}
	if _, err := c.Transfer.Get(pullScope(ctx, c), c.BlobURL(d.Digest.String()), &bounded{part: &b, most: d.Size}, transfer.GetOptions{Checksum: d.Digest}); err != nil {
		return nil, explained(c, ref, fmt.Errorf("%s: %w", d.Digest, err))
	}
	s.store(d.Digest, b.Bytes())
	return b.Bytes(), nil
}
