package metadata

import (
	"os"
	"time"
)

// PreserveTime gives a directory the time back that it had, after f.
func PreserveTime(dir string, f func() error) error {
	info, err := os.Stat(dir)
	if err != nil {
		return err
	}
	err = f()
	if err == nil {
		_ = os.Chtimes(dir, time.Time{}, info.ModTime()) // another's directory, perhaps
	}
	return err
}
