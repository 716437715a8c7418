package dir

import (
	"errors"
	"io/fs"
	"os"
	"strings"

	"github.com/opencontainers/go-digest"

	"github.com/clayer/clayer/cache"
	"github.com/clayer/clayer/internal/safefile"
)

// The file "written" lists the blobs that clayer wrote, a digest a line. Other
// tools may have images in the same layout, and write blobs long before the
// index that names them: only what is listed here is ever removed. A line is
// added before its blob gets its name, so that a killed process leaves no blob
// that no list names.

// record adds blobs to the list. The caller holds the lock.
func record(root *os.Root, dgs ...digest.Digest) (err error) {
	f, err := safefile.OpenFile(root, writtenName, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o644)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	var b strings.Builder
	for _, dg := range dgs {
		// A line that a full disk cut off must not take this one with it.
		b.WriteString("\n" + dg.String() + "\n")
	}
	_, err = f.WriteString(b.String())
	return err
}

// recorded returns the names of the blobs that clayer wrote.
func recorded(root *os.Root) (map[string]bool, error) {
	data, err := safefile.ReadFile(root, writtenName, maxWritten)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	names := make(map[string]bool)
	for line := range strings.Lines(string(data)) {
		if dg := digest.Digest(strings.TrimSuffix(line, "\n")); valid(dg) {
			names[dg.Encoded()] = true
		}
	}
	return names, nil
}

// writeRecorded replaces the list. The caller holds the lock, exclusively.
func (d *Dir) writeRecorded(root *os.Root, names map[string]bool) error {
	var b strings.Builder
	for name := range names {
		b.WriteString(digest.NewDigestFromEncoded(digest.SHA256, name).String() + "\n")
	}
	return d.write(root, writtenName, []byte(b.String()))
}

// recordAll makes the list of a store that has none: of before there was one. Its
// steps, and its layers, are clayer's. The caller holds the lock, exclusively.
func (d *Dir) recordAll(root *os.Root) error {
	names := make(map[string]bool)
	steps, err := used(root)
	if err != nil {
		return err
	}
	for _, s := range steps {
		names[s.desc.Digest.Encoded()] = true
	}
	idx, err := readIndex(root)
	if err != nil && !damaged(err) {
		return err
	}
	for _, e := range idx.Manifests {
		if !e.mayBeLayer() {
			continue
		}
		image, err := readImage(root, e.Descriptor)
		if unreadable(err) {
			return err
		}
		if err != nil {
			continue // damaged: it names nothing
		}
		if m, err := cache.FromImage(image); err == nil && m.Tag() == e.tag() {
			for _, dg := range append(digestsOf(image), e.Digest) {
				names[dg.Encoded()] = true
			}
		}
	}
	return d.writeRecorded(root, names)
}
