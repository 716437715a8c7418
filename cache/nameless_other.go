//go:build !linux

package cache

import (
	"errors"
	"os"
)

func nameless(*os.Root) (*os.File, error) { return nil, errors.ErrUnsupported }
