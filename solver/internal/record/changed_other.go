//go:build !linux

package record

import (
	"os"
	"time"
)

func changedAt(f *os.File) (time.Time, error) {
	info, err := f.Stat()
	if err != nil {
		return time.Time{}, err
	}
	return info.ModTime(), nil
}
