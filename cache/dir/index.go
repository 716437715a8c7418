package dir

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"strings"
	"time"

	specsgo "github.com/opencontainers/image-spec/specs-go"
	specs "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/clayer/clayer/internal/safefile"
)

// An index is what index.json holds. Other tools may have images in the same
// layout: what they wrote, and what clayer does not know, is written back as it
// was.
type index struct {
	Manifests []entry
	rest      map[string]json.RawMessage // the other fields
}

// An entry of the index is an image, or an index of images.
type entry struct {
	specs.Descriptor
	raw   json.RawMessage // as it was read; nil: it is new
	layer *layer          // of a census: what it is of clayer's; nil: another tool's
}

// maxEntries bounds how many images an index lists.
const maxEntries = 20_000

func (e *entry) tag() string { return e.Annotations[specs.AnnotationRefName] }

// mayBeLayer reports whether an entry has a name that clayer gives to layers.
func (e *entry) mayBeLayer() bool { return valid(e.Digest) && strings.HasPrefix(e.tag(), "layer-") }

func newIndex() *index {
	rest := make(map[string]json.RawMessage)
	for name, v := range map[string]any{"schemaVersion": specsgo.Versioned{SchemaVersion: 2}.SchemaVersion, "mediaType": specs.MediaTypeImageIndex} {
		rest[name], _ = json.Marshal(v) // a number, and a string
	}
	return &index{rest: rest}
}

// parseIndex reads an index as JSON, as far as it has no more entries than it may
// have.
func parseIndex(data []byte) (*index, error) {
	x := newIndex()
	dec := json.NewDecoder(bytes.NewReader(data))
	begin, err := dec.Token()
	if err != nil || begin == nil { // null
		return x, err
	}
	if begin != json.Delim('{') {
		return nil, fmt.Errorf("it begins with %v", begin)
	}
	for dec.More() {
		name, err := dec.Token()
		if err != nil {
			return nil, err
		}
		if name != "manifests" {
			var raw json.RawMessage
			if err := dec.Decode(&raw); err != nil {
				return nil, err
			}
			x.rest[name.(string)] = raw // as the grammar has it
			continue
		}
		if err := x.parseEntries(dec); err != nil {
			return nil, err
		}
	}
	if _, err := dec.Token(); err != nil { // the closing brace
		return nil, err
	}
	if dec.More() {
		return nil, errors.New("something follows its end")
	}
	return x, nil
}

func (x *index) parseEntries(dec *json.Decoder) error {
	begin, err := dec.Token()
	if err != nil || begin == nil {
		return err
	}
	if begin != json.Delim('[') {
		return fmt.Errorf("its manifests begin with %v", begin)
	}
	for dec.More() {
		if len(x.Manifests) == maxEntries {
			return fmt.Errorf("%w: it has more than %d entries", safefile.ErrTooLarge, maxEntries)
		}
		var e entry
		if err := dec.Decode(&e.raw); err != nil {
			return err
		}
		if json.Unmarshal(e.raw, &e.Descriptor) != nil {
			e.Descriptor = specs.Descriptor{} // another tool's, of a kind that clayer does not know
		}
		x.Manifests = append(x.Manifests, e)
	}
	_, err = dec.Token() // the closing bracket
	return err
}

// MarshalJSON implements json.Marshaler.
func (x *index) MarshalJSON() ([]byte, error) {
	list := make([]json.RawMessage, len(x.Manifests))
	for i, e := range x.Manifests {
		if list[i] = e.raw; e.raw == nil {
			raw, err := json.Marshal(e.Descriptor)
			if err != nil {
				return nil, err
			}
			list[i] = raw
		}
	}
	all := map[string]any{"manifests": list}
	for name, v := range x.rest {
		all[name] = v
	}
	return json.Marshal(all)
}

// A damagedError says that index.json is not one.
type damagedError struct{ error }

func (e damagedError) Unwrap() error { return e.error }

func damaged(err error) bool {
	var d damagedError
	return errors.As(err, &d)
}

// readIndex reads index.json; one that is not there lists nothing. One that is
// damaged does neither, and the error is a damagedError beside it.
func readIndex(root *os.Root) (*index, error) {
	data, err := safefile.ReadFile(root, specs.ImageIndexFile, maxIndex)
	if errors.Is(err, fs.ErrNotExist) {
		return newIndex(), nil
	}
	if err != nil {
		return nil, err
	}
	idx, err := parseIndex(data)
	switch {
	case errors.Is(err, safefile.ErrTooLarge):
		return nil, fmt.Errorf("%s: %w", specs.ImageIndexFile, err)
	case err != nil:
		return newIndex(), damagedError{fmt.Errorf("%s: %w", specs.ImageIndexFile, err)}
	}
	return idx, nil
}

// changeIndex is readIndex for callers that write an index afterwards: one that is
// damaged is renamed, for it may list other tools' images. The
// caller holds the lock, exclusively.
func changeIndex(root *os.Root) (*index, error) {
	idx, err := readIndex(root)
	if !damaged(err) {
		return idx, err
	}
	aside := specs.ImageIndexFile + ".damaged-" + time.Now().UTC().Format("20060102T150405.000")
	slog.Warn("the store's index is damaged; a new one is written, and the old one is renamed", "err", err, "as", aside)
	return idx, root.Rename(specs.ImageIndexFile, aside)
}

// replaceIndex replaces index.json.
func (d *Dir) replaceIndex(root *os.Root, idx *index) error {
	data, err := json.Marshal(idx)
	if err != nil {
		return err
	}
	if len(data) > maxIndex || len(idx.Manifests) > maxEntries {
		return fmt.Errorf("%s would have %d entries in %d bytes: %w; remove some layers", specs.ImageIndexFile, len(idx.Manifests), len(data), safefile.ErrTooLarge)
	}
	return d.write(root, specs.ImageIndexFile, data)
}
