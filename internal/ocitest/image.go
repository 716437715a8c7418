package ocitest

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"oras.land/oras-go/v2/content"
)

// Tar makes the tar of a layer of lines, each a member:
//
//	dir NAME MODE [UID:GID]
//	file NAME MODE CONTENT [UID:GID]
//	symlink NAME TARGET
//	link NAME TARGET
//	fifo NAME
//	char NAME
//	xattr NAME ATTRIBUTE VALUE	(of a file that is empty)
func Tar(lines string) []byte {
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	for line := range strings.Lines(lines) {
		f := strings.Fields(line)
		if len(f) == 0 {
			continue
		}
		h := &tar.Header{Name: f[1], Mode: 0o644, ModTime: time.Unix(1_000_000_000, 0), Format: tar.FormatPAX}
		f = append(f, "", "", "")
		mode, _ := strconv.ParseInt(f[2], 8, 32)
		text, owner := "", ""
		switch f[0] {
		case "dir":
			h.Typeflag, h.Mode, owner = tar.TypeDir, mode, f[3]
		case "file":
			h.Typeflag, h.Mode, text, owner = tar.TypeReg, mode, f[3], f[4]
		case "symlink":
			h.Typeflag, h.Linkname = tar.TypeSymlink, f[2]
		case "link":
			h.Typeflag, h.Linkname = tar.TypeLink, f[2]
		case "fifo":
			h.Typeflag = tar.TypeFifo
		case "char":
			h.Typeflag, h.Devmajor, h.Devminor = tar.TypeChar, 1, 3
		case "xattr":
			h.Typeflag, h.PAXRecords = tar.TypeReg, map[string]string{"SCHILY.xattr." + f[2]: f[3]}
		default:
			panic("ocitest: " + line)
		}
		if _, err := fmt.Sscanf(owner, "%d:%d", &h.Uid, &h.Gid); owner != "" && err != nil {
			panic(err)
		}
		h.Size = int64(len(text))
		if err := w.WriteHeader(h); err != nil {
			panic(err)
		}
		if _, err := w.Write([]byte(text)); err != nil {
			panic(err)
		}
	}
	if err := w.Close(); err != nil {
		panic(err)
	}
	return out.Bytes()
}

// Gzip and Zstd compress a layer.
func Gzip(data []byte) []byte {
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	if _, err := w.Write(data); err != nil {
		panic(err)
	}
	if err := w.Close(); err != nil {
		panic(err)
	}
	return out.Bytes()
}

// Zstd is as Gzip.
func Zstd(data []byte) []byte {
	w, err := zstd.NewWriter(nil)
	if err != nil {
		panic(err)
	}
	return w.EncodeAll(data, nil)
}

// A Config is that of an image, with what is Docker's alone.
type Config struct {
	ocispec.ImageConfig
	Shell   []string `json:",omitempty"`
	OnBuild []string `json:",omitempty"`
}

// An Image is what Push makes an image of.
type Image struct {
	Platform ocispec.Platform // its zero value is linux and amd64
	Config   Config
	Layers   [][]byte
	Docker   bool // with the media types of Docker
}

// Push puts an image to where images are, and returns what names it.
func Push(ctx context.Context, to content.Pusher, im Image) (ocispec.Descriptor, error) {
	types := []string{ocispec.MediaTypeImageConfig, ocispec.MediaTypeImageLayerGzip, ocispec.MediaTypeImageManifest}
	if im.Docker {
		types = []string{"application/vnd.docker.container.image.v1+json", "application/vnd.docker.image.rootfs.diff.tar.gzip", "application/vnd.docker.distribution.manifest.v2+json"}
	}
	if im.Platform.OS == "" {
		im.Platform = ocispec.Platform{OS: "linux", Architecture: "amd64"}
	}
	config := struct {
		ocispec.Platform
		Config Config         `json:"config"`
		RootFS ocispec.RootFS `json:"rootfs"`
	}{im.Platform, im.Config, ocispec.RootFS{Type: "layers"}}
	m := ocispec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: types[2], Layers: []ocispec.Descriptor{}}
	for _, l := range im.Layers {
		d, err := PushBlob(ctx, to, types[1], l)
		if err != nil {
			return d, err
		}
		m.Layers = append(m.Layers, d)
		config.RootFS.DiffIDs = append(config.RootFS.DiffIDs, digest.FromBytes(l))
	}
	var err error
	if m.Config, err = pushJSON(ctx, to, types[0], config); err != nil {
		return m.Config, err
	}
	d, err := pushJSON(ctx, to, types[2], m)
	d.Platform = &im.Platform
	return d, err
}

// PushIndex puts an index of images.
func PushIndex(ctx context.Context, to content.Pusher, images ...ocispec.Descriptor) (ocispec.Descriptor, error) {
	return pushJSON(ctx, to, ocispec.MediaTypeImageIndex, ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex, Manifests: images})
}

func pushJSON(ctx context.Context, to content.Pusher, mediaType string, v any) (ocispec.Descriptor, error) {
	data, err := json.Marshal(v)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	return PushBlob(ctx, to, mediaType, data)
}

// PushBlob puts bytes that are not there yet.
func PushBlob(ctx context.Context, to content.Pusher, mediaType string, data []byte) (ocispec.Descriptor, error) {
	d := content.NewDescriptorFromBytes(mediaType, data)
	if has, ok := to.(content.ReadOnlyStorage); ok {
		if there, err := has.Exists(ctx, d); err != nil || there {
			return d, err
		}
	}
	return d, to.Push(ctx, d, bytes.NewReader(data))
}
