//go:build !linux

package inherited

import "errors"

func closeRangeOnExec() error { return errors.ErrUnsupported }
