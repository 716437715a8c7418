//go:build !linux

package cache

import (
	"errors"
	"os"
)

func anonymous(*os.Root) (*os.File, error) { return nil, errors.ErrUnsupported }

func linkAnonymous(*os.File, *os.File, string) error { return errors.ErrUnsupported }
