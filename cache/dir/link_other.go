//go:build !linux

package dir

import (
	"errors"
	"os"

	"github.com/clayer/clayer/cache"
)

func (d *Dir) link(*os.File, cache.Descriptor, string) error { return errors.ErrUnsupported }
