// Package archive writes archives whose bytes depend on their contents alone.
package archive

import (
	"archive/tar"
	"io"
	"os"

	"github.com/klauspost/compress/gzip"

	"github.com/clayer/clayer/cmd/pack/internal/release"
)

// A File is one of an archive.
type File struct {
	Name string
	Data []byte
	Mode int64
}

// Write writes a tar to path.
func Write(path string, files ...File) error {
	return create(path, func(w io.Writer) error { return writeTar(w, files) })
}

// WriteGzip writes a compressed tar to path.
func WriteGzip(path string, files ...File) error {
	return create(path, func(f io.Writer) error {
		z, err := gzip.NewWriterLevel(f, gzip.BestCompression)
		if err != nil {
			return err
		}
		if err := writeTar(z, files); err != nil {
			return err
		}
		return z.Close()
	})
}

func create(path string, write func(io.Writer) error) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	if err := write(f); err != nil {
		f.Close()
		return err
	}
	return f.Close()
}

func writeTar(w io.Writer, files []File) error {
	t := tar.NewWriter(w)
	for _, f := range files {
		if err := t.WriteHeader(&tar.Header{Name: f.Name, Mode: f.Mode, Size: int64(len(f.Data)), ModTime: release.Time, Format: tar.FormatUSTAR}); err != nil {
			return err
		}
		if _, err := t.Write(f.Data); err != nil {
			return err
		}
	}
	return t.Close()
}
