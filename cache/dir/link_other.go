//go:build !linux

package dir

import (
	"errors"
	"os"

	"github.com/clayer/clayer/cache"
)

func link(*os.Root, *os.File, cache.Descriptor, string) (*seal, error) {
	return nil, errors.ErrUnsupported
}
