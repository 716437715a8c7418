package dir

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/clayer/clayer/cache"
	"github.com/clayer/clayer/dag/key"
	"github.com/clayer/clayer/internal/safefile"
)

// variantName returns the key file of the n-th snapshot of a key, from 1.
func variantName(k key.Key, n int) string {
	name := keyName(k)
	if n == 1 {
		return name
	}
	return strings.TrimSuffix(name, ".json") + "." + strconv.Itoa(n) + ".json"
}

// parseVariantName returns what variantName was called with.
func parseVariantName(name string) (k key.Key, n int, ok bool) {
	hex, number, several := strings.Cut(strings.TrimSuffix(path.Base(name), ".json"), ".")
	n = 1
	if several {
		n, _ = strconv.Atoi(number)
	}
	k, err := key.Parse(hex)
	return k, n, err == nil && n >= 1 && n <= cache.MaxVariants && variantName(k, n) == name
}

// Variants reads all key files of each key.
func (d *Dir) Variants(ctx context.Context, tag string, keys []key.Key) (map[key.Key][]cache.Found, error) {
	found := make(map[key.Key][]cache.Found)
	root, err := d.root()
	if missing(err) {
		return found, nil
	}
	if err != nil {
		return nil, err
	}
	defer root.Close()
	for _, k := range keys {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		for n := 1; n <= cache.MaxVariants; n++ {
			s, err := readStored(root, variantName(k, n), k)
			if err == nil && hasBlob(root, s.Descriptor) {
				f := cache.Found{Descriptor: s.Descriptor, Store: d.Name(), Variant: n}
				if n == 1 {
					f.Variant = 0
				}
				found[k] = append(found[k], f)
			}
		}
	}
	return found, nil
}

// storedOf returns what a key file says of a snapshot, and its name.
func storedOf(root *os.Root, desc cache.Descriptor) (s stored, name string, err error) {
	for n := 1; n <= cache.MaxVariants; n++ {
		name = variantName(desc.Key, n)
		s, err = readStored(root, name, desc.Key)
		if err == nil && s.Digest == desc.Digest {
			return s, name, nil
		}
		if n == 1 && errors.Is(err, fs.ErrNotExist) {
			break // then there are no others
		}
	}
	return stored{}, "", fmt.Errorf("%w: %s", cache.ErrNotCached, desc.Digest)
}

// lockKeys lets one process at a time decide which snapshots a key has. Those who hold it
// do so for milliseconds.
func (d *Dir) lockKeys(ctx context.Context, root *os.Root) (unlock func(), err error) {
	f, err := safefile.Lock(ctx, root, keysLockName, unix.LOCK_EX)
	if err != nil {
		return nil, fmt.Errorf("lock the keys of the store: %w", err)
	}
	return func() { f.Close() }, nil
}

// place returns which key file a Put of desc writes; "" if it stores nothing. What is
// damaged, or has lost its blob, is as good as not there.
func place(ctx context.Context, root *os.Root, desc cache.Descriptor) (string, error) {
	var there cache.Variants
	var numbers []int
	free := 0
	for n := 1; n <= cache.MaxVariants; n++ {
		s, err := readStored(root, variantName(desc.Key, n), desc.Key)
		if unreadable(err) {
			return "", err
		}
		if err == nil && (s.Digest == desc.Digest || hasBlob(root, s.Descriptor)) {
			there, numbers = append(there, s.Descriptor), append(numbers, n)
		} else if free == 0 {
			free = n
		}
	}
	i, stores := there.Place(desc)
	switch {
	case i == len(there):
		return variantName(desc.Key, free), nil
	case !stores:
		// One of the same variant is there. It stays if it is good.
		if _, err := verified(ctx, root, there[i]); err == nil || !errors.Is(err, cache.ErrNotCached) {
			return "", err
		}
	}
	if desc.Replaces == cache.AllVariants {
		return keyName(desc.Key), nil
	}
	return variantName(desc.Key, numbers[i]), nil
}

// forgetOthers removes all key files of a key but the first.
func forgetOthers(root *os.Root, k key.Key) error {
	for n := 2; n <= cache.MaxVariants; n++ {
		if err := root.Remove(variantName(k, n)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}
