// Package images reads images: of registries, and of OCI image layouts.
//
// A Source resolves the name of an image to its pin, the digest of the manifest for a platform,
// and unpacks an image to a directory: all of it, as for a mount of a RUN or a stage, or what a
// COPY takes. What is downloaded is verified, and cached with the downloads of FETCH.
package images

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/opencontainers/go-digest"
	specs "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"github.com/clayer/clayer/cache/registry"
	"github.com/clayer/clayer/cache/transfer"
	"github.com/clayer/clayer/frontend/imageref"
	"github.com/clayer/clayer/internal/workdir"
	"github.com/clayer/clayer/solver/internal/downloads"
	"github.com/clayer/clayer/solver/internal/fault"
	"github.com/clayer/clayer/solver/internal/filelist"
	"github.com/clayer/clayer/solver/internal/imagetree"
)

// A Source reads the images of one plan or solve. Its methods are safe for concurrent use, once
// its fields are set. What an image gave, errors included, stands for as long as the Source does, but for those
// of a caller that was canceled.
type Source struct {
	Platform string         // "linux/amd64" or "linux/arm/v7": for which images are chosen
	Blobs    *downloads.Dir // what was downloaded; its ReadOnly downloads manifests alone, and stores none
	Work     string         // where images are unpacked; "" for the system's directory for temporary files

	// Registry returns the client of a repository, with its login; nil: without any.
	Registry func(registry.Repository) (*registry.Client, error)

	// Warn is called where a registry does not answer and what a tag was last is taken, and
	// where an image is not for the platform. It may be nil.
	Warn func(text string)

	mu      sync.Mutex
	pins    map[string]func() (digest.Digest, error)
	clients map[string]func() (*registry.Client, error)
	opened  map[string]func() (*image, error)
	trees   map[string]func() (*imagetree.Tree, error)
	blobs   map[string]func() (struct{}, error) // by repository and digest
	whole   map[string]func() (Tree, error)
	texts   map[digest.Digest][]byte // manifests
	dirs    []*workdir.Dir
}

// A Tree is the files of an image in a directory. They have the owners that they have in the
// image if this process is root's, and stay until the Source is closed. Devices may be missing,
// of which there is a warning.
type Tree struct {
	Dir    string
	Config Config

	says func(path string) (filelist.Attributes, bool)
}

// Config is what an image says of the processes in it, and of what is built on it.
type Config struct {
	specs.ImageConfig

	// Docker's, which OCI has not.
	Shell   []string
	OnBuild []string
}

// An image is one whose manifest has been read.
type image struct {
	name   string
	blobs  []specs.Descriptor // of its layers
	layers []imagetree.Layer
	config Config
}

// Pin returns the digest that an image is keyed by: of the manifest for the platform, or the one
// that its name has, for which nothing is asked.
func (s *Source) Pin(ctx context.Context, ref imageref.Ref) (digest.Digest, error) {
	if ref.Digest != "" && ref.Layout == "" {
		return ref.Digest, nil
	}
	return once(ctx, &s.mu, &s.pins, ref.String(), func() (digest.Digest, error) { return s.resolve(ctx, ref) })
}

// Config returns the config of an image, given its pin. Nothing else is downloaded.
func (s *Source) Config(ctx context.Context, ref imageref.Ref, pin digest.Digest) (Config, error) {
	im, err := s.open(ctx, ref, pin)
	if err != nil {
		return Config{}, err
	}
	return im.config, nil
}

// Whole returns all files of an image, given its pin: one directory for all callers, who do not
// change it.
func (s *Source) Whole(ctx context.Context, ref imageref.Ref, pin digest.Digest) (Tree, error) {
	return once(ctx, &s.mu, &s.whole, ref.String()+" "+pin.String(), func() (Tree, error) { return s.unpack(ctx, ref, pin, nil) })
}

// Files returns the files of an image that the sources of a COPY name, with what leads to them,
// given its pin. What they do not name may be missing.
func (s *Source) Files(ctx context.Context, ref imageref.Ref, pin digest.Digest, sources []string) (filelist.Stage, error) {
	t, err := s.unpack(ctx, ref, pin, append([]string{}, sources...))
	return filelist.Stage{Name: "image " + ref.String(), Dir: t.Dir, Ownerless: os.Geteuid() != 0, Says: t.says}, err
}

func (s *Source) unpack(ctx context.Context, ref imageref.Ref, pin digest.Digest, sources []string) (t Tree, err error) {
	im, err := s.open(ctx, ref, pin)
	if err != nil {
		return t, err
	}
	tree, err := once(ctx, &s.mu, &s.trees, ref.String()+" "+pin.String(), func() (*imagetree.Tree, error) { return s.read(ctx, ref, im) })
	if err != nil {
		return t, err
	}
	dir, err := workdir.New(s.Work)
	if err != nil {
		return t, err
	}
	s.mu.Lock()
	s.dirs = append(s.dirs, dir)
	s.mu.Unlock()
	t = Tree{Dir: filepath.Join(dir.Path, "root"), Config: im.config, says: tree.Attributes}
	if err := os.Mkdir(t.Dir, 0o755); err != nil {
		return t, err
	}
	leftOut, err := tree.Unpack(ctx, t.Dir, sources)
	if err != nil {
		return t, fmt.Errorf("unpack %s: %w", im.name, err)
	}
	if len(leftOut) > 0 {
		s.warn("%s: its devices are left out, which this user may not make: %s", im.name, strings.Join(leftOut[:min(3, len(leftOut))], ", "))
	}
	return t, nil
}

// Close removes what was unpacked.
func (s *Source) Close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, d := range s.dirs {
		d.Remove()
	}
	s.dirs = nil
}

// atOnce is how many layers of an image are downloaded at a time.
const atOnce = 4

// open reads the manifest and the config of an image.
func (s *Source) open(ctx context.Context, ref imageref.Ref, pin digest.Digest) (*image, error) {
	return once(ctx, &s.mu, &s.opened, ref.String()+" "+pin.String(), func() (*image, error) {
		m, err := s.manifest(ctx, ref, pin)
		if err != nil {
			return nil, err
		}
		im := &image{name: ref.String(), blobs: m.Layers}
		if im.config, err = s.config(ctx, ref, m); err != nil {
			return nil, err
		}
		for _, d := range m.Layers {
			im.layers = append(im.layers, imagetree.Layer{Name: "layer " + d.Digest.String(), Open: func(ctx context.Context) (io.ReadCloser, error) { return s.blob(ctx, ref, d) }})
		}
		return im, nil
	})
}

// read downloads the layers of an image, and puts them together.
func (s *Source) read(ctx context.Context, ref imageref.Ref, im *image) (*imagetree.Tree, error) {
	eg, each := errgroup.WithContext(ctx)
	eg.SetLimit(atOnce)
	for _, d := range im.blobs {
		eg.Go(func() error { return s.download(each, ref, d) })
	}
	if err := eg.Wait(); err != nil {
		return nil, err
	}
	t, err := imagetree.Read(ctx, im.layers)
	if err != nil {
		err = fmt.Errorf("%s: %w", im.name, err)
	}
	return t, err
}

// blob returns what reads a blob.
func (s *Source) blob(ctx context.Context, ref imageref.Ref, d specs.Descriptor) (io.ReadCloser, error) {
	if ref.Layout != "" {
		return openLayout(ctx, ref.Layout, d)
	}
	if err := s.download(ctx, ref, d); err != nil {
		return nil, err
	}
	f, err := s.Blobs.Open(d.Digest)
	if err != nil {
		return nil, err
	}
	return io.NopCloser(io.NewSectionReader(f, 0, d.Size)), nil // others may read the same file
}

// download makes sure that the blobs have one, verified.
func (s *Source) download(ctx context.Context, ref imageref.Ref, d specs.Descriptor) error {
	if ref.Layout != "" {
		return nil
	}
	_, err := once(ctx, &s.mu, &s.blobs, ref.Host+"/"+ref.Repository+"@"+d.Digest.String(), func() (none struct{}, err error) {
		if f, err := s.Blobs.Open(d.Digest); err == nil {
			info, err := f.Stat()
			if err == nil && info.Size() != d.Size {
				err = wrongSize(d, info.Size())
			}
			return none, err
		}
		c, err := s.client(ref)
		if err != nil {
			return none, err
		}
		p, err := s.Blobs.NewPart()
		if err != nil {
			return none, err
		}
		w := &bounded{part: p, most: d.Size}
		res, err := c.Transfer.Get(pullScope(ctx, c), c.BlobURL(d.Digest.String()), w, transfer.GetOptions{Checksum: d.Digest})
		if err == nil && res.Size != d.Size {
			err = wrongSize(d, res.Size)
		}
		if err != nil {
			p.Drop()
			return none, explained(c, ref, fmt.Errorf("%s: %w", d.Digest, err))
		}
		p.Store(d.Digest)
		return none, nil
	})
	return err
}

func wrongSize(d specs.Descriptor, got int64) error {
	return fmt.Errorf("%s has %d bytes, and its manifest says %d", d.Digest, got, d.Size)
}

// A bounded takes no more bytes than a blob has.
type bounded struct {
	part transfer.Rewinder
	done int64
	most int64
}

func (b *bounded) Write(p []byte) (int, error) {
	if b.done += int64(len(p)); b.done > b.most {
		return 0, transfer.Fatal(fmt.Errorf("more than the %d bytes that its manifest says", b.most))
	}
	return b.part.Write(p)
}

func (b *bounded) Rewind() error {
	b.done = 0
	return b.part.Rewind()
}

func (s *Source) warn(format string, args ...any) {
	if s.Warn != nil {
		s.Warn(fmt.Sprintf(format, args...))
	}
}

// once returns the result of f for the key's first caller, to all callers. An error of a caller
// whose ctx has ended is no result: the next one asks again, and so do those that wait.
func once[V any](ctx context.Context, mu *sync.Mutex, m *map[string]func() (V, error), k string, f func() (V, error)) (V, error) {
	for {
		mu.Lock()
		if *m == nil {
			*m = make(map[string]func() (V, error))
		}
		get, waits := (*m)[k]
		if !waits {
			get = sync.OnceValues(func() (V, error) {
				v, err := f()
				if err == nil || ctx.Err() == nil {
					return v, err
				}
				mu.Lock()
				delete(*m, k)
				mu.Unlock()
				return v, &endedError{err}
			})
			(*m)[k] = get
		}
		mu.Unlock()
		v, err := get()
		var ended *endedError
		if !errors.As(err, &ended) {
			return v, err
		}
		if !waits || ctx.Err() != nil {
			return v, ended.error
		}
	}
}

// An endedError is one of a caller whose context had ended.
type endedError struct{ error }

// A Fault is something that the writer of the Containerfile must change.
type Fault = fault.Fault
